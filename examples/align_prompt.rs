//! Aligns one prompt with a reward model.
//!
//! ```text
//! cargo run --release --example align_prompt -- MODEL.gguf REWARD.gguf "Review a film."
//! ```

use std::path::Path;
use std::sync::Arc;

use aisp_llama::llama::{Message, Model, ModelOptions};
use aisp_llama::method::Rounds;
use aisp_llama::reward::{Classifier, ClassifierOptions};
use aisp_llama::{AlignOptions, Aligner, EngineOptions, EventKind, Prompt, Stop, default_threads};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, reward, text] = arguments.as_slice() else {
        anyhow::bail!("usage: align_prompt MODEL.gguf REWARD.gguf PROMPT");
    };
    let model = Arc::new(Model::load(Path::new(model), &ModelOptions::default())?);
    let mut reward = Classifier::load(
        Path::new(reward),
        &ClassifierOptions {
            threads: default_threads(),
            ..ClassifierOptions::default()
        },
    )?;
    let mut aligner = Aligner::new(model, EngineOptions::default())?;
    let options = AlignOptions {
        rounds: Rounds {
            samples: 16,
            iterations: 4,
            max_tokens: 32,
            ..Rounds::default()
        },
        ..AlignOptions::default()
    };
    let prompt = Prompt::Chat(vec![Message::new("user", text)]);
    let stop = Stop::new();
    let alignment = aligner.align(&prompt, &mut reward, &options, &stop, &mut |event| {
        if let EventKind::IterationDone(stats) = &event.kind {
            eprintln!(
                "iteration {}: mean {:?}, best {:?}",
                stats.index, stats.mean_reward, stats.best_reward
            );
        }
    })?;
    println!("{} (reward {:.2})", alignment.response, alignment.reward);
    Ok(())
}
