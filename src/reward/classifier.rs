//! Reward models with a classification head, run through llama.cpp's RANK pooling.
//!
//! The reward is the head's single output, before any squashing, as llama.cpp computes it.
//! A file without a head would silently give a meaningless number, and some heads are
//! squashed to a constant, so the header is checked first and two clearly different texts
//! must get different scores before anything else is scored.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::text::RewardText;
use super::{Reward, Sample, SampleError, Score};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::llama::{ChatTemplate, Encoder, Model, ModelOptions, Pooling, Token, reward_obstacle};

/// Texts that any useful reward tells apart.
const PROBES: [Sample<'static>; 2] = [
    Sample {
        prompt: "Review the film in one sentence.",
        response: "A wonderful, warm and moving film that I will watch again and again.",
    },
    Sample {
        prompt: "Review the film in one sentence.",
        response: "Dull, lifeless and badly acted: two hours of my life that I want back.",
    },
];

/// What happens to a text that is longer than the reward model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TooLong {
    /// It gets no reward; the report says so.
    #[default]
    Refuse,
    /// Its end is cut off; the report says so.
    Truncate,
}

/// How a classifier is loaded.
#[derive(Clone, Debug, Default)]
pub struct ClassifierOptions {
    /// Loading of the model.
    pub model: ModelOptions,
    /// CPU threads; 0 counts as 1.
    pub threads: usize,
    /// The text it sees; `None` takes what the file states.
    pub text: Option<RewardText>,
    /// What happens to too long texts.
    pub too_long: TooLong,
}

/// A reward model with a classification head.
pub struct Classifier {
    encoder: Encoder,
    chat: Option<ChatTemplate>,
    text: RewardText,
    too_long: TooLong,
}

impl Classifier {
    /// Loads `path` and checks that it is a reward.
    ///
    /// # Errors
    /// [`Error::Gguf`] and [`Error::Model`] for a file that is none, among them one that
    /// scores two clearly different texts alike; [`Error::Engine`] when llama.cpp fails.
    pub fn load(path: &Path, options: &ClassifierOptions) -> Result<Self> {
        let gguf = Gguf::open(path).map_err(|source| Error::Gguf {
            path: path.to_path_buf(),
            source,
        })?;
        if let Some(reason) = reward_obstacle(&gguf) {
            return Err(Error::model(path, reason));
        }
        let model = Arc::new(Model::load(path, &options.model)?);
        let text = match &options.text {
            Some(text) => text.clone(),
            None => RewardText::of_file(&gguf)?.0,
        };
        let chat = match text {
            RewardText::Chat => Some(ChatTemplate::new(&model, None)?),
            RewardText::Pattern(_) => None,
        };
        let encoder = Encoder::new(model, Pooling::Rank, options.threads)?;
        let mut classifier = Self {
            encoder,
            chat,
            text,
            too_long: options.too_long,
        };
        classifier.probe(path)?;
        Ok(classifier)
    }

    /// The text this reward sees.
    #[must_use]
    pub fn text(&self) -> &RewardText {
        &self.text
    }

    fn probe(&mut self, path: &Path) -> Result<()> {
        let mut rewards = [0.0; 2];
        for (sample, reward) in PROBES.iter().zip(&mut rewards) {
            let tokens = self.tokenize(sample)?;
            let labels = self.encoder.encode(&tokens)?;
            let [value] = labels[..] else {
                return Err(Error::model(
                    path,
                    format!(
                        "the classification head has {} outputs; a reward has one",
                        labels.len()
                    ),
                ));
            };
            *reward = value;
        }
        let [a, b] = rewards;
        if a.is_finite() && b.is_finite() && (a - b).abs() > 1e-4 {
            return Ok(());
        }
        Err(Error::model(
            path,
            format!(
                "scores two clearly different texts alike ({a} and {b}): this head is not a \
                 reward as llama.cpp computes it"
            ),
        ))
    }

    fn tokenize(&self, sample: &Sample<'_>) -> Result<Vec<Token>> {
        self.text.tokenize(
            self.encoder.model(),
            self.chat.as_ref(),
            sample.prompt,
            sample.response,
        )
    }

    fn score_one(
        &mut self,
        sample: &Sample<'_>,
    ) -> Result<std::result::Result<Score, SampleError>> {
        let mut tokens = self.tokenize(sample)?;
        let (count, limit) = (tokens.len(), self.encoder.capacity());
        if count == 0 {
            return Ok(Err(SampleError::Other("no tokens to score".into())));
        }
        if count > limit {
            if self.too_long == TooLong::Refuse {
                return Ok(Err(SampleError::TooLong {
                    tokens: count,
                    limit,
                }));
            }
            // The last token closes the text ([SEP] in BERT): it stays.
            tokens.drain(limit - 1..count - 1);
        }
        let reward = self.encoder.encode(&tokens)?.first().copied();
        Ok(Ok(Score {
            reward: reward.map_or(f64::NAN, f64::from),
            tokens: tokens.len(),
            truncated: count > limit,
        }))
    }
}

impl Reward for Classifier {
    fn name(&self) -> String {
        self.encoder.model().path().display().to_string()
    }

    fn score(
        &mut self,
        samples: &[Sample<'_>],
    ) -> Result<Vec<std::result::Result<Score, SampleError>>> {
        samples
            .iter()
            .map(|sample| self.score_one(sample))
            .collect::<Result<_>>()
            .map_err(|e| match e {
                Error::Engine(reason) => Error::Reward(reason),
                other => other,
            })
    }
}
