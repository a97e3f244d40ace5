//! A list of yes/no questions as the reward: Σ w·(ln p(yes) − ln p(no)) / Σ |w|, the weighted mean of
//! a [judge](super::Judge)'s log-odds, in nats.
//!
//! ```toml
//! [[question]]
//! text = "Does the reply answer the request?"
//! weight = 2
//!
//! [[question]]
//! text = "Is anything in the reply made up?"
//! weight = -1
//! ```
//!
//! A weight is 1 where none stands, and negative where yes is bad. `yes`, `no` and `context`, what
//! stands before every question, with `{response}` and, if wanted, `{prompt}`, may stand before the
//! first question. Prompt and response come first, so that each is decoded once for all questions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::judge::{Asker, REPLY};
use super::options::{self, Options};
use super::{
    JudgeOptions, PROBES, Reward, RewardKind, RewardLoader, RewardOption, RewardPart, RewardSource,
    Sample, SampleError, Score, Scores, Verdict,
};
use crate::error::{Error, Result};
use crate::llama::{Model, Placement, Token};

/// Its place among the kinds.
pub(super) const KIND: RewardKind = RewardKind {
    name: "rubric",
    form: "rubric:FILE.toml",
    about: "weighted yes/no questions from a file, answered by any model",
    terms: &[],
    options: &[
        RewardOption::new(
            "judge",
            "FILE|self",
            "the model that answers; has to be given",
        ),
        options::NGL,
        options::DEV,
    ],
    parse,
};

fn parse(text: &str) -> Result<Arc<dyn RewardSource>> {
    let (rubric, mut options) = Options::parse(&KIND, text)?;
    let Some(judge) = options.text("judge") else {
        let reason = "who answers the questions? give judge=FILE.gguf, or judge=self";
        return Err(KIND.refuse(reason));
    };
    let placement = options.placement()?;
    options.finish()?;
    Ok(Arc::new(RubricSource {
        rubric: rubric.into(),
        judge: (judge != "self").then(|| judge.into()),
        placement,
    }))
}

/// A rubric by its file; without a judge the generator answers.
#[derive(Debug)]
struct RubricSource {
    rubric: PathBuf,
    judge: Option<PathBuf>,
    placement: Placement,
}

impl RewardSource for RubricSource {
    fn files(&self) -> Vec<&Path> {
        let judge = self.judge.iter().map(PathBuf::as_path);
        std::iter::once(self.rubric.as_path())
            .chain(judge)
            .collect()
    }

    fn load(&self, loader: &mut RewardLoader) -> Result<Box<dyn Reward>> {
        let options = RubricOptions::read(&self.rubric)?;
        let model = loader.open_or_self(&KIND, self.judge.as_deref(), &self.placement)?;
        let asked = JudgeOptions {
            threads: loader.threads,
            attention: loader.attention,
            rendering: loader.chat.of_any_model(),
            ..JudgeOptions::default()
        };
        Ok(Box::new(Rubric::new(model, &options, &asked)?))
    }
}

/// A rubric.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RubricOptions {
    /// The good answer; `Yes`.
    #[serde(default = "yes")]
    pub yes: String,
    /// The bad answer; `No`.
    #[serde(default = "no")]
    pub no: String,
    /// What stands before every question; `None` is a sentence with the request and the reply.
    pub context: Option<String>,
    /// The questions.
    #[serde(rename = "question")]
    pub questions: Vec<RubricQuestion>,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RubricQuestion {
    /// The question.
    pub text: String,
    /// How much it counts; 1, and negative where yes is bad.
    #[serde(default = "one")]
    pub weight: f64,
}

fn yes() -> String {
    "Yes".into()
}

fn no() -> String {
    "No".into()
}

fn one() -> f64 {
    1.0
}

