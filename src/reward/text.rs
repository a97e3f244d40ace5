//! The text a reward model sees of a prompt and a response.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{LinearHead, ReadText, Sample, SampleError};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::llama::{
    ChatOptions, ChatTemplate, Message, Model, Token, has_head, is_encoder, tokenize_guarded,
};

/// Metadata key of a reward GGUF that states its text.
const TEXT_KEY: &str = "aisp.reward.text";
/// That of the text with `{query}` and `{document}`, as llama.cpp's converter writes it.
const RERANK_KEY: &str = "tokenizer.chat_template.rerank";

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

    /// The text as a file states it and [`Self::parse`] reads it.
    #[must_use]
    pub fn stated(&self) -> String {
        match self {
            Self::Chat => "chat".into(),
            Self::Pattern(pattern) => pattern.replace('\n', "\\n"),
        }
    }

    /// What a reward sees that is made of the file with the header `gguf` and, where there is one,
    /// a `head`, and where that is said: the head or the file states it; it is the file's template
    /// for reranking, of an encoder with a head its tokenizer's form of a pair, of a decoder its
    /// chat template; else `{prompt}\n{response}`.
    ///
    /// # Errors
    /// Those of [`Self::parse`].
    pub fn of_file(gguf: &Gguf, head: Option<&LinearHead>) -> Result<(Self, TextOrigin)> {
        let stated = head.and_then(|head| head.text.as_deref());
        let encoder = is_encoder(gguf);
        if let Some(text) = stated.or_else(|| gguf.str(TEXT_KEY)) {
            return Ok((Self::parse(text)?, TextOrigin::Stated));
        }
        if let Some(text) = gguf.str(RERANK_KEY).filter(|t| t.contains("{document}")) {
            let pattern = text.replace("{query}", "{prompt}");
            let pattern = pattern.replace("{document}", "{response}");
            return Ok((Self::Pattern(pattern), TextOrigin::Rerank));
        }
        if let Some(between) = separator(gguf).filter(|_| encoder && has_head(gguf)) {
            let pattern = format!("{{prompt}}{between}{{response}}");
            return Ok((Self::Pattern(pattern), TextOrigin::Pair));
        }
        if gguf.chat_template().is_some() && !encoder {
            return Ok((Self::Chat, TextOrigin::Chat));
        }
        Ok((Self::default(), TextOrigin::Default))
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

/// What a tokenizer puts between the two texts of a pair: what separates them, twice in vocabularies
/// of RoBERTa's kind.
fn separator(gguf: &Gguf) -> Option<String> {
    let tokens = gguf.get("tokenizer.ggml.tokens")?.as_str_array()?;
    let text = |key: &str, default: Option<u64>| {
        let id = gguf
            .u64(&format!("tokenizer.ggml.{key}_token_id"))
            .or(default)?;
        tokens.get(usize::try_from(id).ok()?)
    };
    let is_bert = gguf.str("tokenizer.ggml.model") == Some("bert");
    let end = text("eos", None);
    // The key's spelling is the format's.
    let between = text("seperator", is_bert.then_some(102)).or(end)?;
    Some(match end == Some("</s>") && between == "</s>" {
        true => between.repeat(2),
        false => between.to_owned(),
    })
}

/// Who says which text a reward sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TextOrigin {
    /// The file, or the head's.
    Stated,
    /// The file's template for reranking.
    Rerank,
    /// The tokenizer, which makes a pair of two texts so.
    Pair,
    /// The file's chat template.
    Chat,
    /// Nobody.
    Default,
}

impl fmt::Display for TextOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stated => "stated by the file",
            Self::Rerank => "the file's template for reranking",
            Self::Pair => "its tokenizer's form of a pair",
            Self::Chat => "its chat template",
            Self::Default => "default; the file states none",
        })
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
    append: Option<Token>,
    too_long: TooLong,
    limit: usize,
}

/// Tokens of a text, and whether its end was cut off.
pub(super) type Tokens = (Vec<Token>, bool);

