//! Methods: how the candidates of the next iteration follow from the scores of the last.
//!
//! A [`Method`] proposes and observes, and never generates or scores itself: whoever drives
//! it (see [`Batch`](crate::Batch)) may run the proposals of one prompt, or of many, in
//! one batch, and counts the same budget for every method.
//!
//! Each method is one file: its state, its [`Settings`], and its [`Entry`] in the table
//! [`METHODS`]. What is written about a method elsewhere (flags, help, presets, the columns of a
//! comparison) is made from that.

mod aisp;
mod args;
mod best_of_n;
mod entry;
mod facts;
mod greedy;
mod misvo;
mod perturbed;
mod re_control;
mod registry;
mod review;
mod search;
mod soft_best_of_n;
mod spec;
mod value_file;
mod vote;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use entry::{Entry, Group, Read, Setting, read, setting};
pub use facts::Facts;
pub use re_control::Lessons;
pub use registry::METHODS;
pub use spec::{MethodSpec, parse_value, preset};

pub use crate::control::Telemetry;
use crate::control::{ControlError, NoiseKey, prompt_seed};
use crate::error::{Error, Result};
use crate::llama::Token;
use crate::rollout::{Beginning, Price, Steer, TokenChoice, TokenNats};
use crate::stop::Stop;

/// What every method is told of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounds {
    /// Candidates of one iteration (default 16).
    pub samples: usize,
    /// Iterations (default 8); samples · iterations is the budget.
    pub iterations: usize,
    /// Seed of all randomness (default 0).
    pub seed: u64,
    /// Most tokens of a response (default 128), or [`TO_THE_END`](Self::TO_THE_END).
    pub max_tokens: usize,
}

impl Default for Rounds {
    fn default() -> Self {
        Self {
            samples: 16,
            iterations: 8,
            seed: 0,
            max_tokens: 128,
        }
    }
}

impl Rounds {
    /// As many tokens as the context has room for.
    pub const TO_THE_END: usize = u32::MAX as usize;

