//! Published reward models by the commands: what `inspect` says, what `score --show` shows, how
//! `reward import` is told what to do.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::{assert_refused, program, stderr, stdout};

fn fixture(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("tests/fixtures/rewards").join(name);
    path.to_str().unwrap().to_owned()
}

fn command(arguments: &[&str], input: &str) -> Output {
    let mut command = program();
    command.args(arguments).write_stdin(input.to_owned());
    command.output().unwrap()
}

fn inspect(file: &str) -> Value {
    let output = command(&["inspect", "--json", file], "");
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// A copy of a fixture in a folder of its own.
fn copy(folder: &TempDir, name: &str) -> PathBuf {
    let path = folder.path().join("model.gguf");
    std::fs::copy(fixture(name), &path).unwrap();
    path
}

#[test]
fn inspect_names_the_text_that_the_reward_reads() {
    for (file, text, from) in [
        ("xlm-roberta.gguf", "{prompt}</s></s>{response}", "pair"),
        ("bert.gguf", "{prompt}[SEP]{response}", "pair"),
    ] {
        let report = inspect(&fixture(file));
        assert_eq!(report["reward"]["usable"], true);
        assert_eq!(report["reward_text"], text);
        assert_eq!(report["reward_text_from"], from);
        assert_eq!(report["reward_text_stated"], false);
    }
    let reranker = inspect(&fixture("qwen3-reranker.gguf"));
    assert_eq!(reranker["reward"]["usable"], true);
    assert_eq!(reranker["reward_text_from"], "rerank");
    let inside = inspect(&fixture("internlm2-reward.gguf"));
    for what in ["generator", "reward"] {
        assert_eq!(inside[what]["usable"], false);
        let reason = inside[what]["reason"].as_str().unwrap();
        assert!(
            reason.contains("v_head.weight") && reason.contains("reward import"),
            "{reason}"
        );
    }
}

#[test]
fn inspect_says_what_a_cross_encoder_lost_until_its_head_is_there() {
    let folder = TempDir::new().unwrap();
    let model = copy(&folder, "bert.gguf");
    let model = model.to_str().unwrap();
    let warning = |file: &str| inspect(file)["reward_warning"].as_str().map(str::to_owned);
    assert!(warning(model).unwrap().contains("pooler"));
    assert_eq!(warning(&fixture("xlm-roberta.gguf")), None);
    let head = folder.path().join("model.head.safetensors");
    let head = head.to_str().unwrap();
    let output = command(&["reward", "import", &fixture("bert"), "-o", head], "");
    assert!(output.status.success(), "{}", stderr(&output));
    let report = inspect(model);
    assert_eq!(report["reward_warning"], Value::Null);
    assert!(report["reward"]["reason"].as_str().unwrap().contains(head));
}

#[test]
fn score_shows_text_and_tokens_as_the_model_reads_them() {
    let expected = std::fs::read_to_string(fixture("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let case = &expected["xlm-roberta"][0];
    let input = serde_json::json!({"prompt": case["prompt"], "response": case["response"]});
    let input = input.to_string() + "\n";
    let file = fixture("xlm-roberta.gguf");
    let output = command(&["score", "-mr", &file, "--show", "--json"], &input);
    let line: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(line["reads"][0]["tokens"], case["tokens"]);
    let text = line["reads"][0]["text"].as_str().unwrap();
    assert!(
        text.starts_with("<s>") && text.contains("</s></s>"),
        "{text}"
    );
    let plain = stdout(&command(&["score", "-mr", &file, "--show"], &input));
    let lines: Vec<&str> = plain.lines().collect();
    assert!(
        lines[0].starts_with("text   <s>") && lines[1].starts_with("tokens 0 "),
        "{plain}"
    );
    assert!((lines[2].parse::<f64>().unwrap() - case["score"].as_f64().unwrap()).abs() < 1e-3);
    // A rule reads the response itself.
    let rule = command(&["score", "--reward", "rule:words=1..9", "--show"], &input);
    assert_eq!(stdout(&rule).lines().count(), 1, "{}", stderr(&rule));
}

#[test]
fn import_takes_folders_indices_files_and_models_apart() {
    let folder = TempDir::new().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let import = |source: &str, output: &str| {
        let (source, output) = (fixture(source), place(output));
        command(&["reward", "import", &source, "-o", &output], "")
    };
    let model = copy(&folder, "skywork.gguf");
    let score = || {
        let input = "{\"prompt\": \"name a colour\", \"response\": \"blue, i think\"}\n";
        let output = command(&["score", "-mr", model.to_str().unwrap()], input);
        stdout(&output).trim().parse::<f64>().unwrap()
    };
    let expected = std::fs::read_to_string(fixture("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let expected = expected["skywork"][2]["score"].as_f64().unwrap();
    for source in ["skywork", "skywork/model.safetensors.index.json"] {
        let output = import(source, "model.head.safetensors");
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stderr(&output).contains("score.weight of 32 weights, on last, of chat"));
        assert!((score() - expected).abs() < 1e-3);
        std::fs::remove_file(place("model.head.safetensors")).unwrap();
    }
    let output = import("internlm2-reward/model.safetensors", "head.safetensors");
    assert!(
        stderr(&output).contains("behind <|reward|>"),
        "{}",
        stderr(&output)
    );
    let output = import("internlm2-reward.gguf", "apart.gguf");
    assert!(
        stderr(&output).contains("apart.head.safetensors"),
        "{}",
        stderr(&output)
    );
    assert_eq!(inspect(&place("apart.gguf"))["reward"]["usable"], true);
    for (source, output, code, words) in [
        ("skywork", "x.gguf", 2, &["-o", ".safetensors"][..]),
        (
            "internlm2-reward.gguf",
            "x.safetensors",
            2,
            &["-o", ".gguf"],
        ),
        ("bert.gguf", "x.gguf", 3, &["bert.gguf", "as it is"]),
        ("absent", "x.safetensors", 2, &["absent", "hf:OWNER/NAME"]),
    ] {
        assert_refused(&import(source, output), code, words);
        assert!(!Path::new(&place(output)).exists());
    }
}
