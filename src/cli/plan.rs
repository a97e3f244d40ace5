//! `run --plan`: what a run would take of the memory.

use std::path::{Path, PathBuf};

use aisp_llama::llama::{ContextMemory, available_memory};
use aisp_llama::{Aligner, Error, Result};
use serde::Serialize;

use super::output;

/// A file with its size in bytes.
#[derive(Serialize)]
struct Weights {
    file: PathBuf,
    bytes: u64,
}

/// Everything, in bytes.
#[derive(Serialize)]
struct Plan {
    generator: Weights,
    rewards: Vec<Weights>,
    sequences: usize,
    tokens_of_a_sequence: usize,
    keys_and_values: u64,
    states: u64,
    logits: u64,
    activations: u64,
    total: u64,
    available: Option<u64>,
}

/// Prints the memory of a run with the reward files `rewards`, for which `aligner` has made room.
pub fn print(aligner: &Aligner, rewards: &[PathBuf], json: bool) -> anyhow::Result<()> {
    let generator = weights(aligner.model().path())?;
    let rewards: Result<Vec<Weights>> = rewards.iter().map(|path| weights(path)).collect();
    let rewards = rewards?;
    let context: ContextMemory = aligner.memory();
    // One file is read once, whoever uses it.
    let others = rewards.iter().filter(|w| w.file != generator.file);
    let files = generator.bytes + others.map(|w| w.bytes).sum::<u64>();
    let plan = Plan {
        sequences: context.sequences,
        tokens_of_a_sequence: context.tokens,
        keys_and_values: context.keys_and_values,
        states: context.states,
        logits: context.logits,
        activations: context.activations,
        total: files + context.total(),
        available: available_memory(),
        generator,
        rewards,
    };
    let text = match json {
        true => serde_json::to_string_pretty(&plan)? + "\n",
        false => table(&plan),
    };
    Ok(output::print_out(text.as_bytes())?)
}

fn weights(file: &Path) -> Result<Weights> {
    let metadata = std::fs::metadata(file).map_err(Error::io(file))?;
    Ok(Weights {
        file: file.to_path_buf(),
        bytes: metadata.len(),
    })
}

fn table(plan: &Plan) -> String {
    let mut out = String::new();
    let mut row = |bytes: u64, what: String| {
        out.push_str(&format!("{:>10.1} MB  {what}\n", bytes as f64 / 1e6));
    };
    row(
        plan.generator.bytes,
        plan.generator.file.display().to_string(),
    );
    for reward in &plan.rewards {
        row(reward.bytes, reward.file.display().to_string());
    }
    row(
        plan.keys_and_values,
        format!(
            "keys and values of {} sequences of {} tokens",
            plan.sequences, plan.tokens_of_a_sequence
        ),
    );
    if plan.states > 0 {
        row(
            plan.states,
            format!("recurrent states of {} sequences", plan.sequences),
        );
    }
    row(plan.logits, "logits".into());
    row(plan.activations, "activations, about".into());
    let free = plan.available.map_or(String::new(), |free| {
        format!(" of {:.1} MB that are free", free as f64 / 1e6)
    });
    row(plan.total, format!("together{free}"));
    out
}
