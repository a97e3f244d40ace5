//! The header and the symbols.

use std::collections::BTreeSet;
use std::process::Command;

use crate::{library, repository, succeed};

/// `include/aisp_llama.h` is what cbindgen makes of `src/plugin`; `UPDATE_HEADER=1`
/// writes it.
#[test]
fn the_header_is_that_of_the_source() {
    let config = cbindgen::Config::from_file(repository().join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(repository().join("src/plugin/types.rs"))
        .with_src(repository().join("src/plugin/mod.rs"))
        .generate()
        .unwrap();
    let mut made = Vec::new();
    bindings.write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let path = repository().join("include/aisp_llama.h");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap();
    assert!(
        there == made,
        "include/aisp_llama.h is out of date: UPDATE_HEADER=1 cargo test --release --test plugin \
         header"
    );
}

/// Names that `nm` lists, without versions.
fn symbols(options: &[&str], file: &str) -> BTreeSet<String> {
    let output = succeed(Command::new("nm").args(options).arg(library().join(file)));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(|name| name.split('@').next().unwrap_or(name).to_owned())
        .collect()
}

#[test]
fn there_is_no_llama_inside_and_none_is_asked_for() {
    let engine = |name: &String| {
        ["llama_", "ggml_", "gguf_", "_ZN4ggml"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    for file in ["libaisp_llama.so", "libaisp_llama.a"] {
        let all = symbols(&[], file);
        assert!(all.len() > 100, "nm lists {} symbols of {file}", all.len());
        let found: Vec<_> = all.iter().filter(|name| engine(name)).collect();
        assert!(found.is_empty(), "{file}: {found:?}");
    }
    let exported = symbols(&["-D", "--defined-only"], "libaisp_llama.so");
    let own: Vec<_> = exported.iter().filter(|n| n.starts_with("aisp_")).collect();
    assert_eq!(own.len(), exported.len(), "{exported:?}");
    assert_eq!(own.len(), 16, "{own:?}");
}
