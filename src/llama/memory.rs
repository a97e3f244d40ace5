//! What a context takes, before it is made, and what there is.

use std::iter::zip;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::Model;
use super::attention::CacheType;
use super::context::ContextOptions;
use super::sequences::PROMPT_CHUNK;
use crate::gguf::{Array, Gguf, Value};

/// llama.cpp makes a sequence a multiple of so many tokens.
const CELLS: usize = 256;
/// Bytes of a number of a recurrent state, F32.
const STATE_BYTES: u64 = 4;

/// Memory of a context, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextMemory {
    /// Sequences, those that are only parked among them.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub tokens: usize,
    /// Keys and values of all sequences.
    pub keys_and_values: u64,
    /// Recurrent states of all sequences.
    pub states: u64,
    /// Logits of a step, in its graph and behind it.
    pub logits: u64,
    /// Activations of a piece of a prompt; an estimate.
    pub activations: u64,
}

impl ContextMemory {
    /// That of a context of `model` with these options.
    #[must_use]
    pub fn of(model: &Model, options: &ContextOptions) -> Self {
        let sequences = options.held(model);
        let tokens = options.context.next_multiple_of(CELLS);
        let gguf = model.gguf();
        let number = |key: &str| gguf.arch_key(key).and_then(first).unwrap_or(0);
        let width = 4 * model.width() as u64 + 3 * number("feed_forward_length");
        let one = SequenceMemory::of(gguf, options.attention.keys, options.attention.values);
        Self {
            sequences,
            tokens,
            keys_and_values: one.token * (tokens * sequences) as u64,
            states: one.state * sequences as u64,
            logits: 2 * (sequences * model.vocabulary() * size_of::<f32>()) as u64,
            activations: width * (PROMPT_CHUNK * size_of::<f32>()) as u64,
        }
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.keys_and_values + self.states + self.logits + self.activations
    }
}

/// Memory of one sequence, in bytes, told from the header of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceMemory {
    /// Keys and values of one token, in all layers that have any.
    pub token: u64,
    /// The recurrent state, however many tokens there are; 0 without one.
    pub state: u64,
}

impl SequenceMemory {
    /// That of a model with this header, where keys and values are kept as these types.
    ///
    /// Source: `n_embd_k_gqa`, `n_embd_v_gqa`, `n_embd_r` and `n_embd_s` in llama.cpp's
    /// `src/llama-hparams.cpp`, and which layers are recurrent in `src/models/`.
    #[must_use]
    pub fn of(gguf: &Gguf, keys: CacheType, values: CacheType) -> Self {
        let number = |key: &str| gguf.arch_key(key).and_then(first);
        let heads = number("attention.head_count").unwrap_or(1).max(1);
        let (key, value) = self::heads(gguf);
        let layers = number("block_count").unwrap_or(0);
        let heads_kv = per_layer(gguf, "attention.head_count_kv", layers, heads);
        let state = state(gguf, heads);
        let recurrent = match state {
            0 => vec![false; layers as usize],
            _ => recurrent(gguf, &heads_kv),
        };
        // Only Falcon-H1 has both in one layer.
        let both = gguf.architecture() == Some("falcon-h1");
        let shared: u64 = zip(&heads_kv, &recurrent)
            .filter(|(_, recurrent)| both || !**recurrent)
            .map(|(heads, _)| heads)
            .sum();
        Self {
            token: shared.saturating_mul(keys.bytes(key) + values.bytes(value)),
            state: state * recurrent.iter().filter(|r| **r).count() as u64 * STATE_BYTES,
        }
    }
}

/// Numbers in a key and in a value of one head.
pub(super) fn heads(gguf: &Gguf) -> (u64, u64) {
    let number = |key: &str| gguf.arch_key(key).and_then(first);
    let heads = number("attention.head_count").unwrap_or(1).max(1);
    let head = number("embedding_length").unwrap_or(0) / heads;
    let own = |key: &str| number(key).unwrap_or(head);
    (own("attention.key_length"), own("attention.value_length"))
}

