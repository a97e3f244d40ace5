//! `reward train` and `reward probe`: making and trying reward models.

use std::path::PathBuf;
use std::sync::Arc;

use aisp_llama::llama::{ChatOptions, Model};
use aisp_llama::ndarray::Array2;
use aisp_llama::reward::train::{Dataset, Objective, TrainOptions, train};
use aisp_llama::reward::{
    FeaturePooling, Features, FeaturesOptions, RewardText, Sample, TooLong, probe, probe_pairs,
};
use aisp_llama::{Error, Result, check_output};
use clap::Subcommand;

use super::flags::{LoadArgs, RewardArgs};
use super::hub::HubArgs;
use super::{output, setup, values};

/// Texts whose features are computed in one go.
const CHUNK: usize = 256;

/// The words of --objective.
const OBJECTIVES: [(&str, Objective); 4] = [
    ("auto", Objective::Auto),
    ("ridge", Objective::Ridge),
    ("logistic", Objective::Logistic),
    ("bradley-terry", Objective::BradleyTerry),
];

#[derive(Debug, Subcommand)]
pub enum RewardCommand {
    /// Train a scalar head for a GGUF model from ratings or preferences
    Train(Box<TrainArgs>),
    /// Tell what a reward can tell apart: scores pairs of a better and a worse text
    Probe(Box<ProbeArgs>),
}

#[derive(Debug, clap::Args)]
pub struct TrainArgs {
    /// The backbone: any decoder, or an encoder without a head
    #[arg(
        short,
        long,
        value_name = "FILE.gguf",
        env = "LLAMA_ARG_MODEL",
        required_unless_present = "hf_repo"
    )]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub hub: HubArgs,
    /// Ratings {"prompt", "response", "score", "group"} or preferences {"prompt", "chosen",
    /// "rejected", "group"}, one JSON object a line; prompt (of ratings) and group may be missing
    #[arg(long, value_name = "FILE.jsonl")]
    pub data: PathBuf,
    /// The head to write
    #[arg(short, long, value_name = "HEAD.safetensors")]
    pub output: PathBuf,
    /// What the head is fitted to
    #[arg(long, default_value = "auto", value_parser = values::one_of(OBJECTIVES))]
    pub objective: Objective,
    /// The last token or the mean of all [default: last for decoders, mean for encoders]
    #[arg(long, value_parser = values::one_of([("last", FeaturePooling::Last), ("mean", FeaturePooling::Mean)]))]
    pub pooling: Option<FeaturePooling>,
    /// Text that the model sees: {response}, {prompt}\n{response}, or chat
    #[arg(long, value_name = "TEXT", value_parser = values::reason(RewardText::parse))]
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

/// Runs the command; the answer is the exit code.
pub fn run(command: &RewardCommand) -> anyhow::Result<u8> {
    match command {
        RewardCommand::Train(args) => run_train(args),
        RewardCommand::Probe(args) => run_probe(args),
    }
}

fn run_train(args: &TrainArgs) -> anyhow::Result<u8> {
    let options = TrainOptions {
        objective: args.objective,
        held_out: args.held_out,
        folds: args.folds,
        seed: args.seed,
    };
    check_output(&args.output)?;
    let dataset = Dataset::read(&args.data)?;
    // The parser sees to it that there is one of them.
    let path = args.hub.path()?.or_else(|| args.model.clone());
    let path = path.ok_or_else(|| Error::field("model", "give a GGUF file"))?;
    let model = Arc::new(Model::load(&path, &args.load.options())?);
    let mut features = Features::new(
        model,
        &FeaturesOptions {
            rendering: ChatOptions::default(),
            threads: args.load.threads_batch(),
            attention: args.load.attention(),
            text: args.reward_text.clone(),
            pooling: args.pooling,
            too_long: TooLong::Truncate,
        },
    )?;
    let vectors = compute(&mut features, &dataset)?;
    let (mut head, report) = train(&dataset, &vectors, &options)?;
    head.text = Some(match features.text() {
        RewardText::Chat => "chat".into(),
        RewardText::Pattern(pattern) => pattern.replace('\n', "\\n"),
    });
    head.pooling = Some(features.pooling().to_string());
    let name = features.model().path().file_name().unwrap_or_default();
    let facts = [
        ("aisp.train.backbone", name.to_string_lossy().into_owned()),
        ("aisp.train.report", serde_json::to_string(&report)?),
    ];
    let description = args.description.clone();
    let facts = facts.into_iter().map(|(k, v)| (k.to_owned(), v));
    head.metadata.extend(facts);
    head.metadata
        .extend(description.map(|d| ("aisp.reward.description".to_owned(), d)));
    head.write_safetensors(&args.output)?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => format!("{report}"),
    };
    output::print_out(text.as_bytes())?;
    Ok(0)
}

/// Features `[texts, d]` of a dataset's texts.
fn compute(features: &mut Features, dataset: &Dataset) -> Result<Array2<f32>> {
    let texts = dataset.texts();
    let width = features.model().width();
    let mut vectors = Array2::zeros((texts.len(), width));
    let mut cut = 0;
    for (chunk, part) in texts.chunks(CHUNK).enumerate() {
        let samples: Vec<Sample<'_>> = part
            .iter()
            .map(|&(prompt, response)| Sample { prompt, response })
            .collect();
        for (i, vector) in features.compute(&samples)?.into_iter().enumerate() {
            let index = chunk * CHUNK + i;
            let vector =
                vector.map_err(|e| Error::field("data", format!("text {}: {e}", index + 1)))?;
            cut += usize::from(vector.truncated);
            for (to, from) in vectors.row_mut(index).iter_mut().zip(&vector.values) {
                *to = *from;
            }
        }
        if (chunk + 1) % 10 == 0 {
            let done = chunk * CHUNK + part.len();
            output::note(&format!("features of {done} of {} texts", texts.len()));
        }
    }
    if cut > 0 {
        output::note(&format!(
            "{cut} texts are too long; their ends were not read"
        ));
    }
    Ok(vectors)
}

fn run_probe(args: &ProbeArgs) -> anyhow::Result<u8> {
    let own = args
        .pairs
        .as_deref()
        .map(|path| {
            let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
            Ok::<_, Error>((path.display().to_string(), text))
        })
        .transpose()?;
    let pairs = probe_pairs(own.as_ref().map(|(n, t)| (n.as_str(), t.as_str())))?;
    let mut reward = setup::load_reward(&args.reward, &args.load, &ChatOptions::default(), None)?;
    let report = probe(reward.as_mut(), &pairs)?;
    if report.failed == pairs.len() {
        return Err(Error::Reward(format!("none of the {} pairs has rewards", pairs.len())).into());
    }
    let text = match args.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => report.to_string(),
    };
    output::print_out(text.as_bytes())?;
    Ok(0)
}
