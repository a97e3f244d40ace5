//! `chat`: the conversation in the terminal.

use std::io::Write;
use std::process::Stdio;

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
