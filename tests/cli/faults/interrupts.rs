//! One interrupt is enough, and costs nothing that was found.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGTERM};

use super::{LONG, Place, refs, send, until, until_it_listens};
use crate::{stderr, stdout};

#[test]
fn one_interrupt_ends_a_run_whose_reward_is_silent_with_the_best_so_far() {
    let place = Place::new();
    let script = "n=0; while read -r line; do n=$((n + 1))\n\
                  [ $n -gt 6 ] && { touch silent; sleep 1000; }\necho $n; done";
    let reward = place.reward(script, 1000.0);
    for signal in [SIGINT, SIGTERM] {
        let _ = fs::remove_file(place.path("silent"));
        let words = place.run(&["--reward", &reward, "--iterations", "50"]);
        let child = place.command(&refs(&words)).spawn().unwrap();
        until("it is never silent", || place.path("silent").exists());
        send(&child, signal);
        let begun = Instant::now();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert!(!stdout(&output).trim().is_empty());
        assert!(begun.elapsed() < LONG);
    }
}

#[test]
fn one_interrupt_ends_the_wait_for_a_server_that_never_answers() {
    let place = Place::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let reward = format!("http:http://{};timeout=1000", server.local_addr().unwrap());
    let words = place.run(&["--reward", &reward]);
    let child = place.command(&refs(&words)).spawn().unwrap();
    let _open = server.accept().unwrap();
    send(&child, SIGINT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
}

#[test]
fn an_interrupt_before_there_is_anything_to_lose_ends_every_command_at_once() {
    let place = Place::new();
    place.pipe("pipe");
    // Each waits for ever, or would take long.
    for words in [
        "score --reward rule:words=1",
        "run -m tiny.gguf --reward rule:words=1 -f -",
        "run -m pipe -p Hi. --reward rule:words=1",
        "reward train -m tiny.gguf --data pipe -o head.safetensors",
        "tune -m tiny.gguf --prompts pipe --reward rule:words=1 -o out",
        "compare -m tiny.gguf --prompts pipe --reward rule:words=1 -o out",
    ] {
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let words: Vec<&str> = words.split(' ').collect();
            let mut command = place.command(&words);
            let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
            until_it_listens(&child);
            send(&child, signal);
            let stdin = child.stdin.take();
            let output = child.wait_with_output().unwrap();
            drop(stdin);
            // A pipe may have been refused before the signal came.
            let refused = stderr(&output).contains("pipe");
            let code = output.status.code();
            assert!(code == Some(130) || refused, "{words:?}: {code:?}");
        }
    }
}

#[test]
fn an_interrupted_training_keeps_the_best_network_so_far() {
    let place = Place::new();
    let words = "train-value -m tiny.gguf -t 1 -n 6 --no-chat --prompts prompts.jsonl --responses 2 \
                 --hidden 8 --epochs 100000000 --reward rule:words=2..4 -o value.safetensors";
    let words: Vec<&str> = words.split(' ').collect();
    let mut child = place.command(&words).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("6/6 prompts") {
        line.clear();
        assert_ne!(told.read_line(&mut line).unwrap(), 0);
    }
    std::thread::sleep(Duration::from_millis(300));
    send(&child, SIGINT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(stdout(&output).contains("mean squared error"));
    let run = place.run(&["--method", "re-control", "--value", "value.safetensors"]);
    let run = [&refs(&run)[..], &["--reward", "rule:words=1"]].concat();
    let output = place.command(&run).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}
