//! Tokens of rendered conversations.
//!
//! The markup's special tokens must become tokens; the same characters inside a message
//! must not, or a message could end its own turn and speak for the model. So special texts
//! inside messages are tokenised apart, as plain text.

use crate::error::Result;
use crate::llama::model::{Model, Token};

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
