//! Files that are no usable model: exit code 3, naming the file, the field and the remedy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;

use crate::common::{GEMMA3, REWARD, SMOLLM2, path};
use crate::{assert_refused, program, run, stderr};

fn with_model(file: &Path) -> Output {
    run(&["-m", file.to_str().unwrap()])
}

fn written(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let file = folder.path().join("model.gguf");
    fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn a_missing_file_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("nothing.gguf");
    for output in [
        with_model(&file),
        run(&["-mr", file.to_str().unwrap()]),
        program()
            .args(["inspect", file.to_str().unwrap()])
            .output()
            .unwrap(),
    ] {
        assert_refused(&output, 3, &["nothing.gguf", "no such file"]);
        assert_eq!(stderr(&output).matches("no such file").count(), 1);
    }
}

#[test]
fn an_empty_file_is_told_from_a_missing_one() {
    let folder = TempDir::new().unwrap();
    assert_refused(
        &with_model(&written(&folder, b"")),
        3,
        &["model.gguf", "empty"],
    );
}

#[test]
fn a_truncated_download_is_to_be_repeated() {
    let folder = TempDir::new().unwrap();
    let whole = fs::read(path(SMOLLM2)).unwrap();
    for length in [10, 100_000, whole.len() - 1] {
        let file = written(&folder, &whole[..length]);
        assert_refused(
            &with_model(&file),
            3,
            &["model.gguf", "truncated", "download"],
        );
    }
}

#[test]
fn a_file_of_another_kind_is_no_gguf() {
    let folder = TempDir::new().unwrap();
    let file = written(&folder, b"PK\x03\x04 something else altogether");
    assert_refused(&with_model(&file), 3, &["model.gguf", "GGUF"]);
}

#[test]
fn an_lfs_pointer_says_how_to_get_the_file() {
    let folder = TempDir::new().unwrap();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    assert_refused(
        &with_model(&written(&folder, pointer)),
        3,
        &["model.gguf", "git lfs pull"],
    );
}

#[test]
fn a_directory_is_no_model() {
    let folder = TempDir::new().unwrap();
    assert_refused(&with_model(folder.path()), 3, &["directory"]);
}

#[test]
fn a_reward_model_cannot_generate() {
    let output = with_model(&path(REWARD));
    assert_refused(&output, 3, &[REWARD, "reward model", "-mr"]);
}

#[test]
fn a_generator_cannot_reward() {
    let generator = path(SMOLLM2);
    let output = run(&["-mr", generator.to_str().unwrap()]);
    assert_refused(&output, 3, &[SMOLLM2, "cls.output.weight", "-mr"]);
}

#[test]
fn a_base_model_without_a_chat_template_says_what_to_do() {
    let output = with_model(&path(GEMMA3));
    assert_refused(
        &output,
        3,
        &[
            GEMMA3,
            "tokenizer.chat_template",
            "--no-chat",
            "--chat-template",
        ],
    );
}

#[test]
fn a_head_that_scores_everything_alike_is_refused() {
    // The film-review reward with its weights set to zero.
    let folder = TempDir::new().unwrap();
    let mut bytes = fs::read(path(REWARD)).unwrap();
    let gguf = aisp_llama::gguf::Gguf::open(&path(REWARD)).unwrap();
    let head = gguf.tensor("cls.output.weight").unwrap();
    bytes[head.offset as usize..][..head.bytes as usize].fill(0);
    let file = written(&folder, &bytes);
    let output = run(&["-mr", file.to_str().unwrap()]);
    assert_refused(&output, 3, &["model.gguf", "alike"]);
}
