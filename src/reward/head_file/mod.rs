//! Reads and writes linear heads: `reward = weight · features + bias`.
//!
//! A head is one row of weights and an optional bias, under one of the names that training
//! programs and converters give them ([`HEADS`], `score.weight` first of all). It comes from a
//! safetensors file, which may be the whole model's, or from a GGUF file. Only the header and the
//! head's own bytes are read, so the size of the file does not matter.
//!
//! A cross-encoder has a dense layer with tanh before it, and a reranker two rows, for yes and for
//! no: the difference of the two is the logarithm of the odds of yes.
//!
//! Source of the format: <https://github.com/huggingface/safetensors>, "Format".

mod place;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

pub use self::place::{Files, Folder};
use self::place::{Header, Place, safetensors_header};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, Value};
use crate::llama::HEADS;
use crate::save::save;

/// Dense layers with tanh, and the heads behind them: as llama.cpp names them, and as the models of
/// BERT and RoBERTa do.
const DENSE: [(&str, &str); 3] = [
    ("cls", "cls.output"),
    ("bert.pooler.dense", "classifier"),
    ("classifier.dense", "classifier.out_proj"),
];
/// Layers before a head that are not computed here.
const OTHER_LAYERS: [&str; 2] = ["pre_classifier", "head.dense"];

const TEXT_KEY: &str = "aisp.reward.text";
const POOLING_KEY: &str = "aisp.reward.pooling";
const APPEND_KEY: &str = "aisp.reward.append";
const KEY_PREFIX: &str = "aisp.reward.";

/// A linear head with what its file says about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinearHead {
    /// The weights `[d]`, reward units per unit of each feature; all finite.
    pub weight: Vec<f32>,
    /// The bias, in reward units.
    pub bias: f32,
    /// A layer between the features and the weights.
    pub dense: Option<Dense>,
    /// The text that the model sees (`aisp.reward.text`), as the user writes it.
    pub text: Option<String>,
    /// Which vector the features are (`aisp.reward.pooling`): `last`, `mean` or `cls`.
    pub pooling: Option<String>,
    /// The token that ends the text (`aisp.reward.append`), as the user writes it.
    pub append: Option<String>,
    /// The tensor that it was read from, without `.weight`; empty for one that was not.
    pub tensor: String,
    /// Anything else the file states; of a GGUF, its strings under `aisp.reward.`.
    pub metadata: BTreeMap<String, String>,
}

/// A layer of as many outputs as it has inputs: tanh(weight · features + bias).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dense {
    /// The weights `[d, d]`, a row for each output.
    pub weight: Vec<f32>,
    /// The bias `[d]`.
    pub bias: Vec<f32>,
}

impl Dense {
    fn read(
        files: &dyn Files,
        find: &impl Fn(&str) -> Result<Option<Place>>,
        stem: &str,
        place: &Place,
        head: &LinearHead,
    ) -> Result<Self> {
        let width = head.weight.len() as u64;
        if place.shape != [width, width] {
            return Err(place.unusable("it has as many rows and columns as the head has weights"));
        }
        let weight = place.values(files)?;
        let bias = match find(&format!("{stem}.bias"))? {
            Some(bias) if bias.shape == [width] => bias.values(files)?,
            Some(bias) => return Err(bias.unusable("it has a number for each row of its weights")),
            None => vec![0.0; head.weight.len()],
        };
        Ok(Self { weight, bias })
    }

    fn apply(&self, features: &[f32]) -> Vec<f64> {
        let rows = self.weight.chunks_exact(features.len().max(1));
        let outputs = rows.zip(&self.bias);
        outputs
            .map(|(row, &bias)| (dot(row, features.iter().copied()) + f64::from(bias)).tanh())
            .collect()
    }
}

/// Accumulated in f64.
fn dot<T: Into<f64>>(weights: &[f32], features: impl Iterator<Item = T>) -> f64 {
    let products = weights
        .iter()
        .zip(features)
        .map(|(&w, x)| f64::from(w) * x.into());
    products.sum()
}

/// What is looked for in a file.
#[derive(Clone, Copy, Default)]
struct Wanted<'a> {
    /// The tensor.
    name: Option<&'a str>,
    /// The rows of yes and of no, where the head has two.
    verdict: Option<[usize; 2]>,
    /// Whether llama.cpp applies a dense layer of this file.
    dense_is_llama_cpps: bool,
}

