//! The text a reward model sees of a prompt and a response.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Sample, SampleError};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::llama::{ChatOptions, ChatTemplate, Message, Model, Token, tokenize_guarded};

/// Metadata key of a reward GGUF that states its text.
const TEXT_KEY: &str = "aisp.reward.text";

/// How prompt and response become one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RewardText {
    /// A pattern with `{response}` and, if wanted, `{prompt}`.
    Pattern(String),
    /// The reward model's own chat template: prompt as user, response as assistant.
    Chat,
}

impl Default for RewardText {
    fn default() -> Self {
        Self::Pattern("{prompt}\n{response}".into())
    }
}

impl fmt::Display for RewardText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(pattern) => f.write_str(&pattern.escape_debug().to_string()),
            Self::Chat => f.write_str("chat"),
        }
    }
}

impl RewardText {
    /// Reads a setting or metadata value: `chat`, or a pattern in which `\n` is a line break.
    ///
    /// # Errors
    /// [`Error::Field`] when the pattern has no `{response}`.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "chat" {
            return Ok(Self::Chat);
        }
        if !text.contains("{response}") {
            return Err(Error::field(
                "reward-text",
                format!(
                    "{text:?} has no {{response}}; write {{response}}, \
                         {{prompt}}\\n{{response}} or chat"
                ),
            ));
        }
        Ok(Self::Pattern(text.replace("\\n", "\n")))
    }

    /// What the file states, and whether it states anything; the default is
    /// `{prompt}\n{response}`.
    ///
    /// # Errors
    /// Those of [`Self::parse`].
    pub fn of_file(gguf: &Gguf) -> Result<(Self, bool)> {
        match gguf.str(TEXT_KEY) {
            Some(text) => Ok((Self::parse(text)?, true)),
            None => Ok((Self::default(), false)),
        }
    }

    /// Tokens of the text; neither prompt nor response can bring in special tokens.
    ///
    /// # Errors
    /// Those of the chat template.
    fn tokenize(
        &self,
        model: &Model,
        chat: Option<&ChatTemplate>,
        sample: &Sample<'_>,
    ) -> Result<Vec<Token>> {
        match (self, chat) {
            (Self::Chat, Some(chat)) => {
                let mut messages = sample.conversation();
                messages.push(Message::new("assistant", sample.response));
                let rendered = chat.tokenize(model, &messages, false);
                // Gemma's template knows no system prompt.
                rendered.or_else(|error| match without_system(&messages) {
                    Some(messages) => chat.tokenize(model, &messages, false),
                    None => Err(error),
                })
            }
            (Self::Chat, None) => Err(Error::Reward("no chat template is loaded".into())),
            (Self::Pattern(pattern), _) => {
                tokenize_guarded(model, &[sample.prompt, sample.response], |texts| {
                    Ok(fill(pattern, &texts[0], &texts[1]))
                })
            }
        }
    }
}

/// The conversation with its system prompt in front of the first message behind it, where it has
/// one.
fn without_system(messages: &[Message]) -> Option<Vec<Message>> {
    let [system, first, rest @ ..] = messages else {
        return None;
    };
    (system.role == "system").then(|| {
        let content = format!("{}\n\n{}", system.content, first.content);
        let mut folded = vec![Message::new(&first.role, content)];
        folded.extend_from_slice(rest);
        folded
    })
}

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

/// Makes tokens of samples for one reward model.
pub(super) struct Tokenizer {
    model: Arc<Model>,
    text: RewardText,
    chat: Option<ChatTemplate>,
    too_long: TooLong,
    limit: usize,
}

/// Tokens of a text, and whether its end was cut off.
pub(super) type Tokens = (Vec<Token>, bool);

impl Tokenizer {
    /// For texts of at most `limit` tokens.
    ///
    /// # Errors
    /// [`Error::Model`] when the chat template is wanted and the file has none.
    pub(super) fn new(
        model: &Arc<Model>,
        text: RewardText,
        rendering: &ChatOptions,
        too_long: TooLong,
        limit: usize,
    ) -> Result<Self> {
        let chat = match text {
            RewardText::Chat => Some(ChatTemplate::new(model, rendering)?),
            RewardText::Pattern(_) => None,
        };
        Ok(Self {
            model: Arc::clone(model),
            text,
            chat,
            too_long,
            limit,
        })
    }

    pub(super) fn text(&self) -> &RewardText {
        &self.text
    }

    /// # Errors
    /// Those of the chat template; a sample without tokens or with too many has an error of
    /// its own.
    pub(super) fn tokens(
        &self,
        sample: &Sample<'_>,
    ) -> Result<std::result::Result<Tokens, SampleError>> {
        let mut tokens = self
            .text
            .tokenize(&self.model, self.chat.as_ref(), sample)?;
        let (count, limit) = (tokens.len(), self.limit);
        if count == 0 {
            return Ok(Err(SampleError::Other("no tokens to score".into())));
        }
        if count > limit {
            if self.too_long == TooLong::Refuse {
                let tokens = count;
                return Ok(Err(SampleError::TooLong { tokens, limit }));
            }
            // The last token closes the text ([SEP] in BERT, the end of a turn): it stays.
            tokens.drain(limit - 1..count - 1);
        }
        Ok(Ok((tokens, count > limit)))
    }
}

/// Puts prompt and response into the pattern; braces inside them stay as they are.
pub(super) fn fill(pattern: &str, prompt: &str, response: &str) -> String {
    pattern
        .split("{response}")
        .map(|part| part.replace("{prompt}", prompt))
        .collect::<Vec<_>>()
        .join(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_cannot_bring_in_the_prompt() {
        assert_eq!(
            fill("{prompt}|{response}", "P", "{prompt}{response}"),
            "P|{prompt}{response}"
        );
    }

    #[test]
    fn patterns_need_a_response() {
        assert_eq!(RewardText::parse("chat").unwrap(), RewardText::Chat);
        assert_eq!(
            RewardText::parse("{prompt}\\n{response}").unwrap(),
            RewardText::default()
        );
        let error = RewardText::parse("{prompt}").unwrap_err();
        assert!(matches!(error, Error::Field { .. }));
    }
}
