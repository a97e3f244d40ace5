//! llama.cpp's own program.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Tokens a second of generation in `sequences` sequences that llama.cpp's `program` batched-bench says.
pub fn tokens_a_second(
    program: &OsStr,
    model: &Path,
    sequences: usize,
    tokens: usize,
    threads: usize,
) -> f64 {
    let (length, threads) = (tokens.to_string(), threads.to_string());
    let context = ((PROMPT + tokens).next_multiple_of(256) * sequences).to_string();
    let output = Command::new(program)
        .arg("-m")
        .arg(model)
        .args(["-c", &context, "-b", "512", "-ub", "512", "-ngl", "0"])
        .args(["-t", &threads, "-tb", &threads, "--output-format", "jsonl"])
        .args(["-npp", &PROMPT.to_string(), "-ntg", &length])
        .args(["-npl", &sequences.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|l| l.starts_with('{')).unwrap();
    let said: serde_json::Value = serde_json::from_str(line).unwrap();
    said["speed_tg"].as_f64().unwrap()
}

/// Tokens of the prompt that it makes up, about as many as ours has.
const PROMPT: usize = 16;
