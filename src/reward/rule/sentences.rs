//! How many sentences a text has.
//!
//! A line break is an end only where a blank line, a list item or a heading follows, and a
//! stop where neither what stands before it (an abbreviation, an initial, a list's number) nor
//! what follows (a small letter, a digit of the same number) says otherwise. The sets are small
//! and those of what models write; where both readings are common, a capital word that often
//! begins sentences decides.

/// Abbreviations that something always follows.
const INSIDE: &[&str] = &[
    "adm", "approx", "capt", "cf", "col", "dept", "dr", "drs", "e.g", "eds", "eg", "fr", "gen",
    "gov", "hon", "hr", "i.e", "ie", "lt", "maj", "messrs", "mlle", "mme", "mr", "mrs", "ms", "mt",
    "prof", "rep", "rev", "sen", "sgt", "sra", "srta", "viz", "vs", "bzw", "d.h", "u.a", "z.b",
    "p.ex", "dra", "т.е", "г",
];

/// Abbreviations in front of a number, which are words elsewhere.
const BEFORE_NUMBER: &[&str] = &[
    "apr", "art", "aug", "c", "ca", "ch", "chap", "dec", "ed", "eq", "eqs", "est", "ex", "feb",
    "fig", "figs", "jan", "jul", "jun", "mar", "max", "min", "no", "nos", "nov", "nr", "núm",
    "oct", "op", "p", "pp", "sec", "sep", "sept", "v", "vol", "vols",
];

/// Abbreviations that may end a sentence.
const EITHER: &[&str] = &[
    "al", "assn", "ave", "blvd", "bros", "co", "corp", "ft", "hrs", "inc", "jr", "ltd", "mins",
    "rd", "sr", "st",
];

/// Abbreviations that seldom stand before a name.
const LAST: &[&str] = &["a.m", "p.m", "etc", "usw", "т.д", "др"];

/// The names that stand behind a time.
const BEHIND_TIME: &[&str] = &[
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "est",
    "et",
    "cst",
    "ct",
    "pst",
    "pt",
    "gmt",
    "utc",
    "cet",
    "eastern",
    "central",
    "pacific",
];

/// Words that often begin a sentence, and hardly a name.
const BEGINNINGS: &[&str] = &[
    "a", "after", "all", "also", "an", "and", "as", "at", "because", "before", "both", "but", "by",
    "every", "finally", "for", "from", "he", "her", "here", "his", "how", "however", "i", "if",
    "in", "it", "its", "later", "many", "most", "my", "next", "no", "now", "on", "once", "one",
    "or", "our", "please", "she", "since", "so", "some", "still", "such", "that", "the", "their",
    "then", "there", "these", "they", "this", "those", "though", "to", "today", "we", "what",
    "when", "where", "which", "while", "who", "why", "with", "yes", "yet", "you", "your", "das",
    "der", "die", "er", "es", "ich", "sie", "wir", "und", "aber", "elle", "il", "je", "nous",
    "mais", "ella", "pero",
];

/// Stops of scripts that write a sentence without a space behind it.
const OTHER_STOPS: &[char] = &[
    '。', '！', '？', '．', '｡', '۔', '؟', '।', '॥', '။', '។', '៕', '።', '፧', '։', '།', '\u{37e}',
    '᠃',
];

/// The number of sentences.
pub(super) fn count(text: &str) -> usize {
    let capitals = text.chars().any(char::is_uppercase);
    let blocks = blocks(text);
    blocks.iter().map(|block| in_block(block, capitals)).sum()
}

/// What blank lines, list items and headings part, each on one line.
fn blocks(text: &str) -> Vec<String> {
    let text = text.replace(['\u{2028}', '\u{b}', '\u{85}'], "\n");
    let text = text.replace(['\u{2029}', '\u{c}'], "\n\n");
    let mut blocks = vec![String::new()];
    let mut closed = false;
    for line in text.lines().map(str::trim) {
        let heading = line.starts_with('#') && line.trim_start_matches('#').starts_with(' ');
        if closed || line.is_empty() || heading || begins_item(line) {
            blocks.push(String::new());
        }
        closed = heading;
        if let Some(block) = blocks.last_mut() {
            *block += line;
            block.push(' ');
        }
    }
    blocks
}

/// Whether a line begins with `- `, `* `, `• `, `1. `, `2) `, `(3) ` or `a) `.
fn begins_item(line: &str) -> bool {
    let Some((first, rest)) = line.split_once(char::is_whitespace) else {
        return false;
    };
    let bare = first.trim_start_matches('(');
    match bare.strip_suffix(['.', ')']) {
        Some(marker) => is_number(marker) || (is_letter(marker) && first.ends_with(')')),
        None => !rest.is_empty() && ["-", "*", "+", "•", "‣", "–", "—"].contains(&first),
    }
}

