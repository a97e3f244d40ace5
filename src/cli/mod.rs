//! The command line: what it takes, what it prints, what it answers with.
//!
//! A command is a file with its arguments and its work. What several of them need is below them:
//! flags, names and values, setting up, output. Only this file knows the commands.

mod answers;
mod bench;
mod chat;
mod compare;
mod flags;
mod form_args;
mod hub;
mod hub_names;
mod hub_parts;
mod inspect;
mod llama_flags;
mod load_args;
mod names;
mod output;
mod plan;
mod progress;
mod quantize;
mod reward;
mod rpc_server;
mod run;
mod score;
mod search_args;
#[cfg(feature = "server")]
mod serve;
mod settings_args;
mod setup;
mod train_value;
mod tune;
mod values;
mod words;
mod workbench;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use aisp_llama::Error;
use aisp_llama::llama::try_model;
use aisp_llama::reward::reward_help;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use names::Names;
#[cfg(target_os = "linux")]
pub use setup::endings;

/// Test-time alignment of local GGUF models.
#[derive(Debug, Parser)]
#[command(name = "aisp-llama", version = output::version(), about, max_term_width = 100, args_override_self = true, disable_help_subcommand = true)]
struct Args {
    /// Show llama.cpp's log on stderr
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer one prompt, aligned with a reward model
    Run(Box<run::RunArgs>),
    /// Answer requests by HTTP, plain or aligned, and show the search on a page
    #[cfg(feature = "server")]
    Serve(Box<serve::ServeArgs>),
    /// Talk with a model, every answer aligned
    Chat(Box<chat::ChatCommandArgs>),
    /// Compare methods on the same prompts, seeds and budgets
    Compare(Box<compare::CompareArgs>),
    /// Choose AISP's settings for a model and a reward, as a file for --preset
    Tune(Box<tune::TuneArgs>),
    /// Train the value network of re-control on the model's own responses
    TrainValue(Box<train_value::TrainValueArgs>),
    /// Score prompt/response pairs: JSON lines on stdin, scores on stdout
    Score(score::ScoreArgs),
    /// Make and try reward models
    #[command(subcommand)]
    Reward(reward::RewardCommand),
    /// Tell what a GGUF file is and what it can be used for
    Inspect(inspect::InspectArgs),
    /// Measure what a model costs: decoding, noise, rewards, whole runs
    Bench(Box<bench::BenchArgs>),
    /// Write a model in fewer bits, by llama.cpp's quantiser
    Quantize(quantize::QuantizeArgs),
    /// Lend this machine's devices to a model on another one (--rpc there)
    RpcServer(rpc_server::RpcServerArgs),
    /// Print a completion script
    Completions { shell: clap_complete::Shell },
    /// Write the manual pages into a folder
    Man {
        #[arg(value_name = "DIR")]
        into: PathBuf,
    },
    /// Print the help of a command, or what `rewards` there are with all their options
    Help { topic: Vec<String> },
    /// Load the model that is asked for on stdin and decode a batch of it
    #[command(hide = true)]
    TryModel,
}

/// Runs the program with the arguments of a command line, the program's name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    if let Err(error) = setup::handle_signals() {
        output::note(&format!("error: {error}"));
        return ExitCode::FAILURE;
    }
    let mut program = Args::command();
    // Makes the global flags those of every command.
    program.build();
    let words = match words::normalise(&program, arguments) {
        Ok(words) => words,
        Err(message) => {
            output::note(&format!("error: {message}"));
            return ExitCode::from(2);
        }
    };
    let parsed = program
        .try_get_matches_from_mut(words)
        .and_then(|matches| Ok((Args::from_arg_matches(&matches)?, matches)));
    let (args, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return ExitCode::from(answer(&error)),
    };
    setup::log(args.verbose);
    match dispatch(args.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = report(&error, &Names::running(&program, &matches));
            // What failed after it has been given up.
            match setup::is_interrupted() {
                true => ExitCode::from(output::INTERRUPTED),
                false => code,
            }
        }
    }
}

/// Prints what the parser has to say: help and version come this way too, and a closed pipe is no
/// failure. The answer is the exit code.
fn answer(error: &clap::Error) -> u8 {
    let _ = error.print();
    if error.use_stderr() { 2 } else { 0 }
}

/// What `help rewards` prints.
fn help_rewards() -> String {
    format!(
        "Rewards are given as -mr [WEIGHT*]FILE[;OPTION=VALUE]… and --reward \
         [WEIGHT*]KIND:MAIN[;OPTION=VALUE]…,\nboth as often as wanted: the reward is the weighted \
         sum. A value with ; in it goes in double quotes.\n\n{}",
        reward_help()
    )
}

fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(args) => run::run(&args),
        #[cfg(feature = "server")]
        Command::Serve(args) => serve::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::TrainValue(args) => train_value::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Reward(command) => reward::run(&command),
        Command::Inspect(args) => inspect::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::RpcServer(args) => rpc_server::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "aisp-llama", &mut script);
            output::print_out(&script)?;
            Ok(0)
        }
        Command::Man { into } => {
            std::fs::create_dir_all(&into).map_err(Error::io(&into))?;
            clap_mangen::generate_to(Args::command(), &into).map_err(Error::io(&into))?;
            Ok(0)
        }
        Command::Help { topic } if topic == ["rewards"] => {
            output::print_out(help_rewards().as_bytes())?;
            Ok(0)
        }
        Command::Help { topic } => {
            let words = ["aisp-llama".into()].into_iter().chain(topic);
            let asked = Args::command().try_get_matches_from(words.chain(["--help".into()]));
            // Help is an error to the parser.
            Ok(asked.map_or_else(|help| answer(&help), |_| 0))
        }
        Command::TryModel => match try_model(io::stdin())? {
            Some(reason) => {
                output::print_out(reason.as_bytes())?;
                Ok(3)
            }
            None => Ok(0),
        },
    }
}

fn report(error: &anyhow::Error, names: &Names<'_>) -> ExitCode {
    // The reader closed the pipe: it has what it wanted.
    let closed = error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
    if closed {
        return ExitCode::SUCCESS;
    }
    let ours = error.downcast_ref::<Error>();
    let message = ours.map_or_else(|| error.to_string(), |e| names.message(e));
    output::note(&format!("error: {message}"));
    ExitCode::from(ours.map_or(1, exit_code))
}

/// 1 run failed, 2 usage, 3 model file unusable, 4 reward failed.
fn exit_code(error: &Error) -> u8 {
    match error {
        // The file was read, and is none that can be taken.
        Error::Io { cause, .. }
            if matches!(
                cause.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
            ) =>
        {
            2
        }
        Error::Engine(_) | Error::Run(_) | Error::Io { .. } => 1,
        Error::Field { .. } => 2,
        Error::Gguf { .. } | Error::Model { .. } => 3,
        Error::Reward(_) | Error::Unscored(_) => 4,
    }
}

#[cfg(test)]
mod tests;
