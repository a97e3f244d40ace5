//! `tune`: settings of AISP for a model and a reward.

use std::fmt::Write;
use std::path::PathBuf;

use aisp_llama::compare::{By, CHECK, CHECK_SEEDS, Plan, Verdict, is_confirmed, stages, verdicts};
use aisp_llama::method::MethodSpec;
use aisp_llama::{Error, save};

use super::output::{self, INTERRUPTED};
use super::workbench::{GroundArgs, Outcome, Workbench};

#[derive(Debug, clap::Args)]
pub struct TuneArgs {
    #[command(flatten)]
    pub ground: GroundArgs,
    /// Candidates of one run
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub budget: u32,
    /// Seeds 0 to N − 1 for the choice, and four times as many others for its check
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seeds: u64,
    /// Folder of preset.json and of the comparisons behind it; unfinished ones go on
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

/// Runs the command; the answer is the exit code.
pub fn run(args: &TuneArgs) -> anyhow::Result<u8> {
    let mut incumbent = MethodSpec::named("search")?;
    let methods = vec![incumbent.clone()];
    let budget = f64::from(args.budget);
    let plan = args
        .ground
        .plan(methods, args.seeds, budget, By::Candidates)?;
    if plan.prompts.len() < 2 {
        let reason = format!(
            "{}: one prompt cannot tell better settings from luck; give at least 2",
            args.ground.prompts.prompts.display()
        );
        return Err(Error::field("prompts", reason).into());
    }
    let mut bench = Workbench::load(&args.ground, plan, &args.output)?;
    let mut report = String::new();
    let defaults = incumbent.clone();
    for index in 0.. {
        let Some(stage) = stages(index) else {
            break;
        };
        bench.plan.methods = stage.methods(&incumbent)?;
        let outcome = bench.run(&args.output.join(stage.name))?;
        if let Some(code) = pause(&outcome, stage.name) {
            return Ok(code);
        }
        outcome.check(&incumbent)?;
        let (verdicts, chosen) = verdicts(&bench.plan, &outcome.rows);
        table(&mut report, stage.name, &bench.plan, &verdicts, chosen);
        incumbent = bench.plan.methods[chosen].clone();
    }
    if incumbent != defaults {
        // Seeds that have chosen nothing.
        bench.plan.first_seed = args.seeds;
        bench.plan.seeds = args.seeds.saturating_mul(CHECK_SEEDS);
        bench.plan.methods = vec![defaults.clone(), incumbent.clone()];
        let outcome = bench.run(&args.output.join(CHECK))?;
        if let Some(code) = pause(&outcome, CHECK) {
            return Ok(code);
        }
        outcome.check(&defaults)?;
        let found = verdicts(&bench.plan, &outcome.rows);
        let confirmed = is_confirmed(&found);
        let kept = usize::from(confirmed);
        table(&mut report, CHECK, &bench.plan, &found.0, kept);
        if let Some(interval) = found.0[1].interval {
            let (low, high) = (interval.low, interval.high);
            let _ = writeln!(
                report,
                "On seeds that chose nothing the gain is {:+.3}, 95 % interval {low:+.3} to \
                 {high:+.3}: {}.\n",
                interval.mean,
                match confirmed {
                    true => "it is kept",
                    false => "that is not better for sure",
                }
            );
        }
        incumbent = bench.plan.methods[kept].clone();
    }
    let path = args.output.join("preset.json");
    let text = serde_json::to_string_pretty(incumbent.given())? + "\n";
    save(&path, text)?;
    let shown = path.display();
    let _ = match incumbent.given().is_empty() {
        true => writeln!(report, "The defaults stay; {shown} is an empty preset."),
        false => writeln!(report, "Use them with --preset {shown}"),
    };
    output::print_out(report.as_bytes())?;
    Ok(0)
}

/// The exit code where a stage cannot be judged yet: it was interrupted, or other shards have rows of it.
fn pause(outcome: &Outcome, stage: &str) -> Option<u8> {
    if !outcome.finished {
        return Some(INTERRUPTED);
    }
    (outcome.missing > 0).then(|| {
        output::note(&format!(
            "{stage}: {} rows are with other shards; put them together by compare merge, into {stage} of \
             every shard's folder, and go on",
            outcome.missing
        ));
        0
    })
}

fn table(report: &mut String, stage: &str, plan: &Plan, verdicts: &[Verdict], chosen: usize) {
    let _ = writeln!(
        report,
        "## {stage}\n\n| settings | best reward | difference ± its error | diversity | |\n\
         |---|---|---|---|---|"
    );
    for (i, (method, verdict)) in plan.methods.iter().zip(verdicts).enumerate() {
        let _ = writeln!(
            report,
            "| {} | {:.3} | {:+.3} ± {:.3} | {:.3} | {} |",
            method.label(),
            verdict.reward,
            verdict.difference,
            verdict.error,
            verdict.diversity,
            match (i == chosen, verdict.failed) {
                (true, _) => "chosen".into(),
                (false, 0) => String::new(),
                (false, failed) => format!("failed: {failed}"),
            }
        );
    }
    report.push('\n');
}
