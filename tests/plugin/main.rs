//! The C interface, from C and Python: what it exports, what misuse does, how it is installed,
//! and the example programs against the command line.

mod example;
mod header;
mod host;
mod install;
mod misuse;

#[path = "../common/mod.rs"]
mod common;
#[path = "../../src/gguf/testing.rs"]
mod testing;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

// For `testing`.
use aisp_llama::gguf::{Gguf, GgufError, TensorType};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The sanitizer that the library and the programs are built with (`make sanitize`), if any.
fn sanitizer() -> Option<String> {
    std::env::var("AISP_LLAMA_SANITIZER").ok()
}

/// Where the library without llama.cpp is: `libaisp_llama.so` and `.a`, built on first use.
fn library() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = target().join("plugin");
        let mut build = Command::new(env!("CARGO"));
        let (mut flags, mut built) = (String::new(), folder.join("release"));
        if let Some(sanitizer) = sanitizer() {
            build = Command::new("rustup");
            build.args(["run", "nightly", "cargo", "-Zbuild-std"]);
            build.args([
                "--config",
                &format!("build.target = {:?}", env!("AISP_LLAMA_TARGET")),
            ]);
            flags = format!("-Zsanitizer={sanitizer}");
            built = folder.join(env!("AISP_LLAMA_TARGET")).join("release");
        }
        build.args(["rustc", "--release", "--lib", "--no-default-features"]);
        build.args(["--features", "plugin", "--crate-type", "cdylib,staticlib"]);
        build.arg("--target-dir").arg(&folder);
        // For any processor, as the memory checker does not know the newest instructions.
        build
            .env("RUSTFLAGS", flags)
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        succeed(build.current_dir(repository()));
        built
    })
}

/// The target folder that this test was built in.
fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    // target/release/deps/plugin-…
    program.ancestors().nth(3).unwrap().to_path_buf()
}

#[track_caller]
fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn compiler(name: &str) -> Command {
    let mut compiler = Command::new(std::env::var("CC").unwrap_or_else(|_| name.into()));
    compiler.args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-I"]);
    compiler.arg(repository().join("include"));
    compiler.args(sanitizer().map(|name| format!("-fsanitize={name}")));
    compiler
}

/// Links with the plugin, found again when the program starts.
fn link(compiler: &mut Command) {
    let folder = library().display();
    compiler.arg(format!("-L{folder}"));
    compiler.arg(format!("-Wl,-rpath,{folder}"));
    compiler.args(["-laisp_llama", "-lpthread", "-lm"]);
}
