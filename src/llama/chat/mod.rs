//! Chat templates: the Jinja text in the GGUF, rendered to the model's own markup.

mod builtin;
mod jinja;
mod reasoning;
mod source;
mod tokens;

use std::sync::OnceLock;

use jiff::civil::DateTime;
use minijinja::context;
use minijinja::value::{Serde, Value};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::model::{Model, Token};
use crate::error::{Error, Result};
use crate::text::brief;
pub use reasoning::{ReasoningMarkers, Think};
pub(crate) use tokens::tokenize_guarded;

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

/// How conversations are rendered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatOptions {
    /// A template instead of the one in the file: Jinja, or the name of one that llama.cpp knows.
    pub template: Option<String>,
    /// What templates see beside what they always do, such as `enable_thinking`.
    pub variables: serde_json::Map<String, Json>,
    /// Whether the model is to think before it answers; `None` is [`Think::Off`] where the template
    /// has a switch for it, else [`Think::Auto`].
    pub think: Option<Think>,
    /// What `strftime_now` tells; `None` is the time when this process first made a template.
    pub date: Option<DateTime>,
}

impl ChatOptions {
    /// The same with further variables, and with what they tell of thinking.
    #[must_use]
    pub fn with(mut self, variables: &serde_json::Map<String, Json>) -> Self {
        self.think = reasoning::told_by(variables).or(self.think);
        self.variables.extend(variables.clone());
        self
    }

    /// The same for another model's conversations, and one that is asked and does not think: without
    /// a template.
    #[must_use]
    pub fn of_any_model(&self) -> Self {
        Self {
            template: None,
            think: Some(Think::Off),
            ..self.clone()
        }
    }
}

/// Whether a text is a template, and no name of one.
fn is_jinja(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// The same for all templates of a process.
fn first_asked() -> DateTime {
    static DATE: OnceLock<DateTime> = OnceLock::new();
    *DATE.get_or_init(|| jiff::ZonedDateTime::now().datetime())
}

/// A chat template with the model's BOS and EOS texts.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    bos: String,
    eos: String,
    variables: serde_json::Map<String, Json>,
    think: Option<Think>,
    date: DateTime,
}

/// A conversation as the model's markup, with the assistant's turn opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The markup.
    pub text: String,
    /// How the model marks its reasoning, where the template says it.
    pub reasoning: Option<ReasoningMarkers>,
    /// Whether the model thinks before it answers.
    pub thinks: bool,
    /// Whether the markup has opened the reasoning already.
    pub opened: bool,
}

impl ChatTemplate {
    /// The template in the model's file, or that of the options where they have one.
    ///
    /// # Errors
    /// [`Error::Model`] when the file has none and no other is given, [`Error::Field`] for a
    /// text without any Jinja that is no name either.
    pub fn new(model: &Model, options: &ChatOptions) -> Result<Self> {
        let own = model.gguf().chat_template();
        let source = match options.template.as_deref() {
            Some(text) if is_jinja(text) || builtin::names().iter().any(|name| name == text) => {
                text
            }
            Some(text) => {
                return Err(Error::field(
                    "chat-template",
                    format!(
                        "{text:?} is neither a Jinja template nor the name of one that llama.cpp \
                         knows: {}",
                        builtin::names().join(", ")
                    ),
                ));
            }
            None => own.ok_or_else(|| {
                Error::model(
                    model.path(),
                    "tokenizer.chat_template: missing or empty, so this is probably a base model; \
                     use `chat` = false for raw text, or give a `chat-template`",
                )
            })?,
        };
        let (bos, eos) = model.bos_eos_text();
        Ok(Self::of(source, &bos, &eos, options))
    }

    /// A template by its text, whatever that of the options is, with the texts of the BOS and EOS
    /// tokens.
    #[must_use]
    pub fn of(source: &str, bos: &str, eos: &str, options: &ChatOptions) -> Self {
        Self {
            source: source.to_owned(),
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            variables: options.variables.clone(),
            think: options
                .think
                .or_else(|| reasoning::told_by(&options.variables)),
            date: options.date.unwrap_or_else(first_asked),
        }
    }

