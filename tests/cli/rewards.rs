//! Rewards by their flags: kinds, mixes, failing programs, a second judge, training.

use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{SMOLLM2, path};
use crate::{assert_refused, program, run, stderr, stdout};

const SHORT: [&str; 6] = ["--samples", "8", "--iterations", "2", "-n", "12"];

fn short(extra: &[&str]) -> std::process::Output {
    run(&[&SHORT[..], extra].concat())
}

fn score(extra: &[&str], input: &str) -> std::process::Output {
    let mut command = program();
    command
        .arg("score")
        .args(extra)
        .write_stdin(input.to_owned());
    command.output().unwrap()
}

#[test]
fn rewards_add_up_with_their_weights() {
    let input = "{\"response\": \"one two three\"}\n";
    let flags = [
        "--reward",
        "2*rule:words=3",
        "--reward",
        "-0.5*rule:lowercase",
    ];
    let output = score(&flags, input);
    assert_eq!(stdout(&output), "1.5\n", "{}", stderr(&output));
}

#[test]
fn a_likelihood_adds_to_a_rule_and_needs_a_file_where_nothing_is_generated() {
    let input = "{\"prompt\": \"Hi.\", \"response\": \"one two three\"}\n";
    let by_model = format!("likelihood:{}", path(SMOLLM2).display());
    let scored = |flags: &[&str]| -> f64 {
        let output = score(flags, input);
        let text = stdout(&output);
        assert!(!text.is_empty(), "{}", stderr(&output));
        text.trim().parse().unwrap()
    };
    let alone = scored(&["--reward", &by_model]);
    assert!(alone < 0.0, "{alone}");
    let mix = format!("0.1*{by_model}");
    let both = scored(&["--reward", "rule:words=3", "--reward", &mix]);
    assert!((both - 1.0 - 0.1 * alone).abs() < 1e-9, "{both} {alone}");
    let output = score(&["--reward", "likelihood:self"], input);
    assert_refused(&output, 2, &["--reward", "likelihood:FILE.gguf"]);
}

#[test]
fn descriptions_that_are_wrong_are_refused_before_any_model_is_loaded() {
    for (reward, words) in [
        ("nonsense", ["KIND:", "classifier, head"]),
        ("magic:x", ["magic", "kinds are"]),
        ("rule:words=5..2", ["words=5..2", "A..B"]),
        ("judge:x.gguf;yes=Yes", ["yes=", "no="]),
        ("judge:x.gguf;scale=1..99", ["scale=1..99", "<= 10"]),
        ("likelihood:x.gguf;chat=1", ["chat=1", "on nor off"]),
        ("head:x.gguf;colour=red", ["colour", "pooling"]),
        ("command:true;timeout=soon", ["timeout=soon", "seconds"]),
        ("0*rule:json", ["0*rule", "weight"]),
    ] {
        let output = short(&["--reward", reward]);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{reward}: {error}");
        for word in words {
            assert!(error.contains(word), "{reward}: {error}");
        }
    }
}

#[test]
fn programs_that_cannot_score_end_the_run_with_exit_4() {
    for (command, words) in [
        ("no-such-program-here", "no-such-program-here"),
        ("exit 3", "3"),
        ("sleep 1000", "timed out"),
        ("yes garbage", "garbage"),
        ("read line; exit 0", "error: reward: "),
    ] {
        let begun = Instant::now();
        let reward = format!("command:\"{command}\";timeout=0.4");
        let output = short(&["--reward", &reward]);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{command}: {error}");
        assert!(error.contains(words), "{command}: {error}");
        assert!(begun.elapsed().as_secs() < 60, "{command}");
    }
}

