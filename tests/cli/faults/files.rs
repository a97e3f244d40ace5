//! Full disks, folders that nobody may write to, and folders of rows.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use super::{Place, refs, until};
use crate::{assert_refused, stderr, stdout};

/// Files of at most so many KB, as on a disk that is full then.
fn full(kilobytes: usize) -> String {
    format!("ulimit -f {}", kilobytes * 2)
}

#[test]
fn a_full_disk_costs_no_old_file() {
    let place = Place::new();
    let reward = ["--reward", "rule:words=2..4"];
    let plot = place.run(&[&reward[..], &["--iterations", "2", "--plot", "old"]].concat());
    let train = "train-value -m tiny.gguf -t 1 -n 6 --no-chat --prompts prompts.jsonl --responses 2 \
                 --hidden 400 --epochs 1 -o old";
    let train: Vec<&str> = train.split(' ').chain(reward).collect();
    for words in [refs(&plot), train] {
        fs::write(place.path("old"), "what was there").unwrap();
        let before = fs::read_dir(place.0.path()).unwrap().count();
        let output = place.limited(&full(1), &words).output().unwrap();
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("error: old: File too large"), "{error}");
        assert_eq!(fs::read(place.path("old")).unwrap(), b"what was there");
        assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), before);
        // The answer is there all the same.
        assert_eq!(stdout(&output).is_empty(), words[0] != "run");
    }
}

const COMPARE: &str = "compare -m tiny.gguf -t 1 -n 6 --no-chat --prompts prompts.jsonl --samples 4 \
                       --budget 8 --seeds 2 --methods best-of-n,search -o out";

fn compare(reward: &str) -> Vec<&str> {
    COMPARE.split(' ').chain(["--reward", reward]).collect()
}

/// The rows without what depends on the clock.
fn rows(place: &Place, folder: &str) -> Vec<Value> {
    let text = fs::read_to_string(place.path(folder).join("results.jsonl")).unwrap();
    let row = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row["seconds"] = Value::Null;
        for iteration in row["iterations"].as_array_mut().unwrap() {
            iteration["seconds"] = Value::Null;
        }
        row
    };
    text.lines().map(row).collect()
}

#[test]
fn a_disk_that_fills_up_in_a_row_leaves_a_comparison_that_goes_on() {
    let place = Place::new();
    let words = compare("rule:words=2..4");
    assert!(place.command(&words).status().unwrap().success());
    let whole = rows(&place, "out");
    fs::rename(place.path("out"), place.path("whole")).unwrap();
    for kilobytes in [8, 12, 16] {
        let output = place.limited(&full(kilobytes), &words).output().unwrap();
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("results.jsonl: File too large"), "{error}");
    }
    let output = place.command(&words).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(rows(&place, "out"), whole);
}

#[test]
fn an_output_that_cannot_be_written_is_told_before_the_work() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    let run = place.run(&["--reward", "rule:words=1", "--plot", "none/plot.svg"]);
    let train = "train-value -m tiny.gguf --prompts prompts.jsonl --reward rule:words=1 -o none/value.safetensors";
    let head = "reward train -m tiny.gguf --data no-such-file -o none/head.safetensors";
    let compare = compare("rule:words=1")
        .join(" ")
        .replace("-o out", "-o file");
    let tune = "tune -m tiny.gguf --prompts prompts.jsonl --reward rule:words=1 -o file";
    for (words, named) in [
        (refs(&run), "none/plot.svg"),
        (train.split(' ').collect(), "none/value.safetensors"),
        (head.split(' ').collect(), "none/head.safetensors"),
        (compare.split(' ').collect(), "file"),
        (tune.split(' ').collect(), "file"),
    ] {
        let output = place.command(&words).output().unwrap();
        assert_refused(&output, 1, &[named]);
    }
}

#[test]
fn a_second_process_in_a_folder_is_refused_and_the_first_goes_on() {
    let place = Place::new();
    let pipe = place.pipe("pipe");
    // It keeps its first answer back until the pipe is read.
    let script = "read -r line; touch asked; echo > pipe; echo 1; while read -r l; do echo 1; done";
    let reward = place.reward(script, 600.0);
    let mut first = place.command(&compare(&reward)).spawn().unwrap();
    until("it does not begin", || place.path("asked").exists());
    let second = place.command(&compare(&reward)).output();
    assert_refused(&second.unwrap(), 2, &["another process is at work"]);
    fs::read(&pipe).unwrap();
    assert!(first.wait().unwrap().success());
}

#[test]
fn a_doubled_row_and_one_of_another_comparison_are_refused_by_name() {
    let place = Place::new();
    let words = compare("rule:words=2..4");
    assert!(place.command(&words).status().unwrap().success());
    let path = place.path("out/results.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let first = text.lines().next().unwrap();
    let alien = first.replace("\"prompt\":0", "\"prompt\":999");
    let failed =
        "{\"prompt\":1,\"seed\":0,\"method\":\"search\",\"error\":\"x\",\"unscored\":false}";
    let line = text.lines().count() + 1;
    for (more, what) in [
        (first, "prompt 1, seed 0, best-of-n stands there twice"),
        (failed, "prompt 2, seed 0, search stands there twice"),
        (&alien, "prompt 1000, seed 0, best-of-n is no row"),
    ] {
        fs::write(&path, format!("{text}{more}\n")).unwrap();
        let output = place.command(&words).output().unwrap();
        assert_refused(&output, 2, &[&format!("line {line}: {what}")]);
    }
}

#[test]
fn a_doubled_answer_is_refused_by_name() {
    let place = Place::new();
    let words = place.run(&[
        "--reward",
        "rule:words=2..4",
        "-o",
        "out",
        "--iterations",
        "1",
    ]);
    let words: Vec<String> = words
        .into_iter()
        .filter(|w| w != "-p" && w != "Hi.")
        .collect();
    let words = [&refs(&words)[..], &["--prompts", "prompts.jsonl"]].concat();
    assert!(place.command(&words).status().unwrap().success());
    let path = place.path("out/answers.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let first = text.lines().next().unwrap();
    let index = serde_json::from_str::<Value>(first).unwrap()["index"].clone();
    fs::write(&path, format!("{text}{first}\n")).unwrap();
    let output = place.command(&words).output().unwrap();
    let what = format!("line 7: the answer of index {index} stands there twice");
    assert_refused(&output, 2, &[&what]);
}

#[test]
fn rows_of_rewards_beyond_all_measure_can_be_read_again() {
    let place = Place::new();
    let script = "r=1; while read -r line; do echo ${r}e200; [ $r = 1 ] && r=-1 || r=1; done";
    let reward = place.reward(script, 600.0);
    let words = compare(&reward);
    let output = place.command(&words).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let path = place.path("out/results.jsonl");
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .contains("\"sd_last\":null")
    );
    let again = place.command(&words).stdin(Stdio::null()).output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert_eq!(stdout(&again), stdout(&output));
}
