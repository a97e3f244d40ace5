//! `compare`: a folder of rows that survives anything.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::{assert_refused, program, stderr, stdout};

const PROMPTS: &str = "{\"prompt\": \"Review a film in one sentence.\"}\n\
                       {\"prompt\": \"Praise a book.\"}\n\
                       {\"prompt\": \"Describe a song.\"}\n";

/// A folder with the prompts in it.
pub fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("prompts.jsonl"), PROMPTS).unwrap();
    folder
}

pub fn flags(folder: &Path, extra: &[&str]) -> Vec<String> {
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let mut flags = vec![
        "compare".into(),
        "--prompts".into(),
        path("prompts.jsonl"),
        "-o".into(),
        path("out"),
    ];
    flags.extend(extra.iter().map(|&flag| flag.into()));
    flags
}

const SMALL: [&str; 10] = [
    "--methods",
    "best-of-n:temp=1,aisp,misvo",
    "--budget",
    "16",
    "--samples",
    "8",
    "--seeds",
    "3",
    "-n",
    "8",
];

pub fn compare(folder: &Path, extra: &[&str]) -> std::process::Output {
    program().args(flags(folder, extra)).output().unwrap()
}

pub fn rows(folder: &Path) -> Vec<Value> {
    lines(&folder.join("out/results.jsonl"))
}

pub fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let lines = text[..whole].lines();
    lines.map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The row without what depends on the clock.
pub fn timeless(mut row: Value) -> Value {
    row["seconds"] = Value::Null;
    for iteration in row["iterations"].as_array_mut().unwrap() {
        iteration["seconds"] = Value::Null;
    }
    row
}

