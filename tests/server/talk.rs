//! `chat`: the conversation in the terminal.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{PROMPT, REWARD, Server, program};

#[test]
fn a_conversation_is_answered_as_run_answers() {
    let server = Server::start(&[]);
    let mut child = program()
        .args(["chat", "-t", "1", "-c", "512", "-n", "16", "-s", "5"])
        .args(["--samples", "4", "--iterations", "2", "--reward", REWARD])
        .arg("-m")
        .arg(&server.model)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = format!(
        "{PROMPT}\n/nothing\n/seed x\n/method magic\n/candidates 2\n/again\n/clear\n\
         /method best-of-n\n/seed 7\n{PROMPT}\n"
    );
    let mut input = child.stdin.take().unwrap();
    input.write_all(lines.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let alone = |flags: &[&str]| {
        let run = server.run(&[&["-n", "16"], flags].concat());
        run["response"].as_str().unwrap().to_owned()
    };
    // The answer, the same message with the next seed, and another method with a seed of its own.
    let wanted = [
        alone(&["-s", "5"]),
        alone(&["-s", "6"]),
        alone(&["-s", "7", "--method", "best-of-n"]),
    ];
    let wanted: String = wanted.iter().map(|text| format!("{text}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), wanted);
    for words in ["no /nothing", "seed: \"x\"", "method: no method"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn an_interrupt_is_for_one_answer() {
    let server = Server::start(&[]);
    let folder = tempfile::TempDir::new().unwrap();
    let (script, asked) = (folder.path().join("reward.sh"), folder.path().join("asked"));
    let text = format!(
        "n=0; while read -r line; do touch {}; n=$((n + 1)); echo $n; done",
        asked.display()
    );
    fs::write(&script, text).unwrap();
    let mut child = program()
        .args(["chat", "-t", "1", "-c", "512", "-n", "16", "--samples", "4"])
        .args(["--method", "best-of-n", "--iterations", "100000"])
        .args(["--reward", &format!("command:sh {}", script.display())])
        .arg("-m")
        .arg(&server.model)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut input = child.stdin.take().unwrap();
    for _ in 0..2 {
        input.write_all(format!("{PROMPT}\n").as_bytes()).unwrap();
        while !asked.exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let sent = Command::new("kill").args(["-INT", &pid]).status().unwrap();
        assert!(sent.success());
        let stopped = said.find(|line| line.as_ref().unwrap().contains(", stopped"));
        assert!(stopped.is_some(), "it ended");
        fs::remove_file(&asked).unwrap();
    }
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
