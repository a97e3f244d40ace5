//! `run`: one prompt in, one aligned answer out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use aisp_llama::compare::{Shard, read_prompts};
use aisp_llama::gguf::Gguf;
use aisp_llama::llama::Model;
use aisp_llama::method::Rounds;
use aisp_llama::report::{Trace, write_plot};
use aisp_llama::reward::Reward;
use aisp_llama::serve::Workers;
use aisp_llama::text;
use aisp_llama::{
    AlignOptions, Aligner, Alignment, Budget, EngineOptions, Error, Prompt, Result, RunRewards,
    StopReason, check_output,
};
use clap::ArgGroup;

use super::flags::{
    ChatArgs, HeldOutArgs, LengthArgs, MethodArgs, ModelArgs, RewardArgs, RouteArgs,
};
use super::form_args::FormArgs;
use super::output::{self, INTERRUPTED};
use super::progress::Progress;
use super::{answers, setup, values, workbench};

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("input").required(true).args(["prompt", "file", "messages", "prompts"])))]
pub struct RunArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub reward: RewardArgs,
    /// Divide each of several rewards by its standard deviation over the first iteration
    #[arg(long, help_heading = "Rewards")]
    pub reward_scale: bool,
    #[command(flatten)]
    pub held_out: HeldOutArgs,
    /// Stop once the reward has risen and the held-out reward has fallen
    #[arg(long, requires = "held_out", help_heading = "Rewards")]
    pub stop_on_divergence: bool,

    /// The prompt
    #[arg(short, long, help_heading = "Prompt", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// File with the prompt; - for stdin
    #[arg(short, long, value_name = "FILE", help_heading = "Prompt")]
    pub file: Option<PathBuf>,
    /// File with a conversation: [{"role": "user", "content": "…"}, …]; - for stdin
    #[arg(
        long,
        value_name = "FILE.json",
        conflicts_with = "no_chat",
        help_heading = "Prompt"
    )]
    pub messages: Option<PathBuf>,
    /// Many prompts, {"prompt": "…"} a line, answered side by side into the folder of -o
    #[arg(
        long,
        value_name = "FILE.jsonl",
        conflicts_with = "plot",
        help_heading = "Prompt"
    )]
    pub prompts: Option<PathBuf>,
    /// The I-th of N equal shares of --prompts alone, from 1/N to N/N
    #[arg(
        long,
        value_name = "I/N",
        value_parser = values::reason(str::parse::<Shard>),
        help_heading = "Prompt"
    )]
    pub shard: Option<Shard>,
    #[command(flatten)]
    pub chat: ChatArgs,

    #[command(flatten)]
    pub method: MethodArgs<true>,

    /// Stop after this many seconds
    #[arg(
        long,
        value_name = "SECONDS",
        allow_negative_numbers = true,
        help_heading = "Stops"
    )]
    pub time_limit: Option<f64>,
    /// Stop once a response has this reward
    #[arg(
        long,
        value_name = "REWARD",
        allow_negative_numbers = true,
        help_heading = "Stops"
    )]
    pub target_reward: Option<f64>,
    /// Stop once so many iterations in a row have made the answer no better
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "Stops"
    )]
    pub patience: Option<usize>,

    #[command(flatten)]
    pub length: LengthArgs,
    #[command(flatten)]
    pub form: FormArgs,
    /// Tokens of prompt, reasoning and response together; 0 for what the model was trained for [default: what they need]
    #[arg(
        short = 'c',
        long,
        value_name = "CTX",
        env = "LLAMA_ARG_CTX_SIZE",
        help_heading = "Generation",
        allow_negative_numbers = true
    )]
    pub ctx_size: Option<usize>,
    /// Seed; -1 takes a random one
    #[arg(
        short,
        long,
        default_value_t = 0,
        help_heading = "Generation",
        allow_negative_numbers = true
    )]
    pub seed: i64,
    /// Candidates side by side, up to 256; results do not depend on it [default: 16, or the samples of one prompt where they are fewer]
    #[arg(
        long,
        value_name = "N",
        env = "LLAMA_ARG_N_PARALLEL",
        help_heading = "Generation",
        allow_negative_numbers = true
    )]
    pub parallel: Option<usize>,
    #[command(flatten)]
    pub route: RouteArgs,
    /// Servers with the same models and rewards that take a share of each iteration's candidates, HOST:PORT,…; the answer does not depend on them
    #[arg(
        long,
        value_name = "URL,…",
        value_delimiter = ',',
        conflicts_with = "prompts",
        help_heading = "Generation"
    )]
    pub workers: Vec<String>,

    /// Folder for the answers to --prompts, one JSON object a line; what is missing there goes on
    #[arg(short, long, value_name = "DIR", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Print what the run would take of the memory, and end
    #[arg(long, help_heading = "Output")]
    pub plan: bool,
    /// Print one JSON object instead of the answer
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Write every event, one JSON object a line
    #[arg(long, value_name = "FILE.jsonl", help_heading = "Output")]
    pub trace: Option<PathBuf>,
    /// Draw reward and effective sample size by iteration
    #[arg(long, value_name = "FILE.svg", help_heading = "Output")]
    pub plot: Option<PathBuf>,
    /// Show the N best candidates on stderr, or in the JSON
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        help_heading = "Output",
        allow_negative_numbers = true
    )]
    pub candidates: usize,
}

