//! Grammars: which tokens may come next, so that every response is of a given form.
//!
//! - GBNF, by llama.cpp's own grammars (`src/llama-grammar.cpp`);
//! - JSON Schema, by `llguidance`, which writes a mask of the vocabulary in less than a millisecond.
//!
//! A [`Grammar`] is read once; every response has a [`GrammarState`] of its own.

use std::sync::Arc;

use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::model::{Model, Token};
use crate::error::{Error, Result};

/// A grammar for the responses of one model.
pub struct Grammar {
    /// The beginning of every response.
    start: State,
    text: String,
    // Dropped last: a sampler of llama.cpp looks at its vocabulary.
    _model: Arc<Model>,
}

/// What may follow what a response has so far; of a [`Grammar`] that must be there as long.
pub struct GrammarState(State);

enum State {
    Gbnf(LlamaSampler),
    Schema(Box<Matcher>),
}

impl State {
    fn copied(&self) -> Self {
        match self {
            Self::Gbnf(sampler) => Self::Gbnf(sampler.clone()),
            Self::Schema(matcher) => Self::Schema(Box::new(matcher.deep_clone())),
        }
    }
}

impl Grammar {
    /// A grammar in llama.cpp's GBNF, with the rule `root`.
    ///
    /// # Errors
    /// [`Error::Field`] for one that llama.cpp cannot read.
    pub fn gbnf(model: Arc<Model>, text: &str) -> Result<Self> {
        let sampler = LlamaSampler::grammar(model.as_llama_cpp_2(), text, "root");
        let sampler = sampler.map_err(|error| {
            let reason = "llama.cpp cannot read it; `verbose` shows what it says";
            Error::field("grammar", format!("{error}: {reason}"))
        })?;
        Ok(Self {
            start: State::Gbnf(sampler),
            text: text.to_owned(),
            _model: model,
        })
    }

    /// JSON of this schema, with a space behind every colon and comma and no other white space, unless
    /// the schema's `x-guidance` says otherwise.
    ///
    /// # Errors
    /// [`Error::Field`] for a schema that is none, or that asks for what a grammar cannot say.
    pub fn json_schema(model: Arc<Model>, schema: &Value) -> Result<Self> {
        let wrong = |reason: String| Error::field("json-schema", reason);
        let factory = model.schemas().as_ref().map_err(|e| wrong(e.clone()))?;
        let mut asked = schema.clone();
        if let Value::Object(all) = &mut asked {
            // As Python's `json.dumps` writes it: models lose themselves in free white space.
            all.entry("x-guidance").or_insert_with(|| {
                json!({
                    "whitespace_flexible": false,
                    "item_separator": ", ",
                    "key_separator": ": ",
                })
            });
        }
        let grammar = TopLevelGrammar::from_json_schema(asked);
        let matcher = Matcher::new(factory.create_parser(grammar));
        match matcher.get_error() {
            Some(error) => Err(wrong(error)),
            None => Ok(Self {
                start: State::Schema(Box::new(matcher)),
                text: schema.to_string(),
                _model: model,
            }),
        }
    }

    /// The JSON schema that it was made of; `None` for one in GBNF.
    #[must_use]
    pub fn schema(&self) -> Option<Value> {
        match self.start {
            State::Gbnf(_) => None,
            State::Schema(_) => serde_json::from_str(&self.text).ok(),
        }
    }

    /// The beginning of a response.
    #[must_use]
    pub fn start(&self) -> GrammarState {
        GrammarState(self.start.copied())
    }
}

impl Model {
    /// What reads schemas for this vocabulary. It is made once: that takes longer than to read one.
    fn schemas(&self) -> &std::result::Result<ParserFactory, String> {
        self.schemas.get_or_init(|| {
            let env = LlamaSampler::llguidance_tok_env(self.as_llama_cpp_2());
            let mut factory = ParserFactory::new_simple(&env).map_err(|e| e.to_string())?;
            // What is wrong is said in its error, not on stderr.
            factory.quiet();
            Ok(factory)
        })
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar")
            .field("text", &self.text)
            .finish_non_exhaustive()
    }
}

impl GrammarState {
    /// Sets the `logits` `[vocabulary]` of tokens that may not come next to −∞; false where none may.
    ///
    /// # Errors
    /// [`Error::Run`] where the grammar has become too large to go on with.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<bool> {
        match &mut self.0 {
            State::Gbnf(sampler) => {
                let finite = (0..)
                    .zip(logits.iter())
                    .filter(|(_, logit)| logit.is_finite());
                let data = finite.map(|(i, &logit)| LlamaTokenData::new(LlamaToken(i), logit, 0.0));
                let mut array = LlamaTokenDataArray::new(data.collect(), false);
                sampler.apply(&mut array);
                for token in &array.data {
                    let index = usize::try_from(token.id().0).unwrap_or(usize::MAX);
                    if let Some(logit) = logits.get_mut(index) {
                        *logit = token.logit();
                    }
                }
            }
            State::Schema(matcher) => {
                let failed = |error| Error::Run(format!("the JSON schema: {error}"));
                let mask = matcher.compute_mask_or_eos().map_err(failed)?;
                for (token, logit) in (0_u32..).zip(logits.iter_mut()) {
                    if !mask.is_allowed(token) {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
        Ok(logits.iter().any(|logit| logit.is_finite()))
    }

    /// The response has `token` now, which was allowed and is no end.
    ///
    /// # Errors
    /// [`Error::Run`] where it was not.
    pub fn accept(&mut self, token: Token) -> Result<()> {
        let failed = |error: String| Error::Run(format!("the grammar and token {token}: {error}"));
        match &mut self.0 {
            State::Gbnf(sampler) => {
                sampler.accept(LlamaToken(token));
                Ok(())
            }
            State::Schema(matcher) if matcher.is_stopped() => Ok(()),
            State::Schema(matcher) => {
                let token = u32::try_from(token).map_err(|e| failed(e.to_string()))?;
                matcher
                    .consume_token(token)
                    .map_err(|e| failed(e.to_string()))
            }
        }
    }
}
