//! What a face may set of a controller, with its defaults: flags, presets and C structures all
//! become these, and these a [`Controller`].

use std::fmt;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::controller::Controller;
use super::noise::{DEFAULT_LOGIT_SD, calibrated_sigma};
use super::options::{
    ControlError, Cut, DEFAULT_ESS_FRACTION, Move, SearchOptions, SmcOptions, Start,
    WeightedOptions,
};
use super::price::{PriceGuard, PriceRule};
use super::weights::LambdaRule;

/// A number, or `auto`: one that is worked out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum AutoOr {
    /// Worked out.
    #[default]
    Auto,
    /// Given.
    Number(f64),
}

impl Serialize for AutoOr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Number(x) => serializer.serialize_f64(*x),
        }
    }
}

impl<'de> Deserialize<'de> for AutoOr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = AutoOr;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or auto")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<AutoOr, E> {
                match text {
                    "auto" => Ok(AutoOr::Auto),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_f64<E>(self, x: f64) -> Result<AutoOr, E> {
                Ok(AutoOr::Number(x))
            }

            fn visit_i64<E>(self, x: i64) -> Result<AutoOr, E> {
                Ok(AutoOr::Number(x as f64))
            }

            fn visit_u64<E>(self, x: u64) -> Result<AutoOr, E> {
                Ok(AutoOr::Number(x as f64))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Settings of the noise, which every controller has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct NoiseSettings {
    /// Standard deviation σ of the noise on a pre-logit (the paper: σ² = 0.5); by default the one
    /// that gives the difference of two logits' noise from their mean the deviation `logit_sd`.
    pub sigma: AutoOr,
    /// That deviation, in root mean square over the vocabulary, where σ is not given (default
    /// [`DEFAULT_LOGIT_SD`]).
    pub logit_sd: f64,
    /// Candidate 0 of every iteration is the mean itself (default false).
    pub null_candidate: bool,
}

impl Default for NoiseSettings {
    fn default() -> Self {
        Self {
            sigma: AutoOr::Auto,
            logit_sd: DEFAULT_LOGIT_SD,
            null_candidate: false,
        }
    }
}

impl NoiseSettings {
    /// σ. `row_spread` is asked only where it follows from that: see [`calibrated_sigma`].
    fn sigma<E: From<ControlError>>(
        &self,
        row_spread: impl FnOnce() -> Result<f64, E>,
    ) -> Result<f64, E> {
        match self.sigma {
            AutoOr::Number(sigma) => Ok(sigma),
            AutoOr::Auto if self.logit_sd >= 0.0 && self.logit_sd.is_finite() => {
                Ok(calibrated_sigma(self.logit_sd, row_spread()?))
            }
            AutoOr::Auto => Err(ControlError::Option {
                field: "logit-sd",
                value: self.logit_sd.to_string(),
                expected: "0 or more, and finite",
            }
            .into()),
        }
    }
}

/// Settings of the price.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct PriceSettings {
    /// How it counts (default: a limit).
    pub price: PriceRule,
    /// The limit in nats a token; by default the first iteration's mean and one standard deviation.
    pub price_limit: AutoOr,
}

impl PriceSettings {
    /// The guard that holds it.
    ///
    /// # Errors
    /// [`ControlError::Option`] names the setting that is out of range and its value.
    pub fn guard(&self) -> Result<PriceGuard, ControlError> {
        PriceGuard::new(
            self.price,
            match self.price_limit {
                AutoOr::Auto => None,
                AutoOr::Number(limit) => Some(limit),
            },
        )
    }
}

/// Settings of a [`Search`](super::Search).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct SearchSettings {
    /// Those of the noise.
    #[serde(flatten)]
    pub noise: NoiseSettings,
    /// [`SearchOptions::steer`].
    pub steer: f64,
    /// [`SearchOptions::elites`].
    pub elites: usize,
    /// [`SearchOptions::cut`].
    pub cut: Cut,
    /// [`SearchOptions::fresh`].
    pub fresh: f64,
    /// [`SearchOptions::start`].
    pub start: Start,
    /// Those of the price.
    #[serde(flatten)]
    pub price: PriceSettings,
}

impl Default for SearchSettings {
    fn default() -> Self {
        let search = SearchOptions::new(1, 1, 1.0, 0);
        Self {
            noise: NoiseSettings::default(),
            steer: search.steer,
            elites: search.elites,
            cut: search.cut,
            fresh: search.fresh,
            start: search.start,
            price: PriceSettings::default(),
        }
    }
}

impl SearchSettings {
    /// The search for `horizon` positions of pre-logits with `width` columns. `row_spread` is
    /// [`calibrated_sigma`]'s.
    ///
    /// # Errors
    /// [`ControlError::Option`] names the setting that is out of range and its value; else what
    /// `row_spread` failed with.
    pub fn controller<E: From<ControlError>>(
        &self,
        horizon: usize,
        width: usize,
        seed: u64,
        row_spread: impl Fn() -> Result<f64, E>,
    ) -> Result<Controller, E> {
        let sigma = self.noise.sigma(&row_spread)?;
        let options = SearchOptions {
            unit: match self.steer > 0.0 {
                true => calibrated_sigma(DEFAULT_LOGIT_SD, row_spread()?),
                false => sigma,
            },
            steer: self.steer,
            elites: self.elites,
            cut: self.cut,
            fresh: self.fresh,
            start: self.start,
            guard: self.price.guard()?,
            null_candidate: self.noise.null_candidate,
            ..SearchOptions::new(horizon, width, sigma, seed)
        };
        Ok(Controller::search(options)?)
    }
}

