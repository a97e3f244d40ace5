//! A file, and some 1,500 others, in each of which one thing is not as it should be.

#![allow(dead_code)] // every test program uses a part of it

use aisp_llama::gguf::{Array, Gguf, Value};
use aisp_llama::llama::ARCHITECTURES;

use crate::testing::{Builder, array, build, text};

/// A value as it is written: its type and its bytes.
type Raw = (u32, Vec<u8>);

#[derive(Clone)]
struct Tensor {
    name: String,
    dims: Vec<u64>,
    kind: u32,
    data: Vec<u8>,
}

/// What a file says.
#[derive(Clone)]
struct File {
    pairs: Vec<(String, Raw)>,
    tensors: Vec<Tensor>,
    alignment: u64,
}

impl File {
    fn read(bytes: &[u8]) -> Self {
        let gguf = Gguf::parse(bytes, bytes.len() as u64).unwrap();
        let tensors = gguf.tensors().iter().map(|tensor| Tensor {
            name: tensor.name.clone(),
            dims: tensor.dims.clone(),
            kind: tensor.kind.0,
            data: bytes[tensor.offset as usize..][..tensor.bytes as usize].to_vec(),
        });
        Self {
            pairs: gguf
                .metadata()
                .map(|(key, value)| (key.to_owned(), raw(value)))
                .collect(),
            tensors: tensors.collect(),
            alignment: gguf.alignment,
        }
    }

    /// The file; data is repeated or cut to what a tensor has room for.
    fn bytes(&self) -> Vec<u8> {
        let mut builder = Builder {
            alignment: self.alignment,
            ..build()
        };
        for (key, (kind, raw)) in &self.pairs {
            builder = builder.pair(key, *kind, raw);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            builder = builder.tensor(&tensor.name, &tensor.dims, tensor.kind);
            data.resize(data.len().next_multiple_of(self.alignment as usize), 0);
            let size = builder.data_bytes as usize - data.len();
            data.extend(tensor.data.iter().cycle().take(size));
            data.resize(builder.data_bytes as usize, 0);
        }
        let mut bytes = builder.header();
        bytes.resize(bytes.len().next_multiple_of(self.alignment as usize), 0);
        bytes.extend(data);
        bytes
    }

    fn with(&self, key: &str, raw: Raw) -> Self {
        let mut other = self.clone();
        match other.pairs.iter_mut().find(|(name, _)| name == key) {
            Some((_, there)) => *there = raw,
            None => other.pairs.push((key.to_owned(), raw)),
        }
        other
    }

    fn without(&self, key: &str) -> Self {
        let mut other = self.clone();
        other.pairs.retain(|(name, _)| name != key);
        other
    }

    fn changed(&self, index: usize, change: impl FnOnce(&mut Tensor)) -> Self {
        let mut other = self.clone();
        change(&mut other.tensors[index]);
        other
    }
}

fn u32s(value: u32) -> Raw {
    (4, value.to_le_bytes().to_vec())
}

fn f32s(value: f32) -> Raw {
    (6, value.to_le_bytes().to_vec())
}

fn str(value: impl AsRef<[u8]>) -> Raw {
    (8, text(value))
}

fn strs<S: AsRef<[u8]>>(values: &[S]) -> Raw {
    let raw: Vec<u8> = values.iter().flat_map(text).collect();
    (9, array(8, values.len() as u64, &raw))
}

fn i32s(values: &[i32]) -> Raw {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    (9, array(5, values.len() as u64, &raw))
}

fn raw(value: &Value) -> Raw {
    match value {
        Value::U32(v) => u32s(*v),
        Value::F32(v) => f32s(*v),
        Value::Bool(v) => (7, vec![u8::from(*v)]),
        Value::String(v) => str(v),
        Value::Array(Array::String(v)) => strs(&v.iter().collect::<Vec<_>>()),
        Value::Array(Array::I32(v)) => i32s(v),
        other => panic!("not written here: {other:?}"),
    }
}

