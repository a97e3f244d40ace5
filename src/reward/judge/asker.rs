//! A model that is asked questions, whose answers are read off its logits.

use std::iter::zip;
use std::sync::Arc;

use super::JudgeOptions;
use super::answers::{self, Answers};
use crate::error::Result;
use crate::llama::{ChatTemplate, Message, Model, Reader, TextReading, Token, tokenize_guarded};
use crate::reward::{RewardKind, Score};

/// Follows the question where the model has no chat template.
const RAW_ANSWER: &str = "\nAnswer:";

/// The model, and the answers that count.
pub(in crate::reward) struct Asker {
    kind: &'static RewardKind,
    reader: Reader,
    chat: Option<ChatTemplate>,
    answers: Answers,
    options: JudgeOptions,
}

impl Asker {
    /// For a reward of this kind; of the options its question counts for nothing.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field) for answers that cannot be told apart;
    /// [`Error::Model`](crate::Error::Model) for a model that is no decoder.
    pub(in crate::reward) fn new(
        kind: &'static RewardKind,
        model: Arc<Model>,
        options: &JudgeOptions,
    ) -> Result<Self> {
        let chat = match model.gguf().chat_template() {
            Some(_) => Some(ChatTemplate::new(&model, &options.rendering)?),
            None => None,
        };
        Ok(Self {
            kind,
            chat,
            answers: Answers::new(kind, &model, &options.verdict)?,
            reader: Reader::new(model, options.threads, options.attention)?,
            options: options.clone(),
        })
    }

    pub(in crate::reward) fn model(&self) -> &Arc<Model> {
        self.reader.model()
    }

    /// Most tokens of a question.
    pub(in crate::reward) fn limit(&self) -> usize {
        self.reader.capacity() - self.answers.appended().len()
    }

    /// Tokens of a question up to where the answer begins: the pattern with a text in the place of
    /// each name. The texts stay plain text.
    ///
    /// # Errors
    /// Those of the chat template.
    pub(in crate::reward) fn tokenize(
        &self,
        pattern: &str,
        texts: &[(&str, &str)],
    ) -> Result<Vec<Token>> {
        let model = self.reader.model();
        match &self.chat {
            Some(chat) => {
                let text = fill_in(pattern, texts);
                chat.tokenize(model, &[Message::new("user", text)], true)
            }
            None => {
                let own: Vec<&str> = texts.iter().map(|(_, text)| *text).collect();
                tokenize_guarded(model, &own, |given| {
                    let texts = zip(texts, given).map(|((name, _), text)| (*name, text.as_str()));
                    Ok(fill_in(pattern, &texts.collect::<Vec<_>>()) + RAW_ANSWER)
                })
            }
        }
    }

    /// Refuses answers that the model gives to none of the questions.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field) with the answers.
    pub(in crate::reward) fn check(&mut self, questions: &[Vec<Token>]) -> Result<()> {
        let readings = self.readings(questions)?;
        let of = |reading: &TextReading| {
            let probabilities = self.answers.probabilities(&reading.positions);
            probabilities.iter().sum::<f64>()
        };
        let found = readings.iter().map(of).fold(0.0, f64::max);
        match found < answers::LEAST {
            true => {
                let (model, verdict) = (self.reader.model(), &self.options.verdict);
                Err(answers::unlikely(self.kind, model, verdict, found))
            }
            false => Ok(()),
        }
    }

    /// What the answers to the questions come to, none of which is longer than the
    /// [limit](Self::limit).
    ///
    /// # Errors
    /// Those of [`Reader::read`].
    pub(in crate::reward) fn ask(&mut self, questions: &[Vec<Token>]) -> Result<Vec<Score>> {
        let readings = self.readings(questions)?;
        let score = |reading: TextReading| Score {
            reward: self.answers.reward(&reading.positions),
            tokens: reading.decoded,
            ..Score::default()
        };
        Ok(readings.into_iter().map(score).collect())
    }

    fn readings(&mut self, questions: &[Vec<Token>]) -> Result<Vec<TextReading>> {
        let appended = self.answers.appended();
        let with = |question: &Vec<Token>| [&question[..], &appended[..]].concat();
        let texts: Vec<Vec<Token>> = questions.iter().map(with).collect();
        let watched = self.answers.watched();
        self.reader.read(&texts, 1 + appended.len(), &watched)
    }
}

/// Puts a text in the place of each name; names inside the texts stay as they are.
fn fill_in(pattern: &str, texts: &[(&str, &str)]) -> String {
    match texts.split_first() {
        None => pattern.to_owned(),
        Some(((name, text), rest)) => {
            let parts: Vec<String> = pattern.split(name).map(|p| fill_in(p, rest)).collect();
            parts.join(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_bring_in_another() {
        let texts = [("{a}", "{b}{a}"), ("{b}", "{a}{c}"), ("{c}", "!")];
        assert_eq!(fill_in("{a}|{b}|{c}{a}", &texts), "{b}{a}|{a}{c}|!{b}{a}");
    }
}
