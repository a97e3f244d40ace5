//! What an AISP run is told to do, and what is wrong with it when it cannot be done.

use serde::{Deserialize, Serialize};

use super::price::PriceGuard;
use super::weights::LambdaRule;

/// Target effective sample size as a fraction of the samples, where λ is not given.
pub const DEFAULT_ESS_FRACTION: f64 = 0.5;

/// Settings of [`WeightedMean`](super::WeightedMean); [`WeightedOptions::new`] fills in the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedOptions {
    /// Horizon τ: response positions `0..τ` are perturbed, later ones are not. At least 1.
    pub horizon: usize,
    /// Width d of a pre-logit. At least 1.
    pub width: usize,
    /// Standard deviation σ of the noise, in pre-logit units. The paper uses `σ² = 0.5`.
    ///
    /// With σ = 0 every `v_t` equals `u_t`: the mean cannot move.
    pub sigma: f64,
    /// How far the penalty's base follows the mean, 0 to 1. Default 0.999.
    ///
    /// 0 is exact importance sampling against the prior, 1 drops the penalty. The price of KL at
    /// convergence is `λ(1−α)`. The penalty's spread over the candidates is `(1−α)·|U|/σ` nats, so
    /// keep `1−α` below about `1/√(d·τ)`.
    pub alpha: f64,
    /// Temperature of the weights. Default `LambdaRule::Ess(DEFAULT_ESS_FRACTION)`.
    pub lambda: LambdaRule,
    /// Rows past a candidate's end carry no weight, (chosen). Default true.
    ///
    /// They were never used, so they say nothing about the reward.
    pub mask_past_end: bool,
    /// Candidate 0 of every iteration is the mean itself, without noise. Default false.
    pub null_candidate: bool,
    /// Seed of the noise.
    pub seed: u64,
}

impl WeightedOptions {
    /// Options with the default for everything that is not an argument.
    pub fn new(horizon: usize, width: usize, sigma: f64, seed: u64) -> Self {
        Self {
            horizon,
            width,
            sigma,
            alpha: 0.999,
            lambda: LambdaRule::Ess(DEFAULT_ESS_FRACTION),
            mask_past_end: true,
            null_candidate: false,
            seed,
        }
    }

    pub(super) fn validate(&self) -> Result<(), ControlError> {
        // A position is one half of a 64-bit stream number, and the update holds one f64 an entry.
        let entries = self.horizon.checked_mul(self.width);
        let fits = entries.is_some_and(|e| e <= isize::MAX as usize / size_of::<f64>());
        if self.horizon == 0 || u32::try_from(self.horizon).is_err() {
            return invalid("horizon", self.horizon, "from 1 to 4294967295 positions");
        }
        if self.width == 0 || !fits {
            return invalid(
                "width",
                self.width,
                "at least 1, and horizon × width must fit in memory",
            );
        }
        // The noise is scaled in f32, where a subnormal σ would lose its digits.
        if !(self.sigma == 0.0 || self.sigma > 0.0 && (self.sigma as f32).is_normal()) {
            return invalid(
                "sigma",
                self.sigma,
                "0, or positive and within the normal range of f32",
            );
        }
        if !(0.0..=1.0).contains(&self.alpha) {
            return invalid("alpha", self.alpha, "from 0 to 1");
        }
        match self.lambda {
            LambdaRule::Fixed(lambda) if !(lambda > 0.0 && lambda.is_finite()) => {
                invalid("lambda", lambda, "positive and finite")
            }
            LambdaRule::Ess(fraction) if !(fraction > 0.0 && fraction <= 1.0) => {
                invalid("ess", fraction, "a fraction above 0 and up to 1")
            }
            _ => Ok(()),
        }
    }
}

/// Where a child parts from its elite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// At a token with probability ∝ the entropy of the model's distribution there, where that is
    /// known.
    #[default]
    Entropy,
    /// At any token with the same probability.
    Even,
}

/// What the first candidates of a search are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Samples of the model itself at temperature 1, without noise.
    #[default]
    Draws,
    /// The largest logits under noise, as in later iterations.
    Noise,
}

/// Settings of [`Search`](super::Search); [`SearchOptions::new`] fills in the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchOptions {
    /// Horizon τ: response positions `0..τ` are perturbed, later ones are not. At least 1.
    pub horizon: usize,
    /// Width d of a pre-logit. At least 1.
    pub width: usize,
    /// Standard deviation σ of the noise, in pre-logit units.
    pub sigma: f64,
    /// Unit σ₀ of the mean's length, in pre-logit units; by default σ.
    pub unit: f64,
    /// Norm of the mean, `|u|/(σ₀√d)`, for a reward that the regression explains entirely, as far
    /// as the price allows. 0 keeps the mean at zero. Default 3.
    pub steer: f64,
    /// Candidates that are continued from a cut; 0 always draws all noise anew. Default 4.
    pub elites: usize,
    /// Where they are cut. Default: by entropy.
    pub cut: Cut,
    /// Share of an iteration's candidates whose noise is all drawn anew, 0 to 1. Default 0.25.
    pub fresh: f64,
    /// What the first iteration is. Default: draws.
    pub start: Start,
    /// What the price counts. Default: a limit that the first iteration sets.
    pub guard: PriceGuard,
    /// Candidate 0 of every iteration is the mean itself, without noise. Default false.
    pub null_candidate: bool,
    /// Seed of the noise.
    pub seed: u64,
}

