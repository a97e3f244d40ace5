//! A hybrid model from its header to an aligned answer, by every method.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::tiny::recurrent::file;
use crate::{program, stderr, stdout};

/// The JSON of a command on a tiny model.
fn json(model: &Path, command: &str, flags: &[&str]) -> Value {
    let output = program()
        .args([command, "--json", "-m", model.to_str().unwrap()])
        .args(["-t", "1", "-n", "12", "--no-chat"])
        .args(["--reward", "rule:words=2..4; contains-exact=e"])
        .args(flags)
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{flags:?}: {}",
        stderr(&output)
    );
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// A value network of the model, in `folder`.
fn value_network(folder: &Path, model: &Path) -> PathBuf {
    let prompts = folder.join("prompts.jsonl");
    let lines: String = (0..6)
        .map(|i| format!("{{\"prompt\": \"Describe {i}.\"}}\n"))
        .collect();
    fs::write(&prompts, lines).unwrap();
    let path = folder.join("value.safetensors");
    let flags = ["--responses", "4", "--hidden", "8", "--epochs", "2"];
    let files = [("--prompts", &prompts), ("-o", &path)];
    let files = files
        .map(|(flag, path)| [flag, path.to_str().unwrap()])
        .concat();
    json(model, "train-value", &[&flags[..], &files].concat());
    path
}

#[test]
fn every_method_writes_the_same_whatever_the_batching() {
    for architecture in ["lfm2", "qwen35"] {
        let folder = TempDir::new().unwrap();
        let model = file(architecture).write(folder.path(), "tiny.gguf");
        let value = value_network(folder.path(), &model);
        let methods: [&[&str]; 8] = [
            &["greedy"],
            &["search"],
            &["aisp"],
            &["best-of-n"],
            &["soft-best-of-n"],
            &["misvo"],
            &["args", "--guided", "2"],
            &["re-control", "--value", value.to_str().unwrap()],
        ];
        for method in methods {
            let of = |parallel: &str| {
                let flags = [
                    "-c",
                    "128",
                    "-p",
                    "A film:",
                    "--parallel",
                    parallel,
                    "--method",
                ];
                let mut said = json(&model, "run", &[&flags[..], method].concat());
                let response = said["response"].take();
                assert!(response.is_string(), "{method:?}");
                (response, said["best"].take())
            };
            assert_eq!(of("8"), of("20"), "{architecture} {method:?}");
        }
        let inspected = program()
            .args(["inspect", "--json", model.to_str().unwrap()])
            .output()
            .unwrap();
        let inspected: Value = serde_json::from_str(&stdout(&inspected)).unwrap();
        assert_eq!(inspected["generator"]["usable"], true, "{inspected}");
        let state = inspected["sequence_state_bytes"].as_u64().unwrap();
        let plan = json(&model, "run", &["-p", "A film:", "--plan"]);
        let sequences = plan["sequences"].as_u64().unwrap();
        assert!(state > 0 && sequences > 16);
        assert_eq!(plan["states"].as_u64().unwrap(), state * sequences);
    }
}
