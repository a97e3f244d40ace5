//! Where responses end beside the model's own end, and what of their text is the answer.

use std::sync::Arc;

use crate::llama::{Grammar, Model, ReasoningMarkers, Token};

/// What the responses to a prompt look like.
#[derive(Clone, Debug, Default)]
pub struct Form {
    /// Texts that end a response; they, and what is behind them, are no part of it.
    pub stop: Vec<String>,
    /// Whether the model's own ends are never chosen (`--ignore-eos` in llama.cpp).
    pub ignore_end: bool,
    /// What every response must follow: tokens that it does not allow are never chosen.
    pub grammar: Option<Arc<Grammar>>,
    /// How reasoning is marked where the model begins with any: it is no part of the answer.
    pub reasoning: Option<ReasoningMarkers>,
    /// Whether the texts of special tokens count as text.
    pub specials: bool,
}

/// What a response says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The answer: without special tokens, reasoning, and what a stop cut off.
    pub text: String,
    /// The reasoning before it, where there is any.
    pub reasoning: Option<String>,
    /// Whether the reasoning has no end, and there is no answer.
    pub unfinished: bool,
    /// Whether one of the texts in [`Form::stop`] ended it.
    pub stopped: bool,
}

impl Form {
    /// What `tokens` say.
    #[must_use]
    pub fn read(&self, model: &Model, tokens: &[Token]) -> Reading {
        let mut reading = Reading::default();
        let mut answer = tokens;
        let mut rest = Vec::new();
        if let Some(markers) = &self.reasoning {
            let pieces = tokens.iter().map(|&token| model.piece(token, true));
            let pieces: Vec<Vec<u8>> = pieces.collect();
            let all = pieces.concat();
            if let Some(found) = markers.find(&all) {
                let text = String::from_utf8_lossy(&all[found.reasoning.clone()]);
                reading.reasoning = Some(text.trim().to_owned());
                reading.unfinished = found.answer.is_none();
                let begin = found.answer.unwrap_or(all.len());
                // A marker may end within a token.
                let mut end = 0;
                let before = pieces.iter().take_while(|piece| {
                    end += piece.len();
                    end <= begin
                });
                let count = before.count();
                answer = &tokens[count..];
                let whole: usize = pieces[..count].iter().map(Vec::len).sum();
                if begin > whole && !answer.is_empty() {
                    rest = pieces[count][begin - whole..].to_vec();
                    answer = &answer[1..];
                }
            }
        }
        let pieces = answer.iter().flat_map(|&t| model.piece(t, self.specials));
        let bytes: Vec<u8> = rest.into_iter().chain(pieces).collect();
        let cut = self.stop.iter().filter_map(|stop| find(&bytes, stop)).min();
        reading.stopped = cut.is_some();
        let text = String::from_utf8_lossy(&bytes[..cut.unwrap_or(bytes.len())]).into_owned();
        reading.text = match reading.reasoning {
            Some(_) => text.trim_start_matches('\n').to_owned(),
            None => text,
        };
        reading
    }

    /// Whether `tokens`, which did not before the last of them, hold a text that ends a response.
    pub(super) fn stops(&self, model: &Model, tokens: &[Token]) -> bool {
        let Some(longest) = self.stop.iter().map(String::len).max() else {
            return false;
        };
        // So many bytes from the end on can be a new one; what is before them is older.
        let mut tail: Vec<Vec<u8>> = Vec::new();
        let mut length = 0;
        for &token in tokens.iter().rev() {
            let piece = model.piece(token, self.specials);
            length += piece.len();
            tail.push(piece);
            if length - tail[0].len() >= longest {
                break;
            }
        }
        tail.reverse();
        let tail = tail.concat();
        let any = self.stop.iter().any(|stop| find(&tail, stop).is_some());
        any && (self.reasoning.is_none() || self.read(model, tokens).stopped)
    }
}

/// Where `text` begins in `bytes`.
fn find(bytes: &[u8], text: &str) -> Option<usize> {
    let text = text.as_bytes();
    bytes
        .windows(text.len().max(1))
        .position(|window| window == text)
}
