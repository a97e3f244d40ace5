//! The command line: what it takes, what it prints, what it answers with.
//!
//! A command is a file with its arguments and its work. What several of them need is below them:
//! flags, names and values, setting up, output. Only this file knows the commands.

mod answers;
mod compare;
mod flags;
mod form_args;
mod inspect;
mod names;
mod output;
mod plan;
mod progress;
mod reward;
mod run;
mod score;
mod settings_args;
mod setup;
mod train_value;
mod tune;
mod values;
mod workbench;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use aisp_llama::Error;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use names::Names;

/// Test-time alignment of local GGUF models.
#[derive(Debug, Parser)]
#[command(name = "aisp-llama", version = output::version(), about, max_term_width = 100)]
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
    /// Print a completion script
    Completions { shell: clap_complete::Shell },
}

/// Runs the program with the arguments of a command line, the program's name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut program = Args::command();
    let parsed = program
        .try_get_matches_from_mut(names::normalise(arguments))
        .and_then(|matches| Ok((Args::from_arg_matches(&matches)?, matches)));
    let (args, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version come this way too; a closed pipe is no failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    setup::log(args.verbose);
    match dispatch(args.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => report(&error, &Names::running(&program, &matches)),
    }
}

fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::TrainValue(args) => train_value::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Reward(command) => reward::run(&command),
        Command::Inspect(args) => inspect::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "aisp-llama", &mut script);
            output::print_out(&script)?;
            Ok(0)
        }
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
        Error::Engine(_) | Error::Run(_) | Error::Io { .. } => 1,
        Error::Field { .. } => 2,
        Error::Gguf { .. } | Error::Model { .. } => 3,
        Error::Reward(_) | Error::Unscored(_) => 4,
    }
}

#[cfg(test)]
mod tests {
    use aisp_llama::method::Rounds;

    use super::*;

    fn parse(line: &str) -> run::RunArgs {
        let words = line.split(' ').map(OsString::from);
        match Args::try_parse_from(names::normalise(words))
            .unwrap()
            .command
        {
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
            let args = parse(&format!("aisp-llama run -p hi {line}"));
            assert_eq!(args.length.predict, 5, "{line}");
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
        assert_eq!(args.chat.system_prompt.as_deref(), Some("be"));
        assert_eq!(
            (args.parallel, args.seed, args.ctx_size),
            (Some(4), 7, Some(64))
        );
    }

    #[test]
    fn negative_numbers_reach_the_checks() {
        let args = parse("aisp-llama run -p hi --sigma -1 --steer 3");
        let spec = args.settings.spec(&args.method).unwrap();
        assert_eq!(spec.all()["sigma"].as_f64(), Some(-1.0));
        assert_eq!(spec.all()["steer"].as_f64(), Some(3.0));
        assert!(spec.validate(&Rounds::default()).is_err());
    }
}