    /// The date that it tells, where it asks for one.
    #[must_use]
    pub fn date(&self) -> Option<DateTime> {
        self.source.contains("strftime_now").then_some(self.date)
    }

    /// The conversation as the model's markup; `open_turn` adds the opening of the
    /// assistant's turn, as [`open`](Self::open) does.
    ///
    /// `strftime_now` tells the [date](ChatOptions::date) of the options: the same messages give the same
    /// text.
    ///
    /// # Errors
    /// [`Error::Field`] with the template's own words when it cannot be parsed or refuses
    /// the conversation.
    pub fn render(&self, messages: &[Message], open_turn: bool) -> Result<String> {
        match open_turn {
            true => Ok(self.open(messages)?.text),
            false => self.told(messages, false, Think::Auto),
        }
    }

    /// The conversation with the assistant's turn opened; where the model is not to think, reasoning
    /// that the template opens is closed again.
    ///
    /// # Errors
    /// Those of [`render`](Self::render).
    pub fn open(&self, messages: &[Message]) -> Result<Turn> {
        let on = self.told(messages, true, Think::On)?;
        let reasoning = ReasoningMarkers::of(&self.source);
        let reasoning = reasoning.or_else(|| ReasoningMarkers::opening(&on));
        let auto = || self.told(messages, true, Think::Auto);
        let Some(markers) = reasoning else {
            return Ok(Turn {
                text: auto()?,
                reasoning,
                thinks: false,
                opened: false,
            });
        };
        let off = self.told(messages, true, Think::Off)?;
        let switch = off != on || markers.direct.is_some();
        let think = self
            .think
            .unwrap_or(if switch { Think::Off } else { Think::Auto });
        let mut text = match think {
            Think::Off => off.clone(),
            Think::On => on.clone(),
            Think::Auto => auto()?,
        };
        let opened = markers.opened_by(&text);
        // What a template does that is told nothing, it may do because the model thinks then.
        let thinks = match think {
            Think::Off => false,
            Think::On => true,
            Think::Auto => opened || off != on && text == on,
        };
        match think {
            Think::Off if opened => text += &markers.ending(),
            Think::Off => text += markers.direct.unwrap_or_default(),
            _ => {}
        }
        let opened = markers.opened_by(&text);
        Ok(Turn {
            text,
            reasoning,
            thinks,
            opened,
        })
    }

    fn told(&self, messages: &[Message], open_turn: bool, think: Think) -> Result<String> {
        self.rendered(messages, open_turn, think).map_err(|e| {
            Error::field(
                "chat-template",
                format!(
                    "cannot render the conversation: {}; give another template, or use `chat` = \
                     false",
                    brief(&e.to_string(), 400)
                ),
            )
        })
    }

    fn rendered(
        &self,
        messages: &[Message],
        open_turn: bool,
        think: Think,
    ) -> std::result::Result<String, minijinja::Error> {
        if !is_jinja(&self.source) {
            let rendered = builtin::render(&self.source, messages, open_turn);
            let wrong = || {
                let kind = minijinja::ErrorKind::InvalidOperation;
                minijinja::Error::new(
                    kind,
                    format!("llama.cpp cannot fill {}", brief(&self.source, 60)),
                )
            };
            return rendered.ok_or_else(wrong);
        }
        let env = jinja::environment(self.date)?;
        let mut all = serde_json::Map::new();
        // What transformers always offers; what the caller says comes last.
        all.insert("tools".into(), Json::Null);
        all.insert("documents".into(), Json::Null);
        all.insert("bos_token".into(), self.bos.as_str().into());
        all.insert("eos_token".into(), self.eos.as_str().into());
        all.insert("add_generation_prompt".into(), open_turn.into());
        all.extend(reasoning::told(think));
        all.extend(self.variables.clone());
        let all = Value::from(Serde(all));
        env.render_str(
            &source::prepare(&self.source),
            context! { messages => Value::from(Serde(messages)), ..all },
        )
    }

