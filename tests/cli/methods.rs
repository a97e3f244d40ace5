//! Every method: the same again and again, and what it says of options that it cannot use.

use std::fs;
use std::path::{Path, PathBuf};

use aisp_llama::control::{Lesson, ValueNetwork, ValueOptions};
use serde_json::Value;
use tempfile::TempDir;

use crate::runs::{json, timeless};
use crate::{assert_refused, program, run, stderr, stdout};

/// A value network in `folder` from a few responses, and what the program said of it.
fn value_network(folder: &Path) -> (PathBuf, Value) {
    let prompts = folder.join("prompts.jsonl");
    let lines = ["a film", "a book", "a song", "the sea", "a train", "a town"];
    let lines = lines.map(|what| format!("{{\"prompt\": \"Describe {what}.\"}}\n"));
    fs::write(&prompts, lines.concat()).unwrap();
    let path = folder.join("value.safetensors");
    let output = program()
        .args(["train-value", "--json", "--responses", "4", "-n", "8"])
        .args(["--hidden", "16", "--epochs", "3"])
        .args([Path::new("--prompts"), &prompts, Path::new("-o"), &path])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    (path, serde_json::from_str(&stdout(&output)).unwrap())
}

#[test]
fn the_same_seed_gives_the_same_bytes_whatever_the_batching() {
    let folder = TempDir::new().unwrap();
    let (value, _) = value_network(folder.path());
    let value = value.to_str().unwrap();
    let methods: [&[&str]; 7] = [
        &["search"],
        &["aisp"],
        &["best-of-n"],
        &["soft-best-of-n"],
        &["misvo"],
        &["args", "--guided", "2"],
        &["re-control", "--value", value],
    ];
    for method in methods {
        let of = |parallel: &str, seed: &str| {
            let flags = [&["--parallel", parallel, "-s", seed, "--method"], method].concat();
            timeless(json(&flags))
        };
        let reference = of("4", "5");
        for parallel in ["1", "16", "16"] {
            assert_eq!(
                of(parallel, "5"),
                reference,
                "{method:?}, --parallel {parallel}"
            );
        }
        // ARGS takes the best token, which nothing random has a part in.
        if method[0] != "args" {
            assert_ne!(of("4", "6"), reference, "{method:?}");
        }
    }
}

#[test]
fn a_value_network_is_measured_on_prompts_that_it_has_not_seen() {
    let folder = TempDir::new().unwrap();
    let (path, said) = value_network(folder.path());
    // Six prompts: one chooses the epoch, one is held out.
    assert_eq!(said["responses"], serde_json::json!([16, 4, 4]));
    for error in ["last", "all", "constant"] {
        assert!(said[error].as_f64().unwrap() > 0.0, "{said}");
    }
    let network = ValueNetwork::read(&path).unwrap();
    assert_eq!(network.width(), 576);
    assert_eq!(network.layers.len(), 2);
}

