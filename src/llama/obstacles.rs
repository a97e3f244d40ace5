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

/// Names under which scalar heads are stored, without `.weight` and `.bias`. llama.cpp has a place
/// for `cls.output` alone.
pub const HEADS: [&str; 12] = [
    "score",
    "cls.output",
    "v_head.summary",
    "v_head",
    "value_head",
    "regression_layer",
    "regression_head",
    "rm_head",
    "reward_head",
    "score_head",
    "classifier",
    "classifier.out_proj",
];

/// The weights of the file's head, or of the dense layer before it.
fn head(gguf: &Gguf) -> Option<String> {
    let stems = HEADS.iter().chain(&["cls"]);
    let mut names = stems.map(|stem| format!("{stem}.weight"));
    names.find(|name| gguf.tensor(name).is_some())
}

/// Whether the file carries a scalar or classification head, under any of its names.
#[must_use]
pub fn has_head(gguf: &Gguf) -> bool {
    head(gguf).is_some()
}

/// Why this file cannot be the generator, if it cannot.
#[must_use]
pub fn generator_obstacle(gguf: &Gguf) -> Option<String> {
    let arch = gguf.architecture().unwrap_or("unknown");
    if let Some(reason) = head_inside_obstacle(gguf) {
        return Some(reason);
    }
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

/// Why llama.cpp cannot load the file because of a head inside it, if so: it refuses tensors
/// that it has no place for.
#[must_use]
pub fn head_inside_obstacle(gguf: &Gguf) -> Option<String> {
    let arch = gguf.architecture().unwrap_or("unknown");
    let tensor = head(gguf)?;
    if tensor.starts_with("cls.") && CLASSIFIERS.contains(&arch) {
        return None;
    }
    Some(format!(
        "llama.cpp cannot load a {arch} file with the tensor {tensor} inside; take the two apart \
         (reward import), and give the model with its head beside it: the reward \
         head:FILE.gguf;head=HEAD.safetensors"
    ))
}

/// What the score of a classifier lacks beside that of the model as it was published, if anything.
///
/// Source: `conversion/bert.py` of llama.cpp, which leaves the pooler out.
#[must_use]
pub fn classifier_loss(gguf: &Gguf) -> Option<&'static str> {
    let has = |name: &str| gguf.tensor(name).is_some();
    let types = gguf.tensor("token_types.weight");
    let without_pooler = gguf.architecture() == Some("bert")
        && has("cls.output.weight")
        && !has("cls.weight")
        && gguf.arch_key("classifier.pooling_type").is_none()
        && types.is_some_and(|types| types.dims.get(1) == Some(&2));
    without_pooler.then_some(
        "scores are not those of the model as published: llama.cpp's converter leaves out the \
         pooler's dense layer; a head with that layer beside the file (reward import) brings it back",
    )
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
    match (is_encoder(gguf), head_outputs(gguf)) {
        (false, _) => Some(format!(
            "llama.cpp soft-maxes the output of a {arch} head, a single one to a constant; use it \
             as head:FILE, which applies the head itself"
        )),
        (true, Some(outputs)) if outputs != 1 => Some(format!(
            "its classification head has {outputs} outputs; a reward has one"
        )),
        (true, _) => None,
    }
}
