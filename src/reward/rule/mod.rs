//! Verifiable rewards: rules that a program checks, with partial credit.
//!
//! An expression is a list of terms, `[WEIGHT*][!]RULE[=VALUE]`, between semicolons. Each
//! gives a response a score in [0, 1], which is 1 only where the rule is met; `!` turns
//! score into 1 − score. The reward is the weighted mean of the scores. Partial scores grow
//! with how near the response is, so that a search has a slope to follow; each rule's
//! documentation is at its [`Rule`] variant. White space around the response is ignored; one that
//! has nothing else meets no rule, and no rule turned round.

mod check;
mod fence;
mod json;
mod pattern;
mod sentences;
#[cfg(test)]
mod tests;
mod wording;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::json::Schema;
use self::pattern::Pattern;
use self::wording::Phrase;
use super::terms::{self, Term};
use super::{
    Reward, RewardKind, RewardLoader, RewardOption, RewardSource, Sample, SampleError, Score,
    Scores, given_up, process,
};
use crate::error::Result;
use crate::stop::Stop;

/// Its place among the kinds.
pub(super) const KIND: RewardKind = RewardKind {
    name: "rule",
    form: "rule:[WEIGHT*][!]RULE[=VALUE][;…]",
    about: "rules that a program can check, such as json or words=5..20: their weighted mean, 0 to 1",
    terms: RULES,
    options: &[],
    parse,
};

fn parse(text: &str) -> Result<Arc<dyn RewardSource>> {
    // What is wrong with it is said now, not when the models are loaded.
    Rules::parse(text)?;
    let terms = terms::parse(text).map_err(|reason| KIND.refuse(reason))?;
    Ok(Arc::new(RuleSource {
        expression: text.to_owned(),
        files: terms
            .iter()
            .flat_map(files)
            .map(Path::to_path_buf)
            .collect(),
    }))
}

/// The files that a term names.
fn files(term: &Term) -> Vec<&Path> {
    match (term.key.as_str(), &term.value) {
        ("json-schema", Some(path)) => vec![Path::new(path)],
        ("compiles", Some(command)) => process::files(command),
        _ => Vec::new(),
    }
}

/// Rules by their expression.
#[derive(Debug)]
struct RuleSource {
    expression: String,
    files: Vec<PathBuf>,
}

impl RewardSource for RuleSource {
    fn files(&self) -> Vec<&Path> {
        self.files.iter().map(PathBuf::as_path).collect()
    }

    fn load(&self, loader: &mut RewardLoader) -> Result<Box<dyn Reward>> {
        let mut rules = Rules::parse(&self.expression)?;
        rules.stop = loader.stop.clone();
        Ok(Box::new(rules))
    }
}

/// One rule.
#[derive(Debug)]
enum Rule {
    /// The response is JSON, alone or in any of its code fences. Partial, below ½: the share of
    /// its bytes before the error, for a text that begins as JSON does.
    Json,
    /// JSON that a schema accepts. Partial: JSON's own below ½; from ½ on 1 − ½·e/(e + 1)
    /// for e errors, and ½ where there is too much to look at.
    Schema(Schema),
    /// A pattern matches somewhere. Partial: the share of the pattern's parts, from the
    /// left, that still match.
    Regex(Pattern),
    /// A text occurs, as whole words where it begins or ends with a letter or digit, whatever
    /// its case, its spaces and line breaks, and how its characters are encoded. Partial, below
    /// 1: half the share of its words that occur.
    Contains(Phrase),
    /// A text occurs, byte by byte and within words too; partial as for `contains`.
    ContainsExact(String),
    /// A text does not occur, compared as by `contains`: 1 / (1 + occurrences).
    Excludes(Phrase),
    /// The number of words (Unicode word boundaries; dictionaries for scripts without spaces)
    /// is in a range. Partial: e^(−distance / nearest end).
    Words(Range),
    /// The number of sentences; partial as for words.
    Sentences(Range),
    /// The language, as detected. Partial, below ½: half of what a detector of this
    /// language alone would trust. Unreliable for texts of a few words.
    Language(whatlang::Lang),
    /// The response begins so, whatever its case and encoding. Partial, below 1: the share of
    /// the characters that agree.
    StartsWith(Phrase),
    /// The response ends so; partial as for beginnings.
    EndsWith(Phrase),
    /// All cased letters are lower case; the share of them that are. No letters: 0.
    Lowercase,
    /// All cased letters are upper case.
    Uppercase,
    /// A command accepts the first fenced code block, or the response, on its stdin. Partial:
    /// ¼ for a code block that it does not accept.
    Compiles(String),
}

