//! How many machine-checkable constraints are met: greedy against best-of-n against aisp.
//!
//! ```text
//! cargo run --release --example constraints -- -m MODEL.gguf
//! ```
//!
//! Every line of the prompt file has a prompt and the rules that its answer must meet. The
//! reward is the rules' own score; what is reported is the share of rules that are met.

use std::path::PathBuf;
use std::sync::Arc;

use aisp_llama::llama::{Message, Model, ModelOptions};
use aisp_llama::method::Rounds;
use aisp_llama::reward::Rules;
use aisp_llama::{AlignOptions, Aligner, EngineOptions, Prompt, Stop};
use anyhow::Context;
use clap::Parser;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

const METHODS: [&str; 3] = ["greedy", "best-of-n", "aisp"];

#[derive(Parser)]
struct Args {
    /// The generator
    #[arg(short, long)]
    model: PathBuf,
    /// Lines of {"prompt", "rule"}
    #[arg(long, default_value = "examples/constraints.jsonl")]
    prompts: PathBuf,
    /// Candidates of one iteration
    #[arg(long, default_value_t = 16)]
    samples: usize,
    /// Iterations
    #[arg(long, default_value_t = 4)]
    iterations: usize,
    /// Most tokens of an answer
    #[arg(short = 'n', long, default_value_t = 32)]
    predict: usize,
    /// Seed
    #[arg(short, long, default_value_t = 0)]
    seed: u64,
}

#[derive(Deserialize)]
struct Task {
    prompt: String,
    rule: String,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let text = std::fs::read_to_string(&args.prompts)
        .with_context(|| args.prompts.display().to_string())?;
    let tasks: Vec<Task> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<std::result::Result<_, _>>()
        .with_context(|| args.prompts.display().to_string())?;
    let model = Arc::new(Model::load(&args.model, &ModelOptions::default())?);
    let mut aligner = Aligner::new(model, EngineOptions::default())?;
    // (rules met, rules) of every prompt, by method.
    let mut met: [Vec<(usize, usize)>; 3] = Default::default();
    for (index, task) in tasks.iter().enumerate() {
        let mut rules = Rules::parse(&task.rule)?;
        let prompt = Prompt::Chat(vec![Message::new("user", &task.prompt)]);
        for (method, met) in METHODS.into_iter().zip(&mut met) {
            let options = AlignOptions {
                method: method.parse()?,
                rounds: Rounds {
                    samples: args.samples,
                    iterations: args.iterations,
                    max_tokens: args.predict,
                    seed: args.seed,
                },
                ..AlignOptions::default()
            };
            let found = aligner.align(&prompt, &mut rules, &options, &Stop::new(), &mut |_| {})?;
            let results = rules.check(&found.response)?;
            met.push((results.iter().filter(|r| r.met).count(), results.len()));
        }
        eprintln!("{} of {}", index + 1, tasks.len());
    }
    println!("method      rules met (95 % over prompts)   prompts with all met");
    for (method, met) in METHODS.iter().zip(&met) {
        let [low, high] = interval(met.len(), |i| share(&i.map(|i| met[i]).collect::<Vec<_>>()));
        let all = met.iter().filter(|(met, of)| met == of).count();
        println!(
            "{:<10}  {:.3} ({low:.3} to {high:.3})          {all} of {}",
            method,
            share(met),
            met.len()
        );
    }
    for (a, b) in [(1, 0), (2, 0), (2, 1)] {
        let difference = |rows: &[usize]| {
            let of = |m: usize| share(&rows.iter().map(|&i| met[m][i]).collect::<Vec<_>>());
            of(a) - of(b)
        };
        let rows: Vec<usize> = (0..tasks.len()).collect();
        let [low, high] = interval(tasks.len(), |i| difference(&i.collect::<Vec<_>>()));
        println!(
            "{} − {}: {:+.3} ({low:+.3} to {high:+.3})",
            METHODS[a],
            METHODS[b],
            difference(&rows)
        );
    }
    Ok(())
}

/// Rules met as a share of all.
fn share(met: &[(usize, usize)]) -> f64 {
    let (met, of) = met
        .iter()
        .fold((0, 0), |(a, b), (met, of)| (a + met, b + of));
    met as f64 / of as f64
}

/// The 95 % bootstrap interval of a statistic of `n` prompts, paired within a prompt.
fn interval(n: usize, statistic: impl Fn(&mut dyn Iterator<Item = usize>) -> f64) -> [f64; 2] {
    let mut generator = ChaCha8Rng::seed_from_u64(1);
    let mut values: Vec<f64> = (0..2000)
        .map(|_| statistic(&mut (0..n).map(|_| generator.random_range(0..n))))
        .collect();
    values.sort_by(f64::total_cmp);
    [values[49], values[1949]]
}
