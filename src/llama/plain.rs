//! llama.cpp by itself: its own batched decoding, nothing of ours in it. The yardstick of benchmarks.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::token::LlamaToken;

use super::{Model, Token, backend};
use crate::error::{Error, Result};

/// How long `sequences` greedy responses of `tokens` tokens each take behind `prompt`, a row a sequence in
/// every step; the prompt is left out. Each begins with another token, the most probable ones: rows that
/// are all alike are computed faster than others.
///
/// # Errors
/// [`Error::Engine`] where llama.cpp fails.
pub fn plain_decoding(
    model: &Arc<Model>,
    prompt: &[Token],
    sequences: usize,
    tokens: usize,
    threads: usize,
) -> Result<Duration> {
    let room = (prompt.len() + tokens).next_multiple_of(256) * sequences;
    let threads = i32::try_from(threads).unwrap_or(i32::MAX);
    let most = prompt.len().max(sequences).max(512);
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(u32::try_from(room).unwrap_or(u32::MAX)))
        .with_n_batch(most as u32)
        .with_n_ubatch(most as u32)
        .with_n_seq_max(sequences as u32)
        .with_kv_unified(false)
        .with_swa_full(true)
        .with_n_threads(threads)
        .with_n_threads_batch(threads);
    let context = model.as_llama_cpp_2().new_context(backend(), params);
    let mut context = context.map_err(failed)?;
    let mut batch = LlamaBatch::new(most, 1);
    let mut last = vec![LlamaToken(0); sequences];
    for (sequence, next) in last.iter_mut().enumerate() {
        batch.clear();
        for (i, &token) in prompt.iter().enumerate() {
            let end = i + 1 == prompt.len();
            let id = [sequence as i32];
            batch
                .add(LlamaToken(token), i as i32, &id, end)
                .map_err(failed)?;
        }
        context.decode(&mut batch).map_err(failed)?;
        *next = likely(&context, prompt.len() as i32 - 1, sequence);
    }
    let begun = Instant::now();
    for position in prompt.len()..prompt.len() + tokens {
        batch.clear();
        for (sequence, &token) in last.iter().enumerate() {
            let id = [sequence as i32];
            batch
                .add(token, position as i32, &id, true)
                .map_err(failed)?;
        }
        context.decode(&mut batch).map_err(failed)?;
        for (sequence, next) in last.iter_mut().enumerate() {
            *next = largest(&context, sequence as i32);
        }
    }
    Ok(begun.elapsed())
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Engine(format!("llama.cpp's own decoding: {error}"))
}

/// The token that so many others are more probable than.
fn likely(context: &LlamaContext<'_>, row: i32, others: usize) -> LlamaToken {
    let mut order: Vec<(&f32, i32)> = context.get_logits_ith(row).iter().zip(0..).collect();
    order.sort_by(|a, b| b.0.total_cmp(a.0));
    LlamaToken(order[others.min(order.len() - 1)].1)
}

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
