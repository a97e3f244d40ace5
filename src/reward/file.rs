//! A reward GGUF by its path alone: its header tells whether it is a classifier, or has a head
//! that is applied here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::classifier::ClassifierSource;
use super::head::HeadSource;
use super::head_file::LinearHead;
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
    Ok(Arc::new(FileSource(file.into(), placement)))
}

/// The file, and where its model goes.
#[derive(Debug)]
pub(super) struct FileSource(pub PathBuf, pub Placement);

impl RewardSource for FileSource {
    fn files(&self) -> Vec<&Path> {
        vec![&self.0]
    }

    fn load(&self, loader: &mut RewardLoader) -> Result<Box<dyn Reward>> {
        let path = &self.0;
        let gguf = Gguf::open(path).map_err(Error::gguf(path))?;
        let (text, too_long) = (loader.text.clone(), loader.too_long);
        let Some(obstacle) = classifier_obstacle(&gguf) else {
            let options = ClassifierOptions {
                text,
                too_long,
                ..ClassifierOptions::default()
            };
            return ClassifierSource(path.clone(), options, self.1.clone()).load(loader);
        };
        if LinearHead::from_gguf(path, &gguf)?.is_none() {
            return Err(Error::model(
                path,
                format!(
                    "not a reward model: {obstacle}; give its head beside it (the reward \
                     head:FILE.gguf;head=HEAD.safetensors), ask it as a judge (the reward \
                     judge:FILE.gguf) or how likely it finds a response (likelihood:FILE.gguf), or \
                     give a reward model as `model-reward`; a generator is given as `model`"
                ),
            ));
        }
        let features = FeaturesOptions {
            text,
            too_long,
            ..FeaturesOptions::default()
        };
        let head = None;
        let options = HeadOptions { head, features };
        HeadSource(path.clone(), options, self.1.clone()).load(loader)
    }
}