impl Tokenizer {
    /// For texts of at most `limit` tokens, the last of which is `append` where it is given.
    ///
    /// # Errors
    /// [`Error::Model`] when the chat template is wanted and the file has none, and for a token
    /// that the vocabulary does not have.
    pub(super) fn new(
        model: &Arc<Model>,
        text: RewardText,
        append: Option<&str>,
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
            append: append.map(|text| single_token(model, text)).transpose()?,
            too_long,
            limit,
        })
    }

    pub(super) fn text(&self) -> &RewardText {
        &self.text
    }

    /// A sample as the model reads it.
    pub(super) fn show(&self, sample: &Sample<'_>) -> Result<Option<ReadText>> {
        let tokens = self.tokens(sample)?.ok();
        Ok(tokens.map(|(tokens, _)| ReadText::new(&self.model, tokens)))
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
        if tokens.last() != self.append.as_ref() {
            tokens.extend(self.append);
        }
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

/// The token of a text, or of a number.
fn single_token(model: &Model, text: &str) -> Result<Token> {
    let number = text.parse().ok();
    let number = number.filter(|&n: &Token| (0..model.vocabulary() as Token).contains(&n));
    match (number, model.tokenize(text, false, true).as_slice()) {
        (Some(token), _) | (None, &[token]) => Ok(token),
        _ => {
            let reason = format!("its vocabulary has no single token {text:?} to append");
            Err(Error::model(model.path(), reason))
        }
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
    use crate::gguf::testing::{self, Builder, array, build};

    #[test]
    fn a_response_cannot_bring_in_the_prompt() {
        assert_eq!(
            fill("{prompt}|{response}", "P", "{prompt}{response}"),
            "P|{prompt}{response}"
        );
    }

    fn text_of(file: Builder) -> (String, TextOrigin) {
        let (text, origin) = RewardText::of_file(&file.read().unwrap(), None).unwrap();
        (text.to_string(), origin)
    }

    fn encoder(tokens: &[&str], separator: u32, end: u32) -> Builder {
        let raw: Vec<u8> = tokens.iter().flat_map(testing::text).collect();
        build()
            .str("general.architecture", "bert")
            .pair(
                "tokenizer.ggml.tokens",
                9,
                array(8, tokens.len() as u64, &raw),
            )
            .u32("tokenizer.ggml.seperator_token_id", separator)
            .u32("tokenizer.ggml.eos_token_id", end)
    }

    #[test]
    fn an_encoder_with_a_head_reads_a_pair_of_its_tokenizer() {
        let head = |file: Builder| file.tensor("cls.output.weight", &[2, 1], 0);
        let pair = |text: &str| (text.to_owned(), TextOrigin::Pair);
        let bert = || encoder(&["[CLS]", "[SEP]"], 1, 1);
        assert_eq!(text_of(head(bert())), pair("{prompt}[SEP]{response}"));
        let roberta = encoder(&["<s>", "</s>"], 1, 1);
        assert_eq!(text_of(head(roberta)), pair("{prompt}</s></s>{response}"));
        let default = ("{prompt}\\n{response}".to_owned(), TextOrigin::Default);
        assert_eq!(text_of(bert()), default);
        let stated = head(bert()).str(TEXT_KEY, "{response}");
        assert_eq!(text_of(stated), ("{response}".into(), TextOrigin::Stated));
    }

    #[test]
    fn a_template_for_reranking_comes_before_that_of_a_chat() {
        let decoder = || {
            let file = build().str("general.architecture", "qwen3");
            file.str("tokenizer.chat_template", "{{ messages }}")
        };
        assert_eq!(text_of(decoder()), ("chat".into(), TextOrigin::Chat));
        let rerank = decoder().str(RERANK_KEY, "{query}? {document}");
        let expected = ("{prompt}? {response}".into(), TextOrigin::Rerank);
        assert_eq!(text_of(rerank), expected);
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