/// Numbers that are too small, too large, or next to the right one.
fn around(right: u32) -> Vec<u32> {
    let mut all = vec![
        0,
        1,
        2,
        3,
        5,
        31,
        255,
        600,
        65_536,
        1 << 20,
        (1 << 31) - 1,
        1 << 31,
        u32::MAX,
    ];
    all.extend([right + 1, right.saturating_sub(1), 2 * right, right / 2]);
    all.retain(|number| *number != right);
    all.sort_unstable();
    all.dedup();
    all
}

/// Keys of the architecture that the file does not have.
const MORE: [&str; 34] = [
    "expert_count",
    "expert_used_count",
    "expert_group_count",
    "expert_group_used_count",
    "expert_feed_forward_length",
    "expert_gating_func",
    "nextn_predict_layers",
    "pooling_type",
    "classifier.pooling_type",
    "vocab_size",
    "embedding_length_out",
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_swa",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.shared_kv_layers",
    "attention.q_lora_rank",
    "attention.kv_lora_rank",
    "attention.indexer.head_count",
    "attention.group_norm_groups",
    "leading_dense_block_count",
    "rope.dimension_count_swa",
    "rope.scaling.original_context_length",
    "ssm.conv_kernel",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.time_step_rank",
    "ssm.group_count",
    "wkv.head_size",
    "full_attention_interval",
    "embedding_length_per_layer_input",
    "n_deepstack_layers",
    "token_shift_count",
];

const FRACTIONS: [&str; 8] = [
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.freq_base_swa",
    "logit_scale",
    "final_logit_softcapping",
    "attention.scale",
    "attention.max_alibi_bias",
    "attention.clamp_kqv",
];

/// Every file by what is wrong with it. `whole` is sound.
pub fn all(whole: &[u8]) -> Vec<(String, Vec<u8>)> {
    let file = File::read(whole);
    let mut all = Vec::new();
    let mut add = |name: String, file: File| all.push((name, file.bytes()));
    values(&file, &mut add);
    vocabularies(&file, &mut add);
    tensors(&file, &mut add);
    for arch in ARCHITECTURES.iter().chain(&["clip", "", "nosuch"]) {
        let mut other = file.with("general.architecture", str(arch));
        for (key, _) in &mut other.pairs {
            *key = key.replace("llama.", &format!("{arch}."));
        }
        add(format!("architecture {arch}"), other);
        add(
            format!("architecture {arch} over llama's keys"),
            file.with("general.architecture", str(arch)),
        );
    }
    bytes(whole, &mut all);
    all
}

