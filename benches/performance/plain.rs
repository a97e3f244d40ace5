//! llama.cpp by itself: its own decoding of as many sequences, nothing of ours in it.

use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use aisp_llama::llama::{Model, Token, backend};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::token::LlamaToken;

/// Tokens a second of `sequences` greedy responses of `tokens` tokens each behind `prompt`, the prompt
/// left out.
pub fn tokens_a_second(
    model: &Arc<Model>,
    prompt: &[Token],
    sequences: usize,
    tokens: usize,
    threads: usize,
) -> f64 {
    let room = (prompt.len() + tokens).next_multiple_of(256) * sequences;
    let threads = i32::try_from(threads).unwrap();
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(room as u32))
        .with_n_batch(512)
        .with_n_ubatch(512)
        .with_n_seq_max(sequences as u32)
        .with_kv_unified(false)
        .with_swa_full(true)
        .with_n_threads(threads)
        .with_n_threads_batch(threads);
    let mut context = model
        .as_llama_cpp_2()
        .new_context(backend(), params)
        .unwrap();
    let mut batch = LlamaBatch::new(512, 1);
    let mut last = vec![LlamaToken(0); sequences];
    for (sequence, next) in last.iter_mut().enumerate() {
        batch.clear();
        for (i, &token) in prompt.iter().enumerate() {
            let end = i + 1 == prompt.len();
            let id = [sequence as i32];
            batch.add(LlamaToken(token), i as i32, &id, end).unwrap();
        }
        context.decode(&mut batch).unwrap();
        *next = largest(&context, prompt.len() as i32 - 1);
    }
    let begun = Instant::now();
    for position in prompt.len()..prompt.len() + tokens {
        batch.clear();
        for (sequence, &token) in last.iter().enumerate() {
            let id = [sequence as i32];
            batch.add(token, position as i32, &id, true).unwrap();
        }
        context.decode(&mut batch).unwrap();
        for (sequence, next) in last.iter_mut().enumerate() {
            *next = largest(&context, sequence as i32);
        }
    }
    (sequences * tokens) as f64 / begun.elapsed().as_secs_f64()
}

/// Tokens a second of generation in `sequences` sequences that llama.cpp's `program` batched-bench says.
pub fn batched_bench(
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

fn largest(context: &LlamaContext<'_>, row: i32) -> LlamaToken {
    let logits = context.get_logits_ith(row);
    let (mut best, mut most) = (0, f32::NEG_INFINITY);
    for (token, &logit) in logits.iter().enumerate() {
        if logit > most {
            (best, most) = (token, logit);
        }
    }
    LlamaToken(best as i32)
}
