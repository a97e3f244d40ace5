//! Models with one thing wrong in each: whatever it is, the program ends in order.
//!
//! A part of them by default, all of them (`make damaged`) where `AISP_LLAMA_DAMAGED` is set, with a
//! table of how the program ended.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use tempfile::TempDir;

use crate::tiny::llama;
use crate::{assert_refused, damage, program, stderr, stdout};

/// What `run` does with the model, with nothing remembered but in `folder`.
fn run(folder: &Path, file: &Path, more: &[&str]) -> Output {
    program()
        .env("XDG_CACHE_HOME", folder)
        .timeout(Duration::from_secs(120))
        .args(["run", "-p", "Say hi.", "--reward", "rule:words=1..5"])
        .args(["--samples", "2", "--iterations", "1", "-n", "4", "-t", "1"])
        .arg("-m")
        .arg(file)
        .args(more)
        .output()
        .expect("the program runs")
}

/// The tiny llama with the architecture `name`.
fn called(folder: &Path, name: &str) -> std::path::PathBuf {
    let whole = fs::read(llama::file().write(folder, "whole.gguf")).unwrap();
    let all = damage::all(&whole);
    let of = format!("architecture {name}");
    let (_, bytes) = all.iter().find(|(what, _)| *what == of).unwrap();
    let file = folder.join("other.gguf");
    fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn whatever_is_wrong_with_a_model_the_program_ends_in_order() {
    let folder = TempDir::new().unwrap();
    let file = llama::file().write(folder.path(), "model.gguf");
    let output = run(folder.path(), &file, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let all = damage::all(&fs::read(&file).unwrap());
    let every = match std::env::var_os("AISP_LLAMA_DAMAGED") {
        Some(_) => 1,
        None => 29,
    };
    let mut ends = BTreeMap::<String, usize>::new();
    let mut wrong = Vec::new();
    for (what, bytes) in all.iter().step_by(every) {
        fs::write(&file, bytes).unwrap();
        let output = run(folder.path(), &file, &[]);
        let error = stderr(&output);
        let code = output.status.code();
        let errors = error
            .lines()
            .filter(|line| line.starts_with("error:"))
            .count();
        let dies = error.contains("decodes a batch of it dies");
        let in_order = match code {
            Some(0) => true,
            Some(1..=3) => stdout(&output).is_empty() && errors == 1 && !acts(&error),
            _ => false,
        };
        if !in_order || error.contains("panicked") {
            wrong.push(format!("{what}: {:?}: {error}", output.status));
        }
        if every == 1 && (dies || !matches!(code, Some(0 | 3))) {
            println!("{what}: {}", error.trim());
        }
        let end = match code {
            Some(code) if dies => format!("{code}, tried in another process"),
            Some(code) => code.to_string(),
            None => format!("{:?}", output.status),
        };
        *ends.entry(end).or_default() += 1;
    }
    println!(
        "{} files of {}, by exit code: {ends:?}",
        all.len().div_ceil(every),
        all.len()
    );
    assert!(
        wrong.is_empty(),
        "{} of them:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Whether a terminal would do more than show it.
fn acts(text: &str) -> bool {
    text.chars()
        .any(|c| c.is_control() && !matches!(c, '\n' | '\t'))
}

#[test]
fn what_ends_llama_cpp_ends_another_process() {
    let folder = TempDir::new().unwrap();
    let file = called(folder.path(), "paddleocr");
    let words = ["other.gguf", "dies", "GGML_ASSERT", "download it again"];
    assert_refused(&run(folder.path(), &file, &[]), 3, &words);
    // It is not remembered.
    assert_refused(&run(folder.path(), &file, &[]), 3, &words);
}

#[test]
fn a_model_is_tried_once_as_long_as_it_is_the_same() {
    let folder = TempDir::new().unwrap();
    let file = llama::file().write(folder.path(), "model.gguf");
    let tried = || match fs::read_dir(folder.path().join("aisp-llama").join("tried")) {
        Ok(files) => files.count(),
        Err(_) => 0,
    };
    for (more, remembered) in [
        (&["--isolate", "off"][..], 0),
        (&["--isolate", "on"], 0),
        (&[], 1),
        (&[], 1),
        (&["--override-kv", "llama.context_length=int:128"], 2),
    ] {
        let output = run(folder.path(), &file, more);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(tried(), remembered, "{more:?}");
    }
}

#[test]
fn a_refused_model_comes_with_llama_cpps_reason() {
    let folder = TempDir::new().unwrap();
    let file = llama::file().write(folder.path(), "model.gguf");
    let whole = fs::read(&file).unwrap();
    let all = damage::all(&whole);
    let what = "blk.0.attn_q.weight: missing";
    let (_, bytes) = all.iter().find(|(name, _)| name == what).unwrap();
    fs::write(&file, bytes).unwrap();
    let output = run(folder.path(), &file, &["--isolate", "off"]);
    assert_refused(&output, 3, &["tensor 'blk.0.attn_q.weight' not found"]);
    assert!(!stderr(&output).contains("ERROR"), "{}", stderr(&output));
}

#[cfg(target_os = "linux")]
#[test]
fn messages_that_cannot_be_written_end_nothing() {
    let folder = TempDir::new().unwrap();
    let file = llama::file().write(folder.path(), "model.gguf");
    let all = damage::all(&fs::read(&file).unwrap());
    let what = "blk.0.attn_q.weight: missing";
    let (_, bytes) = all.iter().find(|(name, _)| name == what).unwrap();
    fs::write(&file, bytes).unwrap();
    // llama.cpp says a lot of this file.
    for stderr in ["2>/dev/full", "2>&-"] {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("exec \"$0\" \"$@\" {stderr}")]);
        shell.arg(assert_cmd::cargo::cargo_bin("aisp-llama"));
        shell.args(["run", "-v", "-p", "Hi.", "--reward", "rule:json"]);
        shell.args(["--isolate", "off", "-m"]).arg(&file);
        assert_eq!(shell.output().unwrap().status.code(), Some(3), "{stderr}");
    }
}

#[test]
fn weights_that_are_no_numbers_are_the_files_fault() {
    let folder = TempDir::new().unwrap();
    let file = llama::file().write(folder.path(), "model.gguf");
    let all = damage::all(&fs::read(&file).unwrap());
    for what in [
        "token_embd.weight: NaN",
        "token_embd.weight: inf",
        "blk.0.attn_q.weight: NaN",
    ] {
        let (_, bytes) = all.iter().find(|(name, _)| name == what).unwrap();
        fs::write(&file, bytes).unwrap();
        for isolate in ["on", "off"] {
            let output = run(folder.path(), &file, &["--isolate", isolate]);
            assert_refused(&output, 3, &["model.gguf", "of its weights"]);
        }
    }
}
