//! Rewards: what makes one response better than another.
//!
//! A [`Reward`] scores (prompt, response) pairs in any unit, higher is better. It may fail
//! for a single pair ([`SampleError`]: that candidate gets no weight, and is counted) or as
//! a whole ([`Error::Reward`]: the run ends).

mod classifier;
mod command;
mod features;
mod file;
mod head;
mod head_file;
mod http;
mod judge;
#[cfg(unix)]
mod keeper;
mod kinds;
mod likelihood;
mod load;
mod mix;
mod options;
mod probe;
mod process;
mod rule;
mod source;
mod spec;
mod terms;
mod text;
pub mod train;

pub use classifier::{Classifier, ClassifierOptions};
pub use command::{CommandOptions, CommandReward};
pub use features::{FeaturePooling, FeatureVector, Features, FeaturesOptions};
pub use head::{Head, HeadOptions};
pub use head_file::LinearHead;
pub use http::{HttpApi, HttpOptions, HttpReward};
pub use judge::{Judge, JudgeOptions, Verdict};
pub use kinds::kinds;
pub use likelihood::{Likelihood, LikelihoodOptions};
pub use load::RewardLoader;
pub use mix::Mix;
pub use probe::{ProbeAspect, ProbePair, ProbeReport, ProbeVerdict, probe, probe_pairs};
pub use rule::{RuleResult, Rules};
pub use source::{RewardKind, RewardSource};
pub use spec::RewardSpec;
pub use text::{RewardText, TooLong};

use std::path::Path;

use crate::error::{Error, Result};

/// A response to be scored, with the prompt it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// The prompt as the user wrote it; of a conversation, the last user message.
    pub prompt: &'a str,
    /// The response, special tokens left out.
    pub response: &'a str,
}

/// A reward with what it cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// The reward, in the reward's own unit. NaN and infinite values count as failed.
    pub reward: f64,
    /// Tokens the reward model read.
    pub tokens: usize,
    /// Whether the text was cut to fit the reward model.
    pub truncated: bool,
}

/// Why one pair could not be scored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The text is longer than the reward model takes.
    #[error("{tokens} tokens, the reward model takes {limit}")]
    TooLong {
        /// Tokens of the text.
        tokens: usize,
        /// Most tokens the reward model takes.
        limit: usize,
    },
    /// Any other reason.
    #[error("{0}")]
    Other(String),
}

/// What a reward says of one sample.
pub type Answer = std::result::Result<Score, SampleError>;

/// What a reward says of some samples, in their order.
pub type Scores = Vec<Answer>;

/// What a reward that was given up says of itself.
fn given_up() -> Error {
    Error::Reward("given up, as the run is to stop".into())
}

/// Something that scores responses.
pub trait Reward: Send {
    /// A short name for reports: a file name, a rule.
    fn name(&self) -> String;

    /// Scores every sample, in order.
    ///
    /// # Errors
    /// Only when nothing more can be scored; a single unusable sample is a
    /// [`SampleError`] in its place.
    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores>;
}

impl<R: Reward + ?Sized> Reward for Box<R> {
    fn name(&self) -> String {
        (**self).name()
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        (**self).score(samples)
    }
}

/// A reward made of a function of (prompt, response).
///
/// ```
/// use aisp_llama::reward::{FnReward, Reward, Sample};
/// let mut brevity = FnReward::new("brevity", |_prompt, response| -(response.len() as f64));
/// let scores = brevity.score(&[Sample { prompt: "Hi", response: "Yo" }]).unwrap();
/// assert_eq!(scores[0].as_ref().unwrap().reward, -2.0);
/// ```
pub struct FnReward<F> {
    name: String,
    function: F,
}

impl<F: FnMut(&str, &str) -> f64 + Send> FnReward<F> {
    /// Names the function.
    pub fn new(name: impl Into<String>, function: F) -> Self {
        Self {
            name: name.into(),
            function,
        }
    }
}

impl<F: FnMut(&str, &str) -> f64 + Send> Reward for FnReward<F> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        Ok(samples
            .iter()
            .map(|s| {
                Ok(Score {
                    reward: (self.function)(s.prompt, s.response),
                    tokens: 0,
                    truncated: false,
                })
            })
            .collect())
    }
}

/// Texts that any useful reward model tells apart.
const PROBES: [Sample<'static>; 2] = [
    Sample {
        prompt: "Review the film in one sentence.",
        response: "A wonderful, warm and moving film that I will watch again and again.",
    },
    Sample {
        prompt: "Review the film in one sentence.",
        response: "Dull, lifeless and badly acted: two hours of my life that I want back.",
    },
];

/// Refuses a reward model that gives two clearly different texts the same score: some heads
/// are squashed to a constant, and a missing one is a meaningless number.
fn check_tells_apart(path: &Path, reward: &mut dyn Reward) -> Result<()> {
    let mut rewards = [f64::NAN; 2];
    for (score, reward) in reward.score(&PROBES)?.into_iter().zip(&mut rewards) {
        *reward = score
            .map_err(|e| Error::model(path, format!("a short text: {e}")))?
            .reward;
    }
    let [a, b] = rewards;
    if a.is_finite() && b.is_finite() && (a - b).abs() > 1e-4 {
        return Ok(());
    }
    Err(Error::model(
        path,
        format!("scores two clearly different texts alike ({a} and {b}): this is no reward"),
    ))
}
