//! What a context takes, before it is made, and what there is.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::context::ContextOptions;
use super::sequences::PROMPT_CHUNK;
use super::{MAX_SEQUENCES, Model};
use crate::gguf::{Array, Gguf, Value};

/// llama.cpp makes a sequence a multiple of so many tokens.
const CELLS: usize = 256;
/// Bytes of a key or a value, F16.
const CELL_BYTES: u64 = 2;

/// Memory of a context, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextMemory {
    /// Sequences, those that are only parked among them.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub tokens: usize,
    /// Keys and values of all sequences.
    pub keys_and_values: u64,
    /// Logits of a step, in its graph and behind it.
    pub logits: u64,
    /// Activations of a piece of a prompt; an estimate.
    pub activations: u64,
}

impl ContextMemory {
    /// That of a context of `model` with these options.
    #[must_use]
    pub fn of(model: &Model, options: &ContextOptions) -> Self {
        let sequences = (options.sequences + options.parked).min(MAX_SEQUENCES);
        let tokens = options.context.next_multiple_of(CELLS);
        let gguf = model.gguf();
        let number = |key: &str| gguf.arch_key(key).and_then(first).unwrap_or(0);
        let width = 4 * model.width() as u64 + 3 * number("feed_forward_length");
        Self {
            sequences,
            tokens,
            keys_and_values: token_bytes(gguf) * (tokens * sequences) as u64,
            logits: 2 * (sequences * model.vocabulary() * size_of::<f32>()) as u64,
            activations: width * (PROMPT_CHUNK * size_of::<f32>()) as u64,
        }
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.keys_and_values + self.logits + self.activations
    }
}

/// Bytes of the keys and values of one token, in all layers.
///
/// Source: `llama_hparams::n_embd_k_gqa` and `n_embd_v_gqa` in llama.cpp's `src/llama-hparams.cpp`.
fn token_bytes(gguf: &Gguf) -> u64 {
    let number = |key: &str| gguf.arch_key(key).and_then(first);
    let layers = number("block_count").unwrap_or(0);
    let heads = number("attention.head_count").unwrap_or(1).max(1);
    let head = number("embedding_length").unwrap_or(0) / heads;
    let key = number("attention.key_length").unwrap_or(head);
    let value = number("attention.value_length").unwrap_or(head);
    let shared = match gguf.arch_key("attention.head_count_kv") {
        Some(Value::Array(array)) => numbers(array).into_iter().sum(),
        Some(one) => one.as_u64().unwrap_or(heads) * layers,
        None => heads * layers,
    };
    shared.saturating_mul(key + value) * CELL_BYTES
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
