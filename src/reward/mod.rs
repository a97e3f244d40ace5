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
pub(crate) mod http;
mod import;
mod judge;
#[cfg(unix)]
mod keeper;
mod kinds;
mod likelihood;
mod load;
mod mix;
mod options;
mod pairwise;
mod probe;
mod process;
mod rubric;
mod rule;
mod sample;
mod source;
mod spec;
mod steps;
mod terms;
mod text;
pub mod train;

pub use classifier::{Classifier, ClassifierOptions};
pub use command::{CommandOptions, CommandReward};
pub use features::{FeaturePooling, FeatureVector, Features, FeaturesOptions};
pub use head::{Head, HeadOptions};
pub use head_file::{Dense, Files, Folder, LinearHead, head_beside};
pub use http::{HttpApi, HttpOptions, HttpReward};
pub use import::{ImportOptions, import_gguf, import_head};
pub use judge::{Judge, JudgeOptions, Verdict};
pub use kinds::{kinds, reward_help};
pub use likelihood::{Likelihood, LikelihoodOptions};
pub use load::RewardLoader;
pub use mix::Mix;
pub use pairwise::{Pairwise, PairwiseOptions};
pub use probe::{ProbeAspect, ProbePair, ProbeReport, ProbeVerdict, probe, probe_pairs};
pub use rubric::{Rubric, RubricOptions, RubricQuestion};
pub use rule::{RuleResult, Rules};
pub use sample::{OwnedSample, Sample, TextOrMessages};
pub use source::{RewardKind, RewardOption, RewardSource};
pub use spec::RewardSpec;
pub use steps::{StepCount, Steps};
pub use text::{RewardText, TextOrigin, TooLong};

use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::llama::{Model, Token};

/// A reward with what it cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// The reward, in the reward's own unit. NaN and infinite values count as failed.
    pub reward: f64,
    /// Tokens the reward model read.
    pub tokens: usize,
    /// Whether the text was cut to fit the reward model.
    pub truncated: bool,
    /// What the reward is the sum of, each in its own unit, where the reward has
    /// [parts](Reward::parts).
    pub parts: Vec<f64>,
}

/// One of what a reward is the sum of, Σ weight·part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RewardPart {
    /// A short name.
    pub name: String,
    /// Its factor.
    pub weight: f64,
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

/// A text as a reward model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadText {
    /// The pieces of its tokens, special ones included.
    pub text: String,
    /// The tokens, with all that the model wants around a text.
    pub tokens: Vec<Token>,
}

impl ReadText {
    fn new(model: &Model, tokens: Vec<Token>) -> Self {
        let bytes: Vec<u8> = tokens.iter().flat_map(|&t| model.piece(t, true)).collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Self { text, tokens }
    }
}

/// What a reward that was given up says of itself.
pub(crate) fn given_up() -> Error {
    Error::Reward("given up, as the run is to stop".into())
}

/// Something that scores responses.
pub trait Reward: Send {
    /// A short name for reports: a file name, a rule.
    fn name(&self) -> String;

    /// What it reads of a sample, in a few words.
    fn sees(&self) -> String {
        "prompt and response".into()
    }

    /// What its scores are sums of, in the order of [`Score::parts`]; none where a reward is one
    /// number.
    fn parts(&self) -> Vec<RewardPart> {
        Vec::new()
    }

    /// Scores every sample, in order.
    ///
    /// # Errors
    /// Only when nothing more can be scored; a single unusable sample is a
    /// [`SampleError`] in its place.
    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores>;

    /// The same for responses of one run beside its best ones so far, its `elites`, with the rewards
    /// that they were given: for a reward that only [compares](Self::compares). By default they do
    /// not matter.
    ///
    /// # Errors
    /// Those of [`score`](Self::score).
    fn score_beside(
        &mut self,
        samples: &[Sample<'_>],
        elites: &[(Sample<'_>, f64)],
    ) -> Result<Scores> {
        let _ = elites;
        self.score(samples)
    }

    /// Whether a score is nothing by itself, and says only how a response compares with those that
    /// it was scored with, and with the elites; no other reward can then be added to it.
    fn compares(&self) -> bool {
        false
    }

    /// What models read of a sample to score it, a text for each; none where no model of this
    /// program reads it.
    ///
    /// # Errors
    /// Those of a chat template.
    fn reads(&self, sample: &Sample<'_>) -> Result<Vec<ReadText>> {
        let _ = sample;
        Ok(Vec::new())
    }

    /// Begins to score them as [`score_beside`](Self::score_beside) does, elsewhere, so that nobody waits;
    /// `None`, the default, where that is not possible.
    fn begin(&mut self, samples: &[Sample<'_>], elites: &[(Sample<'_>, f64)]) -> Option<Pending> {
        let _ = (samples, elites);
        None
    }
}

/// Scores that are being made: asked again and again, it answers once they are there.
pub type Pending = Box<dyn FnMut() -> Option<Result<Scores>> + Send>;

impl<R: Reward + ?Sized> Reward for Box<R> {
    fn name(&self) -> String {
        (**self).name()
    }

    fn sees(&self) -> String {
        (**self).sees()
    }

    fn parts(&self) -> Vec<RewardPart> {
        (**self).parts()
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        (**self).score(samples)
    }

    fn reads(&self, sample: &Sample<'_>) -> Result<Vec<ReadText>> {
        (**self).reads(sample)
    }

    fn score_beside(
        &mut self,
        samples: &[Sample<'_>],
        elites: &[(Sample<'_>, f64)],
    ) -> Result<Scores> {
        (**self).score_beside(samples, elites)
    }

    fn compares(&self) -> bool {
        (**self).compares()
    }

    fn begin(&mut self, samples: &[Sample<'_>], elites: &[(Sample<'_>, f64)]) -> Option<Pending> {
        (**self).begin(samples, elites)
    }
}

/// A reward made of a function of (prompt, response).
///
/// ```
/// use aisp_llama::reward::{FnReward, Reward, Sample};
/// let mut brevity = FnReward::new("brevity", |_prompt, response| -(response.len() as f64));
/// let scores = brevity.score(&[Sample::new("Hi", "Yo")]).unwrap();
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
                    ..Score::default()
                })
            })
            .collect())
    }
}

/// Texts that any useful reward model tells apart.
const PROBES: [Sample<'static>; 2] = [
    Sample::new(
        "Review the film in one sentence.",
        "A wonderful, warm and moving film that I will watch again and again.",
    ),
    Sample::new(
        "Review the film in one sentence.",
        "Dull, lifeless and badly acted: two hours of my life that I want back.",
    ),
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
