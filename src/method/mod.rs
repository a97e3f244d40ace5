//! Methods: how the candidates of the next iteration follow from the scores of the last.
//!
//! A [`Method`] proposes and observes, and never generates or scores itself: whoever drives
//! it (see [`Aligner`](crate::Aligner)) may run the proposals of one prompt, or of many, in
//! one batch, and counts the same budget for every method.

mod aisp;
mod args;
mod best_of_n;
mod greedy;
mod misvo;
mod re_control;
mod settings;
mod soft_best_of_n;
mod value_file;

use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use aisp::AispMethod;
pub use args::Args;
pub use best_of_n::BestOfN;
pub use greedy::Greedy;
pub use misvo::Misvo;
pub use re_control::{Lessons, ReControl};
pub use settings::Settings;
pub use soft_best_of_n::SoftBestOfN;

use crate::control::{ControlError, LambdaRule, NoiseKey};
pub use crate::control::{DEFAULT_ESS_FRACTION, DEFAULT_LOGIT_SD, Telemetry, Update};
use crate::error::{Error, Result};
use crate::llama::Token;
use crate::output::OutputRows;
use crate::rollout::{SamplingOptions, Steer, TokenChoice};

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
#[derive(Clone)]
pub struct Proposal {
    /// Its perturbation and randomness.
    pub steer: Option<Arc<dyn Steer>>,
    /// How its tokens are chosen.
    pub choice: TokenChoice,
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
    /// Its pre-logits z `[tokens, d]` before perturbation, where the method
    /// [asked](Method::keeps_pre_logits) for them.
    pub pre_logits: &'a [f32],
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
    /// The candidates of the next iteration; none when the method is at its end.
    fn propose(&mut self) -> Vec<Proposal>;

    /// Takes the outcomes of the last proposals (fewer where the run was stopped).
    ///
    /// # Errors
    /// What the method needs of the model could not be read.
    fn observe(&mut self, outcomes: &[Outcome<'_>]) -> Result<Telemetry>;

    /// Whether the outcomes must bring their pre-logits.
    fn keeps_pre_logits(&self) -> bool {
        false
    }

    /// Which of the scored candidates is the answer; `rewards` are those of all of them, the
    /// highest first.
    fn answer(&mut self, rewards: &[f64]) -> usize {
        let _ = rewards;
        0
    }
}

/// The methods by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MethodKind {
    /// Adaptive importance sampling on pre-logits.
    #[default]
    Aisp,
    /// The best of independent samples.
    BestOfN,
    /// One candidate, always the most probable token.
    Greedy,
    /// One of independent samples, drawn by its reward.
    SoftBestOfN,
    /// Policy gradient on the mean of the pre-logits.
    Misvo,
    /// Pre-logits moved uphill on a value network.
    ReControl,
    /// The reward guides every token.
    Args,
}

impl MethodKind {
    /// Every method with its name.
    pub const ALL: [(&'static str, Self); 7] = [
        ("aisp", Self::Aisp),
        ("best-of-n", Self::BestOfN),
        ("greedy", Self::Greedy),
        ("soft-best-of-n", Self::SoftBestOfN),
        ("misvo", Self::Misvo),
        ("re-control", Self::ReControl),
        ("args", Self::Args),
    ];

    /// Whether its iterations have one candidate.
    #[must_use]
    pub fn is_single(self) -> bool {
        matches!(self, Self::Greedy | Self::Args)
    }

    /// Whether it answers with the best of independent draws from the model.
    #[must_use]
    pub fn is_best_of_draws(self) -> bool {
        matches!(self, Self::BestOfN | Self::SoftBestOfN)
    }

    /// Whether its answer is drawn, and so need not be the best candidate.
    #[must_use]
    pub fn draws_its_answer(self) -> bool {
        self == Self::SoftBestOfN
    }

    /// The method's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("?", |(name, _)| name)
    }
}

impl FromStr for MethodKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, kind)| *kind)
            .ok_or_else(|| {
                let names = Self::ALL.map(|(name, _)| name).join(", ");
                Error::field("method", format!("no method {text:?}; there are {names}"))
            })
    }
}

/// The standard deviation of AISP's noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Sigma {
    /// σ itself, in units of a pre-logit (the paper: σ² = 0.5).
    Fixed(f64),
    /// σ such that a logit's noise has this standard deviation, in root mean square over
    /// the vocabulary.
    LogitSd(f64),
}

impl FromStr for Update {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "regression" => Ok(Self::Regression),
            "weights" => Ok(Self::Weights),
            _ => Err(Error::field(
                "update",
                format!("{text:?} is neither regression nor weights"),
            )),
        }
    }
}

