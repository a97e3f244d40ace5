//! A reward GGUF by its path alone: its header tells whether it is a classifier, or has a head
//! that is applied here. A head's file beside it, `m.head.safetensors` of `m.gguf`, comes first.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::classifier::ClassifierSource;
use super::head::HeadSource;
use super::head_file::{LinearHead, head_beside};
use super::options::{self, Options};
use super::{
    ClassifierOptions, FeaturesOptions, HeadOptions, Reward, RewardKind, RewardLoader, RewardSource,
};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::llama::{Placement, classifier_obstacle};

/// How it is described; it is none of the kinds that a description can name.
pub(super) static KIND: RewardKind = RewardKind {
    name: "a reward model",
    form: "FILE",
    about: "a GGUF that tells what it is",
    terms: &[],
    options: &[options::NGL, options::DEV],
    parse,
};

/// Reads `FILE[;ngl=N][;dev=…]`.
pub(super) fn parse(text: &str) -> Result<Arc<dyn RewardSource>> {
    let (file, mut options) = Options::parse(&KIND, text)?;
    let placement = options.placement()?;
    options.finish()?;
    Ok(Arc::new(FileSource::new(file.into(), placement)))
}

/// The file, with the head beside it, and where its model goes.
#[derive(Debug)]
pub(super) struct FileSource {
    path: PathBuf,
    head: Option<PathBuf>,
    placement: Placement,
}

impl FileSource {
    pub(super) fn new(path: PathBuf, placement: Placement) -> Self {
        Self {
            head: Some(head_beside(&path)).filter(|head| head.is_file()),
            path,
            placement,
        }
    }
}

impl RewardSource for FileSource {
    fn files(&self) -> Vec<&Path> {
        let files = [Some(&self.path), self.head.as_ref()];
        files.into_iter().flatten().map(PathBuf::as_path).collect()
    }

    fn load(&self, loader: &mut RewardLoader) -> Result<Box<dyn Reward>> {
        let path = &self.path;
        let gguf = Gguf::open(path).map_err(Error::gguf(path))?;
        let (text, too_long) = (loader.text.clone(), loader.too_long);
        match classifier_obstacle(&gguf).filter(|_| self.head.is_none()) {
            None if self.head.is_none() => {
                let options = ClassifierOptions {
                    text,
                    too_long,
                    ..ClassifierOptions::default()
                };
                let placement = self.placement.clone();
                return ClassifierSource(path.clone(), options, placement).load(loader);
            }
            Some(obstacle) if LinearHead::from_gguf(path, &gguf, None)?.is_none() => {
                return Err(Error::model(
                    path,
                    format!(
                        "not a reward model: {obstacle}; give its head beside it (the reward \
                         head:FILE.gguf;head=HEAD.safetensors), ask it as a judge (the reward \
                         judge:FILE.gguf) or how likely it finds a response \
                         (likelihood:FILE.gguf), or give a reward model as `model-reward`; a \
                         generator is given as `model`"
                    ),
                ));
            }
            _ => {}
        }
        let options = HeadOptions {
            head: self.head.clone(),
            name: None,
            features: FeaturesOptions {
                text,
                too_long,
                ..FeaturesOptions::default()
            },
        };
        HeadSource(path.clone(), options, self.placement.clone()).load(loader)
    }
}
