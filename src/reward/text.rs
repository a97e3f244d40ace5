//! The text a reward model sees of a prompt and a response.

use std::fmt;

use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::llama::{ChatTemplate, Message, Model, Token, tokenize_guarded};

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
    /// Reads a flag or metadata value: `chat`, or a pattern in which `\n` is a line break.
    ///
    /// # Errors
    /// [`Error::Usage`] when the pattern has no `{response}`.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "chat" {
            return Ok(Self::Chat);
        }
        if !text.contains("{response}") {
            return Err(Error::usage(
                "--reward-text",
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
    pub(super) fn tokenize(
        &self,
        model: &Model,
        chat: Option<&ChatTemplate>,
        prompt: &str,
        response: &str,
    ) -> Result<Vec<Token>> {
        match (self, chat) {
            (Self::Chat, Some(chat)) => {
                let messages = [
                    Message::new("user", prompt),
                    Message::new("assistant", response),
                ];
                chat.tokenize(model, &messages, false)
            }
            (Self::Chat, None) => Err(Error::Reward("no chat template is loaded".into())),
            (Self::Pattern(pattern), _) => tokenize_guarded(model, &[prompt, response], |texts| {
                Ok(fill(pattern, &texts[0], &texts[1]))
            }),
        }
    }
}

/// Puts prompt and response into the pattern; braces inside them stay as they are.
fn fill(pattern: &str, prompt: &str, response: &str) -> String {
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
        assert_eq!(error.exit_code(), 2);
    }
}