#[cfg(unix)]
#[test]
fn a_second_interrupt_leaves_no_program_behind() {
    use std::io::{BufRead, BufReader};
    let folder = TempDir::new().unwrap();
    let id = folder.path().join("id");
    // It never answers, and does not mind that nobody asks any more.
    let reward = format!("command:\"echo $$ > {}; sleep 1000\"", id.display());
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("aisp-llama"))
        .args(["run", "-p", "Hi.", "--reward", &reward, "--trace"])
        .arg(folder.path().join("trace"))
        .args(SHORT)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let program = loop {
        let text = std::fs::read_to_string(&id).unwrap_or_default();
        if let Ok(program) = text.trim().parse::<u32>() {
            break program;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let interrupt = || {
        let kill = std::process::Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
    };
    interrupt();
    std::thread::sleep(std::time::Duration::from_millis(500));
    interrupt();
    let errors = BufReader::new(child.stderr.take().unwrap());
    let _ = errors.lines().count();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let gone = || {
        // A killed process may wait to be reaped by the system's first process.
        let status = std::fs::read_to_string(format!("/proc/{program}/status"));
        status.is_err() || status.unwrap().contains("State:\tZ")
    };
    let begun = Instant::now();
    while !gone() && begun.elapsed().as_secs() < 10 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(gone(), "process {program} was left behind");
}

#[test]
fn a_program_can_be_the_reward() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/reward_command.py");
    let reward = format!("command:python3 {script}");
    let output = short(&["--reward", &reward, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(value["usage"]["unscored"], 0);
}

#[test]
fn a_held_out_reward_is_in_the_json_and_in_the_plot() {
    let folder = TempDir::new().unwrap();
    let plot = folder.path().join("plot.svg");
    let flags = [
        "--reward",
        "rule:words=6",
        "--held-out",
        "judge:self",
        "--json",
    ];
    let output = short(&[&flags[..], &["--plot", plot.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("held out"));
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(value["held_out"].is_number());
    assert!(value["held_out_model"].as_str().unwrap().contains("judge"));
    for iteration in value["iterations"].as_array().unwrap() {
        assert!(iteration["held_out_mean"].is_number());
        assert!(iteration["held_out_best"].is_number());
    }
    let svg = std::fs::read_to_string(plot).unwrap();
    assert!(svg.contains("held-out reward") && svg.contains("of the best so far"));
    let alone = short(&["--stop-on-divergence"]);
    assert_eq!(alone.status.code(), Some(2));
    assert!(stderr(&alone).contains("--held-out"));
}

#[test]
fn a_probe_says_what_the_film_reward_can_tell_apart() {
    let output = program()
        .args(["reward", "probe", "--json"])
        .output()
        .unwrap();
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let verdict = |name: &str| {
        let aspects = value["aspects"].as_array().unwrap();
        let found = aspects.iter().find(|a| a["aspect"] == name).unwrap();
        found["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(verdict("film sentiment"), "told_apart", "{value}");
    assert_ne!(verdict("true"), "told_apart", "{value}");
    let text = program().args(["reward", "probe"]).output().unwrap();
    assert!(
        stdout(&text).contains("no better than chance"),
        "{}",
        stdout(&text)
    );
}

/// Ratings of 120 short texts in 30 groups, by a rule of the text or by chance.
fn ratings(folder: &TempDir, by_rule: bool) -> String {
    let words = [["fine", "warm"], ["dull", "cold"]];
    let mut lines = String::new();
    for i in 0..120_usize {
        let good = i * 7 % 5 % 2;
        let word = words[good][i % 2];
        // A hash that knows nothing of the text.
        let score = if by_rule {
            1 - good
        } else {
            i.wrapping_mul(2_654_435_769) >> 7 & 1
        };
        let text = format!("Film {i} is {word}, they said of number {}.", i * 31 % 97);
        let group = i / 4;
        lines +=
            &format!("{{\"response\": \"{text}\", \"score\": {score}, \"group\": \"g{group}\"}}\n");
    }
    let file = folder.path().join(format!("ratings-{by_rule}.jsonl"));
    std::fs::write(&file, lines).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_head_is_trained_measured_honestly_and_used() {
    let folder = TempDir::new().unwrap();
    let head = folder.path().join("head.safetensors");
    let model = path(SMOLLM2);
    let train = |data: &str| {
        program()
            .args([
                "reward",
                "train",
                "-m",
                model.to_str().unwrap(),
                "--data",
                data,
            ])
            .args(["-o", head.to_str().unwrap(), "--reward-text", "{response}"])
            .output()
            .unwrap()
    };
    let noise = train(&ratings(&folder, false));
    let report = stdout(&noise);
    assert!(
        report.contains("not shown to be better than chance"),
        "{report}"
    );
    let signal = train(&ratings(&folder, true));
    let report = stdout(&signal);
    assert_eq!(signal.status.code(), Some(0), "{}", stderr(&signal));
    for words in [
        "Accuracy",
        "majority",
        "length",
        "Verdict",
        "better than chance, and",
    ] {
        assert!(report.contains(words), "{words}: {report}");
    }
    let reward = format!("head:{};head={}", model.display(), head.display());
    let pairs = "{\"response\": \"Film 500 is warm, they said of number 5.\"}\n\
                 {\"response\": \"Film 500 is cold, they said of number 5.\"}\n";
    let output = score(&["--reward", &reward], pairs);
    let scores: Vec<f64> = stdout(&output)
        .lines()
        .map(|l| l.parse().unwrap())
        .collect();
    assert!(scores[0] > scores[1], "{scores:?}");
    let broken = folder.path().join("broken.jsonl");
    std::fs::write(
        &broken,
        "{\"response\": \"a\", \"score\": 1}\n{\"response\": 3}\n",
    )
    .unwrap();
    let output = train(broken.to_str().unwrap());
    assert_refused(&output, 2, &["--data", "broken.jsonl", "line 2"]);
}
