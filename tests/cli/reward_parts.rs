//! Mixes: what each part says, which one decides, and parts divided by their deviations.

use serde_json::Value;
use tempfile::TempDir;

use crate::{assert_refused, run, stderr, stdout};

/// A reward of great differences beside a rule, on answers of a few words.
const MIX: [&str; 4] = [
    "--reward",
    "rule:words=3..9; contains=film",
    "--reward",
    "100*rule:sentences=2; ends-with=a",
];
const SHORT: [&str; 6] = ["--samples", "8", "--iterations", "2", "-n", "12"];

fn json(extra: &[&str]) -> (Value, String) {
    let flags = [
        &SHORT[..],
        &MIX[..],
        &["--json", "--candidates", "16"],
        extra,
    ]
    .concat();
    let output = run(&flags);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    (
        serde_json::from_str(&stdout(&output)).unwrap(),
        stderr(&output),
    )
}

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap().iter();
    values.map(|v| v.as_f64().unwrap()).collect()
}

fn deviation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

#[test]
fn parts_are_in_the_json_and_in_the_trace_and_the_decisive_one_is_named() {
    let folder = TempDir::new().unwrap();
    let trace = folder.path().join("trace.jsonl");
    let (value, told) = json(&["--trace", trace.to_str().unwrap()]);
    let parts = value["reward_parts"].as_array().unwrap();
    assert_eq!(parts[1]["weight"], 100.0);
    assert_eq!(
        (&parts[0]["scale"], &parts[1]["scale"]),
        (&1.0.into(), &1.0.into())
    );
    for candidate in value["candidates"].as_array().unwrap() {
        let own = numbers(&candidate["parts"]);
        let reward = candidate["reward"].as_f64().unwrap();
        assert!(
            (own[0] + 100.0 * own[1] - reward).abs() < 1e-9,
            "{candidate}"
        );
    }
    assert_eq!(value["parts"], value["candidates"][0]["parts"]);
    assert!(told.contains("decides everything"), "{told}");
    assert!(told.contains("--reward-scale"), "{told}");
    let trace = std::fs::read_to_string(trace).unwrap();
    let events: Vec<Value> = trace
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let told = events
        .iter()
        .find(|e| e["event"] == "reward_parts")
        .unwrap();
    assert_eq!(told["decisive"], 1);
    let scored = events
        .iter()
        .find(|e| e["event"] == "candidate_scored")
        .unwrap();
    assert_eq!(numbers(&scored["parts"]).len(), 2);
}

#[test]
fn parts_are_divided_by_their_deviations_over_the_first_iteration() {
    let (value, told) = json(&["--reward-scale"]);
    assert!(told.contains("rewards are divided: rule:words"), "{told}");
    assert!(!told.contains("decides everything"), "{told}");
    let candidates = value["candidates"].as_array().unwrap();
    let first = candidates
        .iter()
        .filter(|c| c["iteration"] == 0 && c["repeat"].is_null());
    let first: Vec<Vec<f64>> = first.map(|c| numbers(&c["parts"])).collect();
    let parts = value["reward_parts"].as_array().unwrap();
    let scales: Vec<f64> = (0..2)
        .map(|part| deviation(&first.iter().map(|own| own[part]).collect::<Vec<_>>()))
        .collect();
    for (part, scale) in parts.iter().zip(&scales) {
        assert!(
            (part["scale"].as_f64().unwrap() - scale).abs() < 1e-9,
            "{part} {scale}"
        );
    }
    // Those of the second iteration, too.
    for candidate in candidates {
        let own = numbers(&candidate["parts"]);
        let sum = own[0] / scales[0] + 100.0 * own[1] / scales[1];
        let reward = candidate["reward"].as_f64().unwrap();
        assert!((sum - reward).abs() < 1e-9, "{candidate}");
    }
}

#[test]
fn there_is_nothing_to_divide_in_one_reward_or_by_one_candidate() {
    let one = run(&["--reward", "rule:json", "--reward-scale"]);
    assert_refused(&one, 2, &["--reward-scale", "one reward"]);
    let alone = run(&[&MIX[..], &["--reward-scale", "--method", "greedy"]].concat());
    assert_refused(&alone, 2, &["--reward-scale", "--samples"]);
    let several = run(&[&MIX[..], &["--reward-scale", "--reasonings", "2"]].concat());
    assert_refused(&several, 2, &["--reward-scale", "--reasonings"]);
}
