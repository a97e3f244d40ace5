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
             give it as `model-reward`"
        ));
    }
    decoder_obstacle(gguf)
}

/// Whether the architecture only encodes texts.
#[must_use]
pub fn is_encoder(gguf: &Gguf) -> bool {
    gguf.architecture()
        .is_some_and(|arch| ENCODERS.contains(&arch))
}

/// Why this file cannot read a text token by token here, if it cannot: what a generator, a
/// judge and a head on last-token pre-logits have in common.
#[must_use]
pub fn decoder_obstacle(gguf: &Gguf) -> Option<String> {
    let arch = gguf.architecture().unwrap_or("unknown");
    if ENCODERS.contains(&arch) {
        return Some(format!(
            "architecture {arch} is an encoder and generates no text; give a causal language model"
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

/// Outputs of the classification head, by its tensor or, failing that, its labels.
fn head_outputs(gguf: &Gguf) -> Option<u64> {
    let tensor = gguf.tensor("cls.output.weight");
    let rows = tensor.map(|t| t.dims.get(1).copied().unwrap_or(1));
    rows.or_else(|| {
        let labels = gguf.arch_key("classifier.output_labels")?;
        u64::try_from(labels.len()).ok()
    })
}

/// Names under which head tensors travel that llama.cpp has no place for.
const FOREIGN_HEADS: &[&str] = &[
    "score.weight",
    "v_head.summary.weight",
    "value_head.weight",
    "regression_layer.weight",
    "rm_head.weight",
];

/// Why llama.cpp cannot load the file because of a head inside it, if so: it refuses tensors
/// that it has no place for.
#[must_use]
pub fn head_inside_obstacle(gguf: &Gguf) -> Option<String> {
    let arch = gguf.architecture().unwrap_or("unknown");
    let own = ["cls.output.weight", "cls.weight"];
    let foreign = FOREIGN_HEADS
        .iter()
        .chain(match CLASSIFIERS.contains(&arch) {
            true => [].iter(),
            false => own.iter(),
        });
    let tensor = foreign.copied().find(|name| gguf.tensor(name).is_some())?;
    Some(format!(
        "llama.cpp cannot load a {arch} file with the tensor {tensor} inside; convert the model \
         without its head and give the head beside it: the reward \
         head:FILE.gguf;head=HEAD.safetensors"
    ))
}

/// Why llama.cpp's own classification head does not make this file a reward, if it does not.
#[must_use]
pub fn classifier_obstacle(gguf: &Gguf) -> Option<String> {
    let arch = gguf.architecture().unwrap_or("unknown");
    if !has_head(gguf) {
        return Some(format!(
            "architecture {arch} without a classification head (cls.output.weight)"
        ));
    }
    if !CLASSIFIERS.contains(&arch) {
        return Some(format!(
            "llama.cpp loads no classification head for architecture {arch} (it does for {})",
            CLASSIFIERS.join(", ")
        ));
    }
    if !is_encoder(gguf) && head_outputs(gguf) == Some(1) {
        return Some(format!(
            "llama.cpp soft-maxes the single output of a {arch} head to a constant; use it as \
             head:FILE, which applies the head itself"
        ));
    }
    None
}
