//! How likely a model finds the response: the mean of log p(token | prompt, tokens before it)
//! over the response's tokens, in nats a token; at most 0, and −1 times what a run reports as
//! the surprise.
//!
//! At temperature 1 and without truncation. The response is tokenised by itself, as plain text,
//! and its end is not counted: no response is likelier for being long or short.
//!
//! What stands before it:
//!
//! - with a chat template, the prompt as a user's turn and the opening of the assistant's;
//! - without, the prompt and a line break; for the generator itself no line break, because it
//!   goes on where a raw prompt ends. `between` is another text.
//!
//! Candidates of one prompt share that beginning, which is decoded once (see [`Reader`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::{self, Options};
use super::{
    ReadText, Reward, RewardKind, RewardLoader, RewardOption, RewardSource, Sample, SampleError,
    Score, Scores,
};
use crate::error::{Error, Result};
use crate::llama::{
    Attention, ChatOptions, ChatTemplate, Model, Placement, Reader, Token, tokenize_guarded,
};

/// Its place among the kinds.
pub(super) const KIND: RewardKind = RewardKind {
    name: "likelihood",
    form: "likelihood:FILE|self",
    about: "mean log p of the response's tokens by any model, or the generator itself",
    terms: &[],
    options: &[
        RewardOption::new(
            "chat",
            "on|off",
            "whether the prompt goes through its chat template [default: on where it has one]",
        ),
        RewardOption::new(
            "between",
            "TEXT",
            "what stands between a raw prompt and the response; \\n is a line break [default: a line \
             break, nothing for the generator itself]",
        ),
        options::NGL,
        options::DEV,
    ],
    parse,
};

fn parse(text: &str) -> Result<Arc<dyn RewardSource>> {
    let (file, mut options) = Options::parse(&KIND, text)?;
    let parsed = LikelihoodOptions {
        rendering: ChatOptions::default(),
        chat: options.take("chat", |text| match text {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err("neither on nor off".into()),
        })?,
        between: options.line_breaks("between"),
        threads: 0,
        attention: Attention::default(),
    };
    let placement = options.placement()?;
    options.finish()?;
    let file = (file != "self").then(|| file.into());
    Ok(Arc::new(LikelihoodSource(file, parsed, placement)))
}

/// A model by its file; without one it is the generator.
#[derive(Debug)]
struct LikelihoodSource(Option<PathBuf>, LikelihoodOptions, Placement);

impl RewardSource for LikelihoodSource {
    fn files(&self) -> Vec<&Path> {
        self.0.iter().map(PathBuf::as_path).collect()
    }

    fn load(&self, loader: &mut RewardLoader) -> Result<Box<dyn Reward>> {
        let model = loader.open_or_self(&KIND, self.0.as_deref(), &self.2)?;
        let mut options = LikelihoodOptions {
            threads: loader.threads,
            attention: loader.attention,
            rendering: loader.chat.of_any_model(),
            ..self.1.clone()
        };
        let chat = options.chat.unwrap_or_else(|| has_template(&model));
        if self.0.is_none() && !chat {
            options.between.get_or_insert_default();
        }
        Ok(Box::new(Likelihood::new(model, &options)?))
    }
}

/// What stands before the response.
#[derive(Clone, Debug, Default)]
pub struct LikelihoodOptions {
    /// Whether the model's chat template is used; `None` uses it where the file has one.
    pub chat: Option<bool>,
    /// Without a chat template, what stands between prompt and response; `None` is a line break.
    pub between: Option<String>,
    /// How its chat template is rendered.
    pub rendering: ChatOptions,
    /// CPU threads; 0 counts as 1.
    pub threads: usize,
    /// How attention is computed.
    pub attention: Attention,
}

/// A model that is asked how likely a response is.
pub struct Likelihood {
    reader: Reader,
    before: Before,
}

/// What stands before the response.
enum Before {
    /// The prompt as a user's turn.
    Chat(ChatTemplate),
    /// The prompt and this text.
    Raw(String),
}

