//! Candidates by the batch: many responses to one or more prompts, decoded side by side.
//!
//! A [`Job`] asks for one candidate: which prompt, which [`Steer`], how a token is chosen.
//! [`Rollout::submit`] queues it, [`Rollout::step`] writes a token of every candidate that has a
//! place in the batch, and of others what is known without decoding; [`Rollout::cancel`] takes one
//! out. The batch is kept full: a prompt is decoded once and shared, a finished sequence makes room
//! for the next job, and more jobs than sequences follow one another. A candidate depends on its
//! job alone, never on its neighbours.
//! [`Rollout::run`] is all of these until the jobs are done.

mod engine;
mod form;
mod sampling;

use std::sync::Arc;

pub use engine::{Rollout, RolloutOptions, Work};
pub use form::{Form, Reading};
pub(crate) use sampling::shortest;
pub use sampling::{Chooser, SamplingOptions, TokenChoice};

pub use crate::control::{Beginning, TokenNats};
use crate::error::Result;
use crate::llama::{Edit, Token};

/// A prompt known to a [`Rollout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PromptId(u64);

/// A job submitted to a [`Rollout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JobId(u64);

/// Answers with the rewards of responses that are being written, given as their tokens, in order;
/// `None` for one without text or reward.
pub type Ask<'a> = dyn FnMut(&[Vec<Token>]) -> Result<Vec<Option<f64>>> + 'a;

/// What makes one candidate differ from another: its perturbation and its randomness, both
/// functions of what it has written so far alone, and, for a few, its own way to choose tokens.
pub trait Steer: Send + Sync {
    /// Adds v_t to `row` `[d]` for the token after `tokens`, the t of the response so far; answers
    /// false, and leaves the row as it is, where there is no perturbation, as by default.
    ///
    /// # Errors
    /// What the perturbation depends on could not be read.
    fn perturb(&self, tokens: &[Token], row: &mut [f32]) -> Result<bool> {
        let _ = (tokens, row);
        Ok(false)
    }

    /// A number in `[0, 1)` for choosing a token by chance.
    fn uniform(&self, position: usize) -> f64;

    /// Tokens less probable by the model itself, without perturbation, than this fraction of its
    /// most probable one are never chosen; 0, the default, allows all.
    fn floor(&self) -> f32 {
        0.0
    }

    /// How the token at `position` is chosen, in place of the job's [`TokenChoice`]; `None`, the
    /// default, leaves it to that.
    fn choice(&self, position: usize) -> Option<TokenChoice> {
        let _ = position;
        None
    }

    /// What the perturbation takes from the pre-logits themselves; nothing by default.
    fn edit(&self) -> Option<Arc<dyn Edit>> {
        None
    }

    /// The next token after `tokens`, from the `logits` `[vocabulary]`, in place of the job's
    /// [`TokenChoice`]; `None`, the default, leaves it to that. `ask` tells the rewards of
    /// beginnings of the response.
    ///
    /// # Errors
    /// What the choice depends on failed; the candidate ends with this error.
    fn choose(&self, tokens: &[Token], logits: &[f32], ask: &mut Ask<'_>) -> Result<Option<Token>> {
        let _ = (tokens, logits, ask);
        Ok(None)
    }

    /// Whether a candidate that has written `tokens`, and is not at its end, is worth going on with;
    /// by default it is. `ask` tells the rewards of beginnings of the response.
    ///
    /// # Errors
    /// What the answer depends on failed; the candidate ends with this error.
    fn goes_on(&self, tokens: &[Token], ask: &mut Ask<'_>) -> Result<bool> {
        let _ = (tokens, ask);
        Ok(true)
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
    /// Tokens that need not be written: what [`steer`](Self::steer) and [`choice`](Self::choice)
    /// would write. Fewer than [`max_tokens`](Self::max_tokens), and none of them an end; none where
    /// the candidate is decoded alone, or its pre-logits are wanted.
    pub beginning: Beginning,
    /// Whether the pre-logits are wanted.
    pub keep_pre_logits: bool,
    /// Whether it is decoded in steps of its own, a row each, and not in the groups that the others
    /// fill up: less work for one candidate by itself, far more for sixteen. The numbers differ
    /// between the two in their last bits, and depend on nothing else.
    pub alone: bool,
    /// Whether several of its tokens may be written in one step, where what the model says there is
    /// known from other candidates.
    pub recalls: bool,
}

impl Job {
    /// The most probable response of at most so many tokens, among others.
    #[must_use]
    pub fn new(prompt: PromptId, max_tokens: usize) -> Self {
        Self {
            prompt,
            max_tokens,
            steer: None,
            choice: TokenChoice::Argmax,
            beginning: Beginning::default(),
            keep_pre_logits: false,
            alone: false,
            recalls: true,
        }
    }
}

/// Why a candidate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The model ended its turn.
    EndOfTurn,
    /// The token limit.
    Length,
    /// A text that ends responses.
    StopText,
    /// No token that the grammar allows.
    Stuck,
    /// The method gave it up.
    GivenUp,
    /// The run was stopped.
    Stopped,
}

/// How dear a response is to the model that wrote it: how far its surprise is above the model's own
/// entropy. The model's own samples, at temperature 1 and without truncation, have a price of zero
/// on average, whatever their length.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Price {
    /// Σ_t (−log p(y_t | y_<t) − H_t), in nats.
    pub nats: f64,
    /// The same, in nats a token.
    pub per_token: f64,
    /// −log p, in nats a token.
    pub surprise: f64,
}

impl Price {
    /// That of a response with these tokens; `None` for none.
    #[must_use]
    pub fn of(tokens: &[TokenNats]) -> Option<Self> {
        let count = tokens.len() as f64;
        let surprise: f64 = tokens.iter().map(|t| f64::from(t.surprise)).sum();
        let entropy: f64 = tokens.iter().map(|t| f64::from(t.entropy)).sum();
        (count > 0.0).then(|| Self {
            nats: surprise - entropy,
            per_token: (surprise - entropy) / count,
            surprise: surprise / count,
        })
    }
}

/// A generated response.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its tokens, the end-of-turn token included.
    pub tokens: Vec<Token>,
    /// How many of them were known beforehand: its job's [beginning](Job::beginning).
    pub known: usize,
    /// Its text as its prompt's [`Form`] has it: the answer, special tokens left out.
    pub text: String,
    /// The reasoning before it, where there is any.
    pub reasoning: Option<String>,
    /// Whether that has no end.
    pub unfinished: bool,
    /// What the model itself says of each of the tokens.
    pub nats: Vec<TokenNats>,
    /// Why it ended.
    pub end: End,
    /// Pre-logits z [tokens, d] before perturbation, where the job asked for them.
    pub pre_logits: Vec<f32>,
}

/// A job that got one more token in a step; it may get several, in their order.
#[derive(Debug)]
pub struct Written {
    /// Which.
    pub job: JobId,
    /// The candidate, where this was its last token; or why there can be none.
    pub done: Option<Result<Candidate>>,
}

/// How far some jobs are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tokens generated so far.
    pub tokens: usize,
    /// Candidates finished so far.
    pub finished: usize,
}

impl Progress {
    /// Counts a token, and the candidate that it may have finished.
    pub fn count(&mut self, written: &Written) {
        self.tokens += 1;
        self.finished += usize::from(written.done.is_some());
    }
}
