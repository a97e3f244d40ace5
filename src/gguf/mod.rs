//! Reads what a GGUF file says about itself — metadata and the tensor directory — without
//! trusting a byte of it.
//!
//! The contract: any input gives a [`Gguf`] or a [`GgufError`], never a panic; no memory is
//! reserved for a count before the data it counts has been read; every count, length and size is
//! held to a documented cap ([`MAX_PAIRS`] and its neighbours) and every sum is checked for
//! overflow. Tensor data is never read, only its place in the file is checked.
//!
//! The reader refuses what the pinned llama.cpp refuses (duplicate keys, tensors that do not
//! follow one another, types it does not know), so that the user sees our message — field, byte
//! offset, remedy — and not a failed load. [`Gguf::fault`] tells what it would not survive.
//!
//! Values need not be UTF-8: bytes that are none become U+FFFD.
//!
//! Source of the format: llama.cpp, `ggml/include/gguf.h` and `ggml/src/gguf.cpp`.

mod error;
mod faults;
mod header;
mod limits;
mod read;
mod sniff;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod types;
mod value;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

pub use error::GgufError;
pub use limits::{
    MAX_ARRAY_LEN, MAX_DIMS, MAX_HEADER_BYTES, MAX_KEY_BYTES, MAX_PAIRS, MAX_STRING_BYTES,
    MAX_TENSOR_NAME_BYTES, MAX_TENSORS,
};
pub use types::TensorType;
pub use value::{Array, StrArray, Value};

/// One entry of the tensor directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The tensor's name, unique in its file, e.g. `token_embd.weight`.
    pub name: String,
    /// Elements per dimension in ggml's `ne` order: `dims[0]` is the length of a row. At most
    /// [`MAX_DIMS`] entries; none at all means a single element.
    pub dims: Vec<u64>,
    /// How the elements are stored.
    pub kind: TensorType,
    /// Where the data starts, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes the data takes. `offset + bytes` lies inside the file.
    pub bytes: u64,
}

impl TensorInfo {
    /// Number of elements: the product of [`TensorInfo::dims`].
    pub fn elements(&self) -> u64 {
        self.dims
            .iter()
            .fold(1, |product: u64, &dim| product.saturating_mul(dim))
    }
}

/// The metadata and the tensor directory of one GGUF file.
#[derive(Clone)]
pub struct Gguf {
    /// Format version, 2 or 3.
    pub version: u32,
    /// What tensor offsets are multiples of, in bytes (`general.alignment`, 32 if absent).
    pub alignment: u64,
    pairs: Vec<(String, Value)>,
    pair_index: HashMap<String, usize>,
    tensors: Vec<TensorInfo>,
    tensor_index: HashMap<String, usize>,
    /// Where the tensor directory begins, in bytes from the start of the file.
    directory_at: u64,
}

impl Gguf {
    /// Reads the header of the file at `path` and checks that every tensor's data lies inside it.
    ///
    /// One part of a split model (`split.count` > 1) has its own header and its own data, so the
    /// check is right for it too, for that part alone.
    ///
    /// # Errors
    /// A [`GgufError`] for anything but a complete GGUF file of version 2 or 3. Its message does
    /// not name the path.
    pub fn open(path: &Path) -> Result<Gguf, GgufError> {
        let failed = |cause| GgufError::Io { offset: 0, cause };
        // The kind of file comes before opening it: opening a pipe would wait for a writer.
        let found = match fs::metadata(path) {
            Ok(found) => found,
            Err(e) => {
                return Err(match e.kind() {
                    io::ErrorKind::NotFound if fs::symlink_metadata(path).is_ok() => {
                        GgufError::DanglingLink
                    }
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => GgufError::Missing,
                    _ => failed(e),
                });
            }
        };
        if found.is_dir() {
            return Err(GgufError::Directory);
        }
        if !found.is_file() {
            return Err(GgufError::NotAFile);
        }
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        Gguf::parse(file, len)
    }

