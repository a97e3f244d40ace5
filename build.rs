//! Records how the program was built, for `--version`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let target = std::env::var("TARGET").unwrap_or_default();
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    // The flags are separated by the unit separator; the last target-cpu counts.
    let cpu = flags
        .split('\u{1f}')
        .filter_map(|flag| flag.split_once("target-cpu=").map(|(_, cpu)| cpu))
        .next_back()
        .unwrap_or("generic");
    println!("cargo:rustc-env=AISP_LLAMA_TARGET={target}");
    println!("cargo:rustc-env=AISP_LLAMA_TARGET_CPU={cpu}");
}
