//! The program as its users meet it: bad files and options, runs, pipes and signals.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/damage.rs"]
mod damage;
#[allow(unused_imports)]
#[path = "../../src/gguf/testing.rs"]
mod testing;
#[path = "../common/tiny/mod.rs"]
mod tiny;

mod bad_files;
mod bad_options;
mod bench;
mod commands;
mod compare;
mod compare_failures;
mod conversations;
mod damaged;
mod docs;
#[cfg(target_os = "linux")]
mod faults;
mod hub;
mod inputs;
mod methods;
mod placement;
mod prompts;
mod published;
mod quantize;
mod recurrent;
mod reward_defaults;
mod reward_parts;
mod rewards;
mod runs;
mod shards;
mod tune;

use std::process::Output;

// For `testing`.
#[allow(unused_imports)]
use aisp_llama::gguf::{Gguf, GgufError, TensorType};
use assert_cmd::Command;

/// The program, on the CPU, with no model or setting from the environment.
fn program() -> Command {
    let mut command = Command::cargo_bin("aisp-llama").expect("the program is built");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LLAMA_ARG_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `aisp-llama run` with the default models and a short prompt.
fn run(extra: &[&str]) -> Output {
    program()
        .args(["run", "-p", "Review a film in one sentence."])
        .args(extra)
        .output()
        .expect("the program runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks that the program failed with this code, printed nothing on stdout, and said each
/// of `words` in one line of error.
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let error = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert_eq!(stdout(output), "");
    let lines: Vec<&str> = error.lines().filter(|l| l.starts_with("error:")).collect();
    assert_eq!(lines.len(), 1, "{error}");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}
