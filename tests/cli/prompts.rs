//! `run --prompts`: many prompts into a folder.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::runs::timeless;
use crate::{assert_refused, program, stderr, stdout};

const SHORT: [&str; 8] = [
    "--samples",
    "4",
    "--iterations",
    "2",
    "-n",
    "10",
    "--candidates",
    "3",
];
const PROMPTS: [&str; 3] = [
    "Review a film in one sentence.",
    "Name a colour, and say why you like it.",
    "What is rain?",
];

/// A file with these prompts in `folder`.
fn write(folder: &Path, prompts: &[&str]) -> String {
    let line = |prompt: &&str| format!("{}\n", serde_json::json!({ "prompt": prompt }));
    let path = folder.join("prompts.jsonl");
    std::fs::write(&path, prompts.iter().map(line).collect::<String>()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn answer(folder: &Path, extra: &[&str]) -> Output {
    let path = folder.join("prompts.jsonl");
    program()
        .args(["run", "--prompts", path.to_str().unwrap(), "-o"])
        .arg(folder.join("out"))
        .args(SHORT)
        .args(extra)
        .output()
        .unwrap()
}

/// The lines of the folder in the order of their prompts.
fn answers(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("out/answers.jsonl")).unwrap();
    let lines = text.lines().map(|l| serde_json::from_str(l).unwrap());
    let mut lines: Vec<Value> = lines.collect();
    lines.sort_by_key(|line| line["index"].as_u64());
    lines
}

#[test]
fn every_answer_is_the_one_of_its_prompt_alone_and_what_is_missing_goes_on() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    write(folder, &PROMPTS);
    let output = answer(folder, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("3/3"), "{}", stderr(&output));
    let first = answers(folder);
    assert_eq!(first.len(), 3);
    for (index, mut line) in first.iter().cloned().enumerate() {
        let index_of_line = line.as_object_mut().unwrap().shift_remove("index").unwrap();
        assert_eq!(index_of_line, index);
        let prompt = ["--json", "-p", PROMPTS[index]];
        let alone = program()
            .arg("run")
            .args(SHORT)
            .args(prompt)
            .output()
            .unwrap();
        let alone: Value = serde_json::from_str(&stdout(&alone)).unwrap();
        assert_eq!(timeless(line), timeless(alone));
    }

    // Cut off in the middle of a line, with another width of the batch.
    let path = folder.join("out/answers.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let kept = text.lines().next().unwrap().len() + 40;
    std::fs::write(&path, &text[..kept]).unwrap();
    let output = answer(folder, &["--parallel", "8"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("1 of 3 are there"),
        "{}",
        stderr(&output)
    );
    let again = answers(folder);
    let texts = |lines: &[Value]| lines.iter().cloned().map(timeless).collect::<Vec<_>>();
    assert_eq!(texts(&again), texts(&first));

    // What made the answers is theirs alone: files, settings, prompts.
    let output = answer(folder, &["-mr", "missing.gguf", "-m", "missing.gguf"]);
    assert_refused(&output, 1, &["missing.gguf"]);
    let output = answer(folder, &["--seed", "5"]);
    assert_refused(&output, 2, &["-o: ", "settings.json", "seed 0, not 5"]);
    write(folder, &PROMPTS[1..]);
    let output = answer(folder, &[]);
    assert_refused(&output, 2, &["-o: ", "index", "another prompt"]);
}

#[test]
fn a_prompt_without_an_answer_keeps_no_other_from_it() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let long = "word ".repeat(9000);
    write(folder, &[PROMPTS[0], &long, PROMPTS[2]]);
    let output = answer(folder, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("failed: 1 of 3"),
        "{}",
        stderr(&output)
    );
    let lines = answers(folder);
    assert!(lines[0]["reward"].is_f64() && lines[2]["reward"].is_f64());
    let error = lines[1]["error"].as_str().unwrap();
    assert!(error.contains("trained for"), "{error}");
    // It is not tried again as long as its line is there.
    let output = answer(folder, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(answers(folder), lines);
}

#[test]
fn flags_that_do_not_go_together_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = write(folder.path(), &PROMPTS);
    for (flags, word) in [
        (&["--prompts", &path][..], "-o"),
        (&["-p", "x", "-o", "out"], "--prompts"),
        (&["--prompts", &path, "-o", "out", "--json"], "--json"),
        (&["--prompts", &path, "-o", "out", "-p", "x"], "--prompt"),
    ] {
        let output = program().arg("run").args(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
    std::fs::write(&path, "{\"prompt\": 3}\n").unwrap();
    let output = answer(folder.path(), &[]);
    assert_refused(&output, 2, &["--prompts: ", "line 1"]);
}