/// A number for each layer, where one may stand for all.
fn per_layer(gguf: &Gguf, key: &str, layers: u64, missing: u64) -> Vec<u64> {
    match gguf.arch_key(key) {
        Some(Value::Array(array)) => numbers(array),
        one => vec![one.and_then(Value::as_u64).unwrap_or(missing); layers as usize],
    }
}

/// Numbers in the recurrent state of one layer.
fn state(gguf: &Gguf, heads: u64) -> u64 {
    let number = |key: &str| gguf.arch_key(key).and_then(first);
    let width = number("embedding_length").unwrap_or(0);
    if let Some(head) = number("wkv.head_size") {
        return width * (number("token_shift_count").unwrap_or(2) + head);
    }
    if let Some(cache) = number("shortconv.l_cache") {
        return width * cache.saturating_sub(1);
    }
    let before = number("ssm.conv_kernel").unwrap_or(1).saturating_sub(1);
    if let Some(head) = number("kda.head_dim") {
        return 3 * before * heads * head + head * head * heads;
    }
    let inner = number("ssm.inner_size").unwrap_or(0);
    let state = number("ssm.state_size").unwrap_or(0);
    let groups = number("ssm.group_count").unwrap_or(0);
    before * (inner + 2 * groups * state) + state * inner
}

/// Which layers of a model with a recurrent state have one.
fn recurrent(gguf: &Gguf, heads_kv: &[u64]) -> Vec<bool> {
    let layers = heads_kv.len() as u64;
    if let Some(Value::Array(stated)) = gguf.arch_key("attention.recurrent_layers") {
        return numbers(stated).iter().map(|&r| r != 0).collect();
    }
    match gguf.architecture().unwrap_or_default() {
        "qwen35" | "qwen35moe" | "qwen3next" | "qwen4exp" => {
            let interval = gguf.arch_key("full_attention_interval").and_then(first);
            let interval = interval.unwrap_or(4).max(1);
            (1..=layers).map(|layer| layer % interval != 0).collect()
        }
        "nemotron_h" | "nemotron_h_moe" => {
            let feed = per_layer(gguf, "feed_forward_length", layers, 0);
            zip(heads_kv, feed)
                .map(|(heads, feed)| heads + feed == 0)
                .collect()
        }
        "mamba" | "mamba2" | "falcon-h1" => vec![true; layers as usize],
        arch if arch.contains("rwkv") => vec![true; layers as usize],
        _ => heads_kv.iter().map(|&heads| heads == 0).collect(),
    }
}

/// A number, or the first of several.
fn first(value: &Value) -> Option<u64> {
    match value {
        Value::Array(array) => numbers(array).first().copied(),
        one => one.as_u64(),
    }
}

fn numbers(array: &Array) -> Vec<u64> {
    let whole = |number: i64| u64::try_from(number).unwrap_or(0);
    match array {
        Array::U32(all) => all.iter().map(|&n| u64::from(n)).collect(),
        Array::I32(all) => all.iter().map(|&n| whole(n.into())).collect(),
        Array::U64(all) => all.clone(),
        Array::I64(all) => all.iter().map(|&n| whole(n)).collect(),
        Array::Bool(all) => all.iter().map(|&b| b.into()).collect(),
        _ => Vec::new(),
    }
}

/// Bytes of memory that this process can have now: what the machine has free or can make free, and
/// what its control group allows; `None` where nobody says.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let wanted = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(wanted);
    let free = Some(system.available_memory()).filter(|&bytes| bytes > 0)?;
    // A limit of 0 is none.
    let limits = system.cgroup_limits();
    let allowed = limits.map(|limits| limits.free_memory).filter(|&b| b > 0);
    Some(allowed.map_or(free, |allowed| allowed.min(free)))
}
