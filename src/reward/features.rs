//! Features of (prompt, response) for a linear head: the vector that a model makes of a
//! text, as llama.cpp itself computes it.
//!
//! A decoder's feature is the pre-logits of the text's last token ([`FeaturePooling::Last`]);
//! texts with a common beginning, such as the candidates of one prompt, share it. An
//! encoder's is the mean over its tokens ([`FeaturePooling::Mean`]) or the vector of the first
//! ([`FeaturePooling::Cls`]), one text at a time; for a decoder that is slow, as llama.cpp computes
//! the logits of every token on the way.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::text::{RewardText, Tokenizer};
use super::{ReadText, Sample, SampleError, TooLong};
use crate::error::{Error, Result};
use crate::llama::{Attention, ChatOptions, Encoder, Model, Pooling, Reader, Token, is_encoder};

/// Which vector stands for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeaturePooling {
    /// Pre-logits of the last token; decoders only.
    Last,
    /// The mean over all tokens.
    Mean,
    /// The vector of the first token; encoders only.
    Cls,
}

impl FeaturePooling {
    /// The usual one: the mean for an encoder, the last token for a decoder.
    #[must_use]
    pub fn of_model(model: &Model) -> Self {
        match is_encoder(model.gguf()) {
            true => Self::Mean,
            false => Self::Last,
        }
    }
}

impl fmt::Display for FeaturePooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Last => "last",
            Self::Mean => "mean",
            Self::Cls => "cls",
        })
    }
}

impl FromStr for FeaturePooling {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "last" => Ok(Self::Last),
            "mean" => Ok(Self::Mean),
            "cls" => Ok(Self::Cls),
            _ => Err("none of last, mean and cls".into()),
        }
    }
}

/// How features are made.
#[derive(Clone, Debug, Default)]
pub struct FeaturesOptions {
    /// CPU threads; 0 counts as 1.
    pub threads: usize,
    /// How attention is computed.
    pub attention: Attention,
    /// The text; `None` takes [`RewardText::of_file`].
    pub text: Option<RewardText>,
    /// The token that every text ends with, such as `<|reward|>`, or its number.
    pub append: Option<String>,
    /// Which vector; `None` takes [`FeaturePooling::of_model`].
    pub pooling: Option<FeaturePooling>,
    /// How a chat template is rendered.
    pub rendering: ChatOptions,
    /// What happens to too long texts.
    pub too_long: TooLong,
}

/// The vector of one text.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureVector {
    /// The features `[d]`.
    pub values: Vec<f32>,
    /// Tokens that the model read for them.
    pub tokens: usize,
    /// Whether the text was cut to fit the model.
    pub truncated: bool,
}

enum Engine {
    Reader(Box<Reader>),
    Encoder(Box<Encoder>),
}

/// Makes features.
pub struct Features {
    engine: Engine,
    tokenizer: Tokenizer,
    pooling: FeaturePooling,
    model: Arc<Model>,
}

impl Features {
    /// Makes the context for `model`.
    ///
    /// # Errors
    /// [`Error::Model`] for a model that cannot give these features, [`Error::Engine`] when
    /// llama.cpp fails.
    pub fn new(model: Arc<Model>, options: &FeaturesOptions) -> Result<Self> {
        let pooling = options
            .pooling
            .unwrap_or_else(|| FeaturePooling::of_model(&model));
        let (engine, limit) = match pooling {
            FeaturePooling::Last => {
                let reader = Reader::new(Arc::clone(&model), options.threads, options.attention)?;
                let limit = reader.capacity();
                (Engine::Reader(Box::new(reader)), limit)
            }
            FeaturePooling::Cls if !is_encoder(model.gguf()) => {
                let reason =
                    "pooling=cls is for encoders; the first token of this one sees nothing";
                return Err(Error::model(model.path(), reason));
            }
            FeaturePooling::Mean | FeaturePooling::Cls => {
                let (threads, flash) = (options.threads, options.attention.flash);
                let made = match pooling {
                    FeaturePooling::Cls => Pooling::Cls,
                    _ => Pooling::Mean,
                };
                let encoder = Encoder::new(Arc::clone(&model), made, threads, flash)?;
                let limit = encoder.capacity();
                (Engine::Encoder(Box::new(encoder)), limit)
            }
        };
        let text = match &options.text {
            Some(text) => text.clone(),
            None => RewardText::of_file(model.gguf(), None)?.0,
        };
        let tokenizer = Tokenizer::new(
            &model,
            text,
            options.append.as_deref(),
            &options.rendering,
            options.too_long,
            limit,
        )?;
        Ok(Self {
            engine,
            tokenizer,
            pooling,
            model,
        })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The text that the model sees.
    #[must_use]
    pub fn text(&self) -> &RewardText {
        self.tokenizer.text()
    }

    /// Which vector.
    #[must_use]
    pub fn pooling(&self) -> FeaturePooling {
        self.pooling
    }

    /// A sample as the model reads it.
    pub(super) fn show(&self, sample: &Sample<'_>) -> Result<Option<ReadText>> {
        self.tokenizer.show(sample)
    }

    /// The vectors of samples, in order.
    ///
    /// # Errors
    /// Those of the chat template, [`Error::Engine`] when llama.cpp fails; a text without
    /// tokens or with too many has an error of its own.
    pub fn compute(
        &mut self,
        samples: &[Sample<'_>],
    ) -> Result<Vec<std::result::Result<FeatureVector, SampleError>>> {
        let mut texts: Vec<Vec<Token>> = Vec::with_capacity(samples.len());
        let mut cut = Vec::with_capacity(samples.len());
        for sample in samples {
            cut.push(self.tokenizer.tokens(sample)?.map(|(tokens, truncated)| {
                texts.push(tokens);
                truncated
            }));
        }
        let mut vectors = match &mut self.engine {
            Engine::Reader(reader) => reader
                .read(&texts, 1, &[])?
                .into_iter()
                .map(|mut text| {
                    let read = text.positions.pop().map(|p| p.pre_logits);
                    (read.unwrap_or_default(), text.decoded)
                })
                .collect::<Vec<_>>(),
            Engine::Encoder(encoder) => texts
                .iter()
                .map(|tokens| Ok((encoder.encode(tokens)?, tokens.len())))
                .collect::<Result<_>>()?,
        }
        .into_iter();
        cut.into_iter()
            .map(|cut| match cut {
                Ok(truncated) => {
                    let (values, tokens) = vectors
                        .next()
                        .ok_or_else(|| Error::Engine("a text without features".into()))?;
                    Ok(Ok(FeatureVector {
                        values,
                        tokens,
                        truncated,
                    }))
                }
                Err(error) => Ok(Err(error)),
            })
            .collect()
    }
}
