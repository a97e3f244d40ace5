//! Heads of published reward models: from the files of a Hugging Face model, of which the head
//! alone is read, or out of a GGUF file that llama.cpp cannot load with a head inside.
//!
//! What a head's file states of its text follows the model's own files: the pair of a
//! cross-encoder, the chat template of a decoder, the token that the reward is read at.
//!
//! Source of the names: `config.json`, `tokenizer_config.json` and `model.safetensors.index.json` as
//! transformers writes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::head_file::{Files, LinearHead, head_beside, missing};
use super::{FeaturePooling, RewardText};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::llama::head_inside_obstacle;
use crate::save::save_by;

/// Most bytes that are read of a description, an index, or a template.
const MAX_JSON: u64 = 64 << 20;

/// The list of a model's files by its tensors, and its only file where there is none.
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// What the model's files do not say, or say otherwise.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The head's tensor; `None` looks for the known names.
    pub name: Option<String>,
    /// The text that the model sees.
    pub text: Option<RewardText>,
    /// The token that every text ends with.
    pub append: Option<String>,
    /// The safetensors file with the head; `None` is what the model's own names lead to.
    pub file: Option<PathBuf>,
}

/// The head of a model that Hugging Face's transformers reads, with what its file is to state.
///
/// # Errors
/// Those of the files; [`Error::Model`] where there is no head, or one that is no reward.
pub fn import_head(files: &dyn Files, options: &ImportOptions) -> Result<LinearHead> {
    let name = options.name.as_deref();
    let source = PathBuf::from(files.name());
    let shards = shards(files, options)?;
    let shard = |tensor: &str| match &shards {
        Shards::One(file) => Some(file.clone()),
        Shards::Index(index) => index.get(tensor).map(PathBuf::from),
    };
    let found = LinearHead::of_files(files, name, &shard)?;
    let mut head = found.ok_or_else(|| missing(&source, name))?;
    let config = json(files, "config.json")?.unwrap_or_default();
    let tokenizer = json(files, "tokenizer_config.json")?.unwrap_or_default();
    let pair = match head.tensor.as_str() {
        "classifier" => Some("{prompt}[SEP]{response}"),
        "classifier.out_proj" => Some("{prompt}</s></s>{response}"),
        _ => None,
    };
    let encoder = head.dense.as_ref().and(pair);
    // All of their kinds are called so: albert, deberta, roberta.
    let kind = config["model_type"].as_str().unwrap_or_default();
    if encoder.is_none() && kind.contains("bert") {
        let reason = format!(
            "an encoder of the kind {kind}, of which a head alone is another reward; convert it \
             whole (convert_hf_to_gguf.py), and give that as `model-reward`"
        );
        return Err(Error::model(&source, reason));
    }
    let has_template = tokenizer["chat_template"] != Json::Null
        || files.has(Path::new("chat_template.jinja"))
        || files.has(Path::new("chat_template.json"));
    let text = match (&options.text, encoder) {
        (Some(text), _) => Some(text.stated()),
        (None, Some(pair)) => Some(pair.to_owned()),
        (None, None) => has_template.then(|| RewardText::Chat.stated()),
    };
    head.text = text;
    let pooling = match encoder {
        Some(_) => FeaturePooling::Cls,
        None => FeaturePooling::Last,
    };
    head.pooling = Some(pooling.to_string());
    head.append = options
        .append
        .clone()
        .or_else(|| reward_token(&config, &tokenizer));
    let architecture = config["architectures"][0].as_str().unwrap_or_default();
    let facts = [
        ("aisp.import.source", files.name()),
        ("aisp.import.tensor", format!("{}.weight", head.tensor)),
        ("aisp.import.architecture", architecture.to_owned()),
    ];
    let facts = facts.into_iter().filter(|(_, value)| !value.is_empty());
    head.metadata
        .extend(facts.map(|(key, value)| (key.to_owned(), value)));
    Ok(head)
}

/// Where a model's tensors are.
enum Shards {
    One(PathBuf),
    Index(BTreeMap<String, String>),
}