impl Likelihood {
    /// Lets `model` read; it may be the generator itself.
    ///
    /// # Errors
    /// [`Error::Field`] for a chat template that the file does not have, or a text between
    /// prompt and response beside one; [`Error::Model`] for a model that is no decoder.
    pub fn new(model: Arc<Model>, options: &LikelihoodOptions) -> Result<Self> {
        let template = has_template(&model);
        let before = match (options.chat.unwrap_or(template), &options.between) {
            (true, Some(_)) => {
                let reason = "between=… is for raw text, and this model has a chat template; \
                              leave it out, or give chat=off";
                return Err(KIND.refuse(reason));
            }
            (true, None) if !template => {
                let path = model.path().display();
                return Err(KIND.refuse(format!(
                    "chat=on: {path} has no chat template; give chat=off, or another model"
                )));
            }
            (true, None) => Before::Chat(ChatTemplate::new(&model, &options.rendering)?),
            (false, between) => Before::Raw(between.clone().unwrap_or_else(|| "\n".into())),
        };
        let reader = Reader::new(model, options.threads, options.attention)?;
        Ok(Self { reader, before })
    }

    /// Tokens of prompt and response, and the index of the response's first.
    ///
    /// # Errors
    /// Those of the chat template.
    pub fn tokenize(&self, sample: &Sample<'_>) -> Result<(Vec<Token>, usize)> {
        let model = self.reader.model();
        let mut tokens = match &self.before {
            Before::Chat(chat) => chat.tokenize(model, &sample.conversation(), true)?,
            Before::Raw(between) => tokenize_guarded(model, &[sample.prompt], |texts| {
                Ok(format!("{}{between}", texts[0]))
            })?,
        };
        let from = tokens.len();
        tokens.extend(model.tokenize(sample.response, false, false));
        Ok((tokens, from))
    }

    /// Why tokens cannot be read, of which those from `from` on are the response's.
    fn obstacle(&self, tokens: &[Token], from: usize) -> Option<SampleError> {
        let (tokens, limit) = (tokens.len(), self.reader.capacity());
        if tokens == from {
            return Some(SampleError::Other("no tokens to score".into()));
        }
        if from == 0 {
            let reason = "no token before the response, so its first has no probability; give a \
                          prompt";
            return Some(SampleError::Other(reason.into()));
        }
        (tokens > limit).then_some(SampleError::TooLong { tokens, limit })
    }

    fn read(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        let mut texts = Vec::with_capacity(samples.len());
        let mut beginnings = Vec::with_capacity(samples.len());
        let mut obstacles = Vec::with_capacity(samples.len());
        for sample in samples {
            let (tokens, from) = self.tokenize(sample)?;
            let obstacle = self.obstacle(&tokens, from);
            if obstacle.is_none() {
                texts.push(tokens);
                beginnings.push(from);
            }
            obstacles.push(obstacle);
        }
        let mut read = self.reader.log_p(&texts, &beginnings)?.into_iter();
        obstacles
            .into_iter()
            .map(|obstacle| {
                if let Some(error) = obstacle {
                    return Ok(Err(error));
                }
                let text = read
                    .next()
                    .ok_or_else(|| Error::Engine("a text without log p".into()))?;
                Ok(Ok(Score {
                    reward: text.log_p.iter().sum::<f64>() / text.log_p.len() as f64,
                    tokens: text.decoded,
                    ..Score::default()
                }))
            })
            .collect()
    }
}

fn has_template(model: &Model) -> bool {
    model.gguf().chat_template().is_some()
}

impl Reward for Likelihood {
    fn name(&self) -> String {
        format!("likelihood {}", self.reader.model().path().display())
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        self.read(samples).map_err(Error::in_reward)
    }

    fn reads(&self, sample: &Sample<'_>) -> Result<Vec<ReadText>> {
        let (tokens, _) = self.tokenize(sample)?;
        Ok(vec![ReadText::new(self.reader.model(), tokens)])
    }
}
