//! The arguments of `reward train` and `reward probe`.

use std::path::PathBuf;

use aisp_llama::reward::train::Objective;
use aisp_llama::reward::{FeaturePooling, RewardText};
use clap::Subcommand;

use super::args::{LoadArgs, RewardArgs};

#[derive(Debug, Subcommand)]
pub enum RewardCommand {
    /// Train a scalar head for a GGUF model from ratings or preferences
    Train(Box<TrainArgs>),
    /// Tell what a reward can tell apart: scores pairs of a better and a worse text
    Probe(ProbeArgs),
}

#[derive(Debug, clap::Args)]
pub struct TrainArgs {
    /// The backbone: any decoder, or an encoder without a head
    #[arg(short, long, value_name = "FILE.gguf", env = "LLAMA_ARG_MODEL")]
    pub model: PathBuf,
    /// Ratings {"prompt", "response", "score", "group"} or preferences {"prompt", "chosen",
    /// "rejected", "group"}, one JSON object a line; prompt (of ratings) and group may be missing
    #[arg(long, value_name = "FILE.jsonl")]
    pub data: PathBuf,
    /// The head to write
    #[arg(short, long, value_name = "HEAD.safetensors")]
    pub output: PathBuf,
    /// auto, ridge, logistic or bradley-terry
    #[arg(long, default_value = "auto")]
    pub objective: Objective,
    /// last (token) or mean [default: last for decoders, mean for encoders]
    #[arg(long)]
    pub pooling: Option<FeaturePooling>,
    /// Text that the model sees: {response}, {prompt}\n{response}, or chat
    #[arg(long, value_name = "TEXT", value_parser = RewardText::parse)]
    pub reward_text: Option<RewardText>,
    /// Fraction of the groups that is held out and measured once
    #[arg(long, value_name = "FRACTION", default_value_t = 0.2)]
    pub held_out: f64,
    /// Folds of the cross-validation that chooses the regularisation
    #[arg(long, value_name = "K", default_value_t = 8)]
    pub folds: usize,
    /// Seed of the split
    #[arg(short, long, default_value_t = 0)]
    pub seed: u64,
    /// What the head measures, kept in its file
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub load: LoadArgs,
}

#[derive(Debug, clap::Args)]
pub struct ProbeArgs {
    #[command(flatten)]
    pub reward: RewardArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    /// Own pairs, {"aspect", "prompt", "better", "worse"} a line, instead of the built-in ones
    #[arg(long, value_name = "FILE.jsonl")]
    pub pairs: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
