//! Real models for the tests, where `make setup` puts them.

#![allow(dead_code)] // every test program uses a part of it

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use aisp_llama::llama::{Model, ModelOptions};

pub const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
pub const GEMMA3: &str = "gemma-3-270m.Q4_K_M.gguf";
pub const REWARD: &str = "film-review-reward.gguf";

/// Where a model is.
pub fn path(name: &str) -> PathBuf {
    cached(&format!("models/{name}"))
}

/// Where something in the cache folder is; a missing one fails the test with the way to get it.
pub fn cached(name: &str) -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .expect("XDG_CACHE_HOME or HOME is set");
    let path = base.join("aisp-llama").join(name);
    assert!(
        path.exists(),
        "{} is missing: run the tests with `make test`",
        path.display()
    );
    path
}

/// The Python of the set-up.
pub fn interpreter() -> String {
    std::env::var("PYTHON").unwrap_or_else(|_| "python3".into())
}

/// The folder that llama-cpp-python is installed in, with Jinja2, for this Python.
pub fn llama_cpp_python() -> PathBuf {
    let tag = Command::new(interpreter())
        .args(["-c", "import sys; print(sys.implementation.cache_tag)"])
        .output()
        .expect("Python runs");
    let tag = String::from_utf8(tag.stdout).expect("a name");
    cached(&format!("python/{}-llama-cpp-python", tag.trim()))
}

fn load(name: &str) -> Arc<Model> {
    let options = ModelOptions {
        gpu_layers: Some(0),
        ..ModelOptions::default()
    };
    Arc::new(Model::load(&path(name), &options).expect("the model loads"))
}

/// The default generator, loaded once.
pub fn smollm2() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| load(SMOLLM2)))
}

/// A second architecture, loaded once.
pub fn gemma3() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| load(GEMMA3)))
}

/// Twenty prompts: requests of many kinds and, from the sixteenth on, conversations of
/// several turns.
pub fn conversations() -> Vec<Vec<aisp_llama::llama::Message>> {
    use aisp_llama::llama::Message;
    let single = [
        "Write one sentence reviewing a movie about a lost dog.",
        "What is the capital of France?",
        "Explain photosynthesis to a child.",
        "List three fruits.",
        "Write a haiku about the sea.",
        "Why is the sky blue?",
        "Translate 'good morning' into Spanish.",
        "What is 17 + 25?",
        "Give me a recipe for pancakes.",
        "Tell me a joke about cats.",
        "Who wrote Hamlet?",
        "Summarise the plot of Cinderella.",
        "Write a function in Python that reverses a string.",
        "How do I tie a tie?",
        "Name the planets of the solar system.",
        "What should I read on a rainy day?",
    ];
    let follow_up = [
        ("Hi!", "Hello! How can I help?", "Tell me about whales."),
        ("What is 2 + 2?", "4", "And times three?"),
        ("Name a colour.", "Blue.", "Another one."),
        ("I like films.", "Which ones?", "Comedies. Recommend one."),
    ];
    let mut all: Vec<Vec<Message>> = single
        .iter()
        .map(|text| vec![Message::new("user", *text)])
        .collect();
    all.extend(follow_up.iter().map(|(a, b, c)| {
        vec![
            Message::new("user", *a),
            Message::new("assistant", *b),
            Message::new("user", *c),
        ]
    }));
    all
}
