//! How near a response is to a rule.

use std::time::Duration;

use super::fence::fences;
use super::{Range, Rule, json, sentences, wording};
use crate::reward::SampleError;
use crate::reward::process::run_once;
use crate::stop::Stop;

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
    /// 0 to 1; 1 only where the rule is met. What it says after a request on `stop` that is overdue
    /// means nothing.
    pub(super) fn score(&self, response: &str, stop: &Stop) -> Result<f64, SampleError> {
        Ok(match self {
            Self::Json => json::score(response),
            Self::Schema(schema) => schema.score(response),
            Self::Regex(pattern) => pattern.score(response, stop),
            Self::Contains(phrase) => phrase.contained(response),
            Self::ContainsExact(text) if response.contains(text) => 1.0,
            Self::ContainsExact(text) => wording::shared_words(response, text),
            Self::Excludes(phrase) => 1.0 / (1.0 + phrase.occurrences(response) as f64),
            Self::Words(range) => range.score(wording::words(response).count()),
            Self::Sentences(range) => range.score(sentences::count(response)),
            Self::Language(wanted) => language(response, *wanted),
            Self::StartsWith(phrase) => phrase.begins(response),
            Self::EndsWith(phrase) => phrase.ends(response),
            Self::Lowercase => cased(response, char::is_lowercase),
            Self::Uppercase => cased(response, char::is_uppercase),
            Self::Compiles(command) => compiles(response, command, stop)?,
        })
    }
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

fn compiles(response: &str, command: &str, stop: &Stop) -> Result<f64, SampleError> {
    let code = fences(response).into_iter().find(|fence| !fence.inline);
    let input = code.as_ref().map_or(response, |fence| &fence.body);
    let failed = |reason: String| SampleError::Other(format!("compiles={command}: {reason}"));
    match run_once(command, input.as_bytes(), COMPILE_TIME, stop) {
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
