//! What a sound header can say that ends the process which loads it: llama.cpp asserts, divides by
//! zero, or calls a kernel that there is not.
//!
//! A table of keys with their ranges, a table of tensors by what is done with them, and a function
//! for each thing that takes several keys to tell. What no header tells (an architecture's own
//! assertions, sizes that do not fit one another) is found by trying the file in another process.
//!
//! Source: `load_hparams` in llama.cpp's `src/llama-model.cpp`, `llama_vocab::impl::load` and the
//! tokenizers in `src/llama-vocab.cpp`, the operations of `LLM_TENSOR_INFOS` in `src/llama-arch.cpp`,
//! `type_traits_cpu` in `ggml-cpu.c`, `binary-ops.cpp`, `TENSOR_ALIGNMENT` in `ggml-impl.h`.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use super::read::quoted;
use super::{Gguf, TensorInfo, TensorType, Value};

/// Numbers of the architecture, and between what they are.
const RANGES: [(&str, RangeInclusive<u64>); 5] = [
    ("block_count", 1..=512),
    // The binding counts in 31 bits.
    ("context_length", 1..=i32::MAX as u64),
    ("expert_count", 0..=1024),
    ("embedding_length", 1..=i32::MAX as u64),
    ("embedding_length_out", 0..=i32::MAX as u64),
];

/// Least alignment of tensors in memory.
const LEAST_ALIGNMENT: u64 = 32;

/// The values of `rope.scaling.type`.
const ROPE_SCALINGS: [&str; 4] = ["none", "linear", "yarn", "longrope"];

/// Types that matrices cannot be multiplied with.
const NO_PRODUCT: [TensorType; 7] = [
    TensorType(9),
    TensorType(15),
    TensorType(24),
    TensorType(25),
    TensorType(26),
    TensorType(27),
    TensorType(28),
];

/// Tensors, by a part of their names and a dot behind them, that are added, multiplied with or scanned
/// number by number: F32, whatever their shape. Biases, norms and what has one dimension are as well.
const NUMBER_BY_NUMBER: [&str; 14] = [
    ".ssm_a.",
    ".ssm_d.",
    ".ssm_conv1d",
    ".shortconv.conv.",
    ".exp_probs_b",
    ".attn_sinks",
    ".layer_output_scale",
    ".altup_correct_scale",
    ".time_mix_lerp",
    ".time_mix_first",
    ".channel_mix_lerp",
    "rope_freqs",
    "rope_factors_",
    ".ffn.act",
];

/// Those of one dimension that are matrices of one row.
const ONE_ROW: [&str; 2] = ["ffn_gate_inp_shexp.", "cls.output."];

/// Tables of token ids.
const TABLES: [&str; 2] = ["d2t", "tid2eid"];

/// Vocabularies by their models: the ids of BOS, EOS and separator where the file gives none, and
/// which of them a text gets where the file does not say; those of BERT it always gets.
const VOCABULARIES: [Vocabulary; 4] = [
    ("llama", [Some(1), Some(2), None], [true, false, false]),
    ("gpt2", [Some(11), Some(11), None], [false, false, false]),
    ("bert", [Some(101), None, Some(102)], [true, false, true]),
    ("t5", [None, Some(1), None], [false, true, false]),
];

