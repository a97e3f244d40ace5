//! The command line: what it takes, what it prints, what it answers with.

mod args;
mod compare;
mod inspect;
mod progress;
mod reward;
mod reward_args;
mod run;
mod score;
mod settings_args;
mod setup;
mod train_value;
mod tune;
mod values;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use aisp_llama::{Error, llama};
use clap::{CommandFactory, Parser};

use args::{Args, Command};

/// Exit code of a run that was interrupted and has printed its best answer.
const INTERRUPTED: u8 = 130;

/// Runs the program with the arguments of a command line, the program's name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(values::normalise(arguments)) {
        Ok(args) => args,
        Err(error) => {
            // Help and version come this way too; a closed pipe is no failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    setup::log(args.verbose);
    match dispatch(args.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => report(&error),
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
            print_out(&script)?;
            Ok(0)
        }
    }
}

/// Writes to stdout.
fn print_out(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes a line to stderr; that nobody reads it is no failure.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn report(error: &anyhow::Error) -> ExitCode {
    // The reader closed the pipe: it has what it wanted.
    let closed = error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
    if closed {
        return ExitCode::SUCCESS;
    }
    note(&format!("error: {error:#}"));
    ExitCode::from(error.downcast_ref::<Error>().map_or(1, exit_code))
}

/// 1 run failed, 2 usage, 3 model file unusable, 4 reward failed.
fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Engine(_) | Error::Run(_) | Error::Io { .. } => 1,
        Error::Field { .. } => 2,
        Error::Gguf { .. } | Error::Model { .. } => 3,
        Error::Reward(_) => 4,
    }
}

/// The text behind `--version`.
fn version() -> String {
    format!(
        "{}\nllama.cpp {}, ggml {}\nbuilt for {} (target-cpu {})\n{}",
        env!("CARGO_PKG_VERSION"),
        llama::llama_version(),
        llama::ggml_version(),
        env!("AISP_LLAMA_TARGET"),
        env!("AISP_LLAMA_TARGET_CPU"),
        llama::system_info().trim(),
    )
}
