//! Options by name: what a preset file holds, and what `compare` writes beside a method.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{MethodOptions, Sigma, Update};
use crate::control::LambdaRule;
use crate::error::{Error, Result};

/// Options that are set; the others stay as they are. In JSON an object with the names of the
/// flags: `{"sigma": 0.3, "elites": 8}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// How AISP learns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// Standard deviation σ of the noise on a pre-logit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma: Option<f64>,
    /// Standard deviation of the noise on a logit, instead of σ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_sd: Option<f64>,
    /// Positions that are perturbed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub horizon: Option<usize>,
    /// Norm of the mean in units of the noise's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steer: Option<f64>,
    /// Candidates whose noise is refined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elites: Option<usize>,
    /// Probability of drawing a position's noise anew in the second iteration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutation: Option<f64>,
    /// Its factor from iteration to iteration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutation_decay: Option<f64>,
    /// Where it stops falling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutation_floor: Option<f64>,
    /// Temperature of the weights, in reward units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda: Option<f64>,
    /// Effective sample size to aim at, as a fraction of the samples, instead of λ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ess: Option<f64>,
    /// How far the penalty's base follows the mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Whether positions past a candidate's end have weight as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmasked: Option<bool>,
    /// Whether candidate 0 is the mean itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub null_candidate: Option<bool>,
    /// Whether AISP draws tokens from the perturbed logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draw_tokens: Option<bool>,
    /// MISVO, RE-Control: step size η.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<f64>,
    /// RE-Control: gradient steps at each token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// RE-Control: file of the value network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// ARGS: tokens that are scored at each position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guided: Option<usize>,
    /// ARGS: weight of the reward against a logit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Temperature where tokens are drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temp: Option<f32>,
    /// Keep the K most probable tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Keep the tokens that make up this probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Keep tokens at least this fraction as probable as the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
}

impl Settings {
    /// The paper's setting: σ² = 0.5, λ = 0.3, α = 0.999, the weighted mean of all rows.
    #[must_use]
    pub fn paper() -> Self {
        Self {
            update: Some(Update::Weights),
            sigma: Some(0.5_f64.sqrt()),
            lambda: Some(0.3),
            alpha: Some(0.999),
            unmasked: Some(true),
            ..Self::default()
        }
    }

    /// A preset by its name, `paper`, or from a JSON file.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Field`] naming what is wrong in it.
    pub fn preset(name: &str) -> Result<Self> {
        if name == "paper" {
            return Ok(Self::paper());
        }
        let path = Path::new(name);
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::field(
                "preset",
                format!("{name}: {error}; give paper or a JSON file"),
            )
        })?;
        serde_json::from_str(&text).map_err(|e| Error::field("preset", format!("{name}: {e}")))
    }

    /// One setting, `NAME=VALUE`, or `preset=NAME`, with the names of the flags.
    ///
    /// # Errors
    /// [`Error::Field`] for a name that there is not, or a value of another kind.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |reason: String| Error::field("methods", format!("{text}: {reason}"));
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| wrong("settings are written NAME=VALUE".into()))?;
        if name == "preset" {
            return Self::preset(value);
        }
        let number = serde_json::from_str(value)
            .ok()
            .filter(|v: &serde_json::Value| !v.is_object());
        let json = number.unwrap_or_else(|| value.into());
        let object = serde_json::Map::from_iter([(name.to_owned(), json)]);
        serde_json::from_value(object.into()).map_err(|e| wrong(e.to_string()))
    }

    /// These settings with those of `over` in place of them.
    #[must_use]
    pub fn merged(&self, over: &Self) -> Self {
        macro_rules! first {
            ($($field:ident),*) => { Self { $($field: over.$field.clone().or(self.$field.clone())),* } };
        }
        let mut merged = first!(
            update,
            sigma,
            logit_sd,
            horizon,
            steer,
            elites,
            mutation,
            mutation_decay,
            mutation_floor,
            lambda,
            ess,
            alpha,
            unmasked,
            null_candidate,
            draw_tokens,
            step,
            steps,
            value,
            guided,
            weight,
            temp,
            top_k,
            top_p,
            min_p
        );
        // The two ways to say σ, and λ: the later one counts.
        match over {
            Self { sigma: Some(_), .. } => merged.logit_sd = None,
            Self {
                logit_sd: Some(_), ..
            } => merged.sigma = None,
            _ => {}
        }
        match over {
            Self {
                lambda: Some(_), ..
            } => merged.ess = None,
            Self { ess: Some(_), .. } => merged.lambda = None,
            _ => {}
        }
        merged
    }

    /// Puts what is set into `options`.
    pub fn apply(&self, options: &mut MethodOptions) {
        macro_rules! set {
            ($($from:ident => $to:expr),* $(,)?) => {
                $( if let Some(value) = self.$from { $to = value; } )*
            };
        }
        set!(
            update => options.update,
            steer => options.steer,
            elites => options.elites,
            mutation => options.mutation,
            mutation_decay => options.mutation_decay,
            mutation_floor => options.mutation_floor,
            alpha => options.alpha,
            null_candidate => options.null_candidate,
            draw_tokens => options.draw_tokens,
            steps => options.steps,
            guided => options.guided,
            weight => options.weight,
            temp => options.sampling.temperature,
            top_k => options.sampling.top_k,
            top_p => options.sampling.top_p,
            min_p => options.sampling.min_p,
        );
        options.horizon = self.horizon.or(options.horizon);
        options.step = self.step.or(options.step);
        options.value = self.value.clone().or(options.value.take());
        if let Some(unmasked) = self.unmasked {
            options.mask_past_end = !unmasked;
        }
        match (self.sigma, self.logit_sd) {
            (Some(sigma), _) => options.sigma = Sigma::Fixed(sigma),
            (None, Some(sd)) => options.sigma = Sigma::LogitSd(sd),
            (None, None) => {}
        }
        match (self.lambda, self.ess) {
            (Some(lambda), _) => options.lambda = LambdaRule::Fixed(lambda),
            (None, Some(fraction)) => options.lambda = LambdaRule::Ess(fraction),
            (None, None) => {}
        }
    }
}