#[test]
fn killed_ten_times_it_ends_with_the_rows_of_an_undisturbed_run() {
    let (whole, killed) = (folder(), folder());
    let output = compare(whole.path(), &SMALL);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let expected: Vec<Value> = rows(whole.path()).into_iter().map(timeless).collect();
    assert_eq!(expected.len(), 27);

    let mut before = 0;
    for attempt in 0..10_u32 {
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("aisp-llama"))
            .args(flags(killed.path(), &SMALL))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // At most two rows an attempt, so that none of the ten finds the work done: the kill
        // comes at another moment of a row each time.
        let limit = before + 1 + attempt as usize % 2;
        while rows(killed.path()).len() < limit {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(u64::from(attempt) * 23));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = rows(killed.path()).len();
        assert!(now >= limit);
        before = now;
    }
    assert!(before < expected.len(), "nothing was left to go on with");
    let output = compare(killed.path(), &SMALL);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found: Vec<Value> = rows(killed.path()).into_iter().map(timeless).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_row_cut_short_is_computed_again_and_no_other() {
    let folder = folder();
    let few = ["--budget", "8", "--samples", "8", "--seeds", "1", "-n", "4"];
    assert_eq!(compare(folder.path(), &few).status.code(), Some(0));
    let path = folder.path().join("out/results.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 6);
    fs::write(&path, &text[..text.len() - 40]).unwrap();
    let output = compare(folder.path(), &few);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let again = fs::read_to_string(&path).unwrap();
    let kept = text[..text.len() - 1].rfind('\n').unwrap();
    assert_eq!(again[..kept], text[..kept], "rows with their seconds");
    assert_eq!(again.lines().count(), 6);
    for name in ["summary.md", "reward-samples.svg", "iterations.svg"] {
        let file = fs::read_to_string(folder.path().join("out").join(name)).unwrap();
        assert!(file.len() > 200, "{name}: {file}");
    }
}

#[test]
fn a_folder_of_other_settings_is_refused_and_says_what_differs() {
    let folder = folder();
    let few = ["--budget", "8", "--samples", "8", "--seeds", "1", "-n", "4"];
    assert_eq!(compare(folder.path(), &few).status.code(), Some(0));
    let before = fs::read_to_string(folder.path().join("out/results.jsonl")).unwrap();
    let other = ["--budget", "8", "--samples", "8", "--seeds", "1", "-n", "5"];
    assert_refused(
        &compare(folder.path(), &other),
        2,
        &["-o", "out", "max_tokens"],
    );
    // Of a long list, the entry that differs.
    let longer = [&few[..], &["--methods", "best-of-n,search:elites=8"]].concat();
    assert_refused(&compare(folder.path(), &longer), 2, &["search:elites=8"]);
    let after = fs::read_to_string(folder.path().join("out/results.jsonl")).unwrap();
    assert_eq!(before, after);
    fs::remove_file(folder.path().join("out/settings.json")).unwrap();
    let orphaned = compare(folder.path(), &few);
    assert_refused(&orphaned, 2, &["results.jsonl", "settings.json"]);
}

#[test]
fn a_file_of_the_same_name_with_another_content_is_other_settings() {
    let folder = folder();
    let head = folder.path().join("head.safetensors");
    fs::write(&head, "one").unwrap();
    let id = |path: &Path| aisp_llama::compare::FileId::of(path).unwrap();
    let before = id(&head);
    // The SHA-256 of "one".
    assert_eq!(
        before.sha256,
        "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    );
    fs::write(&head, "two").unwrap();
    assert_ne!(id(&head), before);
}

#[test]
fn a_row_cut_in_the_middle_of_a_character_is_computed_again() {
    let folder = folder();
    let few = ["--budget", "8", "--samples", "8", "--seeds", "1", "-n", "4"];
    assert_eq!(compare(folder.path(), &few).status.code(), Some(0));
    let path = folder.path().join("out/results.jsonl");
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend("{\"response\":\"é".as_bytes());
    bytes.pop();
    fs::write(&path, &bytes).unwrap();
    let output = compare(folder.path(), &few);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(rows(folder.path()).len(), 6);
}

#[test]
fn args_keeps_to_the_reward_calls_of_the_budget() {
    let folder = folder();
    let flags = [
        "--methods",
        "best-of-n,args,soft-best-of-n",
        "--budget",
        "32",
        "--samples",
        "16",
        "--seeds",
        "1",
        "-n",
        "6",
    ];
    let output = compare(folder.path(), &flags);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for row in rows(folder.path()) {
        let calls = row["usage"]["reward_calls"].as_u64().unwrap();
        assert!(calls <= 32, "{row}");
        let last = row["iterations"].as_array().unwrap().last().unwrap();
        assert!(last["spent"].as_u64().unwrap() <= 32, "{row}");
        if row["method"] == "args" {
            assert!(calls > 20, "{row}");
            // One response, guided as long as the calls last, and none without.
            assert_eq!(row["usage"]["candidates"], 1, "{row}");
        }
    }
    let summary = fs::read_to_string(folder.path().join("out/summary.md")).unwrap();
    // The best so far is no answer of a method that draws one.
    assert!(
        summary.contains("| soft-best-of-n | – | – | never |"),
        "{summary}"
    );
}

#[test]
fn equal_tokens_end_every_run_in_the_middle_of_an_iteration() {
    let folder = folder();
    let flags = [
        "--by",
        "tokens",
        "--budget",
        "150",
        "--seeds",
        "1",
        "-n",
        "8",
        "--samples",
        "8",
    ];
    let output = compare(folder.path(), &flags);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for row in rows(folder.path()) {
        let tokens = row["usage"]["generated_tokens"].as_u64().unwrap();
        // The next response would have been one too many.
        assert!((143..=150).contains(&tokens), "{row}");
        let last = row["iterations"].as_array().unwrap().last().unwrap();
        assert_eq!(last["tokens"], tokens, "{row}");
    }
    let summary = fs::read_to_string(folder.path().join("out/summary.md")).unwrap();
    assert!(summary.contains("150 tokens each"), "{summary}");
    let plot = fs::read_to_string(folder.path().join("out/reward-tokens.svg")).unwrap();
    assert!(plot.contains("tokens"), "{plot}");
}

#[test]
fn equal_seconds_end_every_run_near_the_same_time() {
    let folder = folder();
    let flags = [
        "--by",
        "seconds",
        "--budget",
        "1",
        "--seeds",
        "1",
        "-n",
        "8",
        "--samples",
        "8",
    ];
    let output = compare(folder.path(), &flags);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for row in rows(folder.path()) {
        let seconds = row["seconds"].as_f64().unwrap();
        // The decoding step that crosses the line is finished, and what it finished is scored.
        assert!((1.0..3.0).contains(&seconds), "{row}");
        assert!(row["usage"]["candidates"].as_u64().unwrap() >= 8);
        // What the limit cut off has no mean; the last whole iteration has.
        let whole = row["iterations"].as_array().unwrap().iter();
        let last = whole.map(|i| &i["mean"]).rfind(|mean| !mean.is_null());
        assert_eq!(last.unwrap_or(&Value::Null), &row["mean_last"], "{row}");
    }
}

#[test]
fn plans_that_cannot_be_carried_out_name_their_option() {
    let folder = folder();
    for (flags, words) in [
        (&["--methods", "best-of-n,worst-of-n"][..], "worst-of-n"),
        (&["--methods", "aisp:sigmoid=1"], "sigmoid"),
        (&["--methods", "aisp,aisp"], "--methods: aisp: twice"),
        (
            &["--methods", "search,search:elites=4"],
            "the same as search",
        ),
        (
            &["--methods", "best-of-n,best-of-n:elites=8"],
            "elites: no setting of best-of-n",
        ),
        (&["--budget", "0"], "--budget"),
        (&["--budget", "1.5"], "whole number"),
        (&["--budget", "1.5", "--by", "tokens"], "whole number"),
        (&["--budget", "100", "--samples", "16"], "give 96 or 112"),
        (
            &["--methods", "aisp,re-control"],
            "re-control: value: not given",
        ),
        (&["--methods", "aisp:sigma=-1"], "--methods: aisp:sigma=-1"),
        (&["--seeds", "0"], "--seeds"),
    ] {
        let output = compare(folder.path(), flags);
        assert_eq!(stdout(&output), "");
        assert!(
            matches!(output.status.code(), Some(2 | 3)),
            "{flags:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(words),
            "{flags:?}: {}",
            stderr(&output)
        );
    }
    fs::remove_file(folder.path().join("prompts.jsonl")).unwrap();
    let output = compare(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("prompts.jsonl"));
}