    /// Tokens of the conversation with the assistant's turn opened; [`text`](Turn::text) has marks in
    /// the place of special texts inside messages.
    ///
    /// # Errors
    /// Those of [`Self::render`].
    pub fn tokenize_open(&self, model: &Model, messages: &[Message]) -> Result<(Vec<Token>, Turn)> {
        let mut turn = None;
        let tokens = self.tokenized(model, messages, |messages| {
            Ok(turn.insert(self.open(messages)?).text.clone())
        })?;
        let turn = turn.ok_or_else(|| Error::Run("no turn was opened".into()))?;
        Ok((tokens, turn))
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
        self.tokenized(model, messages, |messages| self.render(messages, open_turn))
    }

    /// Tokens of what `render` makes of the conversation.
    fn tokenized(
        &self,
        model: &Model,
        messages: &[Message],
        render: impl FnOnce(&[Message]) -> Result<String>,
    ) -> Result<Vec<Token>> {
        let contents: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
        tokenize_guarded(model, &contents, |contents| {
            let guarded: Vec<Message> = messages
                .iter()
                .zip(contents)
                .map(|(m, content)| Message::new(&m.role, content))
                .collect();
            render(&guarded)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        let options = ChatOptions {
            date: Some(jiff::civil::date(2026, 1, 5).at(8, 9, 0, 0)),
            ..ChatOptions::default()
        };
        ChatTemplate::of(source, "<s>", "</s>", &options)
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
    fn what_transformers_and_python_add_is_there() {
        let user = [Message::new("user", "a,b,<c> é")];
        for (source, expected) in [
            (
                "{% generation %}{{ messages[0].role }}{% endgeneration %}",
                "user",
            ),
            ("{{ strftime_now('%d %b %Y') }}", "05 Jan 2026"),
            ("{{ strftime_now('%Y-%m-%d %H:%M') }}", "2026-01-05 08:09"),
            ("{% if tools is not none %}TOOLS{% endif %}", ""),
            (
                "{% if tools is iterable or 3 is sequence %}TOOLS{% endif %}",
                "",
            ),
            (
                "{{ 'a' is sequence and {} is sequence and 'a' is iterable }}",
                "True",
            ),
            ("{{ '%s!' % messages[0].content }}", "a,b,<c> é!"),
            ("{{ '%d of %s' % (3, 'x'.upper()) }}", "3 of X"),
            ("{{ messages[0].content.rsplit(',', 1)[0] }}", "a,b"),
            (
                "{{ 'ab'.removeprefix('a') ~ 'ab'.removesuffix('b') }}",
                "ba",
            ),
            (
                "{{ 'a=b=c'.partition('=')[2] ~ 'a=b=c'.rpartition('=')[0] }}",
                "b=ca=b",
            ),
            (
                "{{ '-7'.zfill(4) ~ 'x'.center(4, '*') ~ 'ABC'.swapcase() }}",
                "-007*x**abc",
            ),
            ("{{ messages[0].content | tojson }}", "\"a,b,<c> é\""),
            (
                "{{ messages[0].content | tojson(ensure_ascii=True) }}",
                "\"a,b,<c> \\u00e9\"",
            ),
            (
                "{{ {'b': [1, 1e100], 'a': none} | tojson }}",
                "{\"b\": [1, 1e+100], \"a\": null}",
            ),
            (
                "{{ {'b': 1, 'a': []} | tojson(indent=2, sort_keys=True) }}",
                "{\n  \"a\": [],\n  \"b\": 1\n}",
            ),
            ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ] {
            assert_eq!(
                template(source).render(&user, true).unwrap(),
                expected,
                "{source}"
            );
        }
    }

    #[test]
    fn a_template_without_an_end_is_ended() {
        let rounds = "{% for a in range(9999) %}".repeat(4) + &"{% endfor %}".repeat(4);
        let doubled = "{% set ns = namespace(a='12345678') %}{% for i in range(60) %}\
                       {% set ns.a = ns.a + ns.a %}{% endfor %}{{ ns.a }}";
        let shared = "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}\
                      {% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a | tojson(indent=9) }}";
        let copied = "{% set ns = namespace(a='x' * 1000000) %}{% for i in range(9999) %}\
                      {% set b = ns.a.istitle() %}{% endfor %}";
        for source in [rounds.as_str(), doubled, shared, copied] {
            let error = template(source).render(&[], true).unwrap_err().to_string();
            assert!(error.contains("fuel"), "{error}");
        }
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
}
