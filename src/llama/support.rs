//! What a GGUF file can be used for, told from its header alone.

use crate::gguf::Gguf;

/// Architectures that only encode: no text comes out of them.
const ENCODERS: &[&str] = &[
    "bert",
    "modern-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "eurobert",
    "t5encoder",
    "gemma-embedding",
    "llama-embed",
    "clip",
    "wavtokenizer-dec",
];

/// Recurrent and hybrid memories, which cannot be cut back to a prompt
/// (`llm_arch_is_recurrent`, `llm_arch_is_hybrid`).
const RECURRENT: &[&str] = &[
    "mamba",
    "mamba2",
    "rwkv6",
    "rwkv6qwen2",
    "rwkv7",
    "arwkv7",
    "jamba",
    "falcon-h1",
    "plamo2",
    "granitehybrid",
    "lfm2",
    "lfm2moe",
    "nemotron_h",
    "nemotron_h_moe",
    "qwen3next",
    "kimi-linear",
    "kimi-k3",
    "qwen35",
    "qwen35moe",
    "qwen4exp",
    "bailingmoe3",
    "glm5-next",
    "deepseek4",
    "minimax-01",
];

/// Diffusion models, which do not write from left to right.
const DIFFUSION: &[&str] = &["dream", "llada", "llada-moe", "rnd1"];

/// Architectures for which llama.cpp loads a classification head (`cls.*`).
const CLASSIFIERS: &[&str] = &[
    "bert",
    "modern-bert",
    "neo-bert",
    "jina-bert-v2",
    "qwen3",
    "qwen3vl",
];

/// Whether the file carries a classification head.
#[must_use]
pub fn has_head(gguf: &Gguf) -> bool {
    gguf.tensor("cls.output.weight").is_some() || gguf.tensor("cls.weight").is_some()
}

/// Why this file cannot be the generator, if it cannot.
#[must_use]
pub fn generator_obstacle(gguf: &Gguf) -> Option<String> {
    let arch = gguf.architecture().unwrap_or("unknown");
    if has_head(gguf) {
        return Some(format!(
            "a reward model (architecture {arch} with a classification head), not a generator; \
             give it with -mr"
        ));
    }
    if ENCODERS.contains(&arch) {
        return Some(format!(
            "architecture {arch} is an encoder and generates no text; give a causal language model"
        ));
    }
    if RECURRENT.contains(&arch) {
        return Some(format!(
            "architecture {arch} has a recurrent memory, which cannot be cut back to the prompt; \
             not supported"
        ));
    }
    if DIFFUSION.contains(&arch) {
        return Some(format!(
            "architecture {arch} is a diffusion model and has no next token; not supported"
        ));
    }
    match arch {
        "plamo3" => Some("architecture plamo3 does not name its pre-logits; not supported".into()),
        "minicpm3" => Some(
            "architecture minicpm3 scales its pre-logits after the final norm; not supported"
                .into(),
        ),
        _ => None,
    }
}

/// Why this file cannot be a classifier reward, if it cannot.
#[must_use]
pub fn reward_obstacle(gguf: &Gguf) -> Option<String> {
    let arch = gguf.architecture().unwrap_or("unknown");
    if !has_head(gguf) {
        return Some(format!(
            "not a reward model: architecture {arch} without a classification head \
             (cls.output.weight); give one with -mr, generators go with -m"
        ));
    }
    if !CLASSIFIERS.contains(&arch) {
        return Some(format!(
            "llama.cpp loads no classification head for architecture {arch} (it does for {})",
            CLASSIFIERS.join(", ")
        ));
    }
    None
}
