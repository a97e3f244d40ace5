//! The flags that set a method up, and their merging with a preset.

use aisp_llama::Result;
use aisp_llama::method::{Settings, Update};

use super::values::AutoOr;

/// Options of the methods; those that are not given come from the preset, or are the defaults.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Method")]
pub struct SettingsArgs {
    /// paper, or a file that `tune` wrote; flags that are given come before it
    #[arg(long, value_name = "NAME|FILE.json")]
    pub preset: Option<String>,
    /// Response positions that AISP perturbs [default: all]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub horizon: Option<usize>,
    /// AISP: standard deviation of the noise, or auto for one that suits the output matrix
    /// [default: auto]
    #[arg(long, value_name = "X|auto", allow_negative_numbers = true)]
    pub sigma: Option<AutoOr>,
    /// AISP: what it learns with, regression or weights [default: regression]
    #[arg(long, value_name = "RULE")]
    pub update: Option<Update>,
    /// Regression: norm of the mean in units of the noise's, for a reward that it explains
    /// entirely [default: 2]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub steer: Option<f64>,
    /// Regression: candidates whose noise is refined; 0 draws all noise anew [default: 4]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub elites: Option<usize>,
    /// Regression: probability of drawing a position's noise anew in the second iteration
    /// [default: 0.4]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub mutation: Option<f64>,
    /// Regression: its factor from iteration to iteration [default: 0.76]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub mutation_decay: Option<f64>,
    /// Regression: where it stops falling [default: 0.08]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub mutation_floor: Option<f64>,
    /// Weights: their temperature in reward units, or auto for a set effective sample size
    /// [default: auto]
    #[arg(long, value_name = "X|auto", allow_negative_numbers = true)]
    pub lambda: Option<AutoOr>,
    /// Weights: effective sample size that --lambda auto aims at, as a fraction of the samples
    /// [default: 0.25]
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
    pub ess: Option<f64>,
    /// Weights: how far the penalty's base follows the mean, 0 to 1 [default: 0.999]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub alpha: Option<f64>,
    /// Weights: count positions past a candidate's end as well (the unmasked variant)
    #[arg(long)]
    pub unmasked: bool,
    /// AISP: make candidate 0 of every iteration the mean itself
    #[arg(long)]
    pub null_candidate: bool,
    /// AISP: draw tokens from the perturbed logits instead of taking the largest
    #[arg(long)]
    pub draw_tokens: bool,
    /// misvo, re-control: step size [default: 0.1, 0.5]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub step: Option<f64>,
    /// re-control: gradient steps at each token [default: 30]
    #[arg(long, value_name = "M")]
    pub steps: Option<usize>,
    /// re-control: the value network that `train-value` made
    #[arg(long, value_name = "FILE.safetensors")]
    pub value: Option<String>,
    /// args: tokens that are scored at each position [default: 10]
    #[arg(long, value_name = "K")]
    pub guided: Option<usize>,
    /// args: weight of the reward against a logit [default: 1.5]
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    pub weight: Option<f64>,
    /// Temperature where tokens are drawn [default: 0.8]
    #[arg(
        long,
        visible_alias = "temperature",
        value_name = "T",
        env = "LLAMA_ARG_TEMPERATURE",
        allow_negative_numbers = true
    )]
    pub temp: Option<f32>,
    /// Keep the K most probable tokens; 0 keeps all [default: 40]
    #[arg(
        long,
        value_name = "K",
        env = "LLAMA_ARG_TOP_K",
        allow_negative_numbers = true
    )]
    pub top_k: Option<usize>,
    /// Keep the tokens that make up this probability; 1 keeps all [default: 0.95]
    #[arg(
        long,
        value_name = "P",
        env = "LLAMA_ARG_TOP_P",
        allow_negative_numbers = true
    )]
    pub top_p: Option<f32>,
    /// Keep tokens at least this fraction as probable as the first; 0 keeps all [default: 0.05]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub min_p: Option<f32>,
}

impl SettingsArgs {
    /// The preset with the flags in place of what it says.
    pub fn settings(&self) -> Result<Settings> {
        let preset = match &self.preset {
            Some(name) => Settings::preset(name)?,
            None => Settings::default(),
        };
        let number = |value: Option<AutoOr>| match value {
            Some(AutoOr::Number(x)) => Some(x),
            _ => None,
        };
        let given = |set: bool| set.then_some(true);
        let auto = |value: Option<AutoOr>| value == Some(AutoOr::Auto);
        let flags = Settings {
            update: self.update,
            sigma: number(self.sigma),
            logit_sd: auto(self.sigma).then_some(aisp_llama::method::DEFAULT_LOGIT_SD),
            horizon: self.horizon,
            steer: self.steer,
            elites: self.elites,
            mutation: self.mutation,
            mutation_decay: self.mutation_decay,
            mutation_floor: self.mutation_floor,
            lambda: number(self.lambda),
            ess: self
                .ess
                .or(auto(self.lambda).then_some(aisp_llama::method::DEFAULT_ESS_FRACTION)),
            alpha: self.alpha,
            unmasked: given(self.unmasked),
            null_candidate: given(self.null_candidate),
            draw_tokens: given(self.draw_tokens),
            step: self.step,
            steps: self.steps,
            value: self.value.clone(),
            guided: self.guided,
            weight: self.weight,
            temp: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
        };
        Ok(preset.merged(&flags))
    }
}
