//! What is left of a run: its candidates, its iterations in numbers, what it cost.

use serde::{Deserialize, Serialize};

use super::parts::ScaledPart;
use crate::error::{Error, Result};
use crate::method::Telemetry;
use crate::rollout::{End, Price};

/// A candidate with its reward.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoredCandidate {
    /// The iteration, from 0.
    pub iteration: usize,
    /// Its number in the iteration, from 0.
    pub candidate: usize,
    /// Its reward; `None` where it has none, as one that was given up.
    pub reward: Option<f64>,
    /// What its reward is the sum of, each in its own unit, where the reward has parts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<f64>,
    /// What the held-out reward says, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<f64>,
    /// How dear it is to the model itself.
    pub price: Option<Price>,
    /// Whether it is too dear to be the answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub too_dear: bool,
    /// Whether an earlier candidate of the run has the same text.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repeat: bool,
    /// Its tokens, the end-of-turn token included.
    pub tokens: usize,
    /// How many of them it was begun with: those of an earlier candidate.
    pub known: usize,
    /// Why it ended.
    pub end: End,
    /// Its text: the answer.
    pub text: String,
    /// The reasoning before it, where it wrote any itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Why it has no reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether the reward saw it cut short.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// One iteration in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IterationStats {
    /// The iteration, from 0.
    pub index: usize,
    /// Mean reward of its scored candidates, repeats left out.
    pub mean_reward: Option<f64>,
    /// Highest reward of its candidates.
    pub max_reward: Option<f64>,
    /// Reward of the best candidate so far in the run, the answer if it ended here.
    pub best_reward: Option<f64>,
    /// Mean price of its scored candidates in nats a token, repeats left out.
    pub mean_price: Option<f64>,
    /// Price of the best candidate so far in the run, in nats a token.
    pub best_price: Option<f64>,
    /// Mean held-out reward of its candidates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_mean: Option<f64>,
    /// Held-out reward of the best candidate so far in the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_best: Option<f64>,
    /// What the method says: ess, lambda, sigma, u_norm, kl, r2.
    #[serde(flatten)]
    pub telemetry: Telemetry,
    /// Tokens generated for its scored candidates.
    pub tokens: usize,
    /// Reward calls so far in the run, those of a method that guides tokens included.
    pub reward_calls: usize,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// All iterations are done.
    Completed,
    /// A limit of candidates, tokens or reward calls.
    Budget,
    /// The time limit.
    TimeLimit,
    /// The target reward.
    TargetReward,
    /// The reward rose while the held-out reward fell.
    Divergence,
    /// The answer got no better.
    Patience,
    /// A request to stop.
    Interrupted,
    /// The reward failed as a whole, behind what is the answer.
    RewardFailed,
}

/// What a run cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Candidates generated, unfinished ones included.
    pub candidates: usize,
    /// Tokens generated; those not counted again that a candidate was begun with.
    pub generated_tokens: usize,
    /// Tokens of reasoning that the candidates share; not among those above.
    #[serde(default)]
    pub reasoning_tokens: usize,
    /// Texts given to the reward; a repeated one has the reward that it had.
    pub reward_calls: usize,
    /// Tokens read by the reward model.
    pub reward_tokens: usize,
    /// Candidates without a reward: empty, too long, failed, NaN or infinite.
    pub unscored: usize,
    /// Candidates that the method gave up before their end.
    #[serde(default)]
    pub given_up: usize,
    /// Candidates that the reward saw cut short.
    pub truncated: usize,
}

impl Usage {
    /// What two runs cost together.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self {
            candidates: self.candidates + other.candidates,
            generated_tokens: self.generated_tokens + other.generated_tokens,
            reasoning_tokens: self.reasoning_tokens + other.reasoning_tokens,
            reward_calls: self.reward_calls + other.reward_calls,
            reward_tokens: self.reward_tokens + other.reward_tokens,
            unscored: self.unscored + other.unscored,
            given_up: self.given_up + other.given_up,
            truncated: self.truncated + other.truncated,
        }
    }
}

/// How long a run took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Reasoning, before the search; 0 where many prompts were thought about together.
    pub reasoning_seconds: f64,
    /// Generating.
    pub generation_seconds: f64,
    /// Scoring.
    pub reward_seconds: f64,
    /// Scoring by the held-out reward.
    pub held_out_seconds: f64,
    /// The method's own computation between iterations.
    pub control_seconds: f64,
    /// All of it, without loading the models.
    pub total_seconds: f64,
    /// Generated tokens by generation time.
    pub tokens_per_second: f64,
}

/// Where model and reward come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelNames {
    /// The generator's file.
    pub model: String,
    /// The reward's file or name.
    pub reward_model: String,
    /// The held-out reward's file or name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_model: Option<String>,
}

/// The outcome of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alignment {
    /// The prompt as the reward sees it.
    pub prompt: String,
    /// The response with the highest reward that the method's price allows.
    pub response: String,
    /// The reasoning before it, where there is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Its reward.
    pub reward: f64,
    /// What that is the sum of, each in its own unit, where the reward has parts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<f64>,
    /// How dear it is to the model itself.
    pub price: Option<Price>,
    /// Its held-out reward, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<f64>,
    /// The method's name.
    pub method: &'static str,
    /// Seed of all randomness.
    pub seed: u64,
    /// Candidates of one iteration.
    pub samples: usize,
    /// The parts of the reward, where it has any, with what each is multiplied and divided by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reward_parts: Vec<ScaledPart>,
    /// Why the run ended.
    pub stop: StopReason,
    /// Why the reward failed as a whole, where that ended the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Tokens that the iterations it did not come to would have taken, as many each as those it
    /// came to; only where the target, the patience or the divergence ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_saved: Option<usize>,
    /// Every iteration in numbers.
    pub iterations: Vec<IterationStats>,
    /// What it cost.
    pub usage: Usage,
    /// How long it took.
    pub timings: Timings,
    /// Where model and reward come from.
    #[serde(flatten)]
    pub names: ModelNames,
    /// All candidates, the best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<ScoredCandidate>,
}

impl Alignment {
    /// The same where a failure of the reward has ended another search for it.
    pub(super) fn cut_short_by(mut self, error: &Error) -> Self {
        if let (Error::Reward(reason), None) = (error, &self.failure) {
            self.failure = Some(reason.clone());
            if self.stop != StopReason::Interrupted {
                self.stop = StopReason::RewardFailed;
            }
        }
        self
    }

    /// Itself, for whom only a run that came to its end counts.
    ///
    /// # Errors
    /// [`Error::Reward`] where a failure of the reward cut it short; an interrupted one is its own
    /// [`StopReason`].
    pub fn whole(self) -> Result<Self> {
        match (self.stop, &self.failure) {
            (StopReason::RewardFailed, Some(reason)) => Err(Error::Reward(reason.clone())),
            _ => Ok(self),
        }
    }
}
