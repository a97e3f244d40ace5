//! A plain answer as it grows: the text that every further token adds, never more than what stands
//! fast. The end of a character, and what may become a text that ends the answer, is waited for.

use std::collections::HashMap;
use std::sync::Arc;

use super::engine::Delta;
use crate::llama::{Model, Token};
use crate::rollout::Form;

/// The answers to one request.
pub(super) struct Deltas {
    model: Arc<Model>,
    form: Form,
    answers: HashMap<usize, Grown>,
}

/// One answer: its bytes, as far as its tokens are read, and what was told of it.
#[derive(Default)]
struct Grown {
    read: usize,
    bytes: Vec<u8>,
    content: usize,
    reasoning: usize,
}

impl Deltas {
    pub(super) fn new(model: Arc<Model>, form: Form) -> Self {
        Self {
            model,
            form,
            answers: HashMap::new(),
        }
    }

    /// What answer `index` has more than it had; `None` where that is nothing yet.
    pub(super) fn next(&mut self, index: usize, tokens: &[Token]) -> Option<Delta> {
        let grown = self.answers.entry(index).or_default();
        let hidden = self
            .form
            .stop
            .iter()
            .map(|stop| stop.len() - 1)
            .max()
            .unwrap_or(0);
        let (text, reasoning) = match &self.form.reasoning {
            Some(markers) => {
                let reading = self.form.read(&self.model, tokens);
                // What may become a marker is neither.
                let hidden = hidden.max(markers.open.len().max(markers.close.len()));
                let whole = !reading.unfinished;
                let reasoning = reading.reasoning.unwrap_or_default();
                let fast = if whole { 0 } else { hidden };
                let reasoning = standing(reasoning.as_bytes(), fast);
                (standing(reading.text.as_bytes(), hidden), reasoning)
            }
            None => {
                for &token in &tokens[grown.read..] {
                    grown
                        .bytes
                        .extend(self.model.piece(token, self.form.specials));
                }
                grown.read = tokens.len();
                (standing(&grown.bytes, hidden), String::new())
            }
        };
        let content = rest(&text, &mut grown.content);
        let reasoning = rest(&reasoning, &mut grown.reasoning);
        let any = !content.is_empty() || !reasoning.is_empty();
        any.then_some(Delta {
            index,
            content,
            reasoning,
            tokens: tokens.len(),
        })
    }
}

/// The text of whole characters, without so many bytes at its end; U+FFFD for what is no character,
/// as in the whole answer.
fn standing(bytes: &[u8], hidden: usize) -> String {
    let bytes = &bytes[..bytes.len() - hidden.min(bytes.len())];
    let begun = |back: usize| {
        let first = bytes.len().checked_sub(back).map(|at| bytes[at]);
        let length = match first {
            Some(0xC0..=0xDF) => 2,
            Some(0xE0..=0xEF) => 3,
            Some(0xF0..=0xF7) => 4,
            _ => 1,
        };
        length > back
    };
    let open = (1..=3).find(|&back| begun(back)).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..bytes.len() - open]).into_owned()
}

/// What is behind the bytes that were told.
pub(super) fn rest(text: &str, told: &mut usize) -> String {
    let new = text.get(*told..).unwrap_or_default().to_owned();
    *told += new.len();
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_come_whole_and_hidden_ends_do_not_come() {
        assert_eq!(standing("aé".as_bytes(), 0), "aé");
        assert_eq!(standing(&"aé".as_bytes()[..2], 0), "a");
        assert_eq!(standing("abcdef".as_bytes(), 2), "abcd");
        assert_eq!(standing("aéb".as_bytes(), 2), "a");
        assert_eq!(standing(b"a\xFFb\xF0\x9F", 0), "a\u{FFFD}b");
        assert_eq!(standing(b"ab", 9), "");
        let mut told = 1;
        assert_eq!(rest("abc", &mut told), "bc");
        assert_eq!(rest("abc", &mut told), "");
        assert_eq!(told, 3);
    }
}