    /// Reads a header from `reader`, which stands at the start of a file of `total_len` bytes.
    ///
    /// `reader` may be a `&[u8]`; it is buffered here, so more than the header may be consumed.
    /// `total_len` is what the tensors' places are checked against, and is not trusted when
    /// memory is reserved.
    ///
    /// # Errors
    /// As [`Gguf::open`], without the errors about the path.
    pub fn parse(reader: impl Read, total_len: u64) -> Result<Gguf, GgufError> {
        header::parse(reader, total_len)
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.pair_index
            .get(key)
            .and_then(|&i| self.pairs.get(i))
            .map(|(_, value)| value)
    }

    /// Makes `value` that of `key`, whatever the file says.
    #[cfg(feature = "engine")]
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        match self
            .pair_index
            .get(key)
            .and_then(|&i| self.pairs.get_mut(i))
        {
            Some((_, there)) => *there = value,
            None => {
                self.pair_index.insert(key.to_owned(), self.pairs.len());
                self.pairs.push((key.to_owned(), value));
            }
        }
    }

    /// The value of `key` if it is a string.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// The value of `key` if it is an integer, of any width, that is not negative.
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// The value of `key` if it is a number.
    pub fn f64(&self, key: &str) -> Option<f64> {
        self.get(key)?.as_f64()
    }

    /// The value of `key` if it is a boolean.
    pub fn bool(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// The chat template, where there is one that says anything.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        self.str("tokenizer.chat_template")
            .filter(|text| !text.trim().is_empty())
    }

    /// `general.architecture`, the prefix of the model's own keys: `llama`, `qwen3`, `bert`, …
    pub fn architecture(&self) -> Option<&str> {
        self.str("general.architecture")
    }

    /// The value of `{architecture}.{suffix}`, e.g. `block_count` for `llama.block_count`.
    pub fn arch_key(&self, suffix: &str) -> Option<&Value> {
        self.get(&format!("{}.{suffix}", self.architecture()?))
    }

    /// What is known of this file to end the process of the pinned llama.cpp when it is loaded and
    /// used, by its field, where there is something.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        faults::fault(self)
    }

    /// The tensor directory, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensor_index
            .get(name)
            .and_then(|&i| self.tensors.get(i))
    }

    /// Every metadata pair, in file order.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The name llama.cpp's quantisation tool gives to `general.file_type` (`Q4_K_M`, `Q8_0`,
    /// `F16`, …), if the file has the key and the pinned llama.cpp knows its number.
    pub fn file_type_name(&self) -> Option<&'static str> {
        types::file_type_name(self.u64("general.file_type")?)
    }

    /// The tensor type that holds most bytes of the file (`Q4_1`, `F16`, …), `none` for a file
    /// without tensors. Unlike [`Gguf::file_type_name`] this is measured, not declared.
    pub fn quantisation(&self) -> String {
        let mut bytes: HashMap<u32, u64> = HashMap::new();
        for tensor in &self.tensors {
            let sum = bytes.entry(tensor.kind.0).or_default();
            *sum = sum.saturating_add(tensor.bytes);
        }
        bytes
            .into_iter()
            .max_by_key(|&(kind, sum)| (sum, std::cmp::Reverse(kind)))
            .map_or_else(
                || "none".to_owned(),
                |(kind, _)| TensorType(kind).name().into_owned(),
            )
    }

    /// Number of parameters: the elements of all tensors of this file.
    pub fn parameters(&self) -> u64 {
        self.tensors
            .iter()
            .fold(0, |sum: u64, tensor| sum.saturating_add(tensor.elements()))
    }
}

/// A summary: a vocabulary of 262 144 strings is not what a log line wants.
impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("version", &self.version)
            .field("alignment", &self.alignment)
            .field("architecture", &self.architecture())
            .field("pairs", &self.pairs.len())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}
