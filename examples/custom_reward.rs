//! A reward written in Rust: answers of about twelve words that do not say "the".
//!
//! ```text
//! cargo run --release --example custom_reward -- MODEL.gguf "Describe the sea."
//! ```

use std::path::Path;
use std::sync::Arc;

use aisp_llama::llama::{Message, Model, ModelOptions};
use aisp_llama::method::MethodOptions;
use aisp_llama::reward::FnReward;
use aisp_llama::{AlignOptions, Aligner, AlignerOptions, Prompt, Stop};

/// Minus the distance from twelve words, minus two for every "the".
fn terse(_prompt: &str, response: &str) -> f64 {
    let words: Vec<&str> = response.split_whitespace().collect();
    let articles = words.iter().filter(|w| w.eq_ignore_ascii_case("the"));
    -(words.len() as f64 - 12.0).abs() - 2.0 * articles.count() as f64
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, text] = arguments.as_slice() else {
        anyhow::bail!("usage: custom_reward MODEL.gguf PROMPT");
    };
    let model = Arc::new(Model::load(Path::new(model), &ModelOptions::default())?);
    let reward = FnReward::new("terse", terse);
    let mut aligner = Aligner::new(model, Box::new(reward), AlignerOptions::default())?;
    let options = AlignOptions {
        options: MethodOptions {
            max_tokens: 40,
            ..MethodOptions::default()
        },
        target_reward: Some(0.0),
        ..AlignOptions::default()
    };
    let prompt = Prompt::Chat(vec![Message::new("user", text)]);
    let alignment = aligner.align(&prompt, &options, &Stop::new(), &mut |_| {})?;
    println!("{} (reward {})", alignment.response, alignment.reward);
    Ok(())
}