fn shards(files: &dyn Files, options: &ImportOptions) -> Result<Shards> {
    if let Some(file) = &options.file {
        return Ok(Shards::One(file.clone()));
    }
    if let Some(index) = json(files, INDEX)? {
        let map = serde_json::from_value(index["weight_map"].clone());
        let map: BTreeMap<String, String> = map.map_err(|e| {
            let reason = format!("weight_map: {e}; download it again");
            Error::model(Path::new(INDEX), reason)
        })?;
        // A name leads nowhere but into the model's own folder.
        let strays = |file: &&String| Path::new(file).file_name() != Some(file.as_ref());
        return match map.values().find(strays) {
            Some(file) => {
                let reason = format!("weight_map: {file:?} is no name of a file beside it");
                Err(Error::model(Path::new(INDEX), reason))
            }
            None => Ok(Shards::Index(map)),
        };
    }
    match files.has(Path::new(SINGLE)) {
        true => Ok(Shards::One(SINGLE.into())),
        false => Err(Error::model(
            Path::new(&files.name()),
            format!(
                "has neither {SINGLE} nor {INDEX}; give the folder of a model in safetensors files, \
                 one such file, or a GGUF file with a head inside"
            ),
        )),
    }
}

/// A file of JSON, where there is one.
fn json(files: &dyn Files, name: &str) -> Result<Option<Json>> {
    let file = Path::new(name);
    if !files.has(file) {
        return Ok(None);
    }
    let bytes = files.read(file, 0, MAX_JSON)?;
    let parsed = serde_json::from_slice(&bytes);
    parsed
        .map(Some)
        .map_err(|e| Error::model(file, format!("{e}; download it again")))
}

/// The token that the reward is read at, by its text, or its number where no file has that.
fn reward_token(config: &Json, tokenizer: &Json) -> Option<String> {
    let id = config["reward_token_id"].as_u64()?.to_string();
    let text = tokenizer["added_tokens_decoder"][&id]["content"].as_str();
    Some(text.map_or(id.clone(), str::to_owned))
}

/// Takes a GGUF file with a head inside that llama.cpp cannot load apart: the model is written to
/// `output`, the head to [`head_beside`] it, which is the answer.
///
/// # Errors
/// [`Error::Io`] and [`Error::Gguf`] for unreadable or unwritable files, [`Error::Model`] for one
/// without such a head.
pub fn import_gguf(source: &Path, output: &Path, options: &ImportOptions) -> Result<PathBuf> {
    let gguf = Gguf::open(source).map_err(Error::gguf(source))?;
    let name = options.name.as_deref();
    let found = LinearHead::from_gguf(source, &gguf, name)?;
    let mut head = found.ok_or_else(|| missing(source, name))?;
    if head_inside_obstacle(&gguf).is_none() && name.is_none() {
        let reason = "llama.cpp loads it with its head inside; give it as `model-reward` as it is";
        return Err(Error::model(source, reason));
    }
    if gguf.u64("split.count").unwrap_or(1) > 1 {
        let reason = "one part of several; put them together first (llama-gguf-split --merge)";
        return Err(Error::model(source, reason));
    }
    let same = |a: &Path, b: &Path| {
        a.canonicalize()
            .ok()
            .is_some_and(|a| b.canonicalize().is_ok_and(|b| a == b))
    };
    if same(source, output) {
        return Err(Error::field(
            "output",
            "it is the source itself; give another name",
        ));
    }
    if let Some(text) = &options.text {
        head.text = Some(text.stated());
    }
    head.append = options.append.clone().or(head.append);
    head.pooling
        .get_or_insert_with(|| FeaturePooling::Last.to_string());
    let file = source.file_name().unwrap_or_default().to_string_lossy();
    let facts = [
        ("aisp.import.source", file.into_owned()),
        ("aisp.import.tensor", format!("{}.weight", head.tensor)),
    ];
    head.metadata
        .extend(facts.map(|(key, value)| (key.to_owned(), value)));
    let own = ["weight", "bias"].map(|part| format!("{}.{part}", head.tensor));
    save_by(output, |out| {
        gguf.copy_without(source, &|name| own.iter().any(|own| own == name), out)
    })?;
    let beside = head_beside(output);
    head.write_safetensors(&beside)?;
    Ok(beside)
}
