//! What a GGUF file can be used for, told from its header alone.

use std::path::Path;

use super::parts;
use crate::gguf::{Gguf, Value};
use crate::text::brief;

/// The architectures of the pinned llama.cpp, but for its projectors.
///
/// Source: `LLM_ARCH_NAMES` in llama.cpp's `src/llama-arch.cpp`.
#[rustfmt::skip]
pub const ARCHITECTURES: &[&str] = &[
    "llama", "llama4", "deci", "falcon", "grok", "gpt2", "gptj", "gptneox", "mpt", "baichuan",
    "starcoder", "refact", "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert",
    "jina-bert-v2", "jina-bert-v3", "eurobert", "bloom", "stablelm", "qwen", "qwen2", "qwen2moe",
    "qwen2vl", "qwen3", "qwen3moe", "qwen3next", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe",
    "clef", "qwen4exp", "phi2", "phi3", "phimoe", "plamo", "plamo2", "plamo3", "codeshell",
    "orion", "internlm2", "minicpm", "minicpm3", "gemma", "gemma2", "gemma3", "gemma3n", "gemma4",
    "gemma4-assistant", "gemma-embedding", "starcoder2", "mamba", "mamba2", "maple", "jamba",
    "falcon-h1", "xverse", "command-r", "cohere2", "cohere2moe", "dbrx", "olmo", "olmo2", "olmoe",
    "muse-glimmer", "openelm", "arctic", "deepseek", "deepseek2", "deepseek2-ocr", "deepseek32",
    "deepseek4", "chatglm", "glm4", "glm4moe", "glm-dsa", "bitnet", "t5", "t5encoder", "jais",
    "jais2", "nemotron", "nemotron_h", "nemotron_h_moe", "exaone", "exaone4", "exaone-moe",
    "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7", "granite", "granitemoe", "granitehybrid",
    "graniteswitch", "granite_swa", "chameleon", "wavtokenizer-dec", "plm", "bailingmoe",
    "bailingmoe2", "bailingmoe3", "dots1", "dots3note", "arcee", "afmoe", "laguna", "ernie4_5",
    "ernie4_5-moe", "hunyuan-moe", "hunyuan-dense", "hunyuan_vl", "hy_v3", "hy_v4", "smollm3",
    "gpt-oss", "lfm2", "lfm2moe", "dream", "smallthinker", "llada", "llada-moe", "seed_oss",
    "grovemoe", "apertus", "minimax-01", "hrm_text", "minimax-m2", "minimax-m3", "cogvlm", "rnd1",
    "pangu-embedded", "mistral3", "eagle3", "dflash", "mistral4", "paddleocr", "mimo2", "step35",
    "spark2_5", "llama-embed", "maincoder", "kimi-linear", "kimi-k3", "glm5-next", "talkie",
    "mellum", "nanbeige", "qwen3tts", "pockettts",
];

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

/// The architecture as a message can name it.
fn name(gguf: &Gguf) -> String {
    brief(gguf.architecture().unwrap_or("unknown"), 60)
}

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

/// Why the file at `path`, with this header, is no model that can be loaded and used, if it is none.
#[must_use]
pub fn model_obstacle(path: &Path, gguf: &Gguf) -> Option<String> {
    let kind = gguf.str("general.type");
    if kind == Some("adapter") || gguf.get("adapter.type").is_some() {
        let reason = "an adapter, not a model; give the model, and a LoRA adapter as `lora`";
        return Some(reason.into());
    }
    let architecture = gguf.architecture();
    if kind == Some("mmproj") || architecture == Some("clip") {
        return Some("a projector for images or sound, not a model; give the model's file".into());
    }
    let Some(architecture) = architecture else {
        let reason = "general.architecture: missing, so this GGUF is not a model; give the model's \
                      file";
        return Some(reason.into());
    };
    if !ARCHITECTURES.contains(&architecture) {
        return Some(format!(
            "general.architecture: \"{}\" is none that the llama.cpp inside knows; a newer version of \
             this program may",
            name(gguf)
        ));
    }
    if gguf.tensors().is_empty() && parts::count(gguf) == 1 {
        return Some("no tensors: a vocabulary alone, not a model; give the model's file".into());
    }
    let fault = gguf.fault().map(|fault| {
        format!(
            "llama.cpp would not survive it: {fault}; download the file again, or convert the model \
             again with a current llama.cpp"
        )
    });
    fault.or_else(|| parts::check(path, gguf).err())
}

/// Why this file cannot be the generator, if it cannot.
#[must_use]
pub fn generator_obstacle(gguf: &Gguf) -> Option<String> {
    if let Some(reason) = head_inside_obstacle(gguf) {
        return Some(reason);
    }
    let arch = name(gguf);
    let arch = arch.as_str();
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
    let arch = name(gguf);
    let arch = arch.as_str();
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
    // What the hook takes out is a row of the matrix behind it.
    let matrix = gguf
        .tensor("output.weight")
        .or(gguf.tensor("token_embd.weight"));
    let width = matrix.and_then(|matrix| matrix.dims.first().copied());
    let said = gguf
        .arch_key("embedding_length_out")
        .and_then(Value::as_u64);
    if let (Some(width), Some(said)) = (width, said.filter(|said| *said > 0))
        && said != width
    {
        return Some(format!(
            "{arch}.embedding_length_out: {said}, but the output matrix has rows of {width}; a model \
             for embeddings is no generator"
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
    let arch = name(gguf);
    let arch = arch.as_str();
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
    let arch = name(gguf);
    let arch = arch.as_str();
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
