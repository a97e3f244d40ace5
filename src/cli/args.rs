//! The arguments, with llama.cpp's names and environment variables where it has them.

use std::path::PathBuf;

use aisp_llama::llama::{LogitsRoute, ModelOptions};
use aisp_llama::method::MethodKind;
use aisp_llama::reward::{RewardSpec, RewardText, TooLong};
use clap::{ArgGroup, Parser, Subcommand};

use super::reward_args::RewardCommand;
use super::settings_args::SettingsArgs;
use super::values;

/// Test-time alignment of local GGUF models.
#[derive(Debug, Parser)]
#[command(name = "aisp-llama", version = super::version(), about, max_term_width = 100)]
pub struct Args {
    /// Show llama.cpp's log on stderr
    #[arg(short, long, global = true)]
    pub verbose: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer one prompt, aligned with a reward model
    Run(Box<RunArgs>),
    /// Compare methods on the same prompts, seeds and budgets
    Compare(Box<super::compare::CompareArgs>),
    /// Choose AISP's settings for a model and a reward, as a file for --preset
    Tune(Box<super::tune::TuneArgs>),
    /// Train the value network of re-control on the model's own responses
    TrainValue(Box<super::train_value::TrainValueArgs>),
    /// Score prompt/response pairs: JSON lines on stdin, scores on stdout
    Score(ScoreArgs),
    /// Make and try reward models
    #[command(subcommand)]
    Reward(RewardCommand),
    /// Tell what a GGUF file is and what it can be used for
    Inspect(InspectArgs),
    /// Print a completion script
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("input").required(true).args(["prompt", "file"])))]
pub struct RunArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub reward: RewardArgs,
    #[command(flatten)]
    pub held_out: HeldOutArgs,

    /// The prompt
    #[arg(short, long, help_heading = "Prompt", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// File with the prompt; - for stdin
    #[arg(short, long, value_name = "FILE", help_heading = "Prompt")]
    pub file: Option<PathBuf>,
    /// System prompt (-sys)
    #[arg(
        long,
        value_name = "TEXT",
        help_heading = "Prompt",
        allow_hyphen_values = true
    )]
    pub system_prompt: Option<String>,
    /// Jinja chat template instead of the one in the file
    #[arg(
        long,
        value_name = "JINJA",
        env = "LLAMA_ARG_CHAT_TEMPLATE",
        help_heading = "Prompt"
    )]
    pub chat_template: Option<String>,
    /// Take the prompt as raw text to be continued
    #[arg(long, alias = "no-conversation", conflicts_with_all = ["system_prompt", "chat_template"], help_heading = "Prompt")]
    pub no_chat: bool,

    /// aisp, best-of-n, soft-best-of-n, misvo, re-control, args or greedy
    #[arg(long, default_value = "aisp", help_heading = "Method")]
    pub method: MethodKind,
    /// Candidates of one iteration
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        help_heading = "Method",
        allow_negative_numbers = true
    )]
    pub samples: usize,
    /// Iterations
    #[arg(
        long,
        value_name = "K",
        default_value_t = 8,
        help_heading = "Method",
        allow_negative_numbers = true
    )]
    pub iterations: usize,
    #[command(flatten)]
    pub settings: SettingsArgs,

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

    /// Most tokens of a response
    #[arg(
        short = 'n',
        long,
        visible_alias = "n-predict",
        value_name = "TOKENS",
        default_value_t = 128,
        env = "LLAMA_ARG_N_PREDICT",
        help_heading = "Generation",
        allow_negative_numbers = true
    )]
    pub predict: usize,
    /// Tokens of prompt and response together [default: what both need]
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
    /// Candidates side by side, up to 256; results do not depend on it [default: the samples, at most 16]
    #[arg(
        long,
        value_name = "N",
        env = "LLAMA_ARG_N_PARALLEL",
        help_heading = "Generation",
        allow_negative_numbers = true
    )]
    pub parallel: Option<usize>,
    /// Where the perturbation is added: graph (inside the model's graph) or recompute (outside)
    #[arg(long, value_name = "ROUTE", default_value = "graph", value_parser = values::logits_route, help_heading = "Generation")]
    pub logits: LogitsRoute,

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

#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    /// The generator [default: SmolLM2-135M-Instruct of `make setup`]
    #[arg(
        short,
        long,
        value_name = "FILE.gguf",
        env = "LLAMA_ARG_MODEL",
        help_heading = "Models"
    )]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub load: LoadArgs,
}

