//! `--shard`: work on several machines, put together.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::compare::{compare, flags, folder, lines, timeless};
use crate::{assert_refused, program, stderr, stdout};

const SMALL: [&str; 8] = [
    "--methods",
    "best-of-n,search",
    "--budget",
    "8",
    "--samples",
    "4",
    "-n",
    "6",
];

/// The I-th shard of N of the comparison in `folder`, into `out-I`.
fn shard(folder: &Path, shard: &str) -> Output {
    let mut words = flags(folder, &SMALL);
    let out = words.iter().position(|word| word == "-o").unwrap() + 1;
    words[out] += &format!("-{}", &shard[..1]);
    program()
        .args(words)
        .args(["--reward", "rule:words=4", "--shard", shard])
        .output()
        .unwrap()
}

fn merge(folder: &Path, from: &[&str], into: &str) -> Output {
    program()
        .args(["compare", "merge"])
        .args(from.iter().map(|name| folder.join(name)))
        .arg("-o")
        .arg(folder.join(into))
        .output()
        .unwrap()
}

fn rows(folder: &Path, name: &str) -> Vec<Value> {
    let rows = lines(&folder.join(name).join("results.jsonl"));
    rows.into_iter().map(timeless).collect()
}

#[test]
fn two_shards_put_together_are_one_comparison() {
    let folder = folder();
    let folder = folder.path();
    let whole = compare(
        folder,
        &[&SMALL[..], &["--reward", "rule:words=4"]].concat(),
    );
    assert_eq!(whole.status.code(), Some(0), "{}", stderr(&whole));
    for text in ["1/2", "2/2"] {
        let output = shard(folder, text);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    assert_eq!(rows(folder, "out-1").len(), 12, "two prompts of three");
    assert_eq!(rows(folder, "out-2").len(), 6);
    let output = merge(folder, &["out-2", "out-1"], "both");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(rows(folder, "both"), rows(folder, "out"));
    let settings =
        |name: &str| fs::read_to_string(folder.join(name).join("settings.json")).unwrap();
    assert_eq!(settings("both"), settings("out"));
    assert_eq!(
        stdout(&output),
        fs::read_to_string(folder.join("both/summary.md")).unwrap()
    );
    assert!(folder.join("both/reward-samples.svg").exists());

    // Half of it is said to be half; the whole goes on from there.
    let output = merge(folder, &["out-1", "out-1"], "half");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("missing: 6 of 18"),
        "{}",
        stderr(&output)
    );

    let results = folder.join("out-1/results.jsonl");
    let text = fs::read_to_string(&results).unwrap();
    let other = text.replacen("\"response\":\"", "\"response\":\"not ", 1);
    fs::create_dir(folder.join("other")).unwrap();
    fs::copy(
        folder.join("out-1/settings.json"),
        folder.join("other/settings.json"),
    )
    .unwrap();
    fs::write(folder.join("other/results.jsonl"), other).unwrap();
    let output = merge(folder, &["out-1", "other"], "none");
    assert_refused(
        &output,
        2,
        &["other", "prompt 1, seed 0, best-of-n", "another row"],
    );
    let output = merge(folder, &["out-1", "out-2"], "both");
    assert_refused(&output, 2, &["results.jsonl", "-o", "another folder"]);
    let output = merge(folder, &["out-1", "nowhere"], "none");
    assert_refused(&output, 1, &["nowhere", "settings.json"]);
    assert!(!folder.join("none").exists() && !folder.join("nowhere").exists());
    let output = shard(folder, "3/2");
    assert_refused(&output, 2, &["--shard", "3/2", "I/N"]);
}

#[test]
fn shards_of_other_settings_are_refused() {
    let folder = folder();
    let folder = folder.path();
    assert_eq!(shard(folder, "2/2").status.code(), Some(0));
    let made_with = folder.join("out-2/settings.json");
    let text = fs::read_to_string(&made_with).unwrap();
    fs::create_dir(folder.join("other")).unwrap();
    let other = text.replace("\"max_tokens\": 6", "\"max_tokens\": 7");
    assert_ne!(other, text);
    fs::write(folder.join("other/settings.json"), other).unwrap();
    let output = merge(folder, &["out-2", "other"], "both");
    assert_refused(&output, 2, &["other", "max_tokens 7, not 6"]);
}

#[test]
fn tune_waits_for_the_other_shards_after_every_stage() {
    let folder = folder();
    let folder = folder.path();
    let tune = |into: &str, more: &[&str]| {
        program()
            .args(["tune", "--reward", "rule:words=5..6;lowercase"])
            .args(["--budget", "8", "--samples", "4", "-n", "6", "--prompts"])
            .arg(folder.join("prompts.jsonl"))
            .arg("-o")
            .arg(folder.join(into))
            .args(more)
            .output()
            .unwrap()
    };
    for (into, shard) in [("a", "1/2"), ("b", "2/2")] {
        let output = tune(into, &["--shard", shard]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stderr(&output).contains("1-noise"), "{}", stderr(&output));
        assert!(!folder.join(into).join("preset.json").exists());
    }
    fs::create_dir(folder.join("c")).unwrap();
    let output = merge(folder, &["a/1-noise", "b/1-noise"], "c/1-noise");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = tune("c", &["--shard", "1/2"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("2-mean: "), "{}", stderr(&output));
}

/// The line of docs/fleet.md, run as it stands there: prompts answered by as many processes as there
/// are shards.
#[test]
fn gnu_parallel_runs_the_shards_of_a_data_set() {
    let page = include_str!("../../docs/fleet.md");
    let line = page
        .lines()
        .find(|line| line.starts_with("parallel "))
        .unwrap();
    let folder = folder();
    let folder = folder.path();
    let binary = assert_cmd::cargo::cargo_bin("aisp-llama");
    let small = "--reward rule:words=4 --samples 4 --iterations 1 -n 6 -t 1";
    let line = line
        .replace("-m base.gguf -mr reward.gguf", small)
        .replace("aisp-llama", binary.to_str().unwrap());
    assert!(line.contains(small), "{line}");
    let output = Command::new("sh")
        .args(["-c", &line])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let mut found: Vec<Value> = Vec::new();
    for i in 1..=4 {
        found.extend(lines(&folder.join(format!("answers-{i}/answers.jsonl"))));
    }
    found.sort_by_key(|line| line["index"].as_u64());
    let alone = program()
        .args(["run", "--prompts", "prompts.jsonl", "-o", "alone"])
        .args(small.split(' '))
        .current_dir(folder)
        .output()
        .unwrap();
    assert_eq!(alone.status.code(), Some(0), "{}", stderr(&alone));
    let mut alone = lines(&folder.join("alone/answers.jsonl"));
    alone.sort_by_key(|line| line["index"].as_u64());
    let answers =
        |rows: &[Value]| -> Vec<Value> { rows.iter().map(|row| row["response"].clone()).collect() };
    assert_eq!(found.len(), 3);
    assert_eq!(answers(&found), answers(&alone));
}
