//! Tiny files with pseudo-random weights, of the shapes that real ones have.

#![allow(dead_code)] // every test program uses a part of it

pub mod llama;
pub mod recurrent;

use std::path::{Path, PathBuf};

use crate::testing::{Builder, array, build, text};

/// Tokens of [`vocabulary`].
pub const VOCABULARY: u64 = 258;
/// Tokens of [`Tiny::of_pieces`].
pub const PIECES: u64 = 287;

/// A file in the making.
pub struct Tiny {
    architecture: String,
    builder: Builder,
    data: Vec<u8>,
    state: u64,
}

/// What a tensor is filled with.
#[derive(Clone, Copy)]
pub enum Fill {
    /// Uniform numbers of mean 0 and this standard deviation.
    Random(f32),
    /// The same number everywhere.
    Same(f32),
}

impl Tiny {
    /// A model of `architecture` with [`vocabulary`] and nothing else yet.
    pub fn new(architecture: &str) -> Self {
        let builder = build()
            .str("general.architecture", architecture)
            .str("tokenizer.ggml.model", "gpt2")
            .str("tokenizer.ggml.pre", "qwen2")
            .pair("tokenizer.ggml.tokens", 9, strings(&vocabulary()))
            .pair("tokenizer.ggml.merges", 9, strings(&["t h".into()]))
            .u32("tokenizer.ggml.eos_token_id", VOCABULARY as u32 - 1);
        Self {
            architecture: architecture.into(),
            builder,
            data: Vec::new(),
            state: 1,
        }
    }

    /// The same with a vocabulary of SentencePiece's kind: pieces of letters, bytes for the rest.
    pub fn of_pieces(architecture: &str) -> Self {
        let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
        tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
        tokens.extend(('a'..='z').chain(['▁']).map(String::from));
        tokens.push("▁a".into());
        let kind = |i: usize| match i {
            0 => 2,
            1 | 2 => 3,
            3..259 => 6,
            _ => 1_i32,
        };
        let kinds: Vec<u8> = (0..tokens.len())
            .flat_map(|i| kind(i).to_le_bytes())
            .collect();
        let scores: Vec<u8> = (0..tokens.len())
            .flat_map(|i| (-(i as f32)).to_le_bytes())
            .collect();
        let count = tokens.len() as u64;
        let builder = build()
            .str("general.architecture", architecture)
            .str("tokenizer.ggml.model", "llama")
            .pair("tokenizer.ggml.tokens", 9, strings(&tokens))
            .pair("tokenizer.ggml.scores", 9, array(6, count, &scores))
            .pair("tokenizer.ggml.token_type", 9, array(5, count, &kinds));
        Self {
            builder,
            ..Self::new(architecture)
        }
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.architecture)
    }

    /// A number of the architecture.
    pub fn number(mut self, suffix: &str, value: u64) -> Self {
        let key = self.key(suffix);
        self.builder = self.builder.u32(&key, value as u32);
        self
    }

    /// Numbers of the architecture, one for each layer.
    pub fn numbers(mut self, suffix: &str, values: &[i32]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let raw = array(5, values.len() as u64, &raw);
        let key = self.key(suffix);
        self.builder = self.builder.pair(key, 9, raw);
        self
    }

    /// A fraction of the architecture.
    pub fn fraction(mut self, suffix: &str, value: f32) -> Self {
        let key = self.key(suffix);
        self.builder = self.builder.pair(key, 6, value.to_le_bytes());
        self
    }

    /// Texts of the architecture.
    pub fn texts(mut self, suffix: &str, values: &[String]) -> Self {
        let key = self.key(suffix);
        self.builder = self.builder.pair(key, 9, strings(values));
        self
    }

    /// A text under its whole key.
    pub fn text(mut self, key: &str, value: &str) -> Self {
        self.builder = self.builder.str(key, value);
        self
    }

    /// A tensor of F32.
    pub fn tensor(mut self, name: &str, dims: &[u64], fill: Fill) -> Self {
        self.builder = self.builder.tensor(name, dims, 0);
        let count = dims.iter().product::<u64>() as usize;
        self.data
            .resize(self.builder.data_bytes as usize - 4 * count, 0);
        for _ in 0..count {
            let value = match fill {
                Fill::Random(deviation) => self.uniform() * deviation,
                Fill::Same(value) => value,
            };
            self.data.extend(value.to_le_bytes());
        }
        self
    }

    /// Uniform, of mean 0 and variance 1.
    fn uniform(&mut self) -> f32 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(99);
        let uniform = (self.state >> 40) as f32 / (1_u64 << 24) as f32;
        (uniform - 0.5) * 12.0_f32.sqrt()
    }

    /// Writes it into `folder`.
    pub fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let mut bytes = self.builder.header();
        bytes.resize(
            bytes
                .len()
                .next_multiple_of(self.builder.alignment as usize),
            0,
        );
        bytes.extend(&self.data);
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// The 256 bytes as GPT-2 writes them, one merge, and an end of text.
fn vocabulary() -> Vec<String> {
    let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut shifted = 256;
    let mut tokens: Vec<String> = (0..256)
        .map(|byte| {
            let point = if printable(byte) {
                byte
            } else {
                shifted += 1;
                shifted - 1
            };
            char::from_u32(point).unwrap().to_string()
        })
        .collect();
    tokens.push("th".into());
    tokens.push("<|endoftext|>".into());
    tokens
}

fn strings(values: &[String]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(text).collect();
    array(8, values.len() as u64, &raw)
}