impl SearchOptions {
    /// Options with the default for everything that is not an argument.
    pub fn new(horizon: usize, width: usize, sigma: f64, seed: u64) -> Self {
        Self {
            horizon,
            width,
            sigma,
            unit: sigma,
            steer: 3.0,
            elites: 4,
            cut: Cut::Entropy,
            fresh: 0.25,
            start: Start::Draws,
            guard: PriceGuard::default(),
            null_candidate: false,
            seed,
        }
    }

    pub(super) fn validate(&self) -> Result<(), ControlError> {
        WeightedOptions::new(self.horizon, self.width, self.sigma, self.seed).validate()?;
        if !(self.steer >= 0.0 && self.steer.is_finite()) {
            return invalid("steer", self.steer, "0 or more, and finite");
        }
        if !(0.0..=1.0).contains(&self.fresh) {
            return invalid("fresh", self.fresh, "from 0 to 1");
        }
        Ok(())
    }
}

/// Which noise a move of [`Smc`](super::Smc) draws anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Move {
    /// That of a position and of all behind it, up to the horizon.
    #[default]
    Cut,
    /// That of a few positions in a row; the ones behind them keep theirs.
    Window,
}

/// Settings of [`Smc`](super::Smc); [`SmcOptions::new`] fills in the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct SmcOptions {
    /// Horizon τ: response positions `0..τ` are perturbed, later ones are not. At least 1.
    pub horizon: usize,
    /// Width d of a pre-logit. At least 1.
    pub width: usize,
    /// Standard deviation σ of the noise, in pre-logit units.
    pub sigma: f64,
    /// Draws tokens at temperature 1 in place of noise: p is then the model itself. Default false.
    pub draws: bool,
    /// λ never falls below this, in reward units: 0 (the default) for no floor, infinity to stay
    /// with the model.
    pub lambda: f64,
    /// How much of the effective sample size a step of λ leaves, above 0 and up to 1 (which keeps
    /// λ infinite). Default 0.5.
    pub ess: f64,
    /// Moves of each particle at one λ, at least 1. Default 1.
    pub chain: u32,
    /// What a move draws anew. Default a cut.
    pub moves: Move,
    /// Positions of a window, at least 1. Default 16.
    pub window: usize,
    /// Seed of the noise and of all decisions.
    pub seed: u64,
}

impl SmcOptions {
    /// Options with the default for everything that is not an argument.
    pub fn new(horizon: usize, width: usize, sigma: f64, seed: u64) -> Self {
        Self {
            horizon,
            width,
            sigma,
            draws: false,
            lambda: 0.0,
            ess: DEFAULT_ESS_FRACTION,
            chain: 1,
            moves: Move::Cut,
            window: 16,
            seed,
        }
    }

    pub(super) fn validate(&self) -> Result<(), ControlError> {
        WeightedOptions::new(self.horizon, self.width, self.sigma, self.seed).validate()?;
        if self.lambda.is_nan() || self.lambda < 0.0 {
            return invalid("lambda", self.lambda, "0 or more");
        }
        if !(self.ess > 0.0 && self.ess <= 1.0) {
            return invalid("ess", self.ess, "a fraction above 0 and up to 1");
        }
        if self.chain == 0 {
            return invalid("chain", self.chain, "at least 1");
        }
        if self.window == 0 {
            return invalid("window", self.window, "at least 1");
        }
        Ok(())
    }
}

/// Why a controller could not be made or changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// An option is outside its range.
    #[error("{field} = {value} is not possible: it must be {expected}")]
    Option {
        /// Name of the option, such as `horizon` or `sigma`.
        field: &'static str,
        /// Its value, as text.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A mean has the wrong shape.
    #[error(
        "the mean has {} rows of width {}, but the controller has horizon {} and width {}",
        found.0, found.1, expected.0, expected.1
    )]
    Shape {
        /// Shape of the mean that was given, `[τ, d]`.
        found: (usize, usize),
        /// Shape of the controller's mean, `[τ, d]`.
        expected: (usize, usize),
    },
    /// A mean holds NaN or an infinity.
    #[error("the mean is {value} at position {position}, column {column}: it must be finite")]
    NotFinite {
        /// Row, from 0.
        position: usize,
        /// Column, from 0.
        column: usize,
        /// The value found there.
        value: f32,
    },
}

pub(super) fn invalid(
    field: &'static str,
    value: impl ToString,
    expected: &'static str,
) -> Result<(), ControlError> {
    Err(ControlError::Option {
        field,
        value: value.to_string(),
        expected,
    })
}
