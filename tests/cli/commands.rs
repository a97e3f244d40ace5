//! `score`, `inspect`, `completions`, `--version`.

use serde_json::Value;

use crate::common::{GEMMA3, REWARD, SMOLLM2, path};
use crate::{assert_refused, program, stderr, stdout};

const WARM: &str = r#"{"prompt": "p", "response": "A wonderful, warm film that moved me."}"#;
const PAN: &str = r#"{"response": "A dull and lifeless waste of time."}"#;

#[test]
fn scores_tell_a_warm_review_from_a_pan() {
    let output = program()
        .arg("score")
        .write_stdin(format!("{WARM}\n\n{PAN}\n"))
        .output()
        .unwrap();
    let text = stdout(&output);
    let scores: Vec<f64> = text.lines().map(|l| l.parse().unwrap()).collect();
    assert!(scores[0] > 1.0 && scores[1] < -1.0, "{text}");
    assert_eq!(scores.len(), 2);
    let output = program()
        .args(["score", "--json"])
        .write_stdin(format!("{PAN}\n{WARM}\n"))
        .output()
        .unwrap();
    let lines: Vec<Value> = stdout(&output)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    // A text's score is its own: order and neighbours change nothing.
    assert_eq!(
        lines[0]["reward"].as_f64().unwrap() as f32,
        scores[1] as f32
    );
    assert_eq!(
        lines[1]["reward"].as_f64().unwrap() as f32,
        scores[0] as f32
    );
    assert_eq!(lines[1]["prompt"], "p");
    assert!(lines[0]["tokens"].as_u64().unwrap() > 5);
}

#[test]
fn special_tokens_in_a_response_are_text() {
    let line = |text: &str| format!("{{\"response\": \"{text}\"}}\n");
    let input = line("Fine [SEP] film") + &line("Fine film");
    let output = program()
        .args(["score", "--json"])
        .write_stdin(input)
        .output()
        .unwrap();
    let tokens: Vec<u64> = stdout(&output)
        .lines()
        .map(|l| {
            serde_json::from_str::<Value>(l).unwrap()["tokens"]
                .as_u64()
                .unwrap()
        })
        .collect();
    // "[", "sep" and "]" are three tokens or more; the special token would be one.
    assert!(tokens[0] >= tokens[1] + 3, "{tokens:?}");
}

#[test]
fn too_long_texts_are_refused_or_cut_as_asked_and_said() {
    let line = format!("{{\"response\": \"{}\"}}\n", "wonderful film ".repeat(400));
    let output = program()
        .arg("score")
        .write_stdin(format!("{line}{WARM}\n"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).starts_with("nan\n"));
    assert!(stderr(&output).contains("line 1") && stderr(&output).contains("512"));
    let output = program()
        .args(["score", "--json", "--reward-too-long", "truncate"])
        .write_stdin(line.clone())
        .output()
        .unwrap();
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(value["truncated"], true);
    assert_eq!(value["tokens"], 512);
    assert!(stderr(&output).contains("too long"));
    // Nothing scored at all is a failure of the reward.
    let output = program().arg("score").write_stdin(line).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn a_line_that_is_no_pair_is_named() {
    for bad in ["not json", "{}", r#"{"response": 3}"#, r#"{"prompt": "b"}"#] {
        let output = program()
            .arg("score")
            .write_stdin(format!("{bad}\n"))
            .output()
            .unwrap();
        assert_refused(&output, 2, &["line 1", "response"]);
    }
}

fn inspect(name: &str) -> Value {
    let file = path(name);
    let output = program()
        .args(["inspect", "--json", file.to_str().unwrap()])
        .output()
        .unwrap();
    serde_json::from_str(&stdout(&output)).unwrap()
}

#[test]
fn inspect_tells_what_a_file_is_for() {
    let smollm2 = inspect(SMOLLM2);
    assert_eq!(smollm2["architecture"], "llama");
    assert_eq!(
        (&smollm2["width"], &smollm2["vocabulary"]),
        (&576.into(), &49152.into())
    );
    assert_eq!(
        (&smollm2["tied_head"], &smollm2["chat_template"]),
        (&true.into(), &true.into())
    );
    assert_eq!(smollm2["quantisation"], "Q4_1");
    assert_eq!(smollm2["generator"]["usable"], true);
    assert_eq!(smollm2["reward"]["usable"], false);
    if cfg!(target_arch = "x86_64") {
        assert!(smollm2["hint"].as_str().unwrap().contains("Q4_0"));
    }
    let gemma3 = inspect(GEMMA3);
    assert_eq!(
        (&gemma3["width"], &gemma3["chat_template"]),
        (&640.into(), &false.into())
    );
    assert!(
        gemma3["generator"]["reason"]
            .as_str()
            .unwrap()
            .contains("--no-chat")
    );
    let reward = inspect(REWARD);
    assert_eq!(reward["generator"]["usable"], false);
    assert_eq!(reward["reward"]["usable"], true);
    assert_eq!(reward["reward_text"], "{response}");
    assert_eq!(reward["reward_text_stated"], true);
    assert!(
        reward["reward_description"]
            .as_str()
            .unwrap()
            .contains("sentiment")
    );
}

#[test]
fn version_tells_crate_engine_and_cpu() {
    let output = program().arg("--version").output().unwrap();
    let text = stdout(&output);
    assert!(
        text.starts_with(&format!("aisp-llama {}", env!("CARGO_PKG_VERSION"))),
        "{text}"
    );
    assert!(text.contains("llama.cpp") && text.contains("CPU"), "{text}");
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = program().args(["completions", shell]).output().unwrap();
        assert!(stdout(&output).contains("model-reward"), "{shell}");
    }
}

/// What the OpenMP runtime was told: its own display of its settings, that of the process which
/// did the work.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn threads_soon_sleep_unless_the_environment_says_otherwise() {
    let shown = |given: &[(&str, &str)]| {
        let mut program = program();
        program
            .env_remove("OMP_WAIT_POLICY")
            .env_remove("GOMP_SPINCOUNT");
        let output = program
            .envs(given.iter().copied())
            .env("OMP_DISPLAY_ENV", "verbose")
            .arg("--version")
            .output()
            .unwrap();
        let all = stderr(&output).to_uppercase();
        let of = |name: &str| {
            all.lines()
                .rfind(|line| line.contains(name))
                .map(str::to_owned)
        };
        ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"].map(|name| of(name).unwrap_or_else(|| all.clone()))
    };
    let [policy, spins] = shown(&[]);
    assert!(
        policy.contains("PASSIVE") && spins.contains("'500'"),
        "{policy} {spins}"
    );
    // Who says one of them is not told the other.
    let [policy, spins] = shown(&[("OMP_WAIT_POLICY", "active")]);
    assert!(
        policy.contains("ACTIVE") && !spins.contains("'500'"),
        "{policy} {spins}"
    );
    let [policy, spins] = shown(&[("GOMP_SPINCOUNT", "17")]);
    assert!(spins.contains("'17'"), "{policy} {spins}");
}
