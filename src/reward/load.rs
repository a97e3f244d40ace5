//! From descriptions of rewards to rewards that score.

use std::path::Path;
use std::sync::Arc;

use super::head_file::LinearHead;
use super::{
    Classifier, ClassifierOptions, CommandReward, FeaturesOptions, Head, HeadOptions, HttpReward,
    Judge, JudgeOptions, Mix, Reward, RewardSource, RewardSpec, RewardText, Rules, TooLong,
};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::llama::{Model, ModelOptions, classifier_obstacle, head_inside_obstacle};

/// Loads rewards; a model that several of them name, or that is the generator, is loaded
/// once.
pub struct RewardLoader {
    /// The generator, where there is one.
    pub generator: Option<Arc<Model>>,
    /// Loading of models.
    pub model: ModelOptions,
    /// CPU threads.
    pub threads: usize,
    /// The text of [`RewardSource::File`] rewards; `None` takes what their file states.
    pub text: Option<RewardText>,
    /// What happens to texts too long for those.
    pub too_long: TooLong,
    loaded: Vec<Arc<Model>>,
}

impl RewardLoader {
    /// Loads with `threads` CPU threads, on whatever files state.
    #[must_use]
    pub fn new(generator: Option<Arc<Model>>, model: ModelOptions, threads: usize) -> Self {
        Self {
            generator,
            model,
            threads,
            text: None,
            too_long: TooLong::default(),
            loaded: Vec::new(),
        }
    }

    /// Loads `specs` as one reward.
    ///
    /// # Errors
    /// Those of the rewards, and [`Error::Field`] when there is none.
    pub fn load(&mut self, specs: &[RewardSpec]) -> Result<Box<dyn Reward>> {
        let mut parts = specs
            .iter()
            .map(|spec| Ok((spec.weight, self.source(&spec.source)?)))
            .collect::<Result<Vec<_>>>()?;
        match parts.pop() {
            Some((1.0, reward)) if parts.is_empty() => Ok(reward),
            last => {
                parts.extend(last);
                Ok(Box::new(Mix::new(parts)?))
            }
        }
    }

    fn source(&mut self, source: &RewardSource) -> Result<Box<dyn Reward>> {
        let threads = self.threads;
        Ok(match source {
            RewardSource::File(path) => self.file(path)?,
            RewardSource::Classifier(path, options) => {
                let options = ClassifierOptions {
                    model: self.model.clone(),
                    threads,
                    ..options.clone()
                };
                Box::new(Classifier::load(path, &options)?)
            }
            RewardSource::Head(path, options) => self.head(path, options)?,
            RewardSource::Judge(path, options) => {
                let model = match (path, &self.generator) {
                    (Some(path), _) => self.open(path)?,
                    (None, Some(generator)) => Arc::clone(generator),
                    (None, None) => {
                        return Err(Error::field(
                            "reward",
                            "judge:self needs a generator; name a file, judge:FILE.gguf",
                        ));
                    }
                };
                let options = JudgeOptions {
                    threads,
                    ..options.clone()
                };
                Box::new(Judge::new(model, &options)?)
            }
            RewardSource::Rule(expression) => Box::new(Rules::parse(expression)?),
            RewardSource::Command(options) => Box::new(CommandReward::new(options.clone())?),
            RewardSource::Http(options) => Box::new(HttpReward::new(options.clone())?),
        })
    }

    fn head(&mut self, path: &Path, options: &HeadOptions) -> Result<Box<dyn Reward>> {
        if let Some(reason) = head_inside_obstacle(&header(path)?) {
            return Err(Error::model(path, reason));
        }
        let mut options = options.clone();
        options.features.threads = self.threads;
        Ok(Box::new(Head::new(self.open(path)?, &options)?))
    }

    /// A reward whose kind the file tells.
    fn file(&mut self, path: &Path) -> Result<Box<dyn Reward>> {
        let gguf = header(path)?;
        let (text, too_long) = (self.text.clone(), self.too_long);
        let Some(obstacle) = classifier_obstacle(&gguf) else {
            let options = ClassifierOptions {
                text,
                too_long,
                ..ClassifierOptions::default()
            };
            return self.source(&RewardSource::Classifier(path.into(), options));
        };
        if LinearHead::from_gguf(path, &gguf)?.is_none() {
            return Err(Error::model(
                path,
                format!(
                    "not a reward model: {obstacle}; give its head beside it (the reward \
                     head:FILE.gguf;head=HEAD.safetensors), ask it as a judge (the reward \
                     judge:FILE.gguf), or give a reward model; a generator is given as `model`"
                ),
            ));
        }
        let features = FeaturesOptions {
            text,
            too_long,
            ..FeaturesOptions::default()
        };
        let head = None;
        self.head(path, &HeadOptions { head, features })
    }

    /// A model, loaded once for all that use its path.
    fn open(&mut self, path: &Path) -> Result<Arc<Model>> {
        let same = |model: &&Arc<Model>| {
            model.path() == path
                || matches!(
                    (model.path().canonicalize(), path.canonicalize()),
                    (Ok(a), Ok(b)) if a == b
                )
        };
        let known = self.generator.iter().chain(&self.loaded).find(same);
        if let Some(model) = known {
            return Ok(Arc::clone(model));
        }
        let model = Arc::new(Model::load(path, &self.model)?);
        self.loaded.push(Arc::clone(&model));
        Ok(model)
    }
}

fn header(path: &Path) -> Result<Gguf> {
    Gguf::open(path).map_err(Error::gguf(path))
}
