//! `compare`: methods side by side.

use std::path::PathBuf;

use aisp_llama::compare::{By, summary};
use aisp_llama::method::MethodSpec;

use super::output::{self, INTERRUPTED};
use super::values;
use super::workbench::{GroundArgs, Workbench};

#[derive(Debug, clap::Args)]
pub struct CompareArgs {
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
