//! A reward written in Rust: answers that name many colours.
//!
//! ```text
//! cargo run --release --example custom_reward -- MODEL.gguf "Describe the sea."
//! ```

use std::path::Path;
use std::sync::Arc;

use aisp_llama::llama::{Message, Model, ModelOptions};
use aisp_llama::method::Rounds;
use aisp_llama::reward::FnReward;
use aisp_llama::{AlignOptions, Aligner, EngineOptions, Prompt, Stop};

const COLOURS: [&str; 12] = [
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black", "grey", "gold",
    "silver",
];

/// How many colours the response names, each counted once.
fn colours(_prompt: &str, response: &str) -> f64 {
    let text = response.to_lowercase();
    let words: Vec<&str> = text.split(|c: char| !c.is_alphabetic()).collect();
    COLOURS
        .iter()
        .filter(|colour| words.contains(colour))
        .count() as f64
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, text] = arguments.as_slice() else {
        anyhow::bail!("usage: custom_reward MODEL.gguf PROMPT");
    };
    let model = Arc::new(Model::load(Path::new(model), &ModelOptions::default())?);
    let mut reward = FnReward::new("colours", colours);
    let mut aligner = Aligner::new(model, EngineOptions::default())?;
    let options = AlignOptions {
        rounds: Rounds {
            max_tokens: 40,
            ..Rounds::default()
        },
        target_reward: Some(5.0),
        ..AlignOptions::default()
    };
    let prompt = Prompt::Chat(vec![Message::new("user", text)]);
    let alignment = aligner.align(&prompt, &mut reward, &options, &Stop::new(), &mut |_| {})?;
    println!("{} (reward {})", alignment.response, alignment.reward);
    Ok(())
}
