//! What a reward scores: a response, and the conversation that it answers.

use std::borrow::Cow;

use serde::Deserialize;

use crate::llama::Message;

/// A response to be scored, with the prompt it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample<'a> {
    /// The prompt as the user wrote it; of a conversation, the last user message.
    pub prompt: &'a str,
    /// The response, special tokens left out.
    pub response: &'a str,
    /// The conversation up to the response, the system prompt and the prompt in it; empty where
    /// the prompt is all there is.
    pub messages: &'a [Message],
}

impl<'a> Sample<'a> {
    /// A response to a prompt that is all there is.
    #[must_use]
    pub const fn new(prompt: &'a str, response: &'a str) -> Self {
        Self {
            prompt,
            response,
            messages: &[],
        }
    }

    /// The conversation up to the response, for models that take one.
    #[must_use]
    pub fn conversation(&self) -> Vec<Message> {
        match self.messages {
            [] => vec![Message::new("user", self.prompt)],
            messages => messages.to_vec(),
        }
    }

    /// The same as a text, for models that are asked about it: the prompt itself where it is all
    /// there is, else every message behind its role.
    #[must_use]
    pub fn transcript(&self) -> Cow<'a, str> {
        if self.messages.is_empty() {
            return self.prompt.into();
        }
        let messages = self.messages.iter();
        let turns: Vec<String> = messages
            .map(|message| format!("{}: {}", message.role, message.content))
            .collect();
        turns.join("\n\n").into()
    }
}

/// A [`Sample`] as a line of JSON says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedSample {
    /// The prompt; of a conversation, the last user message. May be empty.
    pub prompt: String,
    /// The response.
    pub response: String,
    /// The conversation up to the response; empty where the prompt is all there is.
    pub messages: Vec<Message>,
}

/// A text, or the messages of a conversation.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "neither a text nor messages, [{\"role\": \"user\", \"content\": \"…\"}, …]"
)]
pub enum TextOrMessages {
    /// A text.
    Text(String),
    /// Messages, each with its role.
    Messages(Vec<Message>),
}

impl From<&Sample<'_>> for OwnedSample {
    fn from(sample: &Sample<'_>) -> Self {
        Self {
            prompt: sample.prompt.to_owned(),
            response: sample.response.to_owned(),
            messages: sample.messages.to_vec(),
        }
    }
}

impl OwnedSample {
    /// Of the fields that data sets have: a prompt or the messages up to the response, and a
    /// response. A response of several messages is the last of them; those in front of it are the
    /// whole conversation, whatever the prompt is.
    ///
    /// # Errors
    /// A sentence on what is missing.
    pub fn new(
        prompt: Option<TextOrMessages>,
        response: Option<TextOrMessages>,
    ) -> Result<Self, String> {
        let mut before = Vec::new();
        let mut text = String::new();
        match prompt {
            Some(TextOrMessages::Text(prompt)) => text = prompt,
            Some(TextOrMessages::Messages(messages)) => before = messages,
            None => {}
        }
        let response = match response {
            Some(TextOrMessages::Text(response)) => response,
            Some(TextOrMessages::Messages(mut messages)) => {
                let last = messages.pop();
                if !messages.is_empty() {
                    before = messages;
                }
                said(last)?
            }
            None => said(before.pop())?,
        };
        if let Some(message) = before.iter().rev().find(|m| m.role == "user") {
            text.clone_from(&message.content);
        }
        // One message is the prompt itself.
        if let [message] = &before[..]
            && message.role == "user"
        {
            before.clear();
        }
        Ok(Self {
            prompt: text,
            response,
            messages: before,
        })
    }

    /// What a reward scores.
    #[must_use]
    pub fn sample(&self) -> Sample<'_> {
        Sample {
            prompt: &self.prompt,
            response: &self.response,
            messages: &self.messages,
        }
    }
}

/// The text of the assistant's message that has to be there.
fn said(message: Option<Message>) -> Result<String, String> {
    match message {
        Some(message) if message.role == "assistant" => Ok(message.content),
        Some(message) => Err(format!(
            "the response is missing: the last message is of the role {:?}, not assistant",
            message.role
        )),
        None => Err("the response is missing".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(prompt: &str, response: &str) -> Result<OwnedSample, String> {
        let field = |text: &str| serde_json::from_str(text).map_err(|e| e.to_string());
        OwnedSample::new(field(prompt)?, field(response)?)
    }

    const HELLO: &str = r#"{"role": "user", "content": "Hello."}"#;
    const HI: &str = r#"{"role": "assistant", "content": "Hi."}"#;
    const SYSTEM: &str = r#"{"role": "system", "content": "Be short."}"#;

    #[test]
    fn one_message_is_a_prompt_whatever_it_is_written_as() {
        let plain = read(r#""Hello.""#, r#""Hi.""#).unwrap();
        assert_eq!(plain.sample(), Sample::new("Hello.", "Hi."));
        for (prompt, response) in [
            (format!("[{HELLO}]"), r#""Hi.""#.to_owned()),
            (format!("[{HELLO}, {HI}]"), "null".into()),
            (r#""Hello.""#.into(), format!("[{HI}]")),
            (r#""Hello.""#.into(), format!("[{HELLO}, {HI}]")),
            (format!("[{HELLO}]"), format!("[{HI}]")),
            ("null".into(), format!("[{HELLO}, {HI}]")),
        ] {
            assert_eq!(
                read(&prompt, &response).as_ref(),
                Ok(&plain),
                "{prompt} {response}"
            );
        }
    }

    #[test]
    fn a_conversation_is_kept_whole() {
        let earlier = format!("[{SYSTEM}, {HELLO}, {HI}, {HELLO}]");
        let sample = read(&earlier, r#""Hi again.""#).unwrap();
        assert_eq!(
            (sample.messages.len(), sample.prompt.as_str()),
            (4, "Hello.")
        );
        let text = sample.sample().transcript().into_owned();
        assert_eq!(
            text,
            "system: Be short.\n\nuser: Hello.\n\nassistant: Hi.\n\nuser: Hello."
        );
        let whole = format!("[{SYSTEM}, {HELLO}, {HI}]");
        let sample = read("null", &whole).unwrap();
        assert_eq!(
            (sample.messages.len(), sample.response.as_str()),
            (2, "Hi.")
        );
    }

    #[test]
    fn a_missing_response_is_said_to_be_missing() {
        for (prompt, response) in [
            (format!("[{HELLO}]"), "null"),
            (r#""Hello.""#.into(), "null"),
            (r#""Hello.""#.into(), "[]"),
        ] {
            let error = read(&prompt, response).unwrap_err();
            assert!(error.contains("response is missing"), "{error}");
        }
        let error = read("null", "3").unwrap_err();
        assert!(error.contains("neither a text nor messages"), "{error}");
    }
}
