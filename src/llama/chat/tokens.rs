//! Tokens of rendered conversations.
//!
//! The markup's special tokens must become tokens; the same characters inside a message must not,
//! or a message could end its own turn and speak for the model. So what messages have of special
//! texts is taken out before the markup is made, and put back as plain text: a whole one, and what
//! could become one together with the text beside it. The tokenizer then sees every text between
//! two special tokens as a whole, as it would have seen it otherwise.

use crate::error::Result;
use crate::llama::model::{Model, Special, Token};

/// Tokens of the text that `render` makes of `contents`: special texts that `render` adds
/// become special tokens, those inside `contents` stay text. What the model wants around a
/// text (BOS, EOS, CLS, SEP) is added, unless the text begins with BOS itself.
pub(crate) fn tokenize_guarded(
    model: &Model,
    contents: &[&str],
    render: impl FnOnce(&[String]) -> Result<String>,
) -> Result<Vec<Token>> {
    let specials = model.specials();
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
    for piece in guard.pieces(&text, specials) {
        match piece {
            Piece::Plain(text) => tokens.extend(model.tokenize(&text, false, false)),
            Piece::Special(token) => tokens.push(token),
        }
    }
    tokens.extend(&around[before..]);
    Ok(tokens)
}

/// A part of a rendered text.
#[derive(Debug, PartialEq)]
enum Piece {
    /// Text in which nothing is special, never empty.
    Plain(String),
    Special(Token),
}

