//! Reads and writes linear heads: `reward = weight · features + bias`.
//!
//! A head is one row of weights and an optional bias, under one of the names that training
//! programs and converters give them (`score.weight` first of all). It comes from a safetensors
//! file, which may be the whole model's, or from a GGUF file. Only the header and the head's own
//! bytes are read, so the size of the file does not matter.
//!
//! Source of the format: <https://github.com/huggingface/safetensors>, "Format".

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata};
use serde_json::json;

use crate::error::{Error, Result};
use crate::gguf::{Gguf, Value};
use crate::save::save;

/// Names under which heads are stored, without `.weight` and `.bias`.
const STEMS: [&str; 6] = [
    "score",
    "cls.output",
    "v_head.summary",
    "value_head",
    "regression_layer",
    "rm_head",
];

/// A dense layer that llama.cpp puts in front of `cls.output`.
const DENSE: &str = "cls.weight";

const TEXT_KEY: &str = "aisp.reward.text";
const POOLING_KEY: &str = "aisp.reward.pooling";
const KEY_PREFIX: &str = "aisp.reward.";

/// Longest header a safetensors file may have, in bytes, by its specification.
const MAX_HEADER: u64 = 100_000_000;

/// A linear head with what its file says about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinearHead {
    /// The weights `[d]`, reward units per unit of each feature; all finite.
    pub weight: Vec<f32>,
    /// The bias, in reward units.
    pub bias: f32,
    /// The text that the model sees (`aisp.reward.text`), as the user writes it.
    pub text: Option<String>,
    /// Which vector the features are (`aisp.reward.pooling`): `last` or `mean`.
    pub pooling: Option<String>,
    /// Anything else the file states; of a GGUF, its strings under `aisp.reward.`.
    pub metadata: BTreeMap<String, String>,
}

/// How the elements of a head are stored, little-endian.
#[derive(Clone, Copy)]
enum Element {
    F16,
    Bf16,
    F32,
    F64,
}

/// A tensor's place in its file.
struct Place {
    name: String,
    /// `None` for a type that is not read here, whose name is `kind`.
    element: Option<Element>,
    kind: String,
    /// Rows first.
    shape: Vec<u64>,
    /// In bytes, from the start of the file.
    offset: u64,
    bytes: u64,
}

impl LinearHead {
    /// Reads the head in a safetensors or GGUF file.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Gguf`] for an unreadable file, [`Error::Model`] for one
    /// without a head and for a head that is no reward.
    pub fn read(path: &Path) -> Result<Self> {
        let mut magic = [0; 4];
        let is_gguf = open(path)?.read_exact(&mut magic).is_ok() && &magic == b"GGUF";
        let found = match is_gguf {
            true => {
                let gguf = Gguf::open(path).map_err(Error::gguf(path))?;
                Self::from_gguf(path, &gguf)?
            }
            false => Self::from_safetensors(path)?,
        };
        found.ok_or_else(|| {
            let names = STEMS.map(|stem| format!("{stem}.weight")).join(", ");
            Error::model(
                path,
                format!("has no head; it would be called one of {names}"),
            )
        })
    }

    /// The head inside the GGUF file at `path`, whose header is `gguf`; `None` where it has
    /// none.
    ///
    /// # Errors
    /// [`Error::Io`] for an unreadable file, [`Error::Model`] for a head that is no reward.
    pub fn from_gguf(path: &Path, gguf: &Gguf) -> Result<Option<Self>> {
        let find = |name: &str| {
            let tensor = gguf.tensor(name)?;
            Some(Place {
                name: name.to_owned(),
                element: match tensor.kind.0 {
                    0 => Some(Element::F32),
                    1 => Some(Element::F16),
                    28 => Some(Element::F64),
                    30 => Some(Element::Bf16),
                    _ => None,
                },
                kind: tensor.kind.to_string(),
                shape: tensor.dims.iter().rev().copied().collect(),
                offset: tensor.offset,
                bytes: tensor.bytes,
            })
        };
        let metadata = gguf
            .metadata()
            .filter(|(key, _)| key.starts_with(KEY_PREFIX));
        let strings = metadata.filter_map(|(key, value): (&str, &Value)| {
            Some((key.to_owned(), value.as_str()?.to_owned()))
        });
        Self::find(path, find, strings.collect())
    }