/// What adaptive importance sampling makes of the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Update {
    /// A population that is resampled and moved: see [`Smc`](super::Smc).
    #[default]
    Smc,
    /// The weighted mean of the noise, as in the paper: see [`WeightedMean`](super::WeightedMean).
    Weights,
}

/// What a population's candidates are random by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseKind {
    /// Tokens are drawn at temperature 1, as independent Gumbel noise on the logits would choose
    /// them: without a mean that is the model itself, above the floor.
    #[default]
    Gumbel,
    /// Gaussian noise on the pre-logits; the largest logit is taken.
    Gaussian,
}

/// Settings of adaptive importance sampling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct SamplerSettings {
    /// Those of the noise.
    #[serde(flatten)]
    pub noise: NoiseSettings,
    /// What it makes of the weights (default: a population).
    pub update: Update,
    /// Temperature of the weights, in reward units; by default the one that gives the effective
    /// sample size `ess`. A population's falls to this one; by default as far as it gets.
    pub lambda: AutoOr,
    /// That effective sample size, as a fraction of the candidates (default
    /// [`DEFAULT_ESS_FRACTION`]).
    pub ess: f64,
    /// Population: what candidates are random by.
    #[serde(rename = "noise")]
    pub noise_kind: NoiseKind,
    /// Population that draws tokens and is cut: nats that the proposals of the learnt mean may cost a
    /// candidate on average (default 8); 0 learns none.
    pub steer: f64,
    /// Population: [`SmcOptions::moves`].
    #[serde(rename = "move")]
    pub moves: Move,
    /// Population: [`SmcOptions::window`].
    pub window: usize,
    /// Population: [`SmcOptions::chain`].
    pub chain: u32,
    /// Weights: how far the penalty's base follows the mean: [`WeightedOptions::alpha`].
    pub alpha: f64,
    /// Weights: whether positions past a candidate's end have weight as well (default false).
    pub unmasked: bool,
    /// Those of the price.
    #[serde(flatten)]
    pub price: PriceSettings,
}

impl Default for SamplerSettings {
    fn default() -> Self {
        let weights = WeightedOptions::new(1, 1, 1.0, 0);
        let smc = SmcOptions::new(1, 1, 1.0, 0);
        Self {
            noise: NoiseSettings::default(),
            update: Update::default(),
            lambda: AutoOr::Auto,
            ess: DEFAULT_ESS_FRACTION,
            noise_kind: NoiseKind::default(),
            steer: 8.0,
            moves: smc.moves,
            window: smc.window,
            chain: smc.chain,
            alpha: weights.alpha,
            unmasked: !weights.mask_past_end,
            price: PriceSettings::default(),
        }
    }
}

impl SamplerSettings {
    /// Whether tokens are drawn in place of noise.
    #[must_use]
    pub fn draws(&self) -> bool {
        self.update == Update::Smc && self.noise_kind == NoiseKind::Gumbel
    }

    /// The controller for `horizon` positions of pre-logits with `width` columns, from a mean of
    /// zero. `row_spread` is [`calibrated_sigma`]'s.
    ///
    /// # Errors
    /// [`ControlError::Option`] names the setting that is out of range and its value; else what
    /// `row_spread` failed with.
    pub fn controller<E: From<ControlError>>(
        &self,
        horizon: usize,
        width: usize,
        seed: u64,
        row_spread: impl Fn() -> Result<f64, E>,
    ) -> Result<Controller, E> {
        let draws = self.draws();
        let sigma = match draws {
            true => 1.0,
            false => self.noise.sigma(&row_spread)?,
        };
        let weights = WeightedOptions {
            alpha: self.alpha,
            lambda: match self.lambda {
                AutoOr::Number(lambda) => LambdaRule::Fixed(lambda),
                AutoOr::Auto => LambdaRule::Ess(self.ess),
            },
            mask_past_end: !self.unmasked,
            null_candidate: self.noise.null_candidate,
            ..WeightedOptions::new(horizon, width, sigma, seed)
        };
        let smc = SmcOptions {
            lambda: match self.lambda {
                AutoOr::Number(lambda) => lambda,
                AutoOr::Auto => 0.0,
            },
            ess: self.ess,
            moves: self.moves,
            window: self.window,
            chain: self.chain,
            draws,
            ..SmcOptions::new(horizon, width, sigma, seed)
        };
        if self.update == Update::Smc && self.noise.null_candidate {
            return Err(ControlError::Option {
                field: "null-candidate",
                value: "true".into(),
                expected: "false for a population, which has no mean; or `update` = weights",
            }
            .into());
        }
        let refused = |field, value: String, expected| ControlError::Option {
            field,
            value,
            expected,
        };
        let unread = "auto where tokens are drawn; or give `noise` = gaussian";
        match self.noise.sigma {
            AutoOr::Number(sigma) if draws => {
                return Err(refused("sigma", sigma.to_string(), unread).into());
            }
            _ => {}
        }
        if !(self.steer >= 0.0 && self.steer.is_finite()) {
            return Err(refused("steer", self.steer.to_string(), "0 or more, and finite").into());
        }
        // The other rule's settings are to be in their ranges as well.
        weights.validate()?;
        smc.validate()?;
        let guard = self.price.guard()?;
        Ok(match self.update {
            Update::Smc => {
                // Elsewhere nothing is known of what a proposal costs.
                let steer = match draws && self.moves == Move::Cut {
                    true => self.steer,
                    false => 0.0,
                };
                let unit = match steer > 0.0 {
                    true => calibrated_sigma(DEFAULT_LOGIT_SD, row_spread()?),
                    false => 1.0,
                };
                Controller::population(smc, guard, steer, unit)?
            }
            Update::Weights => Controller::weighted(weights, guard)?,
        })
    }
}
