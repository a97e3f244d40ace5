//! `train-value`: the value network of RE-Control.

use std::path::PathBuf;
use std::sync::Arc;

use aisp_llama::llama::Model;
use aisp_llama::method::{MethodSpec, Rounds};
use aisp_llama::train::{TrainValueOptions, TrainedValue, train_value};
use aisp_llama::{Aligner, EngineOptions, Prompt, RunRewards, check_output};

use super::flags::{LengthArgs, ModelArgs, PromptsArgs, RewardArgs};
use super::output::{self, INTERRUPTED};
use super::settings_args::{DRAWS, SettingsArgs};
use super::setup;

#[derive(Debug, clap::Args)]
pub struct TrainValueArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub reward: RewardArgs,
    #[command(flatten)]
    pub prompts: PromptsArgs,
    /// Responses to each prompt
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub responses: usize,
    #[command(flatten)]
    pub length: LengthArgs,
    /// Width of a hidden layer [default: that of the pre-logits]
    #[arg(long, value_name = "N")]
    pub hidden: Option<usize>,
    /// Hidden layers
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub layers: usize,
    /// Passes over the responses; the one with the smallest error on the prompts held out for
    /// that is kept
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub epochs: usize,
    /// Adam's step size
    #[arg(long, value_name = "X", default_value_t = 3e-4)]
    pub learning_rate: f64,
    /// Seed of the responses and of the training
    #[arg(short, long, default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub settings: SettingsArgs<false, false>,
    /// The network to write
    #[arg(short, long, value_name = "VALUE.safetensors")]
    pub output: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs the command; the answer is the exit code.
pub fn run(args: &TrainValueArgs) -> anyhow::Result<u8> {
    let prompts = args.prompts.read()?;
    let draws = args.settings.spec(&MethodSpec::named(DRAWS)?)?;
    let options = TrainValueOptions {
        rounds: Rounds {
            samples: args.responses,
            iterations: 1,
            seed: args.seed,
            max_tokens: args.length.max_tokens()?,
        },
        sampling: serde_json::from_value(draws.all().clone())?,
        hidden: args.hidden,
        layers: args.layers,
        epochs: args.epochs,
        learning_rate: args.learning_rate,
    };
    options.validate(prompts.len())?;
    let path = setup::model_path(&args.model)?;
    setup::reward_specs(&args.reward, Some(&path))?;
    check_output(&args.output)?;
    let load = &args.model.load;
    let model = Arc::new(Model::load(&path, &args.model.options())?);
    let chat = args.prompts.chat.options()?;
    let mut reward = setup::load_reward(&args.reward, load, &chat, Some(Arc::clone(&model)))?;
    let budget = format!("{} prompts × {} responses", prompts.len(), args.responses);
    setup::announce(&model, reward.as_ref(), "a value network", &budget);
    let engine = EngineOptions {
        threads: load.threads(),
        threads_batch: load.threads_batch(),
        attention: load.attention(),
        chat,
        reasoning: args.prompts.chat.reasoning()?,
        ..EngineOptions::default()
    };
    let mut aligner = Aligner::new(model, engine)?;
    let prompts: Vec<Prompt> = prompts
        .into_iter()
        .map(|text| args.prompts.chat.prompt(text))
        .collect();
    let stop = setup::stop_on_interrupt();
    let mut told = |done| output::note(&format!("{done}/{} prompts", prompts.len()));
    let trained = train_value(
        &mut aligner,
        &mut RunRewards::new(reward.as_mut(), &mut None),
        &prompts,
        &options,
        &stop,
        &mut told,
    )?;
    let Some(trained) = trained else {
        return Ok(INTERRUPTED);
    };
    trained.network.write(&args.output)?;
    output::print_out(report(args.json, &trained)?.as_bytes())?;
    Ok(if stop.is_requested() { INTERRUPTED } else { 0 })
}

fn report(json: bool, trained: &TrainedValue) -> anyhow::Result<String> {
    let (errors, [learnt, _, held_out]) = (trained.errors, trained.responses);
    if json {
        let mut json = serde_json::to_value(errors)?;
        json["responses"] = trained.responses.to_vec().into();
        return Ok(format!("{json:#}\n"));
    }
    Ok(format!(
        "{learnt} responses learnt from, {held_out} held out\nmean squared error on held-out \
         prompts: {:.3} at the last token, {:.3} over all tokens\nalways the mean reward: {:.3}\n",
        errors.last, errors.all, errors.constant
    ))
}