#[derive(Debug, clap::Args)]
pub struct RewardArgs {
    /// A reward model, or WEIGHT*FILE; may be given several times (-mr) [default: the film-review reward of `make setup`]
    #[arg(
        long,
        value_name = "FILE.gguf",
        env = "AISP_LLAMA_MODEL_REWARD",
        help_heading = "Rewards"
    )]
    pub model_reward: Vec<String>,
    /// A reward of any kind, [WEIGHT*]KIND:…; may be given several times. Kinds: classifier:FILE,
    /// head:FILE;head=FILE, judge:FILE|self, rule:EXPRESSION, command:COMMAND, http:URL
    #[arg(long, value_name = "KIND:…", value_parser = RewardSpec::parse, allow_hyphen_values = true, help_heading = "Rewards")]
    pub reward: Vec<RewardSpec>,
    /// Text that -mr rewards see: {response}, {prompt}\n{response}, or chat [default: what the file states]
    #[arg(long, value_name = "TEXT", value_parser = RewardText::parse, help_heading = "Rewards")]
    pub reward_text: Option<RewardText>,
    /// What to do with texts too long for -mr rewards: refuse or truncate
    #[arg(long, value_name = "WHAT", default_value = "refuse", value_parser = values::too_long, help_heading = "Rewards")]
    pub reward_too_long: TooLong,
}

#[derive(Debug, clap::Args)]
pub struct HeldOutArgs {
    /// A second reward that only watches, reported beside the first
    #[arg(long, value_name = "KIND:…", value_parser = values::held_out, allow_hyphen_values = true, help_heading = "Rewards")]
    pub held_out: Option<RewardSpec>,
    /// Stop once the reward has risen and the held-out reward has fallen
    #[arg(long, requires = "held_out", help_heading = "Rewards")]
    pub stop_on_divergence: bool,
}

#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    /// CPU threads [default: the physical cores]
    #[arg(
        short,
        long,
        value_name = "N",
        env = "LLAMA_ARG_THREADS",
        help_heading = "Models",
        allow_negative_numbers = true
    )]
    pub threads: Option<i32>,
    /// Layers on the GPU (-ngl) [default: llama.cpp's choice]
    #[arg(
        long,
        visible_alias = "gpu-layers",
        value_name = "N",
        env = "LLAMA_ARG_N_GPU_LAYERS",
        help_heading = "Models",
        allow_negative_numbers = true
    )]
    pub n_gpu_layers: Option<i32>,
    /// Read the models into memory instead of mapping the files
    #[arg(long, help_heading = "Models")]
    pub no_mmap: bool,
}

impl LoadArgs {
    pub fn options(&self) -> ModelOptions {
        ModelOptions {
            // As in llama.cpp, -1 leaves it to llama.cpp.
            gpu_layers: self.n_gpu_layers.and_then(|n| u32::try_from(n).ok()),
            mmap: !self.no_mmap,
        }
    }

    pub fn threads(&self) -> usize {
        self.threads
            .and_then(|n| usize::try_from(n).ok())
            .filter(|&n| n > 0)
            .unwrap_or_else(aisp_llama::default_threads)
    }
}

#[derive(Debug, clap::Args)]
pub struct ScoreArgs {
    #[command(flatten)]
    pub reward: RewardArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    /// Print a JSON object for every pair instead of a number
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The file
    #[arg(value_name = "FILE.gguf")]
    pub file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::values::{AutoOr, normalise};
    use super::*;

    fn parse(line: &str) -> RunArgs {
        let words = line.split(' ').map(OsString::from);
        match Args::try_parse_from(normalise(words)).unwrap().command {
            Command::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_parse_as_in_llama_cpp() {
        for line in ["-ngl 0", "-ngl=0", "--n-gpu-layers 0", "--gpu-layers=0"] {
            let args = parse(&format!("aisp-llama run -p hi {line}"));
            assert_eq!(args.model.load.n_gpu_layers, Some(0), "{line}");
        }
        for line in ["-n 5", "-n5", "-n=5", "--predict 5", "--n-predict=5"] {
            assert_eq!(
                parse(&format!("aisp-llama run -p hi {line}")).predict,
                5,
                "{line}"
            );
        }
        let args = parse("aisp-llama run -m a.gguf -mr b.gguf -sys be -p hi -np 4 -s 7 -t 2 -c 64");
        assert_eq!(parse("aisp-llama run -p hi -s -1").seed, -1);
        assert_eq!(
            parse("aisp-llama run -p hi -ngl -1")
                .model
                .load
                .options()
                .gpu_layers,
            None
        );
        assert_eq!(args.reward.model_reward, ["b.gguf"]);
        assert_eq!(args.system_prompt.as_deref(), Some("be"));
        assert_eq!(
            (args.parallel, args.seed, args.ctx_size),
            (Some(4), 7, Some(64))
        );
    }

    #[test]
    fn negative_numbers_reach_the_checks() {
        let args = parse("aisp-llama run -p hi --sigma -1 --lambda auto");
        assert_eq!(
            (args.settings.sigma, args.settings.lambda),
            (Some(AutoOr::Number(-1.0)), Some(AutoOr::Auto))
        );
    }
}