#[test]
fn a_larger_step_steers_further_from_the_model() {
    let folder = TempDir::new().unwrap();
    let (path, _) = value_network(folder.path());
    let value = path.to_str().unwrap();
    let answer = |flags: &[&str]| {
        let one = ["--samples", "1", "--iterations", "1", "-n", "16"];
        let output = run(&[flags, &one].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    let greedy = answer(&["--method", "greedy"]);
    let steered =
        |step: &str| answer(&["--method", "re-control", "--value", value, "--step", step]);
    assert_eq!(steered("1e-9"), greedy);
    assert_ne!(steered("20"), greedy);
}

#[test]
fn re_control_says_what_is_wrong_with_its_network() {
    let folder = TempDir::new().unwrap();
    let refused = |path: Option<&Path>, code: i32, words: &[&str]| {
        let mut flags = vec!["--method", "re-control"];
        if let Some(path) = path {
            flags.extend(["--value", path.to_str().unwrap()]);
        }
        assert_refused(&run(&flags), code, words);
    };
    refused(None, 2, &["--value", "train-value"]);
    refused(
        Some(Path::new("none.safetensors")),
        1,
        &["none.safetensors"],
    );
    let broken = folder.path().join("broken.safetensors");
    fs::write(&broken, "GGUF, perhaps").unwrap();
    refused(Some(&broken), 2, &["broken.safetensors"]);
    let narrow = folder.path().join("narrow.safetensors");
    let lessons = [Lesson {
        pre_logits: ndarray::Array2::ones((2, 8)),
        reward: 1.0,
    }];
    let options = ValueOptions {
        hidden: vec![4],
        epochs: 1,
        batch: 1,
        learning_rate: 1e-3,
        seed: 0,
    };
    let network = ValueNetwork::new(&lessons, &options);
    network.write(&narrow).unwrap();
    refused(Some(&narrow), 2, &["narrow.safetensors", "width 8", "576"]);
}

#[test]
fn train_value_refuses_before_it_generates() {
    let folder = TempDir::new().unwrap();
    let prompts = folder.path().join("prompts.jsonl");
    fs::write(&prompts, "{\"prompt\": \"Sing.\"}\n".repeat(5)).unwrap();
    let train = |output: &Path, extra: &[&str]| {
        program()
            .args([Path::new("train-value"), Path::new("--prompts"), &prompts])
            .args([Path::new("-o"), output])
            .args(extra)
            .output()
            .unwrap()
    };
    let nowhere = folder.path().join("nowhere").join("value.safetensors");
    let output = train(&nowhere, &[]);
    assert_refused(&output, 1, &["nowhere"]);
    assert!(!stderr(&output).contains("1/5 prompts"));
    let there = folder.path().join("value.safetensors");
    for (flags, words) in [
        (["--learning-rate", "0"], "--learning-rate"),
        (["--responses", "0"], "--responses: 0"),
        (["--elites", "8"], "--elites"),
    ] {
        assert_refused(&train(&there, &flags), 2, &[words]);
    }
    assert!(!there.exists());
    fs::write(&prompts, "{\"prompt\": \"Sing.\"}\n").unwrap();
    assert_refused(&train(&there, &[]), 2, &["--prompts", "at least 5"]);
}

#[test]
fn options_of_the_methods_are_checked() {
    for (method, flag, value) in [
        ("misvo", "--step", "NaN"),
        ("misvo", "--step", "0"),
        ("misvo", "--lambda", "-1"),
        ("soft-best-of-n", "--lambda", "-1"),
        ("args", "--guided", "0"),
        ("args", "--weight", "NaN"),
        ("re-control", "--steps", "0"),
        ("search", "--steer", "-1"),
        ("search", "--fresh", "2"),
        ("search", "--price", "-1"),
        ("search", "--price-limit", "NaN"),
        ("search", "--floor", "1.5"),
        ("aisp", "--ess", "2"),
        ("aisp", "--price", "on"),
    ] {
        assert_refused(&run(&["--method", method, flag, value]), 2, &[flag, value]);
    }
    // A population has no mean.
    let null = run(&["--method", "aisp", "--null-candidate"]);
    assert_refused(&null, 2, &["--null-candidate", "--update weights"]);
}

#[test]
fn a_setting_that_the_method_does_not_have_is_refused_with_those_it_has() {
    let sampling = "--temp, --top-k, --top-p, --min-p";
    for (flags, words) in [
        (
            &["--method", "best-of-n", "--elites", "8"][..],
            &["--elites: no setting of best-of-n", sampling][..],
        ),
        (
            &["--method", "best-of-n", "--sigma", "5"],
            &["--sigma: no setting of best-of-n", sampling],
        ),
        (
            &["--method", "best-of-n", "--draw-tokens"],
            &["--draw-tokens: ", sampling],
        ),
        (
            &["--method", "greedy", "--lambda", "3"],
            &["--lambda: no setting of greedy", "none"],
        ),
        (
            &["--method", "greedy", "--guided", "99"],
            &["--guided: no setting of greedy", "none"],
        ),
        (
            &["--method", "args", "--top-k", "3"],
            &["--top-k: no setting of args", "--guided, --weight, --temp"],
        ),
        (
            &["--method", "best-of-n", "--preset", "paper"],
            &["--preset: paper: no preset of best-of-n"],
        ),
        // Those that nothing reads beside the others.
        (
            &["--temp", "0.3"],
            &["--temp: it only goes with --draw-tokens"],
        ),
        (
            &["--alpha", "0.5"],
            &["--alpha: no setting of search", "--steer"],
        ),
        (
            &["--method", "aisp", "--preset", "paper", "--steer", "1"],
            &["--steer: it only goes with --update smc"],
        ),
    ] {
        assert_refused(&run(flags), 2, words);
    }
    let folder = TempDir::new().unwrap();
    let preset = folder.path().join("preset.json");
    fs::write(&preset, r#"{"elites": 8}"#).unwrap();
    let preset = preset.to_str().unwrap();
    let words = ["--preset: ", preset, "elites: no setting of misvo"];
    assert_refused(&run(&["--method", "misvo", "--preset", preset]), 2, &words);
}

#[test]
fn a_variable_of_llama_cpp_is_heard_where_the_method_samples() {
    let answer = |method: &str, temperature: &str| {
        let output = program()
            .args(["run", "-p", "Say something.", "-n", "8", "--method", method])
            .args(["--samples", "8", "--iterations", "1"])
            .env("LLAMA_ARG_TEMPERATURE", temperature)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    assert_eq!(answer("aisp", "5"), answer("aisp", "0.1"));
    assert_ne!(answer("best-of-n", "5"), answer("best-of-n", "0.1"));
}
