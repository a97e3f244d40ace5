//! Chat templates: the Jinja text in the GGUF, rendered to the model's own markup.
//!
//! The markup's special tokens must become tokens; the same characters inside a message
//! must not, or a message could end its own turn and speak for the model. So special texts
//! inside messages are tokenised apart, as plain text.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind, context};
use serde::{Deserialize, Serialize};

use super::model::{Model, Token};
use crate::error::{Error, Result};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// A chat template with the model's BOS and EOS texts.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// The template in the model's file, or `custom` where given.
    ///
    /// # Errors
    /// [`Error::Model`] when the file has none and no other is given, [`Error::Field`] for a
    /// text without any Jinja, such as the name of a template.
    pub fn new(model: &Model, custom: Option<&str>) -> Result<Self> {
        let source = match custom {
            Some(text) if text.contains("{{") || text.contains("{%") => text,
            Some(text) => {
                return Err(Error::field(
                    "chat-template",
                    format!(
                        "{text:?} is no Jinja template; give the template's text, not its name"
                    ),
                ));
            }
            None => model.gguf().str("tokenizer.chat_template").ok_or_else(|| {
                Error::model(
                    model.path(),
                    "tokenizer.chat_template: missing, so this is probably a base model; \
                     use `chat` = false for raw text, or give a `chat-template`",
                )
            })?,
        };
        let (bos, eos) = model.bos_eos_text();
        Ok(Self {
            source: source.to_owned(),
            bos,
            eos,
        })
    }

    /// The conversation as the model's markup; `open_turn` adds the opening of the
    /// assistant's turn.
    ///
    /// The current date is not offered to templates: the same messages give the same text.
    ///
    /// # Errors
    /// [`Error::Field`] with the template's own words when it cannot be parsed or refuses
    /// the conversation.
    pub fn render(&self, messages: &[Message], open_turn: bool) -> Result<String> {
        let mut env = Environment::new();
        // Hugging Face renders with these two on and with Python's string methods.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|e| Error::Run(format!("template syntax: {e}")))?;
        env.set_syntax(syntax);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_function(
            "raise_exception",
            |text: String| -> std::result::Result<String, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
            },
        );
        env.render_str(
            &self.source,
            context! {
                messages => Value::from(Serde(messages)),
                bos_token => self.bos.as_str(),
                eos_token => self.eos.as_str(),
                add_generation_prompt => open_turn,
            },
        )
        .map_err(|e| {
            Error::field(
                "chat-template",
                format!(
                    "cannot render the conversation: {e}; give another template, or use \
                     `chat` = false"
                ),
            )
        })
    }

    /// Tokens of the conversation: markup as special tokens, message text as plain text.
    ///
    /// # Errors
    /// Those of [`Self::render`].
    pub fn tokenize(
        &self,
        model: &Model,
        messages: &[Message],
        open_turn: bool,
    ) -> Result<Vec<Token>> {
        let contents: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
        tokenize_guarded(model, &contents, |contents| {
            let guarded: Vec<Message> = messages
                .iter()
                .zip(contents)
                .map(|(m, content)| Message::new(&m.role, content))
                .collect();
            self.render(&guarded, open_turn)
        })
    }
}

/// Tokens of the text that `render` makes of `contents`: special texts that `render` adds
/// become special tokens, those inside `contents` stay text. What the model wants around a
/// text (BOS, EOS, CLS, SEP) is added, unless the text begins with BOS itself.
pub(crate) fn tokenize_guarded(
    model: &Model,
    contents: &[&str],
    render: impl FnOnce(&[String]) -> Result<String>,
) -> Result<Vec<Token>> {
    let specials = model.special_texts();
    let mut guard = Guard::new(contents);
    let guarded: Vec<String> = contents
        .iter()
        .map(|text| guard.protect(text, specials))
        .collect();
    let text = render(&guarded)?;
    let (bos, _) = model.bos_eos_text();
    let add_special = bos.is_empty() || !text.starts_with(&bos);
    if guard.hidden.is_empty() {
        return Ok(model.tokenize(&text, add_special, true));
    }
    let around = if add_special {
        model.tokenize("", true, true)
    } else {
        Vec::new()
    };
    // What goes before a text is BOS (or CLS); anything else goes behind it.
    let before = usize::from(around.first().is_some_and(|&t| Some(t) == model.bos()));
    let mut tokens = around[..before].to_vec();
    for (i, part) in text.split(guard.mark).enumerate() {
        // Odd parts are the numbers between two marks.
        if i % 2 == 0 {
            tokens.extend(model.tokenize(part, false, true));
        } else if let Some(text) = part.parse().ok().and_then(|n: usize| guard.hidden.get(n)) {
            tokens.extend(model.tokenize(text, false, false));
        }
    }
    tokens.extend(&around[before..]);
    Ok(tokens)
}

/// Special texts taken out of messages, a numbered mark in the place of each.
struct Guard {
    mark: char,
    hidden: Vec<String>,
}

impl Guard {
    fn new(contents: &[&str]) -> Self {
        // A private-use character that no message contains.
        let mark = ('\u{E000}'..='\u{F8FF}')
            .find(|c| contents.iter().all(|text| !text.contains(*c)))
            .unwrap_or('\u{10FFFD}');
        Self {
            mark,
            hidden: Vec::new(),
        }
    }

    fn protect(&mut self, text: &str, specials: &[String]) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let found = specials
                .iter()
                .filter(|s| rest.starts_with(s.as_str()))
                .max_by_key(|s| s.len());
            let taken = if let Some(special) = found {
                out.push_str(&format!("{0}{1}{0}", self.mark, self.hidden.len()));
                self.hidden.push(special.clone());
                special.len()
            } else {
                out.push(c);
                c.len_utf8()
            };
            rest = &rest[taken..];
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate {
            source: source.into(),
            bos: "<s>".into(),
            eos: "</s>".into(),
        }
    }

    #[test]
    fn templates_see_python_methods_loop_controls_and_tokens() {
        let t = template(
            "{{ bos_token }}{% for m in messages %}{% if m.role == 'skip' %}{% continue %}{% endif %}\
             [{{ m['role'].upper() }}] {{ m.content.strip() }}{{ eos_token }}{% endfor %}\
             {% if add_generation_prompt %}>{% endif %}",
        );
        let messages = [
            Message::new("user", " hi "),
            Message::new("skip", "x"),
            Message::new("assistant", "yo"),
        ];
        assert_eq!(
            t.render(&messages, true).unwrap(),
            "<s>[USER] hi</s>[ASSISTANT] yo</s>>"
        );
    }

    #[test]
    fn a_template_that_refuses_is_quoted() {
        let error = template("{{ raise_exception('roles must alternate') }}")
            .render(&[Message::new("user", "hi")], true)
            .unwrap_err();
        assert!(
            error.to_string().contains("roles must alternate"),
            "{error}"
        );
        assert!(matches!(error, Error::Field { .. }));
    }

    #[test]
    fn special_texts_are_hidden_longest_first() {
        let content = "a<e>b<e><end>";
        let mut guard = Guard::new(&[content]);
        let text = guard.protect(content, &["<e>".into(), "<e><end>".into()]);
        assert_eq!(guard.hidden, ["<e>", "<e><end>"]);
        assert_eq!(text.matches(guard.mark).count(), 4);
        assert!(!text.contains('<'));
    }
}