/// Runs the command; the answer is the exit code.
pub fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let started = Instant::now();
    let mut options = align_options(args)?;
    if args.plan {
        return plan(args);
    }
    if let Some(prompts) = &args.prompts {
        let refuse = |reason: &str| Error::field("prompts", reason);
        let into = args.output.as_ref();
        let into = into.ok_or_else(|| refuse("give a folder for the answers, `output`"))?;
        if args.json {
            return Err(refuse("the answers are JSON lines; leave out `json`").into());
        }
        return answers::run(args, prompts, into, &options, engine_options(args)?);
    }
    // Beside another prompt nothing else asks for them.
    for (field, given) in [
        ("output", args.output.is_some()),
        ("shard", args.shard.is_some()),
    ] {
        if given {
            return Err(Error::field(field, "it only goes with `prompts`").into());
        }
    }
    let prompt = prompt(args)?;
    let path = setup::model_path(&args.model)?;
    args.plot.as_deref().map_or(Ok(()), check_output)?;
    let mut trace = args.trace.as_deref().map(Trace::create).transpose()?;
    let model = Arc::new(Model::load(&path, &args.model.options())?);
    model.check_generator()?;
    options.form = args.form.form(&model)?;
    let load = &args.model.load;
    let engine = engine_options(args)?;
    let chat = engine.chat.clone();
    let mut aligner = Aligner::new(Arc::clone(&model), engine)?;
    // What is wrong with the prompt is said before another model is loaded.
    aligner.tokenize(&prompt)?;
    if !args.workers.is_empty() {
        let workers = workers(args, &path)?;
        aligner.share_by(Box::new(move |prompt, tokens, options| {
            workers.share(prompt, tokens, options)
        }));
    }
    let mut reward = setup::load_reward(&args.reward, load, &chat, Some(Arc::clone(&model)))?;
    let mut held_out = setup::load_held_out(&args.held_out, load, &chat, &model)?;
    announce(&model, reward.as_ref(), &options);
    let mut rewards = RunRewards::new(reward.as_mut(), &mut held_out);
    let load_seconds = started.elapsed().as_secs_f64();
    let mut progress = Progress::new(args.method.samples.samples);
    let stop = setup::stop_on_interrupt();
    let aligned = aligner.align(&prompt, &mut rewards, &options, &stop, &mut |event| {
        progress.show(event);
        if let Some(trace) = &mut trace {
            trace.write(event);
        }
    });
    progress.close();
    let traced = trace.map_or(Ok(()), Trace::finish);
    let alignment = aligned?;
    let date = args.chat.date_told(&chat, model.gguf());
    print(args, &alignment, date, load_seconds)?;
    traced?;
    if let Some(path) = &args.plot {
        write_plot(&alignment, path)?;
    }
    match alignment.whole()?.stop {
        StopReason::Interrupted => Ok(INTERRUPTED),
        _ => Ok(0),
    }
}

/// Those who take a share of the run.
fn workers(args: &RunArgs, model: &Path) -> Result<Workers> {
    let with_scheme = |address: &String| match address.contains("://") {
        true => address.clone(),
        false => format!("http://{address}"),
    };
    let addresses = args.workers.iter().map(with_scheme).collect();
    let ground = workbench::ground(
        &args.model,
        &args.reward,
        &args.chat.options()?,
        model,
        args.route.logits,
    );
    Workers::new(addresses, ground)
}

/// Says what a run does.
pub fn announce(model: &Model, reward: &dyn Reward, options: &AlignOptions) {
    let mut budget = setup::budget(&options.rounds);
    if let Some(seconds) = options.budget.seconds {
        budget += &format!(" and {seconds} s");
    }
    setup::announce(model, reward, options.method.label(), &budget);
}