    /// Candidates of all iterations together.
    #[must_use]
    pub fn candidates(&self) -> usize {
        self.samples.saturating_mul(self.iterations)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Field`] naming the field and its value.
    pub fn validate(&self) -> Result<()> {
        at_least_one("samples", self.samples)?;
        at_least_one("iterations", self.iterations)?;
        at_least_one("max-tokens", self.max_tokens)
    }

    /// The places of an iteration's candidates; none after the last iteration.
    fn places(self, iteration: usize) -> impl Iterator<Item = Place> {
        let count = match iteration < self.iterations {
            true => self.samples,
            false => 0,
        };
        (0..count).map(move |candidate| self.place(iteration, candidate))
    }

    /// The same with a seed of its own for the prompt that these are the tokens of, so that the runs
    /// of one seed on several prompts are independent draws.
    #[must_use]
    pub fn on(self, prompt: &[Token]) -> Self {
        Self {
            seed: prompt_seed(self.seed, prompt),
            ..self
        }
    }

    fn place(self, iteration: usize, candidate: usize) -> Place {
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Place {
            seed: self.seed,
            iteration: number(iteration),
            candidate: number(candidate),
        }
    }
}

/// A count that a method cannot do without.
fn at_least_one(field: &str, count: usize) -> Result<()> {
    let most = u32::MAX as usize;
    let bound = match count {
        0 => "at least 1".into(),
        count if count > most => format!("at most {most}"),
        _ => return Ok(()),
    };
    Err(Error::field(field, format!("{count}; give {bound}")))
}

/// A number that has to be positive.
fn positive(field: &str, value: f64) -> Result<()> {
    match value > 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(Error::field(
            field,
            format!("{value}; must be positive and finite"),
        )),
    }
}

/// What a method can be told beside the [`Rounds`]: the struct of each method's own settings.
pub trait Settings: fmt::Debug + Send + Sync {
    /// Checks everything that can be checked without a model.
    ///
    /// # Errors
    /// [`Error::Field`] naming the setting and its value.
    fn validate(&self, rounds: &Rounds) -> Result<()>;

    /// Makes the method for one prompt; both are valid.
    ///
    /// # Errors
    /// [`Error::Field`] for settings that do not go with the model, [`Error::Model`] for a model
    /// that the method cannot work on, [`Error::Io`] for a file that cannot be read.
    fn build(&self, rounds: &Rounds, facts: &Facts) -> Result<Box<dyn Method>>;

    /// Files that it reads.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// Bound on the KL divergence in nats of the last iteration from the method's own unsteered
    /// draws, from the candidates generated and from what [`Telemetry::kl`] said of the mean that
    /// the iteration was drawn from; `None` where there is no bound.
    fn kl_bound(&self, candidates: usize, mean: Option<f64>) -> Option<f64> {
        let _ = candidates;
        mean
    }

    /// Whether the answer is drawn, and so need not be the best candidate.
    fn draws_its_answer(&self) -> bool {
        false
    }
}

impl From<ControlError> for Error {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Option {
                field,
                value,
                expected,
            } => Self::field(field, format!("{value}; must be {expected}")),
            other => Self::Run(other.to_string()),
        }
    }
}

/// One candidate to be generated.
#[derive(Clone, Default)]
pub struct Proposal {
    /// Its perturbation and randomness.
    pub steer: Option<Arc<dyn Steer>>,
    /// How its tokens are chosen.
    pub choice: TokenChoice,
    /// Tokens that it begins with, as far as they are known; they are not written again.
    pub beginning: Beginning,
}

/// One candidate that was generated and scored; in the order of the proposals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome<'a> {
    /// Which proposal of the iteration, from 0.
    pub candidate: u32,
    /// Its reward; NaN where there is none.
    pub reward: f64,
    /// Its tokens, the end-of-turn token included.
    pub tokens: &'a [Token],
    /// What the model itself says of each of them.
    pub nats: &'a [TokenNats],
    /// Its pre-logits z `[tokens, d]` before perturbation, where the method
    /// [asked](Method::keeps_pre_logits) for them.
    pub pre_logits: &'a [f32],
}

/// A candidate that may be the answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked<'a> {
    /// Its reward.
    pub reward: f64,
    /// Its text, without reasoning.
    pub text: &'a str,
}

/// A candidate's place in a run: the key of its randomness.
#[derive(Clone, Copy, Debug)]
struct Place {
    seed: u64,
    iteration: u32,
    candidate: u32,
}

impl Place {
    fn uniform(self, position: usize) -> f64 {
        NoiseKey {
            seed: self.seed,
            iteration: self.iteration,
            candidate: self.candidate,
            position: u32::try_from(position).unwrap_or(u32::MAX),
        }
        .uniform()
    }
}

/// A way to search for a better response to one prompt.
pub trait Method: Send {
    /// Its name, as reports show it.
    fn name(&self) -> &'static str;

    /// Candidates of one iteration, and iterations, as far as it is not stopped.
    fn shape(&self) -> (usize, usize);

    /// The candidates of the next iteration; none when the method is at its end.
    fn propose(&mut self) -> Vec<Proposal>;

    /// Hears, before anything else, what a request to stop comes by: a method whose observation takes
    /// long gives it up then, as nobody draws from what it would learn.
    fn stops_with(&mut self, stop: &Stop) {
        let _ = stop;
    }

    /// Takes the outcomes of the next proposals that have none yet (fewer where the run was
    /// stopped).
    ///
    /// # Errors
    /// What the method needs of the model could not be read.
    fn observe(&mut self, outcomes: &[Outcome<'_>]) -> Result<Telemetry>;

    /// Whether its proposals depend on the outcomes of those before, as they do by default. Where
    /// they do not, the next ones may be asked for before the last are observed; outcomes come in
    /// the order of the proposals all the same, and not all of them where the run ends early.
    fn waits(&self) -> bool {
        true
    }

    /// Whether the outcomes must bring their pre-logits.
    fn keeps_pre_logits(&self) -> bool {
        false
    }

    /// What a candidate is worth as an answer, in reward units: its reward, less what it costs; −∞
    /// for one that is too dear. The best of them is the answer, unless the method
    /// [draws](Self::answer) one.
    fn worth(&self, reward: f64, price: Option<&Price>) -> f64 {
        let _ = price;
        reward
    }

    /// Which of the scored candidates is the answer; they are all of them, the one that is
    /// [worth](Self::worth) most first.
    fn answer(&mut self, candidates: &[Ranked<'_>]) -> usize {
        let _ = candidates;
        0
    }
}
