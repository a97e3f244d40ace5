//! Records how the program was built, for `--version`; with the plugin, reads the sampler types
//! of a llama.h for `src/plugin/layout.rs`.

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
    #[cfg(feature = "plugin")]
    sampler_types::generate();
}

#[cfg(feature = "plugin")]
mod sampler_types {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// Writes `llama_sampler.rs`: the types that the glue touches, from the llama.h of the
    /// checkout or installation that `LLAMA_CPP_DIR` names, else of the pinned llama-cpp-sys-2.
    pub fn generate() {
        println!("cargo:rustc-check-cfg=cfg(sampler_types)");
        println!("cargo:rerun-if-env-changed=LLAMA_CPP_DIR");
        let root = match std::env::var_os("LLAMA_CPP_DIR") {
            Some(folder) => {
                let folder = PathBuf::from(folder);
                assert!(
                    folder.join("include/llama.h").exists(),
                    "LLAMA_CPP_DIR: {} has no include/llama.h; give a checkout or an \
                     installation of llama.cpp",
                    folder.display()
                );
                folder
            }
            None => match pinned() {
                Some(folder) => folder,
                None => {
                    println!(
                        "cargo:warning=the sampler types are not checked: there is no pinned \
                         llama.cpp; set LLAMA_CPP_DIR"
                    );
                    return;
                }
            },
        };
        let header = root.join("include/llama.h");
        println!("cargo:rerun-if-changed={}", header.display());
        let types = bindgen::Builder::default()
            .header(header.to_string_lossy())
            .clang_args(
                ["include", "ggml/include"].map(|f| format!("-I{}", root.join(f).display())),
            )
            .allowlist_type("llama_sampler|llama_sampler_i|llama_token_data|llama_token_data_array")
            .layout_tests(true)
            .generate()
            .unwrap_or_else(|error| panic!("{}: {error}", header.display()));
        let out = std::env::var_os("OUT_DIR").map(PathBuf::from);
        let out = out.expect("cargo sets OUT_DIR").join("llama_sampler.rs");
        types
            .write_to_file(&out)
            .unwrap_or_else(|error| panic!("{}: {error}", out.display()));
        println!("cargo:rustc-cfg=sampler_types");
    }

    fn pinned() -> Option<PathBuf> {
        let cargo = std::env::var_os("CARGO")?;
        let output = Command::new(cargo)
            .args([
                "metadata",
                "--offline",
                "--format-version",
                "1",
                "--filter-platform",
            ])
            .arg(std::env::var_os("TARGET")?)
            .current_dir(std::env::var_os("CARGO_MANIFEST_DIR")?)
            .output()
            .ok()?;
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let packages = metadata["packages"].as_array()?;
        let package = packages.iter().find(|p| p["name"] == "llama-cpp-sys-2")?;
        let manifest = Path::new(package["manifest_path"].as_str()?);
        let folder = manifest.parent()?.join("llama.cpp");
        folder.join("include/llama.h").exists().then_some(folder)
    }
}
