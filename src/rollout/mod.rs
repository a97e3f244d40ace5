//! Candidates by the batch: many responses to one or more prompts, decoded side by side.
//!
//! A [`Job`] asks for one candidate: which prompt, which [`Steer`] of perturbations, how a
//! token is chosen. [`Rollout::run`] keeps one batch full with them: the prompt is decoded
//! once and shared, a finished sequence makes room for the next job, and more jobs than
//! sequences follow one another. A candidate depends on its job alone, never on its
//! neighbours.

mod engine;
mod sampling;

use std::sync::Arc;

pub use engine::{Rollout, RolloutOptions};
pub use sampling::{Chooser, SamplingOptions, TokenChoice};

use crate::error::Result;
use crate::llama::{Edit, Token};

/// A prompt known to a [`Rollout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PromptId(usize);

/// What makes one candidate differ from another: its perturbation and its randomness, both
/// functions of the response position alone, and, for a few, its own way to choose tokens.
pub trait Steer: Send + Sync {
    /// Adds v_t to `row` `[d]` for response position t, counted from 0; answers false, and
    /// leaves the row as it is, where there is no perturbation.
    fn perturb(&self, position: usize, row: &mut [f32]) -> bool;

    /// A number in `[0, 1)` for choosing a token by chance.
    fn uniform(&self, position: usize) -> f64;

    /// What the perturbation takes from the pre-logits themselves; nothing by default.
    fn edit(&self) -> Option<Arc<dyn Edit>> {
        None
    }

    /// The next token after `tokens`, from the `logits` `[vocabulary]`, in place of the job's
    /// [`TokenChoice`]; `None`, the default, leaves it to that.
    ///
    /// # Errors
    /// What the choice depends on failed; the rollout ends with this error.
    fn choose(&self, tokens: &[Token], logits: &[f32]) -> Result<Option<Token>> {
        let _ = (tokens, logits);
        Ok(None)
    }
}

/// A request for one candidate.
#[derive(Clone)]
pub struct Job {
    /// The prompt, from [`Rollout::add_prompt`].
    pub prompt: PromptId,
    /// Most tokens of the response, at least 1.
    pub max_tokens: usize,
    /// Perturbation and randomness; `None` for neither.
    pub steer: Option<Arc<dyn Steer>>,
    /// How a token is chosen from the logits.
    pub choice: TokenChoice,
    /// Whether the pre-logits are wanted.
    pub keep_pre_logits: bool,
}

/// Why a candidate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The model ended its turn.
    EndOfTurn,
    /// The token limit.
    Length,
    /// The run was stopped.
    Stopped,
}

/// A generated response.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its tokens, the end-of-turn token included.
    pub tokens: Vec<Token>,
    /// Its text, special tokens left out.
    pub text: String,
    /// Why it ended.
    pub end: End,
    /// Pre-logits z [tokens, d] before perturbation, where the job asked for them.
    pub pre_logits: Vec<f32>,
}

/// How far a rollout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tokens generated so far in this run.
    pub tokens: usize,
    /// Candidates finished so far in this run.
    pub finished: usize,
}