impl LinearHead {
    /// Reads the head in a safetensors or GGUF file: the tensor `name`, else one of the known names.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Gguf`] for an unreadable file, [`Error::Model`] for one
    /// without a head and for a head that is no reward.
    pub fn read(path: &Path, name: Option<&str>) -> Result<Self> {
        let files = Folder::default();
        let found = match files.read(path, 0, 4)? == b"GGUF" {
            true => {
                let gguf = Gguf::open(path).map_err(Error::gguf(path))?;
                Self::from_gguf(path, &gguf, name)?
            }
            false => {
                let header = safetensors_header(&files, path)?;
                let metadata = header.0.metadata().clone().unwrap_or_default();
                let find = |name: &str| Ok(Place::of_safetensors(path, &header, name));
                let wanted = Wanted {
                    name,
                    ..Wanted::default()
                };
                let found = Self::find(&files, path, find, wanted)?;
                found.map(|head| head.stating(metadata))
            }
        };
        found.ok_or_else(|| missing(path, name))
    }

    /// The head inside the GGUF file at `path`, whose header is `gguf`; `None` where it has
    /// none.
    ///
    /// # Errors
    /// [`Error::Io`] for an unreadable file, [`Error::Model`] for a head that is no reward.
    pub fn from_gguf(path: &Path, gguf: &Gguf, name: Option<&str>) -> Result<Option<Self>> {
        let find = |name: &str| Ok(gguf.tensor(name).map(|t| Place::of_gguf(path, t)));
        let metadata = gguf
            .metadata()
            .filter(|(key, _)| key.starts_with(KEY_PREFIX));
        let strings = metadata.filter_map(|(key, value): (&str, &Value)| {
            Some((key.to_owned(), value.as_str()?.to_owned()))
        });
        let wanted = Wanted {
            name,
            verdict: verdict(gguf),
            dense_is_llama_cpps: true,
        };
        let found = Self::find(&Folder::default(), path, find, wanted)?;
        Ok(found.map(|head| head.stating(strings)))
    }

    /// The head of a model whose safetensors files are a single one, or several and an index of
    /// them; `None` where it has none.
    ///
    /// # Errors
    /// Those of the files, [`Error::Model`] for a head that is no reward.
    pub(super) fn of_files(
        files: &dyn Files,
        name: Option<&str>,
        shard: &dyn Fn(&str) -> Option<PathBuf>,
    ) -> Result<Option<Self>> {
        let headers = std::cell::RefCell::new(BTreeMap::<PathBuf, Header>::new());
        let find = |name: &str| {
            let Some(file) = shard(name) else {
                return Ok(None);
            };
            let mut headers = headers.borrow_mut();
            if !headers.contains_key(&file) {
                let header = safetensors_header(files, &file)?;
                headers.insert(file.clone(), header);
            }
            let header = headers.get(&file);
            Ok(header.and_then(|header| Place::of_safetensors(&file, header, name)))
        };
        let wanted = Wanted {
            name,
            ..Wanted::default()
        };
        Self::find(files, Path::new(&files.name()), find, wanted)
    }

    fn find(
        files: &dyn Files,
        path: &Path,
        find: impl Fn(&str) -> Result<Option<Place>>,
        wanted: Wanted<'_>,
    ) -> Result<Option<Self>> {
        let weight_of = |stem: &str| find(&format!("{stem}.weight"));
        let named = wanted.name.map(|name| name.trim_end_matches(".weight"));
        let refuse = |layer: &str| {
            Err(Error::model(
                path,
                format!(
                    "has a dense layer before its head ({layer}.weight), and a linear head alone \
                     would be another reward; use it as a classifier, or train a linear head \
                     (reward train)"
                ),
            ))
        };
        for (layer, stem) in DENSE {
            let Some(place) = weight_of(layer)?.filter(|_| named.is_none_or(|name| name == stem))
            else {
                continue;
            };
            let Some(weight) = weight_of(stem)?.filter(|_| !wanted.dense_is_llama_cpps) else {
                return refuse(layer);
            };
            let mut head = Self::of(files, &find, stem, &weight, wanted.verdict)?;
            head.dense = Some(Dense::read(files, &find, layer, &place, &head)?);
            return Ok(Some(head));
        }
        for layer in OTHER_LAYERS {
            if named.is_none() && weight_of(layer)?.is_some() {
                return refuse(layer);
            }
        }
        let known = HEADS.iter().filter(|_| named.is_none());
        for stem in named.iter().chain(known) {
            if let Some(weight) = weight_of(stem)? {
                return Self::of(files, &find, stem, &weight, wanted.verdict).map(Some);
            }
        }
        Ok(None)
    }

