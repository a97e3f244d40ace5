//! Reward models with a classification head, run through llama.cpp's RANK pooling.
//!
//! The reward is the head's single output, before any squashing, as llama.cpp computes it.
//! A file without a head would silently give a meaningless number, and some heads are
//! squashed to a constant, so the header is checked first and two clearly different texts
//! must get different scores before anything else is scored.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::load::misplaced;
use super::options::{self, Options};
use super::text::{RewardText, Tokenizer};
use super::{
    Answer, ReadText, Reward, RewardKind, RewardLoader, RewardSource, Sample, Score, Scores,
    TooLong, check_tells_apart,
};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::llama::{
    Attention, ChatOptions, Encoder, Model, ModelOptions, Placement, Pooling, classifier_obstacle,
};

/// Its place among the kinds.
pub(super) const KIND: RewardKind = RewardKind {
    name: "classifier",
    form: "classifier:FILE",
    about: "a GGUF with a classification head",
    terms: &[],
    options: &[options::TEXT, options::TOO_LONG, options::NGL, options::DEV],
    parse,
};

fn parse(text: &str) -> Result<Arc<dyn RewardSource>> {
    let (file, mut options) = Options::parse(&KIND, text)?;
    let parsed = ClassifierOptions {
        text: options.reward_text()?,
        too_long: options.too_long()?,
        ..ClassifierOptions::default()
    };
    let placement = options.placement()?;
    options.finish()?;
    Ok(Arc::new(ClassifierSource(file.into(), parsed, placement)))
}

/// A classifier by its file.
#[derive(Debug)]
pub(super) struct ClassifierSource(pub PathBuf, pub ClassifierOptions, pub Placement);

impl RewardSource for ClassifierSource {
    fn files(&self) -> Vec<&Path> {
        vec![&self.0]
    }

    fn load(&self, loader: &mut RewardLoader) -> Result<Box<dyn Reward>> {
        let options = ClassifierOptions {
            model: self.2.applied(&loader.model),
            threads: loader.threads,
            attention: loader.attention,
            rendering: loader.chat.of_any_model(),
            ..self.1.clone()
        };
        let loaded = Classifier::load(&self.0, &options).map_err(misplaced(&self.2));
        Ok(Box::new(loaded?))
    }
}

/// How a classifier is loaded.
#[derive(Clone, Debug, Default)]
pub struct ClassifierOptions {
    /// Loading of the model.
    pub model: ModelOptions,
    /// CPU threads; 0 counts as 1.
    pub threads: usize,
    /// How attention is computed.
    pub attention: Attention,
    /// The text it sees; `None` takes [`RewardText::of_file`].
    pub text: Option<RewardText>,
    /// How a chat template is rendered.
    pub rendering: ChatOptions,
    /// What happens to too long texts.
    pub too_long: TooLong,
}

/// A reward model with a classification head.
pub struct Classifier {
    encoder: Encoder,
    tokenizer: Tokenizer,
}

impl Classifier {
    /// Loads `path` and checks that it is a reward.
    ///
    /// # Errors
    /// [`Error::Gguf`] and [`Error::Model`] for a file that is none, among them one that
    /// scores two clearly different texts alike; [`Error::Engine`] when llama.cpp fails.
    pub fn load(path: &Path, options: &ClassifierOptions) -> Result<Self> {
        let gguf = Gguf::open(path).map_err(Error::gguf(path))?;
        if let Some(reason) = classifier_obstacle(&gguf) {
            return Err(Error::model(
                path,
                format!("not a classifier reward: {reason}"),
            ));
        }
        let model = Arc::new(Model::load(path, &options.model)?);
        let text = match &options.text {
            Some(text) => text.clone(),
            None => RewardText::of_file(&gguf, None)?.0,
        };
        let (threads, flash) = (options.threads, options.attention.flash);
        let encoder = Encoder::new(Arc::clone(&model), Pooling::Rank, threads, flash)?;
        let tokenizer = Tokenizer::new(
            &model,
            text,
            None,
            &options.rendering,
            options.too_long,
            encoder.capacity(),
        )?;
        let mut classifier = Self { encoder, tokenizer };
        check_outputs(path, classifier.encoder.width())?;
        check_tells_apart(path, &mut classifier)?;
        Ok(classifier)
    }

    /// The text this reward sees.
    #[must_use]
    pub fn text(&self) -> &RewardText {
        self.tokenizer.text()
    }

    fn score_one(&mut self, sample: &Sample<'_>) -> Result<Answer> {
        let (tokens, truncated) = match self.tokenizer.tokens(sample)? {
            Ok(tokens) => tokens,
            Err(error) => return Ok(Err(error)),
        };
        let reward = self.encoder.encode(&tokens)?.first().copied();
        Ok(Ok(Score {
            reward: reward.map_or(f64::NAN, f64::from),
            tokens: tokens.len(),
            truncated,
            ..Score::default()
        }))
    }
}

fn check_outputs(path: &Path, outputs: usize) -> Result<()> {
    if outputs == 1 {
        return Ok(());
    }
    Err(Error::model(
        path,
        format!("the classification head has {outputs} outputs; a reward has one"),
    ))
}

impl Reward for Classifier {
    fn name(&self) -> String {
        self.encoder.model().path().display().to_string()
    }

    fn sees(&self) -> String {
        self.text().to_string()
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        samples
            .iter()
            .map(|sample| self.score_one(sample))
            .collect::<Result<_>>()
            .map_err(Error::in_reward)
    }

    fn reads(&self, sample: &Sample<'_>) -> Result<Vec<ReadText>> {
        Ok(Vec::from_iter(self.tokenizer.show(sample)?))
    }
}
