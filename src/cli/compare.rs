//! `compare`: methods side by side; `compare merge`: what several machines have of it.

use std::path::{Path, PathBuf};

use aisp_llama::compare::{By, merge, summary};
use aisp_llama::method::MethodSpec;
use clap::{ArgMatches, Command, FromArgMatches};

use super::output::{self, INTERRUPTED};
use super::values;
use super::workbench::{GroundArgs, Workbench, write_tables};

/// A comparison, or what other folders have of one.
#[derive(Debug)]
pub enum CompareArgs {
    New(Box<NewArgs>),
    Merge(MergeArgs),
}

// By hand: what a comparison requires is not required of `merge`.
impl clap::Args for CompareArgs {
    fn augment_args(command: Command) -> Command {
        let merge = Command::new("merge")
            .about("Put the rows of several folders, of the shards of one comparison, into one");
        NewArgs::augment_args(command)
            .subcommand(MergeArgs::augment_args(merge))
            .args_conflicts_with_subcommands(true)
            .subcommand_negates_reqs(true)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for CompareArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(match matches.subcommand() {
            Some((_, merge)) => Self::Merge(MergeArgs::from_arg_matches(merge)?),
            None => Self::New(Box::new(NewArgs::from_arg_matches(matches)?)),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[derive(Debug, clap::Args)]
pub struct MergeArgs {
    /// Folders of shards
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// Folder of them all, which holds no rows yet
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct NewArgs {
    #[command(flatten)]
    pub ground: GroundArgs,
    /// Methods with their settings, METHOD[:NAME=VALUE]…, between commas; the others are compared
    /// with the first
    #[arg(
        long,
        value_name = "A,B,…",
        value_delimiter = ',',
        default_value = "best-of-n,search",
        value_parser = values::reason(values::method_with_settings)
    )]
    pub methods: Vec<MethodSpec>,
    /// Candidates, tokens or seconds of one run
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128.0,
        allow_negative_numbers = true
    )]
    pub budget: f64,
    /// What is equal for all methods
    #[arg(
        long,
        default_value = "candidates",
        value_parser = values::one_of([
            ("candidates", By::Candidates), ("tokens", By::Tokens), ("seconds", By::Seconds)
        ])
    )]
    pub by: By,
    /// Seeds 0 to N − 1
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub seeds: u64,
    /// Folder of the results; an unfinished comparison in it goes on
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

/// Runs the command; the answer is the exit code.
pub fn run(args: &CompareArgs) -> anyhow::Result<u8> {
    match args {
        CompareArgs::New(args) => compare(args),
        CompareArgs::Merge(args) => put_together(&args.folders, &args.output),
    }
}

fn compare(args: &NewArgs) -> anyhow::Result<u8> {
    let plan = args
        .ground
        .plan(args.methods.clone(), args.seeds, args.budget, args.by)?;
    let mut bench = Workbench::load(&args.ground, plan, &args.output)?;
    let outcome = bench.run(&args.output)?;
    let tables = summary(&bench.plan, &outcome.rows, &outcome.failures);
    output::print_out(tables.as_bytes())?;
    if !outcome.finished {
        return Ok(INTERRUPTED);
    }
    for method in &bench.plan.methods {
        outcome.check(method)?;
    }
    Ok(0)
}

fn put_together(folders: &[PathBuf], into: &Path) -> anyhow::Result<u8> {
    let (plan, store) = merge(folders, into)?;
    let (rows, failures) = (store.rows(), store.failures());
    write_tables(&plan, rows, failures, into)?;
    output::print_out(summary(&plan, rows, failures).as_bytes())?;
    let total = plan.cells().count();
    let missing = total - rows.len() - failures.len();
    if missing > 0 {
        output::note(&format!(
            "missing: {missing} of {total} rows; no folder has them"
        ));
    }
    Ok(0)
}
