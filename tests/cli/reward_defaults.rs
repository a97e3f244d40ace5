//! Which reward a run has when none is given, what it says of it, and flags that reach none.

use tempfile::TempDir;

use crate::common::{GEMMA3, SMOLLM2, path};
use crate::{assert_refused, program, run, stderr};

const SHORT: [&str; 8] = ["--samples", "2", "--iterations", "1", "-n", "4", "-t", "1"];

fn short(extra: &[&str]) -> std::process::Output {
    run(&[&SHORT[..], extra].concat())
}

#[test]
fn the_default_reward_goes_with_the_default_model_alone() {
    let other = path(GEMMA3);
    let output = short(&["-m", other.to_str().unwrap(), "--no-chat"]);
    let ways = ["-mr FILE.gguf", "--reward judge:self", "--reward rule:"];
    assert_refused(&output, 2, &ways);
    let folder = TempDir::new().unwrap();
    let prompts = folder.path().join("prompts.jsonl");
    std::fs::write(
        &prompts,
        "{\"prompt\": \"Sing.\"}\n{\"prompt\": \"Dance.\"}\n",
    )
    .unwrap();
    for command in ["run", "compare", "tune"] {
        let output = program()
            .args([
                command,
                "-m",
                other.to_str().unwrap(),
                "--no-chat",
                "--prompts",
            ])
            .args([
                prompts.as_path(),
                "-o".as_ref(),
                &folder.path().join(command),
            ])
            .output()
            .unwrap();
        assert_refused(&output, 2, &ways);
    }
    // By whatever path it is given.
    let own = path(SMOLLM2);
    let link = folder.path().join("mine.gguf");
    std::os::unix::fs::symlink(own, &link).unwrap();
    let output = short(&["-m", link.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_run_begins_with_a_line_on_what_it_does() {
    let first = |extra: &[&str]| {
        let error = stderr(&short(extra));
        error.lines().next().unwrap_or_default().to_owned()
    };
    let line = first(&[]);
    for words in [
        SMOLLM2,
        "reward film-review-reward.gguf, sees {response}",
        "search, 2 samples × 1 of at most 4 tokens",
    ] {
        assert!(line.contains(words), "{words}: {line}");
    }
    let rules = ["--reward", "rule:words=3", "--reward", "command:cat"];
    let line = first(&[&rules[..], &["--method", "best-of-n", "--time-limit", "60"]].concat());
    for words in [
        "rule:words=3 + cat, sees {response} + prompt and response",
        "best-of-n, ",
        "and 60 s",
    ] {
        assert!(line.contains(words), "{words}: {line}");
    }
}

#[test]
fn flags_of_reward_models_that_reach_none_are_refused() {
    for (flag, value) in [
        ("--reward-text", "{response}"),
        ("--reward-too-long", "truncate"),
    ] {
        let output = short(&["--reward", "rule:words=3", flag, value]);
        assert_refused(&output, 2, &[flag, "-mr", "KIND:FILE;"]);
        assert_eq!(stderr(&output).matches(flag).count(), 1);
        let reached = short(&[flag, value]);
        assert_eq!(reached.status.code(), Some(0), "{}", stderr(&reached));
    }
}

#[test]
fn a_head_that_could_not_be_written_is_not_trained() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data.jsonl");
    std::fs::write(&data, "{\"response\": \"a\", \"score\": 1}\n").unwrap();
    let output = program()
        .args(["reward", "train", "-m", "missing.gguf", "--data"])
        .args([
            data.as_path(),
            "-o".as_ref(),
            &folder.path().join("no/head.safetensors"),
        ])
        .output()
        .unwrap();
    // Said before the model is even looked for.
    assert_refused(&output, 1, &["no/head.safetensors"]);
    assert!(!stderr(&output).contains("missing.gguf"));
}
