//! What rewards see of a conversation, and the lines that `score` takes.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{SMOLLM2, path};
use crate::{assert_refused, program, run, stderr, stdout};

fn score(extra: &[&str], lines: &[Value]) -> std::process::Output {
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut command = program();
    command.arg("score").args(extra).write_stdin(input);
    command.output().unwrap()
}

fn scored(output: &std::process::Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    let lines = stdout(output);
    lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

/// A program that keeps what it is told in the file `log`, and likes everything.
fn listener(log: &std::path::Path) -> String {
    format!(
        "command:\"while read line; do echo $line >> {}; echo 1; done\"",
        log.display()
    )
}

#[test]
fn a_reward_sees_the_whole_conversation_and_the_system_prompt() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let told = || -> Value {
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        serde_json::from_str(text.lines().next().unwrap()).unwrap()
    };
    let reward = listener(&log);
    let flags = [
        "--reward", &reward, "--method", "greedy", "-n", "4", "-t", "1",
    ];
    let output = run(&[&flags[..], &["-sys", "Be brief."]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let line = told();
    assert_eq!(line["messages"][0]["content"], "Be brief.");
    assert_eq!(line["messages"][1]["content"], line["prompt"]);
    let messages = folder.path().join("messages.json");
    let turns = json!([
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Sing."}
    ]);
    std::fs::write(&messages, turns.to_string()).unwrap();
    let output = program()
        .args(["run", "--messages", messages.to_str().unwrap()])
        .args(flags)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let line = told();
    assert_eq!(
        (&line["messages"], &line["prompt"]),
        (&turns, &"Sing.".into())
    );
    // Where the prompt is all there is, it says so alone.
    run(&flags);
    assert!(told()["messages"].is_null());
}

#[test]
fn models_that_take_conversations_read_all_of_one() {
    let turns = |system: &str| {
        json!([
            {"role": "system", "content": system},
            {"role": "user", "content": "Is it night?"}
        ])
    };
    let reward = format!("likelihood:{}", path(SMOLLM2).display());
    let lines = ["Answer yes.", "Answer no."]
        .map(|system| json!({"messages": turns(system), "response": "yes"}));
    let read = scored(&score(&["--reward", &reward, "--json", "-t", "1"], &lines));
    assert_ne!(read[0]["reward"], read[1]["reward"]);
    assert_eq!(read[0]["prompt"], "Is it night?");
}

#[test]
fn score_takes_lines_of_any_data_set_and_echoes_their_id() {
    let said = |text: &str| json!({"role": "assistant", "content": text});
    let asked = json!({"role": "user", "content": "q"});
    let lines = [
        json!({"id": 7, "prompt": "q", "response": "one", "source": "web", "score": 3}),
        json!({"id": "x", "messages": [asked, said("one two")]}),
        json!({"response": [asked, said("one two three")]}),
    ];
    let read = scored(&score(&["--reward", "rule:words=2", "--json"], &lines));
    assert_eq!((&read[0]["id"], &read[1]["id"]), (&7.into(), &"x".into()));
    assert!(read[2].get("id").is_none());
    for (line, words) in read.iter().zip(["one", "one two", "one two three"]) {
        assert_eq!(line["response"], words);
    }
    assert_eq!(read[1]["reward"], 1.0);
    let missing = score(
        &["--reward", "rule:words=2"],
        &[lines[0].clone(), json!({"prompt": "q"})],
    );
    let error = stderr(&missing);
    assert_eq!(missing.status.code(), Some(2), "{error}");
    assert!(error.contains("line 2: the response is missing"), "{error}");
    // What stood before it is scored.
    assert_eq!(stdout(&missing).lines().count(), 1);
}

#[test]
fn what_stdin_holds_is_one_batch() {
    let folder = TempDir::new().unwrap();
    // It answers a batch once it has read forty lines.
    let script = "import sys\nfor _ in range(40): sys.stdin.readline()\n\
                  print('1\\n' * 40, end='', flush=True)\nsys.stdin.read()\n";
    let file = folder.path().join("forty.py");
    std::fs::write(&file, script).unwrap();
    let reward = format!("command:python3 {}", file.display());
    let lines: Vec<Value> = (0..40)
        .map(|i| json!({"response": i.to_string()}))
        .collect();
    let output = score(&["--reward", &reward], &lines);
    assert_eq!(stdout(&output).lines().filter(|l| *l == "1").count(), 40);
    let none = score(&["--reward", &reward], &[json!({"response": 3})]);
    assert_refused(&none, 2, &["stdin, line 1", "neither a text nor messages"]);
}
