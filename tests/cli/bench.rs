//! `bench`: what a model costs, as numbers.

use serde_json::Value;

use crate::{assert_refused, program, stderr, stdout};

const SMALL: [&str; 12] = [
    "bench",
    "--reward",
    "rule:words=3",
    "--samples",
    "4",
    "--iterations",
    "2",
    "-n",
    "4",
    "-r",
    "3",
    "--methods",
];

#[test]
fn every_part_and_every_method_is_measured_beside_plain_decoding() {
    let output = program()
        .args(SMALL)
        .args(["best-of-n,search:steer=1", "-o", "jsonl"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let lines: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let of = |test: &str| {
        let line = lines.iter().find(|line| line["test"] == test);
        line.unwrap_or_else(|| panic!("no {test} in {text}"))
    };
    assert_eq!(of("plain")["ratio_to_plain"], 1.0);
    for test in ["hook", "hook, perturbed", "best-of-n", "search:steer=1"] {
        let line = of(test);
        assert_eq!(line["unit"], "tokens/s");
        assert_eq!(line["repetitions"], 3);
        assert!(line["ratio_to_plain"].as_f64().unwrap() > 0.0);
        let [low, median, high] = ["low", "median", "high"].map(|n| line[n].as_f64().unwrap());
        assert!(0.0 < low && low <= median && median <= high, "{line}");
    }
    let noise = of("noise of a position");
    assert!(noise["ratio_to_plain"].is_null());
    assert!(of("search:steer=1: reward")["median"].as_f64().unwrap() < 100.0);
}

#[test]
fn tables_are_for_people_or_for_programs() {
    for (form, begins) in [("md", "| model |"), ("csv", "model,threads,")] {
        let output = program()
            .args(SMALL)
            .args(["greedy", "-o", form])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = stdout(&output);
        assert!(text.starts_with(begins), "{text}");
        let columns = |line: &str| line.matches(if form == "md" { '|' } else { ',' }).count();
        let (head, plain) = (text.lines().next().unwrap(), text.lines().nth(2).unwrap());
        assert!(columns(plain) >= columns(head), "{text}");
    }
    let output = program()
        .args(SMALL)
        .args(["greedy", "-r", "0"])
        .output()
        .unwrap();
    assert_refused(&output, 2, &["-r", "at least 1"]);
}
