//! Prompts as requests write them: conversations, texts, tokens.

use serde::Deserialize;
use serde_json::Value;

use super::failure::Failure;
use super::fields::Fields;
use crate::align::{Opened, Prompt};
use crate::error::Result as Outcome;
use crate::llama::{ChatOptions, ChatTemplate, Message, Model, Token};

/// A prompt, as the reward and as the model see it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) seen: Prompt,
    pub(super) opened: Opened,
}

/// A message as it is sent. What an assistant has thought, or called, is no part of the
/// conversation.
#[derive(Deserialize)]
struct Sent {
    role: String,
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

const ASSISTANT: &str = "assistant";

impl Sent {
    fn message(self) -> Result<Message, String> {
        let content = match self.content {
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                let texts = parts
                    .into_iter()
                    .map(|part| match (&*part.kind, part.text) {
                        ("text" | "input_text" | "output_text", Some(text)) => Ok(text),
                        (kind, _) => {
                            Err(format!("content of type {kind:?}; this server reads text"))
                        }
                    });
                texts.collect::<Result<Vec<_>, _>>()?.concat()
            }
            None if self.role == ASSISTANT => String::new(),
            None => return Err("content: missing".into()),
        };
        // What OpenAI calls it since reasoning models.
        let role = match self.role.as_str() {
            "developer" => "system",
            role => role,
        };
        Ok(Message::new(role, content))
    }
}

/// The conversation in the field `messages`, behind `system` where it has no system prompt.
pub(super) fn messages(fields: Fields<'_>, system: Option<&str>) -> Result<Vec<Message>, Failure> {
    let missing = || Failure::field("messages", "missing; a list of {\"role\", \"content\"}");
    let list = fields.list("messages")?.ok_or_else(missing)?;
    let mut messages = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let name = format!("messages[{index}]");
        let sent = Sent::deserialize(value).map_err(|e| Failure::field(&name, e))?;
        messages.push(sent.message().map_err(|e| Failure::field(&name, e))?);
    }
    if messages.is_empty() {
        return Err(missing());
    }
    if let [.., a, b] = &messages[..]
        && [a, b].iter().all(|message| message.role == ASSISTANT)
    {
        let reason = "two messages of the assistant at the end; the last one is continued";
        return Err(Failure::field("messages", reason));
    }
    if let Some(system) = system
        && messages.iter().all(|message| message.role != "system")
    {
        messages.insert(0, Message::new("system", system));
    }
    Ok(messages)
}

/// A conversation as the model sees it. One that ends with the assistant's words is gone on with
/// from there; no reasoning comes before the rest of an answer.
pub(super) fn converse(
    model: &Model,
    chat: &ChatOptions,
    mut messages: Vec<Message>,
) -> Outcome<Asked> {
    let begun = match messages.last() {
        Some(last) if last.role == ASSISTANT => messages.pop(),
        _ => None,
    };
    let prompt = Prompt::Chat(messages);
    let mut opened = Opened::new(model, chat, &prompt)?;
    if let Some(begun) = begun {
        let turn = opened.turn.take();
        if let Some(turn) = turn.filter(|turn| turn.opened)
            && let Some(markers) = turn.reasoning
        {
            opened
                .tokens
                .extend(model.tokenize(&markers.ending(), false, true));
        }
        opened
            .tokens
            .extend(model.tokenize(&begun.content, false, false));
    }
    Ok(Asked {
        seen: prompt,
        opened,
    })
}

/// The markup that a conversation becomes.
pub(super) fn markup(model: &Model, chat: &ChatOptions, messages: &[Message]) -> Outcome<String> {
    let template = ChatTemplate::new(model, chat)?;
    match messages {
        [before @ .., last] if last.role == ASSISTANT => {
            Ok(template.render(before, true)? + &last.content)
        }
        all => template.render(all, true),
    }
}

/// The prompts in the field `prompt`: a text; tokens; a list in which both are mixed; or a list of
/// any of these.
pub(super) fn prompts(model: &Model, fields: Fields<'_>) -> Result<Vec<Asked>, Failure> {
    let missing = || Failure::field("prompt", "missing; a text, tokens, or a list of them");
    let value = fields.value("prompt").ok_or_else(missing)?;
    let many = |list: &[Value]| {
        let texts = list.iter().filter(|v| v.is_string()).count();
        list.iter().any(|v| v.is_array() || v.is_object()) || texts == list.len()
    };
    let all = match value {
        Value::Array(list) if many(list) => list.iter().collect(),
        other => vec![other],
    };
    if all.is_empty() {
        return Err(missing());
    }
    all.into_iter().map(|value| prompt(model, value)).collect()
}

fn prompt(model: &Model, value: &Value) -> Result<Asked, Failure> {
    let wrong = || Failure::field("prompt", "must be a text, tokens, or a list of them");
    let tokens = match value {
        Value::String(text) => model.tokenize(text, true, true),
        Value::Array(list) => mixed(model, list).ok_or_else(wrong)?,
        // As llama-server takes it.
        Value::Object(one) => match one.get("prompt_string").and_then(Value::as_str) {
            Some(text) => model.tokenize(text, true, true),
            None => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    if tokens.is_empty() {
        return Err(Failure::field("prompt", "it has no tokens"));
    }
    let text = match value {
        Value::String(text) => text.clone(),
        _ => model.text(&tokens),
    };
    let opened = Opened { tokens, turn: None };
    Ok(Asked {
        seen: Prompt::Raw(text),
        opened,
    })
}

/// Texts and tokens one behind the other; `None` for anything else among them, or what is no token.
fn mixed(model: &Model, list: &[Value]) -> Option<Vec<Token>> {
    let mut tokens: Vec<Token> = Vec::new();
    for (index, value) in list.iter().enumerate() {
        match value {
            Value::String(text) => tokens.extend(model.tokenize(text, index == 0, true)),
            other => tokens.push(token(model, other)?),
        }
    }
    Some(tokens)
}

/// A token of the vocabulary.
pub(super) fn token(model: &Model, value: &Value) -> Option<Token> {
    let token = Token::try_from(value.as_i64()?).ok()?;
    let known = usize::try_from(token).is_ok_and(|index| index < model.vocabulary());
    known.then_some(token)
}