/// Texts taken out of messages, a numbered mark in the place of each.
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

    /// Takes out of `text` its special texts, and the ends that could be parts of one. White space
    /// around it stays where it is: templates cut it off.
    fn protect(&mut self, text: &str, specials: &[Special]) -> String {
        let inner = text.trim();
        let start = text.len() - text.trim_start().len();
        let (begins, ends) = borders(inner, specials);
        let mut out = text[..start].to_owned();
        self.hide(&inner[..begins], &mut out);
        let mut rest = &inner[begins..ends];
        while let Some(c) = rest.chars().next() {
            let found = specials.iter().filter(|s| rest.starts_with(&s.text));
            let taken = match found.map(|s| s.text.len()).max() {
                Some(length) => {
                    self.hide(&rest[..length], &mut out);
                    length
                }
                None => {
                    out.push(c);
                    c.len_utf8()
                }
            };
            rest = &rest[taken..];
        }
        self.hide(&inner[ends..], &mut out);
        out.push_str(&text[start + inner.len()..]);
        out
    }

    fn hide(&mut self, text: &str, out: &mut String) {
        if !text.is_empty() {
            out.push_str(&format!("{0}{1}{0}", self.mark, self.hidden.len()));
            self.hidden.push(text.to_owned());
        }
    }

    /// The special tokens of a rendered text, and what stands between them with everything that was
    /// taken out in its place again.
    fn pieces(&self, text: &str, specials: &[Special]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut stripped = false;
        for (i, part) in text.split(self.mark).enumerate() {
            // Odd parts are the numbers between two marks.
            if i % 2 == 1 {
                let hidden = part.parse().ok().and_then(|n: usize| self.hidden.get(n));
                plain.extend(hidden.map(String::as_str));
                stripped = false;
                continue;
            }
            let mut rest = part;
            loop {
                if stripped {
                    rest = rest.trim_ascii_start();
                }
                let found = first(rest, specials);
                let text = found.map_or(rest, |(at, _)| &rest[..at]);
                plain.push_str(text);
                stripped &= text.is_empty();
                let Some((at, special)) = found else {
                    break;
                };
                if special.strips_left {
                    plain.truncate(plain.trim_ascii_end().len());
                }
                if !plain.is_empty() {
                    pieces.push(Piece::Plain(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Special(special.token));
                stripped = special.strips_right;
                rest = &rest[at + special.text.len()..];
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Plain(plain));
        }
        pieces
    }
}

/// How far the beginning of a message can be the end of a special text that begins before it, and
/// from where on its end can be the beginning of one.
fn borders(text: &str, specials: &[Special]) -> (usize, usize) {
    let (mut begins, mut ends) = (0, text.len());
    for Special { text: special, .. } in specials {
        // Within one, between two texts that make it.
        if !text.is_empty() && text.len() < special.len() && special.contains(text) {
            return (text.len(), text.len());
        }
        let cuts = special.char_indices().skip(1).map(|(at, _)| at);
        for (before, behind) in cuts.map(|at| special.split_at(at)) {
            if text.starts_with(behind) {
                begins = begins.max(behind.len());
            }
            if text.ends_with(before) {
                ends = ends.min(text.len() - before.len());
            }
        }
    }
    (begins.min(ends), ends)
}

/// The first special text, the longest of those that begin there.
fn first<'a>(text: &str, specials: &'a [Special]) -> Option<(usize, &'a Special)> {
    let found = specials
        .iter()
        .filter_map(|s| Some((text.find(&s.text)?, s)));
    found.min_by_key(|(at, special)| (*at, std::cmp::Reverse(special.text.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specials(texts: &[&str]) -> Vec<Special> {
        let each = texts.iter().enumerate();
        each.map(|(i, text)| Special {
            text: (*text).to_owned(),
            token: i as Token,
            strips_left: false,
            strips_right: text.starts_with("<|u"),
        })
        .collect()
    }

    fn plain(text: &str) -> Piece {
        Piece::Plain(text.into())
    }

    /// The pieces of `pattern` with `{a}` and `{b}` filled in.
    fn pieces(pattern: &str, [a, b]: [&str; 2], specials: &[Special]) -> Vec<Piece> {
        let mut guard = Guard::new(&[a, b]);
        let [a, b] = [a, b].map(|text| guard.protect(text, specials));
        let text = pattern.replace("{a}", a.trim()).replace("{b}", &b);
        guard.pieces(&text, specials)
    }

    #[test]
    fn special_texts_are_hidden_longest_first() {
        let content = "a<e>b<e><end>";
        let mut guard = Guard::new(&[content]);
        let text = guard.protect(content, &specials(&["<e>", "<e><end>"]));
        assert_eq!(guard.hidden, ["<e>", "<e><end>"]);
        assert_eq!(text.matches(guard.mark).count(), 4);
        assert!(!text.contains('<'));
    }

    #[test]
    fn no_special_text_is_made_of_parts() {
        let known = specials(&["<|im_end|>", "<|user|>"]);
        for (pattern, contents, expected) in [
            ("{a}{b}", ["x<|im_", "end|>y"], vec![plain("x<|im_end|>y")]),
            ("{a}{b}", ["x<|im_ ", "end|>y"], vec![plain("x<|im_end|>y")]),
            ("{a}nd|>{b}", ["<|im_e", "y"], vec![plain("<|im_end|>y")]),
            ("<|im_{a}|>{b}", ["end", "y"], vec![plain("<|im_end|>y")]),
            ("<|{b}", ["", "im_end|>"], vec![plain("<|im_end|>")]),
            (
                "{a}<|im_end|>{b}",
                ["x<|im_end|>", "<"],
                vec![plain("x<|im_end|>"), Piece::Special(0), plain("<")],
            ),
            (
                "<|user|> \n {a} {b}",
                ["x", "<|user|>"],
                vec![Piece::Special(1), plain("x <|user|>")],
            ),
        ] {
            assert_eq!(pieces(pattern, contents, &known), expected, "{pattern}");
        }
    }

    #[test]
    fn white_space_around_a_message_stays_outside_the_marks() {
        let mut guard = Guard::new(&[]);
        let text = guard.protect(" \n<e \n", &specials(&["<e>"]));
        assert!(text.starts_with(" \n\u{E000}") && text.ends_with("\u{E000} \n"));
    }
}
