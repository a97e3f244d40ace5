//! What `make install` installs, used the two ways that C projects do.

use std::path::Path;
use std::process::Command;

use crate::common::llama_cpp_python;
use crate::host::Llama;
use crate::{library, repository, succeed};

fn install(prefix: &Path) {
    let mut script = Command::new(repository().join("scripts/install_plugin.sh"));
    script.arg(library()).arg(prefix);
    succeed(script.arg(env!("CARGO_PKG_VERSION")).env_remove("DESTDIR"));
}

/// Starts a program, which says what it needs.
fn starts(program: &Path, libraries: &[&Path]) {
    let path = std::env::join_paths(libraries).unwrap();
    let output = Command::new(program)
        .env("LD_LIBRARY_PATH", &path)
        .env("DYLD_LIBRARY_PATH", &path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.starts_with("align: usage: "), "{message}");
}

#[test]
fn a_program_is_built_with_pkg_config() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path());
    let mut flags = Command::new("pkg-config");
    flags.args(["--cflags", "--libs", "aisp_llama"]);
    flags.env("PKG_CONFIG_PATH", folder.path().join("lib/pkgconfig"));
    let flags = String::from_utf8(succeed(&mut flags).stdout).unwrap();
    assert!(flags.contains("-laisp_llama"), "{flags}");

    let program = folder.path().join("align");
    let libraries = llama_cpp_python().join("llama_cpp/lib");
    let mut compiler = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()));
    compiler.arg(repository().join("examples/plugin/align.c"));
    compiler
        .arg("-o")
        .arg(&program)
        .args(flags.split_whitespace());
    compiler.arg("-I").arg(&Llama::packaged().headers[0]);
    compiler.arg("-L").arg(&libraries);
    succeed(compiler.args(["-lllama", "-lggml", "-lggml-base", "-lm"]));
    starts(&program, &[&folder.path().join("lib"), &libraries]);
}

#[test]
fn a_program_is_built_with_cmake() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("a & b");
    install(&prefix);
    let lists = [
        prefix.display().to_string(),
        llama_cpp_python().display().to_string(),
    ];
    for (name, option) in [("shared", "OFF"), ("static", "ON")] {
        let build = folder.path().join(name);
        let mut configure = Command::new("cmake");
        configure
            .arg("-S")
            .arg(repository().join("examples/plugin"));
        configure.arg("-B").arg(&build);
        configure.arg(format!("-DCMAKE_PREFIX_PATH={}", lists.join(";")));
        configure.arg(format!("-DALIGN_STATIC={option}"));
        succeed(&mut configure);
        succeed(Command::new("cmake").arg("--build").arg(&build));
        starts(&build.join("align"), &[]);
    }
}
