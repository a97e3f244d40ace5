//! Words, and texts that are compared as a reader compares them.
//!
//! Two texts are the same where they are after NFKC, full case folding and NFKC again:
//! `ﬁ`, full-width letters and a narrow space are other ways to write what the plain characters
//! say, and models mix them. Besides, typographic quotes and hyphens are the plain ones,
//! characters that are not seen are left out, and any run of white space is one space.

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizer;
use icu_normalizer::properties::CanonicalCombiningClassMap;
use icu_segmenter::{WordSegmenter, WordSegmenterBorrowed};

/// Dictionaries find the words of Thai, Lao, Khmer, Burmese, Chinese and Japanese. They count
/// the same everywhere, which the sums of a neural model would not.
fn segmenter() -> WordSegmenterBorrowed<'static> {
    WordSegmenter::new_dictionary(Default::default())
}

/// The words of a text by Unicode's boundaries and, for scripts without spaces, a dictionary.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    let ends: Vec<usize> = segmenter().segment_str(text).skip(1).collect();
    let words = ends.into_iter().map(move |end| {
        let word = &text[start..end];
        start = end;
        word
    });
    words.filter(|word| word.chars().any(char::is_alphanumeric))
}

/// The text as it is compared.
pub(super) fn fold(text: &str) -> String {
    let nfkc = ComposingNormalizer::new_nfkc();
    let folded = CaseMapper::new()
        .fold_string(&nfkc.normalize(text))
        .into_owned();
    let plain = |c: char| match c {
        '‘' | '’' | 'ʼ' | '‛' => Some('\''),
        '“' | '”' | '‟' => Some('"'),
        '\u{2010}' | '\u{2011}' => Some('-'),
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' => None,
        '\u{2060}'..='\u{2069}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' => None,
        c => Some(c),
    };
    let plain: String = folded.chars().filter_map(plain).collect();
    // İ is folded to an i with a dot above, which an i has.
    let folded = nfkc.normalize(&plain).replace("i\u{307}", "i");
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A folded text that is looked for in folded responses as whole words.
#[derive(Debug)]
pub(super) struct Phrase(String);

impl Phrase {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        match fold(text) {
            folded if folded.is_empty() => Err("has no character that is seen".into()),
            folded => Ok(Self(folded)),
        }
    }

    /// How often a response has it.
    pub(super) fn occurrences(&self, response: &str) -> usize {
        let text = fold(response);
        let wanted = self.0.as_str();
        let borders: Vec<usize> = segmenter().segment_str(&text).collect();
        let is_border = |at| is_border(&text, at, &borders);
        let opens = wanted.starts_with(is_word);
        let closes = wanted.ends_with(is_word);
        let (mut count, mut from) = (0, 0);
        while let Some(found) = text[from..].find(wanted) {
            let (start, end) = (from + found, from + found + wanted.len());
            let whole = (!opens || is_border(start))
                // Korean writes particles on to their word.
                && (!closes || is_border(end) || wanted.ends_with(is_hangul));
            count += usize::from(whole);
            let first = text[start..].chars().next().map_or(1, char::len_utf8);
            from = if whole { end } else { start + first };
        }
        count
    }

    /// 1 where it occurs; else half the share of its words that do.
    pub(super) fn contained(&self, response: &str) -> f64 {
        match self.occurrences(response) {
            0 => shared_words(&fold(response), &self.0),
            _ => 1.0,
        }
    }

    /// The share of its characters that agree with the response's, from the first on.
    pub(super) fn begins(&self, response: &str) -> f64 {
        common(fold(response).chars(), self.0.chars())
    }

    /// The same from the last on.
    pub(super) fn ends(&self, response: &str) -> f64 {
        common(fold(response).chars().rev(), self.0.chars().rev())
    }
}

/// Half the share of a text's words that a response has.
pub(super) fn shared_words(response: &str, text: &str) -> f64 {
    let spoken: std::collections::HashSet<&str> = words(response).collect();
    let (found, all) = words(text).fold((0, 0_u32), |(found, all), word| {
        (found + u32::from(spoken.contains(word)), all + 1)
    });
    0.5 * f64::from(found) / f64::from(all.max(1))
}

fn common(response: impl Iterator<Item = char>, wanted: impl Iterator<Item = char> + Clone) -> f64 {
    let count = wanted.clone().count().max(1);
    let same = response.zip(wanted).take_while(|(a, b)| a == b).count();
    same as f64 / count as f64
}

fn is_mark(c: char) -> bool {
    CanonicalCombiningClassMap::new().get_u8(c) != 0
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || is_mark(c)
}

fn is_hangul(c: char) -> bool {
    matches!(c, '가'..='힣')
}

/// Whether no word goes on at `at`. Between letters it is a boundary of words that decides; what
/// is no letter parts words, so that *dog's* and *l'eau* have a dog and eau in them, but *don't*
/// is one word and *3.14* one number.
fn is_border(text: &str, at: usize, borders: &[usize]) -> bool {
    let (head, tail) = text.split_at(at);
    let (mut before, mut behind) = (head.chars().rev(), tail.chars());
    let (Some(a), Some(b)) = (before.next(), behind.next()) else {
        return true;
    };
    let digit = |c: Option<char>| c.is_some_and(char::is_numeric);
    match (a, b) {
        (_, b) if is_mark(b) => false,
        (a, b) if is_word(a) && is_word(b) => borders.binary_search(&at).is_ok(),
        (a, '.' | ',') if a.is_numeric() => !digit(behind.next()),
        ('.' | ',', b) if b.is_numeric() => !digit(before.next()),
        ('n', '\'') => behind.next() != Some('t') || behind.next().is_some_and(is_word),
        _ => true,
    }
}