type Vocabulary = (&'static str, [Option<u64>; 3], [bool; 3]);

/// What the file would end the process with, by its field, if anything is known.
pub(super) fn fault(gguf: &Gguf) -> Option<String> {
    let checks = [
        alignment, ranges, layers, experts, heads, epsilons, rope, vocabulary, specials, tensors,
    ];
    checks.iter().find_map(|check| check(gguf))
}

fn key(gguf: &Gguf, suffix: &str) -> String {
    format!("{}.{suffix}", gguf.architecture().unwrap_or_default())
}

fn number(gguf: &Gguf, suffix: &str) -> Option<u64> {
    gguf.arch_key(suffix).and_then(Value::as_u64)
}

/// The number, or those of the layers.
fn numbers(gguf: &Gguf, suffix: &str) -> Vec<u64> {
    match gguf.arch_key(suffix) {
        Some(Value::Array(list)) => (0..list.len().min(1024))
            .filter_map(|i| list.get(i)?.as_u64())
            .collect(),
        Some(value) => value.as_u64().into_iter().collect(),
        None => Vec::new(),
    }
}

fn alignment(gguf: &Gguf) -> Option<String> {
    let small = gguf.alignment < LEAST_ALIGNMENT && !gguf.tensors().is_empty();
    let reason = format!(
        "general.alignment: {}; must be at least {LEAST_ALIGNMENT}",
        gguf.alignment
    );
    small.then_some(reason)
}

fn ranges(gguf: &Gguf) -> Option<String> {
    RANGES.iter().find_map(|(suffix, range)| {
        let value = number(gguf, suffix).filter(|value| !range.contains(value))?;
        let (key, least, most) = (key(gguf, suffix), range.start(), range.end());
        Some(format!("{key}: {value}; must be from {least} to {most}"))
    })
}

fn layers(gguf: &Gguf) -> Option<String> {
    let (blocks, ahead) = (
        number(gguf, "block_count")?,
        number(gguf, "nextn_predict_layers")?,
    );
    let key = key(gguf, "nextn_predict_layers");
    (ahead > blocks).then(|| format!("{key}: {ahead}; there are {blocks} blocks"))
}

fn experts(gguf: &Gguf) -> Option<String> {
    let all = number(gguf, "expert_count").unwrap_or(0);
    // Others are as good as none there.
    if all <= 1
        && gguf
            .architecture()
            .is_some_and(|arch| arch.starts_with("hunyuan"))
    {
        return None;
    }
    let used = numbers(gguf, "expert_used_count");
    let used = used.into_iter().max().unwrap_or(0);
    if used > all || (all > 0 && used == 0) {
        let key = key(gguf, "expert_used_count");
        return Some(format!("{key}: {used}, of {all} experts"));
    }
    let groups = number(gguf, "expert_group_count").unwrap_or(0);
    let groups_used = number(gguf, "expert_group_used_count").unwrap_or(0);
    let fits = match groups {
        0 => true,
        1 => all > 1,
        _ => groups < all && all.is_multiple_of(groups) && (1..groups).contains(&groups_used),
    };
    let key = key(gguf, "expert_group_count");
    (!fits).then(|| format!("{key}: {groups}, {groups_used} of them used, of {all} experts"))
}

fn heads(gguf: &Gguf) -> Option<String> {
    let heads = numbers(gguf, "attention.head_count");
    let shared = numbers(gguf, "attention.head_count_kv");
    let of_layer = |list: &[u64], i: usize| list.get(i).or(list.last()).copied();
    (0..heads.len().max(shared.len())).find_map(|i| {
        let (heads, shared) = (of_layer(&heads, i)?, of_layer(&shared, i)?);
        let key = key(gguf, "attention.head_count_kv");
        // None at all is a layer without attention.
        let bad = shared > 0 && heads % shared != 0;
        bad.then(|| format!("{key}: {shared}; {heads} heads cannot share them"))
    })
}

fn epsilons(gguf: &Gguf) -> Option<String> {
    gguf.metadata().find_map(|(key, value)| {
        let value = value.as_f64().filter(|_| key.ends_with("epsilon"))?;
        let bad = !(value >= 0.0 && value.is_finite());
        bad.then(|| format!("{key}: {value}; must be 0 or more"))
    })
}

fn rope(gguf: &Gguf) -> Option<String> {
    let value = gguf.arch_key("rope.scaling.type")?.as_str()?;
    let known = ROPE_SCALINGS.contains(&value);
    let (key, known_ones) = (key(gguf, "rope.scaling.type"), ROPE_SCALINGS.join(", "));
    (!known).then(|| format!("{key}: {}; must be one of {known_ones}", quoted(value)))
}

fn vocabulary(gguf: &Gguf) -> Option<String> {
    let model = gguf.str("tokenizer.ggml.model")?;
    if matches!(model, "no_vocab" | "none") {
        return Some(format!(
            "tokenizer.ggml.model: {model:?}: a model without a vocabulary reads no text"
        ));
    }
    let tokens = gguf.get("tokenizer.ggml.tokens")?.as_str_array()?;
    let mut seen = HashSet::with_capacity(tokens.len());
    for (index, token) in tokens.iter().enumerate() {
        // llama.cpp reads it to the first NUL, and gives a name to an empty one. What was no UTF-8
        // may have been another text.
        let token = token.split('\0').next().unwrap_or_default();
        if !token.is_empty() && !token.contains(char::REPLACEMENT_CHARACTER) && !seen.insert(token)
        {
            let token = quoted(token);
            return Some(format!(
                "tokenizer.ggml.tokens: token {index}, {token}, is there twice"
            ));
        }
    }
    if model != "llama" {
        return None;
    }
    // A character that is no token is spelled in bytes.
    let lacking = (0..=u8::MAX).find(|byte| {
        let alone = [*byte];
        let alone = std::str::from_utf8(&alone).is_ok_and(|text| seen.contains(text));
        !alone && !seen.contains(format!("<0x{byte:02X}>").as_str())
    })?;
    Some(format!(
        "tokenizer.ggml.tokens: no token for the byte 0x{lacking:02X}, so not every text can be read"
    ))
}

/// Tokens that texts are to begin or end with, and that are not there.
fn specials(gguf: &Gguf) -> Option<String> {
    let model = gguf.str("tokenizer.ggml.model")?;
    let (_, ids, added) = VOCABULARIES.iter().find(|(name, ..)| *name == model)?;
    let tokens = gguf.get("tokenizer.ggml.tokens")?.len() as u64;
    let names = [
        ("bos", "bos_token_id"),
        ("eos", "eos_token_id"),
        ("sep", "seperator_token_id"),
    ];
    names
        .iter()
        .zip(ids)
        .zip(added)
        .find_map(|(((name, id), own), added)| {
            let key = format!("tokenizer.ggml.add_{name}_token");
            let there = |id: &u64| *id < tokens;
            let given = gguf.u64(&format!("tokenizer.ggml.{id}")).filter(there);
            let id = given.or(own.filter(there));
            let said = gguf
                .bool(&key)
                .filter(|_| model != "bert" && *name != "sep");
            let wanted = said.unwrap_or(*added);
            (wanted && id.is_none())
                .then(|| format!("{key}: true, or true by default, and there is no such token"))
        })
}

fn tensors(gguf: &Gguf) -> Option<String> {
    gguf.tensors().iter().find_map(tensor)
}

fn tensor(tensor: &TensorInfo) -> Option<String> {
    let TensorInfo { name, kind, .. } = tensor;
    let dotted = format!("{name}.");
    let has = |parts: &[&str]| parts.iter().any(|part| dotted.contains(part));
    if has(&TABLES) {
        return None;
    }
    let matrix = tensor.dims.len() > 1 || has(&ONE_ROW);
    let by_number = name.ends_with(".bias") || name.ends_with("norm.weight") || !matrix;
    if (by_number || has(&NUMBER_BY_NUMBER)) && *kind != TensorType::F32 {
        let name = quoted(name);
        return Some(format!("the type of tensor {name} is {kind}; must be F32"));
    }
    let unusable = NO_PRODUCT.contains(kind);
    unusable.then(|| {
        let name = quoted(name);
        format!("the type of tensor {name} is {kind}, which nothing can be multiplied with")
    })
}

#[cfg(test)]
mod tests;