fn values(file: &File, add: &mut impl FnMut(String, File)) {
    for (key, (kind, raw)) in &file.pairs {
        add(format!("{key}: missing"), file.without(key));
        let others: [Raw; 8] = [
            (0, vec![1]),
            (5, (-1i32).to_le_bytes().to_vec()),
            (10, u64::MAX.to_le_bytes().to_vec()),
            (7, vec![1]),
            f32s(0.5),
            str("x"),
            i32s(&[1, 2, 3]),
            strs(&["a", "b"]),
        ];
        for other in others.into_iter().filter(|(other, _)| other != kind) {
            add(format!("{key}: type {}", other.0), file.with(key, other));
        }
        let number = || <[u8; 4]>::try_from(&raw[..4]).unwrap();
        match kind {
            4 => {
                for value in around(u32::from_le_bytes(number())) {
                    add(format!("{key}: {value}"), file.with(key, u32s(value)));
                }
            }
            6 => {
                for value in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40, 1e38, -1e38] {
                    add(format!("{key}: {value}"), file.with(key, f32s(value)));
                }
            }
            8 => {
                let odd = ["", "x", "\u{1b}]0;owned\u{7}\u{1b}[2J", "a\0b", "\u{202e}"];
                for value in odd {
                    add(format!("{key}: {value:?}"), file.with(key, str(value)));
                }
                add(
                    format!("{key}: long"),
                    file.with(key, str("a".repeat(1 << 20))),
                );
                add(format!("{key}: no UTF-8"), file.with(key, str(b"\xff\xfe")));
            }
            _ => {}
        }
    }
    for suffix in MORE {
        let key = format!("llama.{suffix}");
        for value in [0, 1, 3, 4, 600, u32::MAX] {
            add(format!("{key}: {value}"), file.with(&key, u32s(value)));
        }
    }
    for suffix in FRACTIONS {
        let key = format!("llama.{suffix}");
        for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            add(format!("{key}: {value}"), file.with(&key, f32s(value)));
        }
    }
    for scaling in ["none", "yarn", "longrope", "spiral", ""] {
        let key = "llama.rope.scaling.type";
        add(format!("{key}: {scaling}"), file.with(key, str(scaling)));
    }
    for alignment in [1, 2, 4, 8, 16, 64, 4096] {
        let mut other = file.with("general.alignment", u32s(alignment));
        other.alignment = alignment.into();
        add(format!("alignment: {alignment}"), other);
    }
    for (key, value) in [
        ("general.type", "adapter"),
        ("general.type", "mmproj"),
        ("adapter.type", "lora"),
    ] {
        add(format!("{key}: {value}"), file.with(key, str(value)));
    }
    for (count, number) in [(2u16, 0u16), (2, 1), (0, 0), (65_535, 0)] {
        let part = |value: u16| (2, value.to_le_bytes().to_vec());
        let other = file
            .with("split.count", part(count))
            .with("split.no", part(number));
        add(format!("split: {number} of {count}"), other);
    }
}

fn vocabularies(file: &File, add: &mut impl FnMut(String, File)) {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let whole = Gguf::parse(&file.bytes()[..], u64::MAX).unwrap();
    let tokens = whole.get(TOKENS).unwrap().as_str_array().unwrap();
    let tokens: Vec<Vec<u8>> = tokens
        .iter()
        .map(|token| token.as_bytes().to_vec())
        .collect();
    let mut put = |name: &str, change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut tokens = tokens.clone();
        change(&mut tokens);
        add(format!("tokens: {name}"), file.with(TOKENS, strs(&tokens)));
    };
    put("one twice", &|tokens| tokens[6] = tokens[5].clone());
    put("one cut by a NUL to another", &|tokens| {
        let cut = [&tokens[5][..], b"\0x"].concat();
        tokens[6] = cut;
    });
    put("all alike", &|tokens| tokens.fill(b"x".to_vec()));
    put("all empty", &|tokens| tokens.fill(Vec::new()));
    put("one empty", &|tokens| tokens[40].clear());
    put("two that are no UTF-8", &|tokens| {
        tokens[40] = vec![0xff];
        tokens[41] = vec![0xfe];
    });
    put("one less", &|tokens| drop(tokens.pop()));
    put("one more", &|tokens| tokens.push(b"more".to_vec()));
    put("none", &Vec::clear);
    put("a long one", &|tokens| tokens[40] = vec![b'x'; 1 << 20]);
    for model in [
        "no_vocab",
        "none",
        "llama",
        "bert",
        "t5",
        "rwkv",
        "plamo2",
        "gemma4",
        "whitespace",
        "hybriddna",
        "test",
    ] {
        let other = file.with("tokenizer.ggml.model", str(model));
        add(format!("vocabulary {model}"), other.clone());
        let types = i32s(&vec![1; tokens.len()]);
        let other = other.with("tokenizer.ggml.token_type", types);
        add(format!("vocabulary {model} with types"), other);
    }
    for pre in [
        "default",
        "llama-bpe",
        "gpt-2",
        "deepseek-llm",
        "falcon",
        "gpt-4o",
        "kimi-k2",
        "gemma4",
        "youtu",
        "superbpe",
        "chatglm-bpe",
        "tekken",
        "jais-2",
    ] {
        add(
            format!("splits {pre}"),
            file.with("tokenizer.ggml.pre", str(pre)),
        );
    }
    for (name, value) in [
        ("short", vec![1; 5]),
        ("odd", vec![99; 258]),
        ("bytes", vec![6; 258]),
    ] {
        let key = "tokenizer.ggml.token_type";
        add(
            format!("types of tokens: {name}"),
            file.with(key, i32s(&value)),
        );
    }
    for flag in ["bos", "eos", "sep"] {
        let key = format!("tokenizer.ggml.add_{flag}_token");
        let other = file
            .without("tokenizer.ggml.eos_token_id")
            .with(&key, (7, vec![1]));
        add(format!("{key} without one"), other);
        let id = format!("tokenizer.ggml.{flag}_token_id");
        for value in [0, 258, u32::MAX] {
            add(format!("{id}: {value}"), file.with(&id, u32s(value)));
        }
    }
}

