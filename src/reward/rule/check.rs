//! How near a response is to a rule.

use std::time::Duration;

use unicode_segmentation::UnicodeSegmentation;

use super::{Range, Rule};
use crate::reward::SampleError;
use crate::reward::process::run_once;

/// How long a command of `compiles` may take.
const COMPILE_TIME: Duration = Duration::from_secs(10);

/// Two-letter tags (ISO 639-1) of the languages that are detected by three-letter codes.
pub(super) const THREE_LETTERS: &[(&str, &str)] = &[
    ("af", "afr"),
    ("ar", "ara"),
    ("az", "aze"),
    ("be", "bel"),
    ("bg", "bul"),
    ("bn", "ben"),
    ("ca", "cat"),
    ("cs", "ces"),
    ("cy", "cym"),
    ("da", "dan"),
    ("de", "deu"),
    ("el", "ell"),
    ("en", "eng"),
    ("eo", "epo"),
    ("es", "spa"),
    ("et", "est"),
    ("fa", "pes"),
    ("fi", "fin"),
    ("fr", "fra"),
    ("gu", "guj"),
    ("he", "heb"),
    ("hi", "hin"),
    ("hr", "hrv"),
    ("hu", "hun"),
    ("hy", "hye"),
    ("id", "ind"),
    ("it", "ita"),
    ("ja", "jpn"),
    ("jv", "jav"),
    ("ka", "kat"),
    ("km", "khm"),
    ("kn", "kan"),
    ("ko", "kor"),
    ("la", "lat"),
    ("lt", "lit"),
    ("lv", "lav"),
    ("mk", "mkd"),
    ("ml", "mal"),
    ("mr", "mar"),
    ("my", "mya"),
    ("nb", "nob"),
    ("ne", "nep"),
    ("nl", "nld"),
    ("no", "nob"),
    ("or", "ori"),
    ("pa", "pan"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ro", "ron"),
    ("ru", "rus"),
    ("si", "sin"),
    ("sk", "slk"),
    ("sl", "slv"),
    ("sn", "sna"),
    ("sr", "srp"),
    ("sv", "swe"),
    ("ta", "tam"),
    ("te", "tel"),
    ("th", "tha"),
    ("tk", "tuk"),
    ("tl", "tgl"),
    ("tr", "tur"),
    ("uk", "ukr"),
    ("ur", "urd"),
    ("uz", "uzb"),
    ("vi", "vie"),
    ("yi", "yid"),
    ("zh", "cmn"),
    ("zu", "zul"),
];

impl Rule {
    /// 0 to 1; 1 only where the rule is met.
    pub(super) fn score(&self, response: &str) -> Result<f64, SampleError> {
        Ok(match self {
            Self::Json => json(response).map_or_else(|partial| partial, |_| 1.0),
            Self::Schema(validator) => match json(response) {
                Err(partial) => partial,
                Ok(value) => {
                    let errors = validator.iter_errors(&value).count() as f64;
                    1.0 - 0.5 * errors / (errors + 1.0)
                }
            },
            Self::Regex { full, parts } if !full.is_match(response) => {
                let matched = parts.iter().take_while(|p| p.is_match(response)).count();
                matched as f64 / (parts.len() + 1) as f64
            }
            Self::Contains { text, exact } => {
                let lower = response.to_lowercase();
                contains(if *exact { response } else { &lower }, text)
            }
            Self::Excludes(text) => {
                let count = response.to_lowercase().matches(text.as_str()).count();
                1.0 / (1.0 + count as f64)
            }
            Self::Words(range) => range.score(response.unicode_words().count()),
            Self::Sentences(range) => {
                let spoken = |s: &&str| s.chars().any(char::is_alphanumeric);
                range.score(response.unicode_sentences().filter(spoken).count())
            }
            Self::Language(wanted) => language(response, *wanted),
            Self::StartsWith(text) => common(response.chars(), text.chars()),
            Self::EndsWith(text) => common(response.chars().rev(), text.chars().rev()),
            Self::Lowercase => cased(response, char::is_lowercase),
            Self::Uppercase => cased(response, char::is_uppercase),
            Self::Compiles(command) => compiles(response, command)?,
            Self::Regex { .. } => 1.0,
        })
    }
}

/// The value, or the partial score of what is none.
fn json(response: &str) -> Result<serde_json::Value, f64> {
    let text = fenced(response).unwrap_or(response).trim();
    let error = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if !text.starts_with(['{', '[']) {
        return Err(0.0);
    }
    let before: usize = text
        .lines()
        .take(error.line().saturating_sub(1))
        .map(|l| l.len() + 1)
        .sum();
    let share = (before + error.column()) as f64 / text.len().max(1) as f64;
    Err(0.49 * share.clamp(0.0, 1.0))
}

/// The content of the first code fence.
fn fenced(response: &str) -> Option<&str> {
    let (_, rest) = response.split_once("```")?;
    let (_, body) = rest.split_once('\n')?;
    Some(body.split_once("```").map_or(body, |(body, _)| body))
}

fn contains(response: &str, text: &str) -> f64 {
    if response.contains(text) {
        return 1.0;
    }
    let words: Vec<&str> = text.unicode_words().collect();
    let spoken: std::collections::HashSet<&str> = response.unicode_words().collect();
    let found = words.iter().filter(|w| spoken.contains(**w)).count();
    0.5 * found as f64 / words.len().max(1) as f64
}

impl Range {
    fn score(self, count: usize) -> f64 {
        let (distance, end) = match count {
            n if n < self.low => (self.low - n, self.low),
            n if n > self.high => (n - self.high, self.high),
            _ => return 1.0,
        };
        (-(distance as f64) / end.max(1) as f64).exp()
    }
}

fn language(response: &str, wanted: whatlang::Lang) -> f64 {
    match whatlang::detect(response) {
        Some(found) if found.lang() == wanted => 1.0,
        // How sure the detector is of another language, turned round.
        Some(found) => 0.5 * (1.0 - found.confidence().clamp(0.0, 1.0)),
        None => 0.0,
    }
}

/// The share of the wanted characters that agree, from the first on.
fn common(response: impl Iterator<Item = char>, wanted: impl Iterator<Item = char> + Clone) -> f64 {
    let count = wanted.clone().count().max(1);
    let same = response.zip(wanted).take_while(|(a, b)| a == b).count();
    same as f64 / count as f64
}

fn cased(response: &str, wanted: impl Fn(char) -> bool) -> f64 {
    let letters = response
        .chars()
        .filter(|c| c.is_lowercase() || c.is_uppercase());
    let count = letters.clone().count();
    match count {
        0 => 0.0,
        count => letters.filter(|&c| wanted(c)).count() as f64 / count as f64,
    }
}

fn compiles(response: &str, command: &str) -> Result<f64, SampleError> {
    let code = fenced(response);
    let input = code.unwrap_or(response);
    let failed = |reason: String| SampleError::Other(format!("compiles={command}: {reason}"));
    match run_once(command, input.as_bytes(), COMPILE_TIME) {
        Err(e) => Err(failed(e.to_string())),
        Ok(None) => Ok(0.0),
        Ok(Some(finished)) => match finished.code {
            Some(0) => Ok(1.0),
            // What a shell says of a command that is not there or cannot be run.
            Some(126 | 127) => Err(failed(format!("cannot be run: {}", finished.stderr.trim()))),
            _ => Ok(if code.is_some() { 0.25 } else { 0.0 }),
        },
    }
}