/// Whole numbers from `low` to `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    low: usize,
    high: usize,
}

/// Their names, and what meets them; what partial scores are stands at each [`Rule`].
const RULES: &[RewardOption] = &[
    RewardOption::new("json", "", "it is JSON, alone or in a code fence"),
    RewardOption::new("json-schema", "FILE", "it is JSON that the schema accepts"),
    RewardOption::new("regex", "PATTERN", "the pattern matches somewhere"),
    RewardOption::new(
        "contains",
        "TEXT",
        "the text occurs as whole words, in whatever case",
    ),
    RewardOption::new(
        "contains-exact",
        "TEXT",
        "the text occurs byte by byte, within words too",
    ),
    RewardOption::new("excludes", "TEXT", "the text does not occur as whole words"),
    RewardOption::new(
        "words",
        "A..B",
        "so many words; A.., ..B and N are ranges, too",
    ),
    RewardOption::new("sentences", "A..B", "so many sentences"),
    RewardOption::new(
        "language-tag",
        "TAG",
        "the language as detected, such as en or fr",
    ),
    RewardOption::new("starts-with", "TEXT", "it begins so, in whatever case"),
    RewardOption::new("ends-with", "TEXT", "it ends so, in whatever case"),
    RewardOption::new("lowercase", "", "all letters are lower case"),
    RewardOption::new("uppercase", "", "all letters are upper case"),
    RewardOption::new(
        "compiles",
        "COMMAND",
        "the command accepts the first code block, or all of it, on its stdin",
    ),
];

/// One term in the expression.
#[derive(Debug)]
struct Weighted {
    weight: f64,
    negated: bool,
    rule: Rule,
    /// As the user wrote it, without the weight.
    name: String,
}

/// How a response does on one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleResult {
    /// The rule, as it was written.
    pub rule: String,
    /// 0 to 1.
    pub score: f64,
    /// Whether the rule is met: the score is 1.
    pub met: bool,
}

/// A reward made of rules.
#[derive(Debug)]
pub struct Rules {
    terms: Vec<Weighted>,
    expression: String,
    stop: Stop,
}

impl Rules {
    /// Reads an expression such as `json; 2*words=5..20; !contains="as an AI"`.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field) with the term that is wrong and what is allowed, also for a schema
    /// file that cannot be read.
    pub fn parse(expression: &str) -> Result<Self> {
        let refuse = |reason: String| KIND.refuse(reason);
        let terms = terms::parse(expression)
            .map_err(refuse)?
            .into_iter()
            .map(|term| weighted(term).map_err(refuse))
            .collect::<Result<_>>()?;
        Ok(Self {
            terms,
            expression: expression.trim().to_owned(),
            stop: Stop::new(),
        })
    }

    /// How `response` does on every rule, in the order of the expression.
    ///
    /// # Errors
    /// [`SampleError`] when a command of `compiles` cannot be run.
    pub fn check(&self, response: &str) -> std::result::Result<Vec<RuleResult>, SampleError> {
        let hidden = |c: char| {
            c.is_whitespace() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
        };
        let response = response.trim_matches(hidden);
        let terms = self.terms.iter();
        terms
            .map(|term| {
                let score = match term.rule.score(response, &self.stop)? {
                    // What says nothing keeps within no limit and avoids no word.
                    _ if response.is_empty() => 0.0,
                    score if term.negated => 1.0 - score,
                    score => score,
                };
                Ok(RuleResult {
                    rule: term.name.clone(),
                    score,
                    met: score >= 1.0,
                })
            })
            .collect()
    }

