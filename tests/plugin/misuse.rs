//! Every case of `misuse.c`, and the memory checker over two of them.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::testing::build;
use crate::{compiler, link, repository, sanitizer, succeed, target};

/// A model of 16 tokens and width 8 in F32.
pub fn model(folder: &Path) -> PathBuf {
    let file = build()
        .str("general.architecture", "llama")
        .tensor("output.weight", &[8, 16], 0);
    let mut bytes = file.bytes();
    let start = bytes.len() - 8 * 16 * 4;
    for (i, value) in bytes[start..].chunks_exact_mut(4).enumerate() {
        value.copy_from_slice(&((i as f32 * 0.7).sin()).to_le_bytes());
    }
    let path = folder.join("tiny.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The library of a sanitizer.
fn runtime(name: &str) -> PathBuf {
    let short = &name[..1];
    let mut rustc = Command::new("rustup");
    let folder =
        succeed(rustc.args(["run", "nightly", "rustc", "--print", "target-libdir"])).stdout;
    let folder = PathBuf::from(String::from_utf8(folder).unwrap().trim());
    folder.join(format!("librustc-nightly_rt.{short}san.a"))
}

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = target().join("plugin/misuse");
        let object = program.with_extension("o");
        let mut compiler = compiler("cc");
        compiler.arg("-std=c11").arg("-D_POSIX_C_SOURCE=200809L");
        compiler
            .arg("-c")
            .arg(repository().join("tests/plugin/misuse.c"));
        succeed(compiler.arg("-o").arg(&object));
        let mut linker = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()));
        linker.arg(&object).arg("-o").arg(&program);
        link(&mut linker);
        if let Some(name) = sanitizer() {
            // Rust's own, as that of an older compiler lacks what it calls.
            linker.args(["-rdynamic", "-Wl,--whole-archive"]);
            linker.arg(runtime(&name)).arg("-Wl,--no-whole-archive");
            linker.args(["-lpthread", "-ldl", "-lrt", "-lresolv", "-lm"]);
        }
        succeed(&mut linker);
        program
    })
}

fn case(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    succeed(Command::new(program()).arg(name).arg(model(folder.path())));
}

/// A case on a file whose output matrix has these dimensions and ends in `last`; it is sparse: whatever
/// its size, nothing of the rest is on the disk.
fn case_of_matrix(name: &str, dims: [u64; 2], last: f32) {
    let file = build()
        .str("general.architecture", "llama")
        .entry("output.weight", &dims, 0, 0);
    let header = file.header();
    let size = header.len().next_multiple_of(32) as u64 + dims[0] * dims[1] * 4;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.gguf");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(size).unwrap();
    file.seek(SeekFrom::End(-4)).unwrap();
    file.write_all(&last.to_le_bytes()).unwrap();
    succeed(Command::new(program()).arg(name).arg(&path));
}

#[test]
fn a_row_as_large_as_the_memory() {
    case_of_matrix("refused_large", [1 << 36, 1], 0.0);
}

#[test]
fn more_rows_than_any_vocabulary() {
    case_of_matrix("refused_large", [1, 1 << 36], 0.0);
}

#[test]
fn an_infinite_weight() {
    case_of_matrix("refused_infinite", [8, 16], f32::INFINITY);
    case_of_matrix("refused_infinite", [8, 16], f32::NAN);
}

macro_rules! cases {
    ($($name:ident),*) => {$(
        #[test]
        fn $name() {
            case(stringify!($name));
        }
    )*};
}

cases!(
    good,
    sampler_tier,
    null_handle,
    foreign_handle,
    double_free,
    null_arguments,
    wrong_sizes,
    bad_options,
    bad_model,
    wrong_order,
    out_of_range,
    resets,
    two_threads,
    large_counts,
    large_options,
    thread_exit
);

#[cfg(target_os = "linux")]
#[test]
fn neither_fifty_iterations_nor_two_threads_leak() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    for case in ["fifty", "two_threads"] {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--error-exitcode=9", "--leak-check=full"]);
        // What the runtime keeps until the end is reachable, and no leak.
        valgrind.args(["--errors-for-leak-kinds=definite,indirect,possible", "-q"]);
        succeed(valgrind.arg(program()).arg(case).arg(&model));
    }
}
