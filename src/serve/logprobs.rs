//! How probable the tokens of an answer are, by the model itself, and what else there was.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::watch::Seat;
use crate::llama::{Model, Token};
use crate::math::Softmax;
use crate::rollout::{Chooser, SamplingOptions};

/// Most alternatives to a token.
pub(super) const MOST: usize = 100;

/// A token with log p.
type Logprob = (Token, f32);

/// The token that was chosen, and the most probable ones.
type Place = (Logprob, Vec<Logprob>);

/// The tokens of each candidate, each with the most probable ones in its place.
#[derive(Default)]
pub(super) struct Likely(Mutex<HashMap<Seat, Vec<Place>>>);

impl Likely {
    /// Puts down the next token of a candidate, and the `count` most probable ones by these logits.
    pub(super) fn note(&self, seat: Seat, logits: &[f32], token: Token, count: usize) {
        let softmax = Softmax::of(logits);
        let logprob = |logit: f32| -softmax.surprise(logit) as f32;
        let options = SamplingOptions {
            temperature: 1.0,
            top_k: count,
            top_p: 1.0,
            min_p: 0.0,
        };
        let mut chooser = Chooser::default();
        let best = match count {
            0 => &[],
            _ => chooser.filter(&options, logits),
        };
        let best = best.iter().map(|&(logit, token)| (token, logprob(logit)));
        let logit = logits.get(token as usize).copied();
        let chosen = (token, logprob(logit.unwrap_or(f32::NEG_INFINITY)));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(seat).or_default().push((chosen, best.collect()));
    }

    /// The objects of a candidate's tokens from number `from` on.
    pub(super) fn entries(&self, model: &Model, seat: Seat, from: usize) -> Vec<Value> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = all.get(&seat).into_iter().flatten().skip(from);
        let entries = tokens.map(|((token, logprob), best)| entry(model, *token, *logprob, best));
        entries.collect()
    }
}

/// The object of a token, with those in whose place it stands.
pub(super) fn entry(model: &Model, token: Token, logprob: f32, best: &[Logprob]) -> Value {
    let mut entry = one(model, token, logprob);
    let best = best
        .iter()
        .map(|&(token, logprob)| one(model, token, logprob));
    entry["top_logprobs"] = best.collect();
    entry
}

fn one(model: &Model, token: Token, logprob: f32) -> Value {
    let bytes = model.piece(token, true);
    json!({
        "id": token,
        "token": String::from_utf8_lossy(&bytes),
        "bytes": bytes,
        // JSON has no −∞.
        "logprob": logprob.max(f32::MIN),
    })
}