impl RubricOptions {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Field`] with the line and what is wrong there.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        Self::parse(&text).map_err(|reason| KIND.refuse(format!("{}{reason}", path.display())))
    }

    /// `Err` completes a sentence that begins with the file's name.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let rubric: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = 1 + text
                .get(..at)
                .map_or(0, |before| before.matches('\n').count());
            let what = error.message().replace('\n', "; ");
            format!(
                ", line {line}: {what}; a question is [[question]] with text = \"…\" and, if \
                 wanted, weight = …"
            )
        })?;
        if rubric.questions.is_empty() {
            return Err(": no question; write [[question]] and text = \"…\"".into());
        }
        for (i, question) in rubric.questions.iter().enumerate() {
            let refuse = |what: &str| Err(format!(": question {}: {what}", i + 1));
            if question.text.trim().is_empty() {
                return refuse("it has no text");
            }
            if question.weight == 0.0 || !question.weight.is_finite() {
                return refuse(&format!(
                    "a weight of {}; give a number other than 0",
                    question.weight
                ));
            }
        }
        match &rubric.context {
            Some(context) if !context.contains("{response}") => {
                Err(": the context has no {response}".into())
            }
            _ => Ok(rubric),
        }
    }
}

/// A model that answers the questions of a rubric.
pub struct Rubric {
    asker: Asker,
    /// What is asked, and its share of the reward.
    questions: Vec<(String, f64)>,
    /// The questions themselves, with their shares.
    parts: Vec<RewardPart>,
}

/// What a rubric says of one sample: the log-odds of each question, in their order, and how many
/// tokens were read.
type Parts = std::result::Result<(Vec<f64>, usize), SampleError>;

impl Rubric {
    /// Lets `model` answer; it may be the generator itself. `asked` says how it is run; its question
    /// and its verdict count for nothing.
    ///
    /// # Errors
    /// [`Error::Field`] for answers that cannot be told apart, or that the model does not give;
    /// [`Error::Model`] for a model that is no decoder.
    pub fn new(model: Arc<Model>, rubric: &RubricOptions, asked: &JudgeOptions) -> Result<Self> {
        let RubricOptions { yes, no, .. } = rubric;
        let context = rubric.context.as_deref().unwrap_or(REPLY);
        let total: f64 = rubric.questions.iter().map(|q| q.weight.abs()).sum();
        let question = |question: &RubricQuestion| {
            let text = format!("{context}{}\nAnswer {yes} or {no}.", question.text);
            (text, question.weight / total)
        };
        let part = |question: &RubricQuestion| RewardPart {
            name: question.text.clone(),
            weight: question.weight / total,
        };
        let options = JudgeOptions {
            verdict: Verdict::YesNo {
                yes: yes.clone(),
                no: no.clone(),
            },
            ..asked.clone()
        };
        let mut rubric = Self {
            asker: Asker::new(&KIND, model, &options)?,
            questions: rubric.questions.iter().map(question).collect(),
            parts: rubric.questions.iter().map(part).collect(),
        };
        let probes: Result<Vec<_>> = PROBES.iter().map(|probe| rubric.tokenize(probe)).collect();
        rubric.asker.check(&probes?.concat())?;
        Ok(rubric)
    }

    /// Tokens of every question about a sample.
    fn tokenize(&self, sample: &Sample<'_>) -> Result<Vec<Vec<Token>>> {
        let prompt = sample.transcript();
        let texts = [("{response}", sample.response), ("{prompt}", &*prompt)];
        let questions = self.questions.iter();
        questions
            .map(|(question, _)| self.asker.tokenize(question, &texts))
            .collect()
    }

    /// The log-odds of every question about a sample.
    ///
    /// # Errors
    /// [`Error::Engine`] when llama.cpp fails.
    pub fn log_odds(&mut self, sample: &Sample<'_>) -> Result<Parts> {
        let questions = self.tokenize(sample)?;
        let tokens = questions.iter().map(Vec::len).max().unwrap_or(0);
        let limit = self.asker.limit();
        if tokens > limit {
            return Ok(Err(SampleError::TooLong { tokens, limit }));
        }
        // All that they begin with, the response too, is decoded once.
        let scores = self.asker.ask(&questions)?;
        let read = scores.iter().map(|score| score.tokens).sum();
        Ok(Ok((
            scores.iter().map(|score| score.reward).collect(),
            read,
        )))
    }
}

impl Reward for Rubric {
    fn name(&self) -> String {
        let (count, path) = (self.questions.len(), self.asker.model().path().display());
        format!("rubric of {count} by {path}")
    }

    fn parts(&self) -> Vec<RewardPart> {
        self.parts.clone()
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        let score = |sample| {
            let parts = self.log_odds(sample).map_err(Error::in_reward)?;
            Ok(parts.map(|(parts, tokens)| Score {
                reward: parts
                    .iter()
                    .zip(&self.questions)
                    .map(|(p, q)| p * q.1)
                    .sum(),
                tokens,
                truncated: false,
                parts,
            }))
        };
        samples.iter().map(score).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rubric_is_read_with_its_defaults() {
        let text = "no = \"Nein\"\n[[question]]\ntext = \"A?\"\n[[question]]\ntext = \"B?\"\n\
                    weight = -2";
        let rubric = RubricOptions::parse(text).unwrap();
        assert_eq!((rubric.yes.as_str(), rubric.no.as_str()), ("Yes", "Nein"));
        let weights: Vec<f64> = rubric.questions.iter().map(|q| q.weight).collect();
        assert_eq!(weights, [1.0, -2.0]);
    }

    #[test]
    fn what_is_wrong_with_a_rubric_is_named_with_its_place() {
        for (text, words) in [
            ("", &["question"][..]),
            ("question = []", &["no question"]),
            (
                "[[question]]\ntext = \"A?\"\nwieght = 2",
                &["line 3", "wieght"],
            ),
            (
                "[[question]]\ntext = \"A?\"\nweight = 0",
                &["question 1", "weight of 0"],
            ),
            ("[[question]]\ntext = \" \"", &["question 1", "no text"]),
            ("[[question]]\ntext = \"A?", &["line 2"]),
            (
                "context = \"x\"\n[[question]]\ntext = \"A?\"",
                &["{response}"],
            ),
        ] {
            let error = RubricOptions::parse(text).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{text}: {error}");
            }
        }
    }
}
