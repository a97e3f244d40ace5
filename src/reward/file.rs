//! A reward GGUF by its path alone: its header tells whether it is a classifier, or has a head
//! that is applied here.

use std::path::{Path, PathBuf};

use super::classifier::ClassifierSource;
use super::head::HeadSource;
use super::head_file::LinearHead;
use super::{ClassifierOptions, FeaturesOptions, HeadOptions, Reward, RewardLoader, RewardSource};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::llama::classifier_obstacle;

/// The file.
#[derive(Debug)]
pub(super) struct FileSource(pub PathBuf);

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
            return ClassifierSource(path.clone(), options).load(loader);
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
        HeadSource(path.clone(), HeadOptions { head, features }).load(loader)
    }
}