/// Options of every method; each reads those that concern it.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodOptions {
    /// Candidates of one iteration (default 16).
    pub samples: usize,
    /// Iterations (default 8); samples · iterations is the budget.
    pub iterations: usize,
    /// Seed of all randomness (default 0).
    pub seed: u64,
    /// Most tokens of a response (default 128).
    pub max_tokens: usize,
    /// Temperature, top-k, top-p and min-p where tokens are drawn.
    pub sampling: SamplingOptions,
    /// AISP: positions that are perturbed; `None` is all of them.
    pub horizon: Option<usize>,
    /// AISP: how it learns (default: regression).
    pub update: Update,
    /// AISP by regression: norm of the mean in units of the noise's, for a reward that it
    /// explains entirely (default 2).
    pub steer: f64,
    /// AISP by regression: candidates whose noise is refined (default 4).
    pub elites: usize,
    /// AISP by regression: probability of drawing a position's noise anew in the second
    /// iteration (default 0.4).
    pub mutation: f64,
    /// AISP by regression: factor of that probability from iteration to iteration
    /// (default 0.76).
    pub mutation_decay: f64,
    /// AISP by regression: where it stops falling (default 0.08).
    pub mutation_floor: f64,
    /// AISP by weights: their temperature (default: the one whose effective sample size is a
    /// set fraction of the samples).
    pub lambda: LambdaRule,
    /// AISP: noise (default: what moves a logit like Gumbel noise at the sampling
    /// temperature 0.8 would).
    pub sigma: Sigma,
    /// AISP by weights: how far the penalty's base follows U, 0 to 1 (default 0.999).
    pub alpha: f64,
    /// AISP by weights: whether positions past a candidate's end carry no weight (default true).
    pub mask_past_end: bool,
    /// AISP: whether candidate 0 of every iteration is the mean itself (default false).
    pub null_candidate: bool,
    /// AISP: draw tokens from the perturbed logits instead of taking the largest
    /// (default false).
    pub draw_tokens: bool,
    /// MISVO, RE-Control: step size η; `None` is the method's own default.
    pub step: Option<f64>,
    /// RE-Control: gradient steps at each token (default 30).
    pub steps: usize,
    /// RE-Control: file of the value network.
    pub value: Option<String>,
    /// ARGS: tokens that are scored at each position (default 10).
    pub guided: usize,
    /// ARGS: weight of the reward against a logit (default 1.5).
    pub weight: f64,
}

impl Default for MethodOptions {
    fn default() -> Self {
        Self {
            samples: 16,
            iterations: 8,
            seed: 0,
            max_tokens: 128,
            sampling: SamplingOptions::default(),
            horizon: None,
            update: Update::default(),
            steer: 2.0,
            elites: 4,
            mutation: 0.4,
            mutation_decay: 0.76,
            mutation_floor: 0.08,
            lambda: LambdaRule::Ess(DEFAULT_ESS_FRACTION),
            sigma: Sigma::LogitSd(DEFAULT_LOGIT_SD),
            alpha: 0.999,
            mask_past_end: true,
            null_candidate: false,
            draw_tokens: false,
            step: None,
            steps: re_control::DEFAULT_STEPS,
            value: None,
            guided: args::DEFAULT_GUIDED,
            weight: args::DEFAULT_WEIGHT,
        }
    }
}

impl MethodOptions {
    /// Checks everything that can be checked without a model.
    ///
    /// # Errors
    /// [`Error::Field`] naming the flag and the value.
    pub fn validate(&self) -> Result<()> {
        let counts = [
            ("samples", self.samples),
            ("iterations", self.iterations),
            ("max-tokens", self.max_tokens),
            ("horizon", self.horizon.unwrap_or(1)),
            ("guided", self.guided),
            ("steps", self.steps),
        ];
        for (flag, count) in counts {
            if count == 0 || u32::try_from(count).is_err() {
                return Err(Error::field(flag, format!("{count}; give at least 1")));
            }
        }
        self.sampling.validate()?;
        if let Some(step) = self.step.filter(|step| !(*step > 0.0 && step.is_finite())) {
            return Err(Error::field(
                "step",
                format!("{step}; give a positive number"),
            ));
        }
        if !self.weight.is_finite() {
            let reason = format!("{}; give a finite number", self.weight);
            return Err(Error::field("weight", reason));
        }
        // The controller knows its own ranges.
        AispMethod::new(
            self,
            &ModelFacts {
                width: 1,
                rms_row_norm: 1.0,
                output: None,
                scorer: None,
            },
        )
        .map(drop)
    }
}

/// What a method needs to know of the model.
#[derive(Clone)]
pub struct ModelFacts {
    /// Width d of the pre-logits.
    pub width: usize,
    /// Root mean square of the row norms of the output matrix; 1 where it is not needed.
    pub rms_row_norm: f64,
    /// The output matrix, where the method reads it.
    pub output: Option<Arc<OutputRows>>,
    /// The reward of unfinished responses, where the method asks for it.
    pub scorer: Option<Arc<dyn Scorer>>,
}

/// Scores responses that are being written.
pub trait Scorer: Send + Sync {
    /// The rewards of token sequences, in order; `None` for one without text or reward.
    ///
    /// # Errors
    /// The reward failed as a whole.
    fn score(&self, responses: &[Vec<Token>]) -> Result<Vec<Option<f64>>>;
}

/// Makes a method for one prompt.
///
/// # Errors
/// [`Error::Field`] for options out of range.
pub fn build(
    kind: MethodKind,
    options: &MethodOptions,
    facts: &ModelFacts,
) -> Result<Box<dyn Method>> {
    options.validate()?;
    Ok(match kind {
        MethodKind::Aisp => Box::new(AispMethod::new(options, facts)?),
        MethodKind::BestOfN => Box::new(BestOfN::new(options)),
        MethodKind::Greedy => Box::new(Greedy::new()),
        MethodKind::SoftBestOfN => Box::new(SoftBestOfN::new(options)),
        MethodKind::Misvo => Box::new(Misvo::new(options, facts)?),
        MethodKind::ReControl => Box::new(ReControl::new(options, facts)?),
        MethodKind::Args => Box::new(Args::new(options, facts)?),
    })
}
