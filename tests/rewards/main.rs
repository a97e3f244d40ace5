//! Rewards of every kind: on real models, tiny random ones, processes and servers.

#[path = "../common/mod.rs"]
mod common;
#[allow(unused_imports)]
#[path = "../../src/gguf/testing.rs"]
mod testing;
#[path = "../common/tiny/mod.rs"]
mod tiny;

// For `testing`.
use aisp_llama::gguf::{Gguf, GgufError, TensorType};

mod command;
mod guards;
mod head;
mod http;
mod judge;
mod likelihood;
mod pairwise;
mod published;
mod qwen3;
mod reasons;
mod recurrent;
mod rubric;
mod stepwise;
mod watching;

use std::num::NonZeroU32;

use aisp_llama::llama::{Model, Token};
use aisp_llama::reward::{Reward, Sample};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{LlamaContextParams, LlamaPoolingType};
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::token::LlamaToken;

/// Rewards of samples, all of which must have one.
fn rewards(reward: &mut dyn Reward, samples: &[Sample<'_>]) -> Vec<f64> {
    let scores = reward.score(samples).unwrap();
    scores.into_iter().map(|s| s.unwrap().reward).collect()
}

/// A text decoded by the binding alone: one sequence, one batch. The rows are filled up to
/// a multiple of eight behind the text, which causal attention does not see, because ggml
/// computes the last rows of other numbers by other kernels; flash attention is off for the
/// same reason. Quantised activations make a second digit of any such difference.
fn plain_decode<'a>(model: &'a Model, tokens: &[Token], embeddings: bool) -> LlamaContext<'a> {
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(1024))
        .with_n_batch(1024)
        .with_n_ubatch(1024)
        .with_n_threads_batch(aisp_llama::default_threads() as i32)
        .with_flash_attention_policy(0)
        .with_pooling_type(LlamaPoolingType::None)
        .with_embeddings(embeddings);
    let backend = aisp_llama::llama::backend();
    let mut context = model.as_llama_cpp_2().new_context(backend, params).unwrap();
    let mut batch = LlamaBatch::new(1024, 1);
    for i in 0..tokens.len().next_multiple_of(8) {
        let token = LlamaToken(tokens.get(i).copied().unwrap_or(0));
        batch
            .add(token, i as i32, &[0], i + 1 == tokens.len())
            .unwrap();
    }
    context.decode(&mut batch).unwrap();
    context
}

/// The binding's embedding of a text's last token.
fn embedding(model: &Model, tokens: &[Token]) -> Vec<f32> {
    let context = plain_decode(model, tokens, true);
    context
        .embeddings_ith(tokens.len() as i32 - 1)
        .unwrap()
        .to_vec()
}
