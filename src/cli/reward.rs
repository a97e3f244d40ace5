//! `reward train` and `reward probe`: making and trying reward models.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aisp_llama::llama::{ChatOptions, Model};
use aisp_llama::ndarray::Array2;
use aisp_llama::reward::train::{Dataset, Objective, TrainOptions, train};
use aisp_llama::reward::{
    FeaturePooling, Features, FeaturesOptions, Folder, ImportOptions, RewardText, TooLong,
    import_gguf, import_head, probe, probe_pairs,
};
use aisp_llama::{Error, Result, check_output, text};
use clap::Subcommand;

use super::flags::{LoadArgs, RewardArgs};
use super::hub::HubArgs;
use super::hub_names::Source;
use super::hub_parts::RemoteFiles;
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
    /// Take the head of a published reward model: of a Hugging Face folder or repository, or out
    /// of a GGUF that llama.cpp cannot load with it
    Import(Box<ImportArgs>),
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
    /// "rejected", "group"}, one JSON object a line; prompt and group may be missing, texts may be
    /// lists of messages, and other fields are ignored
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
pub struct ImportArgs {
    /// A folder with safetensors files, such a file or an index of them, hf:OWNER/NAME, or a GGUF
    /// with a head inside
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// HEAD.safetensors, found by -mr FILE.gguf under the name FILE.head.safetensors; of a GGUF,
    /// MODEL.gguf, and the head goes beside it
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The head's tensor [default: one of the names that are in use]
    #[arg(long, value_name = "TENSOR")]
    pub name: Option<String>,
    /// Text that the model sees: {response}, {prompt}\n{response}, or chat [default: as the model's files say]
    #[arg(long, value_name = "TEXT", value_parser = values::reason(RewardText::parse))]
    pub reward_text: Option<RewardText>,
    /// A token that every text ends with, such as <|reward|> [default: that of config.json]
    #[arg(long, value_name = "TOKEN")]
    pub append: Option<String>,
    /// Access token for hf:OWNER/NAME (-hft)
    #[arg(long, value_name = "TOKEN", env = "HF_TOKEN", hide_env_values = true)]
    pub hf_token: Option<String>,
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
        RewardCommand::Import(args) => run_import(args),
        RewardCommand::Probe(args) => run_probe(args),
    }
}

fn run_import(args: &ImportArgs) -> anyhow::Result<u8> {
    let mut options = ImportOptions {
        name: args.name.clone(),
        text: args.reward_text.clone(),
        append: args.append.clone(),
        file: None,
    };
    let is_gguf = |path: &Path| path.extension().is_some_and(|end| end == "gguf");
    let source = Path::new(&args.source);
    let refuse = |reason: &str| Err(Error::field("output", reason).into());
    if is_gguf(source) {
        if !is_gguf(&args.output) {
            return refuse("the model goes there without its head, so it ends in .gguf");
        }
        let head = import_gguf(source, &args.output, &options)?;
        let (model, head) = (args.output.display(), head.display());
        output::note(&format!(
            "{model}: the model without its head; {head}: the head, which -mr {model} finds"
        ));
        return Ok(0);
    }
    if is_gguf(&args.output) {
        return refuse(
            "a head alone goes there, so it ends in .safetensors; under the name \
             FILE.head.safetensors it is found beside FILE.gguf",
        );
    }
    let head = match args.source.strip_prefix("hf:") {
        Some(name) => {
            let source = Source::parse(name);
            let source = source.map_err(|error| Error::field("source", error.reason()))?;
            if source.quant.is_some() {
                let reason = format!("{name:?}: a head has no quant; write hf:OWNER/NAME");
                return Err(Error::field("source", reason).into());
            }
            let hub = RemoteFiles::new(&source.repo, args.hf_token.as_deref())?;
            let head = import_head(&hub, &options)?;
            output::note(&format!(
                "{} bytes read of {}",
                hub.bytes_read(),
                source.repo
            ));
            head
        }
        None if !source.exists() => {
            let reason = format!(
                "{}: no such file or folder; a model of the hub is hf:OWNER/NAME",
                args.source
            );
            return Err(Error::field("source", reason).into());
        }
        None if source.is_dir() => import_head(&Folder(source.into()), &options)?,
        None => {
            let folder = source.parent().unwrap_or(Path::new(""));
            let is_index = source.to_string_lossy().ends_with(".index.json");
            options.file = source.file_name().map(PathBuf::from).filter(|_| !is_index);
            import_head(&Folder(folder.into()), &options)?
        }
    };
    if head.text.is_none() {
        output::note(
            "the model has no chat template; give the text of its model card as --reward-text, or \
             with each use as text=…",
        );
    }
    head.write_safetensors(&args.output)?;
    let stated = |name: &str, value: &Option<String>| match value {
        Some(value) => format!(", {name} {value}"),
        None => String::new(),
    };
    output::note(&format!(
        "{}: {} of {} weights{}{}{}",
        args.output.display(),
        head.metadata["aisp.import.tensor"],
        head.weight.len(),
        stated("on", &head.pooling),
        stated("of", &head.text),
        stated("behind", &head.append),
    ));
    Ok(0)
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
            append: None,
            pooling: args.pooling,
            too_long: TooLong::Truncate,
        },
    )?;
    let vectors = compute(&mut features, &dataset)?;
    let (mut head, report) = train(&dataset, &vectors, &options)?;
    head.text = Some(features.text().stated());
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
        for (i, vector) in features.compute(part)?.into_iter().enumerate() {
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
            let text = text::read(path).map_err(Error::io(path))?;
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
