//! What a face may set of a controller, with its defaults: flags, presets and C structures all
//! become these, and these a [`Controller`].

use std::fmt;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::controller::{Controller, Update};
use super::noise::{DEFAULT_LOGIT_SD, calibrated_sigma};
use super::options::{ControlError, DEFAULT_ESS_FRACTION, SearchOptions, WeightedOptions};
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

/// Settings of a [`Controller`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ControllerSettings {
    /// How it learns (default: regression).
    pub update: Update,
    /// Standard deviation σ of the noise on a pre-logit (the paper: σ² = 0.5); by default the one
    /// that gives a logit's noise the deviation `logit_sd`.
    pub sigma: AutoOr,
    /// Standard deviation of the noise on a logit, in root mean square over the vocabulary, where
    /// σ is not given (default [`DEFAULT_LOGIT_SD`]).
    pub logit_sd: f64,
    /// Candidate 0 of every iteration is the mean itself (default false).
    pub null_candidate: bool,
    /// Regression: norm of the mean in units of the noise's, for a reward that it explains
    /// entirely: [`SearchOptions::steer`].
    pub steer: f64,
    /// Regression: candidates whose noise is refined: [`SearchOptions::elites`].
    pub elites: usize,
    /// Regression: probability of drawing a position's noise anew in the second iteration:
    /// [`SearchOptions::mutation`].
    pub mutation: f64,
    /// Regression: its factor from iteration to iteration: [`SearchOptions::mutation_decay`].
    pub mutation_decay: f64,
    /// Regression: where it stops falling: [`SearchOptions::mutation_floor`].
    pub mutation_floor: f64,
    /// Weights: their temperature, in reward units; by default the one that gives the effective
    /// sample size `ess`.
    pub lambda: AutoOr,
    /// Weights: that effective sample size, as a fraction of the samples (default
    /// [`DEFAULT_ESS_FRACTION`]).
    pub ess: f64,
    /// Weights: how far the penalty's base follows the mean: [`WeightedOptions::alpha`].
    pub alpha: f64,
    /// Weights: whether positions past a candidate's end have weight as well (default false).
    pub unmasked: bool,
}

impl Default for ControllerSettings {
    fn default() -> Self {
        let search = SearchOptions::new(1, 1, 1.0, 0);
        let weights = WeightedOptions::new(1, 1, 1.0, 0);
        Self {
            update: Update::default(),
            sigma: AutoOr::Auto,
            logit_sd: DEFAULT_LOGIT_SD,
            null_candidate: search.null_candidate,
            steer: search.steer,
            elites: search.elites,
            mutation: search.mutation,
            mutation_decay: search.mutation_decay,
            mutation_floor: search.mutation_floor,
            lambda: AutoOr::Auto,
            ess: DEFAULT_ESS_FRACTION,
            alpha: weights.alpha,
            unmasked: !weights.mask_past_end,
        }
    }
}

impl ControllerSettings {
    /// The controller for `horizon` positions of pre-logits with `width` columns, from a mean of
    /// zero. `rms_row_norm` is asked only where σ follows from it: see [`calibrated_sigma`].
    ///
    /// # Errors
    /// [`ControlError::Option`] names the setting that is out of range and its value; else what
    /// `rms_row_norm` failed with.
    pub fn controller<E: From<ControlError>>(
        &self,
        horizon: usize,
        width: usize,
        seed: u64,
        rms_row_norm: impl FnOnce() -> Result<f64, E>,
    ) -> Result<Controller, E> {
        let sigma = match self.sigma {
            AutoOr::Number(sigma) => sigma,
            AutoOr::Auto => {
                if !(self.logit_sd >= 0.0 && self.logit_sd.is_finite()) {
                    return Err(ControlError::Option {
                        field: "logit-sd",
                        value: self.logit_sd.to_string(),
                        expected: "0 or more, and finite",
                    }
                    .into());
                }
                calibrated_sigma(self.logit_sd, rms_row_norm()?)
            }
        };
        let search = SearchOptions {
            steer: self.steer,
            elites: self.elites,
            mutation: self.mutation,
            mutation_decay: self.mutation_decay,
            mutation_floor: self.mutation_floor,
            null_candidate: self.null_candidate,
            ..SearchOptions::new(horizon, width, sigma, seed)
        };
        let weights = WeightedOptions {
            alpha: self.alpha,
            lambda: match self.lambda {
                AutoOr::Number(lambda) => LambdaRule::Fixed(lambda),
                AutoOr::Auto => LambdaRule::Ess(self.ess),
            },
            mask_past_end: !self.unmasked,
            null_candidate: self.null_candidate,
            ..WeightedOptions::new(horizon, width, sigma, seed)
        };
        // The other rule's settings are to be in their ranges as well.
        search.validate()?;
        weights.validate()?;
        Ok(match self.update {
            Update::Regression => Controller::search(search)?,
            Update::Weights => Controller::weighted(weights)?,
        })
    }
}