    fn reward(&self, response: &str) -> std::result::Result<f64, SampleError> {
        let results = self.check(response)?;
        let weights = self.terms.iter().map(|t| t.weight);
        let total: f64 = weights.clone().sum();
        let sum: f64 = results.iter().zip(weights).map(|(r, w)| r.score * w).sum();
        Ok(sum / total)
    }
}

impl Reward for Rules {
    fn name(&self) -> String {
        format!("rule:{}", self.expression)
    }

    fn sees(&self) -> String {
        "{response}".into()
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        let score = |sample: &Sample<'_>| {
            Ok(Score {
                reward: self.reward(sample.response)?,
                ..Score::default()
            })
        };
        let scores = samples.iter().map(score).collect();
        match self.stop.is_overdue() {
            // A rule that was given up has no score.
            true => Err(given_up()),
            false => Ok(scores),
        }
    }
}

fn weighted(term: Term) -> std::result::Result<Weighted, String> {
    if term.weight <= 0.0 {
        return Err(format!(
            "{}: weight {}; must be above 0 (! in front of a rule turns it round)",
            term.key, term.weight
        ));
    }
    let mut name = if term.negated { "!" } else { "" }.to_owned() + &term.key;
    if let Some(value) = &term.value {
        name += &format!("={value}");
    }
    let rule = rule(&term).map_err(|reason| format!("{name}: {reason}"))?;
    Ok(Weighted {
        weight: term.weight,
        negated: term.negated,
        rule,
        name,
    })
}

fn rule(term: &Term) -> std::result::Result<Rule, String> {
    let value = || match term.value.as_deref() {
        Some(text) if !text.is_empty() => Ok(text),
        _ => Err(format!("needs a value, {}=…", term.key)),
    };
    let plain = |rule| match term.value {
        None => Ok(rule),
        Some(_) => Err("takes no value".to_owned()),
    };
    match term.key.as_str() {
        "json" => plain(Rule::Json),
        "lowercase" => plain(Rule::Lowercase),
        "uppercase" => plain(Rule::Uppercase),
        "json-schema" => Schema::read(Path::new(value()?)).map(Rule::Schema),
        "regex" => Pattern::new(value()?).map(Rule::Regex),
        "contains" => Phrase::new(value()?).map(Rule::Contains),
        "contains-exact" => Ok(Rule::ContainsExact(value()?.to_owned())),
        "excludes" => Phrase::new(value()?).map(Rule::Excludes),
        "words" => Ok(Rule::Words(value()?.parse()?)),
        "sentences" => Ok(Rule::Sentences(value()?.parse()?)),
        "language-tag" => language(value()?),
        "starts-with" => Phrase::new(value()?).map(Rule::StartsWith),
        "ends-with" => Phrase::new(value()?).map(Rule::EndsWith),
        "compiles" => Ok(Rule::Compiles(value()?.to_owned())),
        _ => {
            let names: Vec<String> = RULES.iter().map(RewardOption::to_string).collect();
            let names = names.join(", ");
            Err(format!("there is no such rule; rules are {names}"))
        }
    }
}

fn language(tag: &str) -> std::result::Result<Rule, String> {
    let primary = tag.split(['-', '_']).next().unwrap_or(tag).to_lowercase();
    let code = match primary.len() {
        2 => check::THREE_LETTERS
            .iter()
            .find(|(two, _)| *two == primary)
            .map(|(_, three)| *three),
        _ => Some(primary.as_str()),
    };
    code.and_then(whatlang::Lang::from_code)
        .map(Rule::Language)
        .ok_or_else(|| {
            "no language that is detected; tags are such as en, es, fr, de, it, pt, ru, zh, ja, ar, \
             or three letters (eng)"
                .into()
        })
}

impl std::str::FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |text: &str, missing| match text.trim() {
            "" => Some(missing),
            text => text.parse().ok(),
        };
        let range = match text.split_once("..") {
            Some((low, high)) => (number(low, 0), number(high, usize::MAX)),
            None => (text.trim().parse().ok(), text.trim().parse().ok()),
        };
        match range {
            (Some(low), Some(high)) if low <= high => Ok(Self { low, high }),
            _ => Err("must be N, A..B, A.. or ..B with A at most B".into()),
        }
    }
}
