//! Aligns one prompt with a reward model.
//!
//! ```text
//! cargo run --release --example align_prompt -- MODEL.gguf REWARD.gguf "Review a film."
//! ```

use std::path::Path;
use std::sync::Arc;

use aisp_llama::llama::{Message, Model, ModelOptions};
use aisp_llama::method::MethodOptions;
use aisp_llama::reward::{Classifier, ClassifierOptions};
use aisp_llama::{AlignOptions, Aligner, AlignerOptions, Event, Prompt, Stop, default_threads};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, reward, text] = arguments.as_slice() else {
        anyhow::bail!("usage: align_prompt MODEL.gguf REWARD.gguf PROMPT");
    };
    let model = Arc::new(Model::load(Path::new(model), &ModelOptions::default())?);
    let reward = Classifier::load(
        Path::new(reward),
        &ClassifierOptions {
            threads: default_threads(),
            ..ClassifierOptions::default()
        },
    )?;
    let mut aligner = Aligner::new(model, Box::new(reward), AlignerOptions::default())?;
    let options = AlignOptions {
        options: MethodOptions {
            samples: 16,
            iterations: 4,
            max_tokens: 32,
            ..MethodOptions::default()
        },
        ..AlignOptions::default()
    };
    let prompt = Prompt::Chat(vec![Message::new("user", text)]);
    let alignment = aligner.align(&prompt, &options, &Stop::new(), &mut |event| {
        if let Event::IterationDone(stats) = event {
            eprintln!(
                "iteration {}: mean {:?}, best {:?}",
                stats.index, stats.mean_reward, stats.best_reward
            );
        }
    })?;
    println!("{} (reward {:.2})", alignment.response, alignment.reward);
    Ok(())
}
