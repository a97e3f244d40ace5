//! What a reward has started ends with the program, whatever ends that.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use nix::sys::signal::Signal::{SIGABRT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM};

use super::{Place, assert_gone, pid_in, refs, send};

#[test]
fn what_a_reward_has_started_ends_with_the_program() {
    let place = Place::new();
    let script = "sleep 1000 & echo $! > pid.part; mv pid.part pid; wait";
    let reward = place.reward(script, 1000.0);
    let run = place.run(&["--reward", &reward]);
    for words in [
        vec!["score", "--reward", &reward],
        vec!["reward", "probe", "--reward", &reward],
        refs(&run),
    ] {
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGABRT, SIGKILL] {
            let _ = fs::remove_file(place.path("pid"));
            let mut command = place.command(&words);
            let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            // Only `score` reads it.
            let _ = input.write_all(b"{\"prompt\": \"a\", \"response\": \"b\"}\n");
            let started = pid_in(&place.path("pid"));
            send(&child, signal);
            drop(child.wait_with_output().unwrap());
            assert_gone(started);
        }
    }
}

#[test]
fn one_that_was_given_up_and_started_again_ends_too() {
    let place = Place::new();
    // Killed for its silence; the next one is silent too.
    let script = "sleep 1000 & echo $! >> pids; wait";
    let reward = place.reward(script, 0.3);
    let words = ["score", "--reward", &reward];
    let mut child = place.command(&words).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let line = "{\"prompt\": \"a\", \"response\": \"b\"}\n";
    input.write_all(line.repeat(2).as_bytes()).unwrap();
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(4));
    let pids = fs::read_to_string(place.path("pids")).unwrap();
    assert!(pids.lines().count() >= 2, "{pids}");
    for pid in pids.lines() {
        assert_gone(pid.parse().unwrap());
    }
}
