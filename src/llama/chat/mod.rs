//! Chat templates: the Jinja text in the GGUF, rendered to the model's own markup.
//!
//! The markup's special tokens must become tokens; the same characters inside a message
//! must not, or a message could end its own turn and speak for the model. So special texts
//! inside messages are tokenised apart, as plain text.

mod jinja;
mod source;

use std::sync::OnceLock;

use jiff::civil::DateTime;
use minijinja::context;
use minijinja::value::{Serde, Value};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

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

/// How conversations are rendered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatOptions {
    /// A template instead of the one in the file.
    pub template: Option<String>,
    /// What templates see beside what they always do, such as `enable_thinking`.
    pub variables: serde_json::Map<String, Json>,
    /// What `strftime_now` tells; `None` is the time when this process first made a template.
    pub date: Option<DateTime>,
}

impl ChatOptions {
    /// The same without a template: for another model's conversations.
    #[must_use]
    pub fn of_any_model(&self) -> Self {
        Self {
            template: None,
            ..self.clone()
        }
    }
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
    date: DateTime,
}

impl ChatTemplate {
    /// The template in the model's file, or that of the options where they have one.
    ///
    /// # Errors
    /// [`Error::Model`] when the file has none and no other is given, [`Error::Field`] for a
    /// text without any Jinja, such as the name of a template.
    pub fn new(model: &Model, options: &ChatOptions) -> Result<Self> {
        let source = match options.template.as_deref() {
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
            date: options.date.unwrap_or_else(first_asked),
        }
    }

    /// The date that it tells, where it asks for one.
    #[must_use]
    pub fn date(&self) -> Option<DateTime> {
        self.source.contains("strftime_now").then_some(self.date)
    }

    /// The conversation as the model's markup; `open_turn` adds the opening of the
    /// assistant's turn.
    ///
    /// `strftime_now` tells the [date](ChatOptions::date) of the options: the same messages give the same
    /// text.
    ///
    /// # Errors
    /// [`Error::Field`] with the template's own words when it cannot be parsed or refuses
    /// the conversation.
    pub fn render(&self, messages: &[Message], open_turn: bool) -> Result<String> {
        self.rendered(messages, open_turn).map_err(|e| {
            Error::field(
                "chat-template",
                format!(
                    "cannot render the conversation: {e}; give another template, or use \
                     `chat` = false"
                ),
            )
        })
    }

    fn rendered(
        &self,
        messages: &[Message],
        open_turn: bool,
    ) -> std::result::Result<String, minijinja::Error> {
        let env = jinja::environment(self.date)?;
        let mut all = serde_json::Map::new();
        // What transformers always offers; what the caller says comes last.
        all.insert("tools".into(), Json::Null);
        all.insert("documents".into(), Json::Null);
        all.insert("bos_token".into(), self.bos.as_str().into());
        all.insert("eos_token".into(), self.eos.as_str().into());
        all.insert("add_generation_prompt".into(), open_turn.into());
        all.extend(self.variables.clone());
        let all = Value::from(Serde(all));
        env.render_str(
            &source::prepare(&self.source),
            context! { messages => Value::from(Serde(messages)), ..all },
        )
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
        for source in [rounds.as_str(), doubled] {
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