/// Prints what the run would take of the memory.
fn plan(args: &RunArgs) -> anyhow::Result<u8> {
    let prompts = match &args.prompts {
        Some(path) => read_prompts(path)?
            .into_iter()
            .map(|text| args.chat.prompt(text))
            .collect(),
        None => vec![prompt(args)?],
    };
    let path = setup::model_path(&args.model)?;
    let rewards = workbench::reward_paths(&args.reward, &args.held_out, &path)?;
    let model = Model::load(&path, &args.model.options())?;
    let mut aligner = Aligner::new(Arc::new(model), engine_options(args)?)?;
    for prompt in &prompts {
        aligner.reserve(prompt, args.length.max_tokens()?)?;
    }
    aligner.expect(prompts.len());
    super::plan::print(&aligner, &rewards, args.json)?;
    Ok(0)
}

fn align_options(args: &RunArgs) -> Result<AlignOptions> {
    let options = AlignOptions {
        method: args.method.spec()?,
        rounds: Rounds {
            samples: args.method.samples.samples,
            iterations: args.method.iterations,
            seed: u64::try_from(args.seed).unwrap_or_else(|_| u64::from(rand::random::<u32>())),
            max_tokens: args.length.max_tokens()?,
        },
        budget: Budget {
            seconds: args.time_limit,
            ..Budget::default()
        },
        reward_scale: args.reward_scale,
        target_reward: args.target_reward,
        patience: args.patience,
        stop_on_divergence: args.stop_on_divergence,
        ..AlignOptions::default()
    };
    options.validate()?;
    Ok(options)
}

/// Tokens of a sequence, where they are given.
fn context(args: &RunArgs) -> Result<Option<usize>> {
    if args.ctx_size != Some(0) {
        return Ok(args.ctx_size);
    }
    let path = setup::model_path(&args.model)?;
    let header = Gguf::open(&path).map_err(Error::gguf(&path))?;
    let trained = header.arch_key("context_length").and_then(|v| v.as_u64());
    match trained.and_then(|tokens| usize::try_from(tokens).ok()) {
        Some(tokens) if tokens > 0 => Ok(Some(tokens)),
        _ => Err(Error::field(
            "context",
            "0, and the model does not say how long it is",
        )),
    }
}

fn engine_options(args: &RunArgs) -> Result<EngineOptions> {
    let defaults = EngineOptions::default();
    Ok(EngineOptions {
        parallel: args.parallel.unwrap_or(match args.prompts {
            Some(_) => defaults.parallel,
            None => defaults.parallel.min(args.method.samples.samples),
        }),
        context: context(args)?,
        threads: args.model.load.threads(),
        threads_batch: args.model.load.threads_batch(),
        attention: args.model.load.attention(),
        logits: args.route.logits,
        share_prefixes: !args.route.no_share_prefixes,
        chat: args.chat.options()?,
        reasoning: args.chat.reasoning()?,
    })
}

fn prompt(args: &RunArgs) -> Result<Prompt> {
    if let Some(path) = &args.messages {
        return args.chat.conversation(path, &read(path)?);
    }
    let text = match (&args.prompt, &args.file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => {
            // A file ends with a line break that is not meant for the model, and other systems write
            // them otherwise.
            let mut text = read(path)?.replace("\r\n", "\n");
            if text.ends_with('\n') {
                text.pop();
            }
            text
        }
        (None, None) => String::new(),
    };
    if text.trim().is_empty() {
        return Err(Error::field("prompt", "the prompt is empty"));
    }
    Ok(args.chat.prompt(text))
}

fn read(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        return text::read_from(std::io::stdin()).map_err(Error::io(Path::new("stdin")));
    }
    text::read(path).map_err(Error::io(path))
}

fn print(
    args: &RunArgs,
    alignment: &Alignment,
    date: Option<String>,
    load_seconds: f64,
) -> anyhow::Result<()> {
    if args.json {
        let mut shown = alignment.clone();
        shown.candidates.truncate(args.candidates);
        let mut json = serde_json::to_value(shown)?;
        json["timings"]["load_seconds"] = load_seconds.into();
        if let Some(date) = date {
            json["date"] = date.into();
        }
        let mut text = serde_json::to_string_pretty(&json)?;
        text.push('\n');
        output::print_out(text.as_bytes())?;
        return Ok(());
    }
    if let Some(reasoning) = &alignment.reasoning {
        let tokens = alignment.usage.reasoning_tokens;
        output::note(&format!("reasoning, {tokens} tokens: {}", reasoning.trim()));
    }
    output::show_candidates(alignment, args.candidates);
    output::note(&output::summary(alignment));
    let mut answer = alignment.response.clone();
    answer.push('\n');
    Ok(output::print_out(answer.as_bytes())?)
}
