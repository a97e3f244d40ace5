//! Files and streams as they come: marks, line ends, pipes, broken text; and what is no model.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::testing::{build, text};
use crate::tiny::llama;
use crate::{assert_refused, program, stderr, stdout};

fn written(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let file = folder.path().join(name);
    fs::write(&file, content).unwrap();
    file
}

/// One answer of a tiny model.
fn run(folder: &TempDir, more: &[&str]) -> Output {
    let model = llama::file().write(folder.path(), "model.gguf");
    program()
        .args([
            "run",
            "--reward",
            "rule:words=1..5",
            "--json",
            "-t",
            "1",
            "-n",
            "4",
        ])
        .args(["--samples", "1", "--iterations", "1", "-m"])
        .arg(model)
        .args(more)
        .output()
        .unwrap()
}

fn score(rule: &str, stdin: impl Into<Vec<u8>>) -> Output {
    let rule = format!("rule:{rule}");
    program()
        .args(["score", "--reward", &rule])
        .write_stdin(stdin)
        .output()
        .unwrap()
}

fn inspect(file: &Path, more: &[&str]) -> Output {
    program()
        .arg("inspect")
        .arg(file)
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn marks_and_line_ends_of_other_systems_are_no_part_of_a_prompt() {
    let folder = TempDir::new().unwrap();
    let prompt = |content: &str| {
        let file = written(&folder, "prompt.txt", content);
        let output = run(&folder, &["-f", file.to_str().unwrap()]);
        let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        (json["prompt"].clone(), json["response"].clone())
    };
    let plain = prompt("Line one\nLine two\n");
    assert_eq!(plain.0, "Line one\nLine two");
    assert_eq!(prompt("\u{feff}Line one\r\nLine two\r\n"), plain);
}

#[test]
fn a_prompt_of_white_space_is_empty() {
    let folder = TempDir::new().unwrap();
    assert_refused(&run(&folder, &["-p", " \t"]), 2, &["the prompt is empty"]);
    for content in ["   \n", "\r\n", "\u{feff}", ""] {
        let file = written(&folder, "prompt.txt", content);
        let output = run(&folder, &["-f", file.to_str().unwrap()]);
        assert_refused(&output, 2, &["the prompt is empty"]);
    }
}

#[test]
fn every_reader_of_a_text_takes_a_byte_order_mark() {
    let folder = TempDir::new().unwrap();
    let marked = |name: &str, text: &str| {
        let file = written(&folder, name, format!("\u{feff}{text}"));
        file.to_str().unwrap().to_owned()
    };
    let schema = marked("schema.json", "{}");
    let output = score(
        &format!("json-schema={schema}"),
        "\u{feff}{\"prompt\": \"p\", \"response\": \"1\"}\r\n{\"response\": \"2\"}\r\n",
    );
    assert_eq!(stdout(&output), "1\n1\n", "{}", stderr(&output));

    let messages = marked("messages.json", r#"[{"role": "user", "content": "hi"}]"#);
    let template = marked("template.jinja", "{{ messages[0].content }}!");
    let preset = marked("preset.json", "{}");
    let output = run(
        &folder,
        &[
            "--messages",
            &messages,
            "--chat-template-file",
            &template,
            "--preset",
            &preset,
        ],
    );
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["prompt"], "hi");

    let prompts = marked("prompts.jsonl", "{\"prompt\": \"hi\"}\r\n");
    assert_eq!(
        aisp_llama::compare::read_prompts(Path::new(&prompts)).unwrap(),
        ["hi"]
    );
    let data = marked("data.jsonl", "{\"response\": \"a\", \"score\": 1}\r\n");
    let data = aisp_llama::reward::train::Dataset::read(Path::new(&data)).unwrap();
    assert_eq!(data.len(), 1);
}

#[test]
fn what_is_not_utf8_names_its_line() {
    let folder = TempDir::new().unwrap();
    let output = score(
        "words=1",
        &b"{\"response\": \"a\"}\n{\"response\": \"\xe9\"}\n"[..],
    );
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("stdin: line 2 is not UTF-8"), "{error}");
    let file = written(&folder, "bad.txt", b"one\ncaf\xe9\n");
    let output = run(&folder, &["-f", file.to_str().unwrap()]);
    assert_refused(&output, 2, &["bad.txt: line 2 is not UTF-8"]);
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_no_files() {
    let folder = TempDir::new().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let pipe = pipe.to_str().unwrap();
    for flags in [["-f", pipe], ["-f", "/dev/zero"], ["--messages", pipe]] {
        assert_refused(
            &run(&folder, &flags),
            2,
            &["not a regular file", "save it to disk"],
        );
    }
    for flags in [
        &["--method", "re-control", "--value", pipe][..],
        &["--preset", pipe],
        &["--chat-template-file", pipe],
    ] {
        let output = run(&folder, &[flags, &["-p", "hi"]].concat());
        assert_refused(&output, 2, &["not a regular file"]);
    }
}

#[cfg(unix)]
#[test]
fn an_endless_line_is_refused() {
    let endless = fs::File::open("/dev/zero").unwrap();
    let program = assert_cmd::cargo::cargo_bin("aisp-llama");
    let output = Command::new(program)
        .args(["score", "--reward", "rule:words=1"])
        .stdin(endless)
        .output()
        .unwrap();
    assert_refused(&output, 2, &["stdin: line 1 has more than 64 MiB"]);
}

#[test]
fn what_a_file_says_cannot_act_on_a_terminal() {
    let folder = TempDir::new().unwrap();
    let name = format!("\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}{}", "x".repeat(1000));
    let bytes = build()
        .str("general.architecture", "ll\u{1b}[2Jama")
        .str("general.name", &name)
        .str("general.license", "a\nb")
        .tensor("t", &[1], 0)
        .bytes();
    let file = written(&folder, "odd.gguf", bytes);
    for more in [&[][..], &["--json"]] {
        let shown = stdout(&inspect(&file, more));
        let acts = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!shown.contains(acts), "{shown:?}");
        assert!(
            shown.contains("owned") && shown.contains("a b") && shown.len() < 2000,
            "{shown}"
        );
    }
    let output = program()
        .args(["run", "-p", "hi", "--reward", "rule:words=1", "-m"])
        .arg(&file)
        .output()
        .unwrap();
    assert_refused(&output, 3, &["general.architecture: \"ll\\", "[2Jama"]);
    assert!(!stderr(&output).contains('\u{1b}'));
}