    fn from_safetensors(path: &Path) -> Result<Option<Self>> {
        let (header, start) = safetensors_header(path)?;
        let find = |name: &str| {
            let info = header.info(name)?;
            let (begin, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
            Some(Place {
                name: name.to_owned(),
                element: match info.dtype {
                    Dtype::F16 => Some(Element::F16),
                    Dtype::BF16 => Some(Element::Bf16),
                    Dtype::F32 => Some(Element::F32),
                    Dtype::F64 => Some(Element::F64),
                    _ => None,
                },
                kind: format!("{:?}", info.dtype),
                shape: info.shape.iter().map(|&n| n as u64).collect(),
                offset: start + begin,
                bytes: end - begin,
            })
        };
        let metadata = header.metadata().clone().unwrap_or_default();
        Self::find(path, find, metadata.into_iter().collect())
    }

    fn find(
        path: &Path,
        find: impl Fn(&str) -> Option<Place>,
        mut metadata: BTreeMap<String, String>,
    ) -> Result<Option<Self>> {
        if find(DENSE).is_some() {
            return Err(Error::model(
                path,
                "has a dense layer before its head (cls.weight), and a linear head alone would \
                 be another reward; use it as a classifier, or train a linear head (reward train)",
            ));
        }
        let of_stem = |stem: &&'static str| Some((*stem, find(&format!("{stem}.weight"))?));
        let Some((stem, weight)) = STEMS.iter().find_map(of_stem) else {
            return Ok(None);
        };
        let weight = weight.read_row(path)?;
        let bias = match find(&format!("{stem}.bias")) {
            Some(place) => place.read_single(path)?,
            None => 0.0,
        };
        Ok(Some(Self {
            weight,
            bias,
            text: metadata.remove(TEXT_KEY),
            pooling: metadata.remove(POOLING_KEY),
            metadata,
        }))
    }

    /// Writes the head as `score.weight` `[1, d]` and `score.bias` `[1]`, F32. A file at `path`
    /// is replaced as a whole or not at all; equal heads give equal bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_safetensors(&self, path: &Path) -> Result<()> {
        let mut metadata = self.metadata.clone();
        let stated = [(TEXT_KEY, &self.text), (POOLING_KEY, &self.pooling)];
        for (key, value) in stated {
            metadata.extend(value.iter().map(|value| (key.to_owned(), value.clone())));
        }
        let weight_bytes = 4 * self.weight.len();
        // Not by the crate: its metadata stand in another order at every run.
        let mut header = json!({
            "__metadata__": metadata,
            "score.bias": {"dtype": "F32", "shape": [1],
                "data_offsets": [weight_bytes, weight_bytes + 4]},
            "score.weight": {"dtype": "F32", "shape": [1, self.weight.len()],
                "data_offsets": [0, weight_bytes]},
        })
        .to_string();
        // The data start at a multiple of 8 bytes.
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let mut content = (header.len() as u64).to_le_bytes().to_vec();
        content.extend(header.as_bytes());
        let values = self.weight.iter().chain([&self.bias]);
        content.extend(values.flat_map(|v| v.to_le_bytes()));
        save(path, &content)
    }

    /// The reward of `features` `[d]`, accumulated in f64.
    ///
    /// Features of another length than the weights' are a mistake of the caller.
    #[must_use]
    pub fn score(&self, features: &[f32]) -> f64 {
        debug_assert_eq!(features.len(), self.weight.len());
        let products = self.weight.iter().zip(features);
        let sum: f64 = products.map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
        sum + f64::from(self.bias)
    }
}

impl Place {
    /// The single row of a weight, `[d]` or `[1, d]`.
    fn read_row(&self, path: &Path) -> Result<Vec<f32>> {
        let width = match *self.shape.as_slice() {
            [width] | [1, width] => width,
            [outputs, _] => return Err(self.outputs(path, outputs)),
            _ => return Err(self.unusable(path, "a head has the shape [1, d] or [d]")),
        };
        if width == 0 {
            return Err(self.unusable(path, "it is empty"));
        }
        self.read(path)
    }

    fn read_single(&self, path: &Path) -> Result<f32> {
        match *self.read(path)?.as_slice() {
            [value] => Ok(value),
            ref values => Err(self.outputs(path, values.len() as u64)),
        }
    }

    fn read(&self, path: &Path) -> Result<Vec<f32>> {
        let Some(element) = self.element else {
            let reason = format!("its type is {}; F32, F16, BF16 and F64 are read", self.kind);
            return Err(self.unusable(path, &reason));
        };
        let mut file = open(path)?;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.offset))
            .and_then(|_| file.take(self.bytes).read_to_end(&mut bytes))
            .map_err(Error::io(path))?;
        if bytes.len() as u64 != self.bytes {
            return Err(self.unusable(path, "the file ends inside it; download it again"));
        }
        let values = element.decode(&bytes);
        if values.iter().all(|v| v.is_finite()) {
            return Ok(values);
        }
        Err(self.unusable(path, "it has NaN or infinite values; export it again"))
    }

    fn outputs(&self, path: &Path, outputs: u64) -> Error {
        Error::model(
            path,
            format!(
                "{} has {outputs} outputs; a reward has one, so give another head",
                self.name
            ),
        )
    }

    fn unusable(&self, path: &Path, reason: &str) -> Error {
        let (name, shape) = (&self.name, &self.shape);
        Error::model(path, format!("{name} {shape:?} cannot be used: {reason}"))
    }
}

impl Element {
    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], decode: fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks().0.iter().map(|&b| decode(b)).collect()
        }
        match self {
            Self::F16 => each(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            Self::F32 => each(bytes, f32::from_le_bytes),
            Self::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        }
    }
}

/// The header of a safetensors file, and where its data start.
fn safetensors_header(path: &Path) -> Result<(Metadata, u64)> {
    let unusable = |reason: String| {
        Error::model(
            path,
            format!("not a safetensors or GGUF file: {reason}; give the head's own file"),
        )
    };
    let mut file = open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)
        .map_err(|_| unusable("it has fewer than 8 bytes".into()))?;
    let length = u64::from_le_bytes(length);
    if !(2..=MAX_HEADER).contains(&length) {
        return Err(unusable(format!(
            "its first 8 bytes give a header of {length} bytes"
        )));
    }
    let mut bytes = Vec::new();
    (&mut file)
        .take(length)
        .read_to_end(&mut bytes)
        .map_err(Error::io(path))?;
    let header: Metadata = serde_json::from_slice(&bytes)
        .map_err(|e| unusable(format!("its header cannot be read ({e})")))?;
    Ok((header, 8 + length))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(Error::io(path))
}

#[cfg(test)]
mod tests;
