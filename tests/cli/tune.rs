//! `tune`: a preset, and the comparisons behind it.

use std::fs;
use std::path::Path;

use aisp_llama::method::{self, MethodSpec};

use crate::compare::{folder, lines};
use crate::{assert_refused, program, run, stderr, stdout};

#[test]
fn tune_writes_a_preset_that_run_reads_and_computes_no_row_twice() {
    let folder = folder();
    let flags = [
        "tune",
        "--reward",
        "rule:words=5..6;lowercase",
        "--budget",
        "16",
        "--samples",
        "8",
        "-n",
        "6",
    ];
    let path = |name: &str| folder.path().join(name);
    fs::write(path("one.jsonl"), "{\"prompt\": \"Praise a book.\"}\n").unwrap();
    let one = program()
        .args(flags)
        .args([Path::new("--prompts"), &path("one.jsonl")])
        .args([Path::new("-o"), &path("out")])
        .output()
        .unwrap();
    assert_refused(&one, 2, &["one.jsonl", "at least 2"]);
    let tune = || {
        program()
            .args(flags)
            .args([Path::new("--prompts"), &path("prompts.jsonl")])
            .args([Path::new("-o"), &path("out")])
            .output()
            .unwrap()
    };
    let output = tune();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = stdout(&output);
    for words in ["## 1-noise", "## 2-mean", "## 3-elites", "preset.json"] {
        assert!(report.contains(words), "{report}");
    }
    let stages = ["1-noise", "2-mean", "3-elites"];
    let results = |stage: &str| path("out").join(stage).join("results.jsonl");
    let read = || stages.map(|stage| fs::read(results(stage)).unwrap());
    let rows = read();
    let preset = fs::read_to_string(path("out/preset.json")).unwrap();
    let again = tune();
    assert_eq!(stdout(&again), report);
    assert!(read() == rows, "rows were computed again");
    assert_eq!(fs::read_to_string(path("out/preset.json")).unwrap(), preset);

    // As if the last trial of the last stage had been better: it has to be so on other seeds.
    let last = lines(&results("3-elites")).pop().unwrap();
    let trial: MethodSpec = last["method"].as_str().unwrap().parse().unwrap();
    // What this computer may have found before that is another check.
    let _ = fs::remove_dir_all(path("out/4-check"));
    raise(&results("3-elites"), &trial, 10.0);
    assert!(stdout(&tune()).contains("## 4-check"));
    let rows = lines(&results("4-check"));
    let seeds: Vec<u64> = rows.iter().map(|r| r["seed"].as_u64().unwrap()).collect();
    let expected = [1, 1, 2, 2, 3, 3, 4, 4];
    assert_eq!(seeds, expected.repeat(3));
    for pair in rows.chunks(2) {
        assert_eq!(pair[0]["method"], "search");
        assert_eq!(pair[1]["method"], trial.label());
    }
    let preset = path("out/preset.json");
    let preset = preset.to_str().unwrap();
    for (gain, words) in [(-10.0, "that is not better for sure"), (20.0, "it is kept")] {
        raise(&results("4-check"), &trial, gain);
        let report = stdout(&tune());
        assert!(report.contains(words), "{report}");
        let read = method::preset(trial.entry(), preset).unwrap();
        assert_eq!(read == *trial.given(), gain > 0.0, "{report}");
        assert_eq!(read.is_empty(), gain < 0.0, "{report}");
    }
    let short = ["--preset", preset, "--samples", "8"];
    let output = run(&[&short[..], &["--iterations", "1", "-n", "4"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// Makes the rows of a method better by `gain`, and as diverse as they can be.
fn raise(results: &Path, method: &MethodSpec, gain: f64) {
    let mut text = String::new();
    for mut row in lines(results) {
        if row["method"] == method.label() {
            row["reward"] = (row["reward"].as_f64().unwrap() + gain).into();
            row["diversity"] = 1.0.into();
        }
        text += &format!("{row}\n");
    }
    fs::write(results, text).unwrap();
}