#[test]
fn inspect_says_no_to_what_run_refuses() {
    let folder = TempDir::new().unwrap();
    let model = || {
        build()
            .str("general.architecture", "llama")
            .tensor("t.weight", &[1, 1], 0)
    };
    let part = |builder: crate::testing::Builder, number: u16| {
        builder
            .pair("split.count", 2, 2u16.to_le_bytes())
            .pair("split.no", 2, number.to_le_bytes())
    };
    let vocabulary =
        build()
            .str("general.architecture", "llama")
            .pair("tokenizer.ggml.model", 8, text("gpt2"));
    for (name, file, words) in [
        (
            "a.gguf",
            model().str("general.type", "adapter"),
            "an adapter, not a model",
        ),
        (
            "a.gguf",
            build().str("general.architecture", "clip"),
            "a projector",
        ),
        (
            "a.gguf",
            build().str("general.name", "x"),
            "general.architecture: missing",
        ),
        ("a.gguf", vocabulary, "a vocabulary alone"),
        (
            "a.gguf",
            build()
                .str("general.architecture", "nosuch")
                .tensor("t", &[1], 0),
            "nosuch",
        ),
        (
            "a.gguf",
            model().u32("llama.block_count", 0),
            "llama.block_count: 0",
        ),
        (
            "a.gguf",
            part(model(), 0),
            "-00001-of-00002.gguf; give it its name again",
        ),
        (
            "a-00002-of-00002.gguf",
            part(model(), 1),
            "give the first, a-00001-of-00002.gguf",
        ),
        (
            "a-00001-of-00002.gguf",
            part(model(), 0),
            "part a-00002-of-00002.gguf: no such file",
        ),
    ] {
        // Nothing of the others is left.
        let folder = TempDir::new_in(folder.path()).unwrap();
        let file = written(&folder, name, file.bytes());
        let shown = stdout(&inspect(&file, &[]));
        for verdict in ["generator", "reward"] {
            let line = shown
                .lines()
                .find(|line| line.starts_with(verdict))
                .unwrap();
            assert!(line.contains(" no: ") && line.contains(words), "{line}");
        }
        let output = program()
            .args(["run", "-p", "hi", "--reward", "rule:words=1", "-m"])
            .arg(&file)
            .output()
            .unwrap();
        assert_refused(&output, 3, &[name, words]);
    }
}
