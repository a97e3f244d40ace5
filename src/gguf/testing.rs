//! Builds GGUF files for tests, here and under `tests/`: valid ones and, field by field, others.

// Every test program uses its own part of this.
#![allow(dead_code, missing_docs)]

use super::{Gguf, GgufError, TensorType};

/// Builds GGUF files, valid unless told otherwise.
pub struct Builder {
    pub version: u32,
    pub pair_count: u64,
    pub pairs: Vec<u8>,
    pub tensor_count: u64,
    pub directory: Vec<u8>,
    pub data_bytes: u64,
    pub alignment: u64,
}

pub fn build() -> Builder {
    Builder {
        version: 3,
        pair_count: 0,
        pairs: Vec::new(),
        tensor_count: 0,
        directory: Vec::new(),
        data_bytes: 0,
        alignment: 32,
    }
}

/// A string as the format writes it.
pub fn text(s: impl AsRef<[u8]>) -> Vec<u8> {
    let s = s.as_ref();
    [&(s.len() as u64).to_le_bytes(), s].concat()
}

/// An array as the format writes it: element type, length, elements.
pub fn array(kind: u32, len: u64, raw: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &len.to_le_bytes(), raw].concat()
}

impl Builder {
    pub fn pair(mut self, key: impl AsRef<[u8]>, kind: u32, raw: impl AsRef<[u8]>) -> Self {
        self.pair_count += 1;
        self.pairs.extend(text(key));
        self.pairs.extend(kind.to_le_bytes());
        self.pairs.extend(raw.as_ref());
        self
    }

    pub fn u32(self, key: &str, value: u32) -> Self {
        self.pair(key, 4, value.to_le_bytes())
    }

    pub fn str(self, key: &str, value: &str) -> Self {
        self.pair(key, 8, text(value))
    }

    pub fn entry(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        self.tensor_count += 1;
        self.directory.extend(text(name));
        self.directory.extend((dims.len() as u32).to_le_bytes());
        self.directory
            .extend(dims.iter().flat_map(|d| d.to_le_bytes()));
        self.directory.extend(kind.to_le_bytes());
        self.directory.extend(offset.to_le_bytes());
        self
    }

    pub fn tensor(self, name: &str, dims: &[u64], kind: u32) -> Self {
        let (elements, bytes) = TensorType(kind).block_size().unwrap();
        let offset = self.data_bytes.next_multiple_of(self.alignment);
        let mut new = self.entry(name, dims, kind, offset);
        new.data_bytes = offset + dims.iter().product::<u64>() / elements * bytes;
        new
    }

    pub fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.to_le_bytes());
        out.extend(self.pair_count.to_le_bytes());
        out.extend(&self.pairs);
        out.extend(&self.directory);
        out
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        if self.tensor_count > 0 {
            out.resize(out.len().next_multiple_of(self.alignment as usize), 0);
            out.resize(out.len() + self.data_bytes as usize, 7);
        }
        out
    }

    pub fn read(&self) -> Result<Gguf, GgufError> {
        parse(&self.bytes())
    }
}

pub fn parse(bytes: &[u8]) -> Result<Gguf, GgufError> {
    Gguf::parse(bytes, bytes.len() as u64)
}

/// A small model with every kind of field.
pub fn small() -> Builder {
    build()
        .str("general.architecture", "llama")
        .u32("general.file_type", 15)
        .u32("llama.block_count", 2)
        .pair("llama.rope.freq_base", 6, 1e4f32.to_le_bytes())
        .pair("tokenizer.ggml.add_bos_token", 7, [1])
        .pair(
            "tokenizer.ggml.tokens",
            9,
            array(8, 3, &[text("<s>"), text(""), text("né")].concat()),
        )
        .pair("tokenizer.ggml.token_type", 9, array(5, 1, &[3, 0, 0, 0]))
        .tensor("token_embd.weight", &[64, 3], 8)
        .tensor("output_norm.weight", &[5], 0)
        .tensor("blk.0.ffn_up.weight", &[32, 2, 2, 1], 2)
}