fn is_number(text: &str) -> bool {
    (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_letter(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(char::is_alphabetic) && letters.next().is_none()
}

fn is_stop(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…' | '‼' | '⁇' | '⁈' | '⁉') || OTHER_STOPS.contains(&c)
}

fn in_block(text: &str, capitals: bool) -> usize {
    let mut count = 0;
    // Where the sentence began, and how far was read.
    let (mut start, mut at) = (0, 0);
    while let Some(found) = text[at..].find(is_stop) {
        let stop = at + found;
        let behind = stop + run(&text[stop..], is_stop);
        // Quotes, brackets and emphasis belong to the sentence that they close.
        at = behind
            + run(&text[behind..], |c| {
                !c.is_alphanumeric() && !c.is_whitespace()
            });
        let place = Place {
            before: &text[start..stop],
            stops: &text[stop..behind],
            closing: &text[behind..at],
            rest: &text[at..],
            capitals,
        };
        if place.ends() {
            count += usize::from(is_spoken(&text[start..at]));
            start = at;
        }
    }
    count + usize::from(is_spoken(&text[start..]))
}

/// The bytes of the characters from the first on that are wanted.
fn run(text: &str, wanted: impl Fn(char) -> bool) -> usize {
    text.find(|c| !wanted(c)).unwrap_or(text.len())
}

fn is_spoken(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
}

/// What stands around stops.
struct Place<'a> {
    before: &'a str,
    stops: &'a str,
    closing: &'a str,
    rest: &'a str,
    /// Whether the text has capitals at all.
    capitals: bool,
}

impl Place<'_> {
    fn ends(&self) -> bool {
        let next = self.rest.trim_start();
        if next.is_empty() {
            return true;
        }
        let spaced = next.len() < self.rest.len();
        let next = next.trim_start_matches(|c: char| !c.is_alphanumeric() && !is_stop(c));
        let Some(first) = next.chars().next() else {
            return true;
        };
        let quoted = !self.closing.is_empty();
        let last = self.before.chars().next_back();
        if self.stops.contains(OTHER_STOPS) {
            let decimal = last.is_some_and(char::is_numeric) && first.is_numeric();
            // Japanese goes on behind a quotation with と or って.
            let reported = quoted && (next.starts_with('と') || next.starts_with("って"));
            spaced || !(decimal || reported)
        } else if self.stops.contains(['!', '?', '‼', '⁇', '⁈', '⁉']) {
            if spaced {
                !(quoted && first.is_lowercase())
            } else {
                !quoted && first.is_uppercase() && last.is_some_and(char::is_lowercase)
            }
        } else if !spaced || is_stop(first) {
            false
        } else if self.stops.chars().nth(1).is_some() || self.stops == "…" {
            // An ellipsis. "Well... I" goes on: I has no small letter.
            first.is_alphabetic() && !first.is_lowercase() && word(next) != "I"
        } else if first.is_lowercase() && (quoted || self.capitals) {
            false
        } else {
            !self.abbreviated(next)
        }
    }

    /// Whether the stop is part of the word before it.
    fn abbreviated(&self, next: &str) -> bool {
        let said = self.before.trim();
        let is_opening = |c: char| !c.is_alphanumeric();
        let token = said.rsplit(char::is_whitespace).next().unwrap_or(said);
        let token = token.trim_start_matches(is_opening);
        let lower = token.to_lowercase();
        let lower = lower.as_str();
        // The number or letter of a list's item.
        if said.trim_start_matches(is_opening) == token && (is_number(token) || is_letter(token)) {
            return true;
        }
        if INSIDE.contains(&lower) {
            return true;
        }
        if BEFORE_NUMBER.contains(&lower) && next.starts_with(char::is_numeric) {
            return true;
        }
        let follower = word(next);
        let behind = follower.to_lowercase();
        let behind = behind.as_str();
        // J. A. Smith: another initial is no word that begins a sentence.
        let begins = BEGINNINGS.contains(&behind) && !next[follower.len()..].starts_with('.');
        if LAST.contains(&lower) {
            return BEHIND_TIME.contains(&behind);
        }
        let short = |part: &str| {
            (1..=3).contains(&part.chars().count()) && part.chars().all(char::is_alphabetic)
        };
        let dotted = token.contains('.')
            && token
                .split('.')
                .all(|part| short(part.trim_start_matches('-')));
        let initial = is_letter(token) && (!self.capitals || token.starts_with(char::is_uppercase));
        (EITHER.contains(&lower) || dotted || initial) && !begins
    }
}

/// The first word of a text that begins with one, up to an apostrophe.
fn word(text: &str) -> &str {
    &text[..run(text, char::is_alphanumeric)]
}