    /// The head `stem`, whose weights are there.
    fn of(
        files: &dyn Files,
        find: &impl Fn(&str) -> Result<Option<Place>>,
        stem: &str,
        weight: &Place,
        verdict: Option<[usize; 2]>,
    ) -> Result<Self> {
        let (outputs, width) = match *weight.shape.as_slice() {
            [width] => (1, width),
            [outputs, width] => (outputs, width),
            _ => return Err(weight.unusable("a head has the shape [1, d] or [d]")),
        };
        let verdict = verdict.filter(|_| outputs == 2);
        if outputs != 1 && verdict.is_none() {
            return Err(weight.outputs(outputs));
        }
        let values = weight.values(files)?;
        let bias = match find(&format!("{stem}.bias"))? {
            Some(place) => {
                let values = place.values(files)?;
                if values.len() as u64 != outputs {
                    return Err(place.outputs(values.len() as u64));
                }
                values
            }
            None => vec![0.0; outputs as usize],
        };
        let (weight, bias) = match verdict {
            Some([yes, no]) => {
                let row = |row: usize| values.chunks_exact(width as usize).nth(row);
                let pairs = row(yes)
                    .into_iter()
                    .flatten()
                    .zip(row(no).into_iter().flatten());
                (pairs.map(|(y, n)| y - n).collect(), bias[yes] - bias[no])
            }
            None => (values, bias[0]),
        };
        Ok(Self {
            weight,
            bias,
            tensor: stem.to_owned(),
            ..Self::default()
        })
    }

    /// With what its file states.
    fn stating(mut self, metadata: impl IntoIterator<Item = (String, String)>) -> Self {
        self.metadata.extend(metadata);
        self.text = self.metadata.remove(TEXT_KEY);
        self.pooling = self.metadata.remove(POOLING_KEY);
        self.append = self.metadata.remove(APPEND_KEY);
        self
    }

    /// Writes the head as `score.weight` `[1, d]` and `score.bias` `[1]`, F32, or one with a dense
    /// layer as `cls.*`, as llama.cpp names them. A file at `path` is replaced as a whole or not at
    /// all; equal heads give equal bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_safetensors(&self, path: &Path) -> Result<()> {
        let mut metadata = self.metadata.clone();
        let stated = [
            (TEXT_KEY, &self.text),
            (POOLING_KEY, &self.pooling),
            (APPEND_KEY, &self.append),
        ];
        for (key, value) in stated {
            metadata.extend(value.iter().map(|value| (key.to_owned(), value.clone())));
        }
        let width = self.weight.len();
        let stem = self.dense.as_ref().map_or("score", |_| "cls.output");
        let bias = [self.bias];
        let mut tensors: Vec<(String, Vec<usize>, &[f32])> = Vec::new();
        if let Some(dense) = &self.dense {
            tensors.push(("cls.bias".into(), vec![width], &dense.bias));
            tensors.push(("cls.weight".into(), vec![width, width], &dense.weight));
        }
        tensors.push((format!("{stem}.weight"), vec![1, width], &self.weight));
        tensors.push((format!("{stem}.bias"), vec![1], &bias));
        // Not by the crate: its metadata stand in another order at every run.
        let mut header = BTreeMap::from([("__metadata__".to_owned(), json!(metadata))]);
        let mut end = 0;
        for (name, shape, values) in &tensors {
            let begin = end;
            end += 4 * values.len();
            let place = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]});
            header.insert(name.clone(), place);
        }
        let mut header = json!(header).to_string();
        // The data start at a multiple of 8 bytes.
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let mut content = (header.len() as u64).to_le_bytes().to_vec();
        content.extend(header.as_bytes());
        let values = tensors.iter().flat_map(|(.., values)| *values);
        content.extend(values.flat_map(|v| v.to_le_bytes()));
        save(path, &content)
    }

    /// The reward of `features` `[d]`, accumulated in f64.
    ///
    /// Features of another length than the weights' are a mistake of the caller.
    #[must_use]
    pub fn score(&self, features: &[f32]) -> f64 {
        debug_assert_eq!(features.len(), self.weight.len());
        let sum = match &self.dense {
            Some(dense) => dot(&self.weight, dense.apply(features).into_iter()),
            None => dot(&self.weight, features.iter().copied()),
        };
        sum + f64::from(self.bias)
    }
}

/// The rows of yes and of no, where these are the head's two labels.
fn verdict(gguf: &Gguf) -> Option<[usize; 2]> {
    let labels = gguf.arch_key("classifier.output_labels")?.as_str_array()?;
    let labels: Vec<String> = labels.iter().map(str::to_lowercase).collect();
    match labels.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["yes", "no"] => Some([0, 1]),
        ["no", "yes"] => Some([1, 0]),
        _ => None,
    }
}

/// There is no head in the file.
pub(super) fn missing(path: &Path, name: Option<&str>) -> Error {
    let reason = match name {
        Some(name) => format!("has no head {name}; leave out its name to look for the usual ones"),
        None => {
            let names = HEADS.map(|stem| format!("{stem}.weight")).join(", ");
            format!(
                "has no head; it would be called one of {names}, or give its name (name=TENSOR)"
            )
        }
    };
    Error::model(path, reason)
}

/// The head's file beside a model's file, where it is found by itself: `m.head.safetensors` of
/// `m.gguf`.
#[must_use]
pub fn head_beside(model: &Path) -> PathBuf {
    model.with_extension("head.safetensors")
}

#[cfg(test)]
mod tests;