fn tensors(file: &File, add: &mut impl FnMut(String, File)) {
    const KINDS: [u32; 35] = [
        0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
        27, 28, 29, 30, 34, 35, 39, 40, 41, 42,
    ];
    for (
        i,
        Tensor {
            name, dims, kind, ..
        },
    ) in file.tensors.iter().enumerate()
    {
        for other in KINDS.into_iter().filter(|other| other != kind) {
            let blocks = aisp_llama::gguf::TensorType(other).block_size().unwrap().0;
            // Others do not have whole blocks, which the reader refuses.
            if dims[0] % blocks == 0 {
                let changed = file.changed(i, |tensor| tensor.kind = other);
                add(format!("{name}: type {other}"), changed);
            }
        }
        let mut shape = |what: &str, dims: Vec<u64>| {
            let changed = file.changed(i, |tensor| tensor.dims = dims);
            add(format!("{name}: {what}"), changed);
        };
        shape("no dimension", Vec::new());
        shape("a longer row", [&[dims[0] + 32], &dims[1..]].concat());
        shape("a row of nothing", [&[0], &dims[1..]].concat());
        shape("one more dimension", [&dims[..], &[1]].concat());
        shape("two of the last", [&dims[..], &[2]].concat());
        shape("turned", dims.iter().rev().copied().collect());
        shape("flat", vec![dims.iter().product()]);
        for value in [f32::NAN, f32::INFINITY, f32::MAX, 0.0] {
            let data = value.to_le_bytes().to_vec();
            let changed = file.changed(i, |tensor| tensor.data = data);
            add(format!("{name}: {value}"), changed);
        }
        let mut other = file.clone();
        other.tensors.remove(i);
        add(format!("{name}: missing"), other);
        add(
            format!("{name}: renamed"),
            file.changed(i, |tensor| tensor.name.push('x')),
        );
        let mut other = file.clone();
        let mut more = file.tensors[i].clone();
        more.name = name.replace("weight", "bias");
        other.tensors.push(more);
        add(format!("{name}: a bias of its shape"), other);
    }
    for name in [
        "cls.output.weight",
        "rope_freqs.weight",
        "blk.1.attn_norm.weight",
        "blk.0.attn_sinks",
    ] {
        let mut other = file.clone();
        let mut more = file.tensors[1].clone();
        more.name = name.into();
        other.tensors.push(more);
        add(format!("{name}: there"), other);
    }
    let none = File {
        tensors: Vec::new(),
        ..file.clone()
    };
    add("no tensors".into(), none);
}

/// Files that are cut, and files with another byte in their header.
fn bytes(whole: &[u8], all: &mut Vec<(String, Vec<u8>)>) {
    let header = Gguf::parse(whole, whole.len() as u64).unwrap().tensors()[0].offset as usize;
    for i in 0..40 {
        let end = whole.len() * i / 40;
        all.push((format!("cut at {end}"), whole[..end].to_vec()));
    }
    let mut state = 1u64;
    for _ in 0..300 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(99);
        let (at, flip) = ((state >> 33) as usize % header, (state >> 24) as u8 | 1);
        let mut bytes = whole.to_vec();
        bytes[at] ^= flip;
        all.push((format!("byte {at} by {flip}"), bytes));
    }
}
