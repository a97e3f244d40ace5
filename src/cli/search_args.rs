//! The flags of commands that answer one request after another: models and rewards, how answers are
//! searched for, how the generator runs.

use std::sync::Arc;

use aisp_llama::llama::Model;
use aisp_llama::method::{MethodSpec, Rounds};
use aisp_llama::reward::{Reward, RewardLoader};
use aisp_llama::{AlignOptions, EngineOptions, Error, Result, Stop};

use super::flags::{ChatArgs, HeldOutArgs, MethodArgs, ModelArgs, RewardArgs, RouteArgs};
use super::setup;

/// Tokens of a searched answer, as of `run`.
const SEARCHED: usize = 128;
/// Tokens of a prompt and its answer, where the model was trained for more.
const CONTEXT: usize = 4096;

#[derive(Debug, clap::Args)]
pub struct SearchArgs<const PRESET: bool> {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub reward: RewardArgs,
    /// Divide each of several rewards by its standard deviation over the first iteration
    #[arg(long, help_heading = "Rewards")]
    pub reward_scale: bool,
    #[command(flatten)]
    pub held_out: HeldOutArgs,
    #[command(flatten)]
    pub chat: ChatArgs,

    #[command(flatten)]
    pub method: MethodArgs<PRESET>,

    /// Most tokens of an answer; -1 for as many as the context has room for [default: 128 of a searched answer, else -1]
    #[arg(
        short = 'n',
        long,
        visible_alias = "n-predict",
        value_name = "TOKENS",
        env = "LLAMA_ARG_N_PREDICT",
        help_heading = "Generation",
        allow_negative_numbers = true
    )]
    pub predict: Option<i64>,
    /// Tokens of prompt, reasoning and answer together; 0 for what the model was trained for [default: that, at most 4096]
    #[arg(
        short = 'c',
        long,
        value_name = "CTX",
        env = "LLAMA_ARG_CTX_SIZE",
        help_heading = "Generation",
        allow_negative_numbers = true
    )]
    pub ctx_size: Option<usize>,
    /// Candidates side by side, up to 256; results do not depend on it
    #[arg(
        long,
        value_name = "N",
        env = "LLAMA_ARG_N_PARALLEL",
        default_value_t = 16,
        help_heading = "Generation",
        allow_negative_numbers = true
    )]
    pub parallel: usize,
    #[command(flatten)]
    pub route: RouteArgs,
}

/// A model with the rewards for it.
pub struct Loaded {
    pub model: Arc<Model>,
    pub reward: Box<dyn Reward>,
    pub held_out: Option<Box<dyn Reward>>,
}

impl<const PRESET: bool> SearchArgs<PRESET> {
    /// Most tokens of an answer, `default` where nothing is said.
    fn max_tokens(&self, default: usize) -> Result<usize> {
        match self.predict {
            None => Ok(default),
            Some(-1) => Ok(Rounds::TO_THE_END),
            Some(tokens) => usize::try_from(tokens).map_err(|_| {
                Error::field("max-tokens", format!("{tokens}; give at least 1, or -1"))
            }),
        }
    }

    /// How answers are searched for.
    pub fn search(&self) -> Result<AlignOptions> {
        let options = AlignOptions {
            method: self.method.spec()?,
            rounds: Rounds {
                samples: self.method.samples.samples,
                iterations: self.method.iterations,
                seed: 0,
                max_tokens: self.max_tokens(SEARCHED)?,
            },
            reward_scale: self.reward_scale,
            ..AlignOptions::default()
        };
        options.validate()?;
        Ok(options)
    }

    /// How a plain answer is drawn: one sample, with those of the settings that it reads.
    pub fn plain(&self) -> Result<AlignOptions> {
        let drawn = MethodSpec::named(super::settings_args::DRAWS)?;
        Ok(AlignOptions {
            method: self.method.settings.heard_by(&drawn)?,
            rounds: Rounds {
                samples: 1,
                iterations: 1,
                seed: 0,
                max_tokens: self.max_tokens(Rounds::TO_THE_END)?,
            },
            ..AlignOptions::default()
        })
    }

    /// Loads the generator and the rewards.
    pub fn load(&self) -> Result<Loaded> {
        let path = setup::model_path(&self.model)?;
        let model = Arc::new(Model::load(&path, &self.model.options())?);
        model.check_generator()?;
        Ok(Loaded {
            reward: setup::reward_by(self.loader(&model)?, &self.reward)?,
            held_out: setup::held_out_by(self.loader(&model)?, &self.held_out)?,
            model,
        })
    }

    /// What loads rewards; they outlast a request to stop, which is for one answer.
    pub fn loader(&self, model: &Arc<Model>) -> Result<RewardLoader> {
        let (chat, generator) = (self.chat.options()?, Some(Arc::clone(model)));
        let mut loader = setup::loader(&self.model.load, &chat, generator);
        loader.stop = Stop::new();
        Ok(loader)
    }

    /// How the generator runs.
    pub fn engine(&self, model: &Model) -> Result<EngineOptions> {
        let trained = model.trained_context();
        let context = match self.ctx_size {
            None if trained == 0 => CONTEXT,
            None => trained.min(CONTEXT),
            Some(0) => trained,
            Some(tokens) => tokens,
        };
        let load = &self.model.load;
        Ok(EngineOptions {
            parallel: self.parallel,
            context: Some(context),
            threads: load.threads(),
            threads_batch: load.threads_batch(),
            attention: load.attention(),
            logits: self.route.logits,
            share_prefixes: !self.route.no_share_prefixes,
            chat: self.chat.options()?,
            reasoning: self.chat.reasoning()?,
        })
    }
}

/// A seed; `None` for a random one.
pub fn seed(asked: i64) -> Option<u64> {
    u64::try_from(asked).ok()
}
