//! `train-value`: the value network of RE-Control.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aisp_llama::control::{Lesson, ValueErrors, ValueNetwork, ValueOptions};
use aisp_llama::llama::Model;
use aisp_llama::method::{Lessons, MethodKind, MethodOptions};
use aisp_llama::{AlignOptions, Aligner, AlignerOptions, Error, Prompt, Stop, StopReason};

use super::flags::{LengthArgs, ModelArgs, PromptsArgs, RewardArgs};
use super::output::{self, INTERRUPTED};
use super::settings_args::SettingsArgs;
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
    pub settings: SettingsArgs,
    /// The network to write
    #[arg(short, long, value_name = "VALUE.safetensors")]
    pub output: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The prompts in three parts: every fifth is held out and measured once, every fifth chooses
/// the epoch, the others are learnt from.
#[derive(Default)]
struct Parts {
    training: Vec<Lesson>,
    choosing: Vec<Lesson>,
    held_out: Vec<Lesson>,
}

/// Runs the command; the answer is the exit code.
pub fn run(args: &TrainValueArgs) -> anyhow::Result<u8> {
    let prompts = args.prompts.read()?;
    if prompts.len() < 5 {
        let reason = format!(
            "{} prompts; give at least 5, as whole prompts are held out",
            prompts.len()
        );
        return Err(Error::field("prompts", reason).into());
    }
    if !(args.learning_rate > 0.0 && args.learning_rate.is_finite()) {
        return Err(Error::field(
            "learning-rate",
            format!("{}; give a positive number", args.learning_rate),
        )
        .into());
    }
    let path = setup::model_path(&args.model)?;
    let mut method = MethodOptions {
        samples: args.responses,
        iterations: 1,
        seed: args.seed,
        max_tokens: args.length.predict,
        ..MethodOptions::default()
    };
    args.settings.settings()?.apply(&mut method);
    method.validate()?;
    check_output(&args.output)?;
    let load = &args.model.load;
    let model = Arc::new(Model::load(&path, &load.options())?);
    let reward = setup::load_reward(&args.reward, load, Some(Arc::clone(&model)))?;
    let options = AlignerOptions {
        threads: load.threads(),
        ..AlignerOptions::default()
    };
    let mut aligner = Aligner::new(model, reward, options)?;
    let prompts: Vec<Prompt> = prompts
        .into_iter()
        .map(|text| args.prompts.chat.prompt(text))
        .collect();
    let Some(parts) = collect(&prompts, &method, &mut aligner)? else {
        return Ok(INTERRUPTED);
    };
    let width = aligner.model().width();
    let options = ValueOptions {
        hidden: vec![args.hidden.unwrap_or(width).max(1); args.layers],
        epochs: 1,
        batch: 16,
        learning_rate: args.learning_rate,
        seed: args.seed,
    };
    let network = train(args.epochs, &parts, &options);
    network.write(&args.output)?;
    let errors = ValueErrors::of(&network, &parts.held_out);
    let text = match args.json {
        true => {
            let counts = [&parts.training, &parts.choosing, &parts.held_out].map(Vec::len);
            let mut json = serde_json::to_value(errors)?;
            json["responses"] = counts.to_vec().into();
            format!("{json:#}\n")
        }
        false => format!(
            "{} responses learnt from, {} held out\nmean squared error on held-out prompts: {:.3} at \
             the last token, {:.3} over all tokens\nalways the mean reward: {:.3}\n",
            parts.training.len(),
            parts.held_out.len(),
            errors.last,
            errors.all,
            errors.constant
        ),
    };
    output::print_out(text.as_bytes())?;
    Ok(0)
}

/// The responses and their pre-logits; nothing when interrupted.
fn collect(
    prompts: &[Prompt],
    method: &MethodOptions,
    aligner: &mut Aligner,
) -> anyhow::Result<Option<Parts>> {
    let stop = Stop::new();
    setup::stop_on_interrupt(&stop)?;
    let options = AlignOptions {
        method: MethodKind::BestOfN,
        options: method.clone(),
        ..AlignOptions::default()
    };
    let mut parts = Parts::default();
    for (index, prompt) in prompts.iter().enumerate() {
        let mut lessons = Lessons::new(method, aligner.model().width());
        let run = aligner.align_by(prompt, &options, &mut lessons, &stop, &mut |_| {})?;
        if run.stop == StopReason::Interrupted {
            return Ok(None);
        }
        output::note(&format!("{}/{} prompts", index + 1, prompts.len()));
        let part = match index % 5 {
            3 => &mut parts.choosing,
            4 => &mut parts.held_out,
            _ => &mut parts.training,
        };
        part.extend(lessons.into_lessons());
    }
    Ok(Some(parts))
}

/// Trains epoch by epoch, and keeps the network of the best one.
fn train(epochs: usize, parts: &Parts, options: &ValueOptions) -> ValueNetwork {
    let mut network = ValueNetwork::new(&parts.training, options);
    let mut trainer = network.trainer(options.learning_rate);
    let error = |network: &ValueNetwork| ValueErrors::of(network, &parts.choosing).last;
    let mut best = (f64::INFINITY, network.clone());
    for epoch in 0..epochs.max(1) {
        let options = ValueOptions {
            seed: options.seed + epoch as u64,
            ..options.clone()
        };
        network.train_on(&parts.training, &options, &mut trainer, &mut |_, _| {});
        let now = error(&network);
        if now < best.0 {
            best = (now, network.clone());
        }
    }
    best.1
}

/// Fails where a file could not be written at the end of the work: a folder that is not there,
/// say. Leaves nothing behind.
fn check_output(path: &Path) -> Result<(), Error> {
    let existed = path.exists();
    let opened = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path);
    let removed = match existed {
        true => Ok(()),
        false => opened
            .as_ref()
            .map_or(Ok(()), |_| std::fs::remove_file(path)),
    };
    opened.map(drop).and(removed).map_err(Error::io(path))
}
