//! Any instruct model as the reward that only compares: which of two responses is the better one?
//!
//! Each pair is asked about in both orders, which cancels a liking for the first or the second:
//! half the difference of the two log-odds ln p(A) − ln p(B) says how far one is before the other.
//! The reward of a response is its strength in a Bradley–Terry fit over these (see `strengths.rs`), in
//! nats: the difference of two is the log-odds of the one against the other. Every response of an
//! iteration meets `opponents` others and the elites, the best two so far; those keep the strengths
//! that they have, so that the rewards of a run have one origin: the mean of its first iteration.
//!
//! So the reward of a response depends on those beside it, as no other reward does. A run's own
//! responses are those, and nothing else: not its neighbours, nor what was scored before it.

mod strengths;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::strengths::{Comparison, strengths};
use super::judge::Asker;
use super::options::{self, Options};
use super::{
    Answer, JudgeOptions, PROBES, Reward, RewardKind, RewardLoader, RewardOption, RewardSource,
    Sample, SampleError, Score, Scores, Verdict,
};
use crate::error::{Error, Result};
use crate::llama::{Model, Placement, Token};

/// Asked where no question is given.
const QUESTION: &str = "Here is a request and two replies to it.\n\nRequest:\n{prompt}\n\n\
                        Reply A:\n{a}\n\nReply B:\n{b}\n\nWhich reply is better? Answer A or B.";

/// Its place among the kinds.
pub(super) const KIND: RewardKind = RewardKind {
    name: "pairwise",
    form: "pairwise:FILE|self",
    about: "any model, or the generator itself, asked which of two responses is better",
    terms: &[],
    options: &[
        RewardOption::new(
            "question",
            "TEXT",
            "what it is asked, with {a}, {b} and, if wanted, {prompt}; the answer is A or B [default: \
             which is the better reply]",
        ),
        RewardOption::new(
            "opponents",
            "N",
            "responses that each is compared with [default: 4]",
        ),
        options::NGL,
        options::DEV,
    ],
    parse,
};

fn parse(text: &str) -> Result<Arc<dyn RewardSource>> {
    let (file, mut options) = Options::parse(&KIND, text)?;
    let defaults = PairwiseOptions::default();
    let parsed = PairwiseOptions {
        question: options.line_breaks("question"),
        opponents: options.number("opponents")?.unwrap_or(defaults.opponents),
    };
    let placement = options.placement()?;
    options.finish()?;
    let file = (file != "self").then(|| file.into());
    Ok(Arc::new(PairwiseSource(file, parsed, placement)))
}

/// A judge by its file; without one the generator judges.
#[derive(Debug)]
struct PairwiseSource(Option<PathBuf>, PairwiseOptions, Placement);

impl RewardSource for PairwiseSource {
    fn files(&self) -> Vec<&Path> {
        self.0.iter().map(PathBuf::as_path).collect()
    }

    fn load(&self, loader: &mut RewardLoader) -> Result<Box<dyn Reward>> {
        let model = loader.open_or_self(&KIND, self.0.as_deref(), &self.2)?;
        let asked = JudgeOptions {
            threads: loader.threads,
            attention: loader.attention,
            rendering: loader.chat.of_any_model(),
            ..JudgeOptions::default()
        };
        Ok(Box::new(Pairwise::new(model, &self.1, &asked)?))
    }
}

/// How responses are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairwiseOptions {
    /// The question, with `{a}`, `{b}` and, if wanted, `{prompt}`; its answer is A or B. `None` asks
    /// which is the better reply.
    pub question: Option<String>,
    /// Others of its iteration that a response is compared with, at least; 4.
    pub opponents: usize,
}

impl Default for PairwiseOptions {
    fn default() -> Self {
        Self {
            question: None,
            opponents: 4,
        }
    }
}

/// A model that is asked which of two responses is better.
pub struct Pairwise {
    asker: Asker,
    question: String,
    opponents: usize,
}

impl Pairwise {
    /// Lets `model` compare; it may be the generator itself. `asked` says how it is run; its question
    /// and its verdict count for nothing.
    ///
    /// # Errors
    /// [`Error::Field`] for a question without `{a}` or `{b}`, no opponents, or answers that the model
    /// does not give; [`Error::Model`] for a model that is no decoder.
    pub fn new(model: Arc<Model>, options: &PairwiseOptions, asked: &JudgeOptions) -> Result<Self> {
        let question = options.question.clone().unwrap_or_else(|| QUESTION.into());
        if !question.contains("{a}") || !question.contains("{b}") {
            return Err(KIND.refuse(format!("the question {question:?} needs {{a}} and {{b}}")));
        }
        if options.opponents == 0 {
            return Err(KIND.refuse("opponents=0: must be at least 1"));
        }
        let asked = JudgeOptions {
            verdict: Verdict::YesNo {
                yes: "A".into(),
                no: "B".into(),
            },
            ..asked.clone()
        };
        let mut pairwise = Self {
            asker: Asker::new(&KIND, model, &asked)?,
            question,
            opponents: options.opponents,
        };
        let [a, b] = &PROBES;
        let probes = [pairwise.tokenize(a, b)?, pairwise.tokenize(b, a)?];
        pairwise.asker.check(&probes)?;
        Ok(pairwise)
    }

    /// Tokens of the question whether `a` is better than `b`.
    fn tokenize(&self, a: &Sample<'_>, b: &Sample<'_>) -> Result<Vec<Token>> {
        let prompt = a.transcript();
        let texts = [
            ("{a}", a.response),
            ("{b}", b.response),
            ("{prompt}", &*prompt),
        ];
        self.asker.tokenize(&self.question, &texts)
    }

    /// The answers about responses to one prompt beside `elites`.
    fn compare(
        &mut self,
        samples: &[Sample<'_>],
        elites: &[(Sample<'_>, f64)],
    ) -> Result<Vec<Answer>> {
        let known: Vec<f64> = elites.iter().map(|(_, strength)| *strength).collect();
        let all: Vec<Sample<'_>> = samples
            .iter()
            .chain(elites.iter().map(|(sample, _)| sample))
            .copied()
            .collect();
        let pairs = pairs(samples.len(), elites.len(), self.opponents);
        let mut comparisons: Vec<Option<f64>> = vec![Some(0.0); pairs.len()];
        let mut tokens = vec![0; all.len()];
        let mut too_long = vec![None; all.len()];
        // What questions about the same first response begin with is decoded once.
        for first in 0..all.len() {
            let mut asked = Vec::new();
            let mut questions = Vec::new();
            for (number, &(a, b)) in pairs.iter().enumerate() {
                let (second, sign) = match first {
                    _ if first == a => (b, 0.5),
                    _ if first == b => (a, -0.5),
                    _ => continue,
                };
                let question = self.tokenize(&all[first], &all[second])?;
                let (count, limit) = (question.len(), self.asker.limit());
                if count > limit {
                    comparisons[number] = None;
                    let longer = match all[first].response.len() > all[second].response.len() {
                        true => first,
                        false => second,
                    };
                    let tokens = count;
                    too_long[longer] = Some(SampleError::TooLong { tokens, limit });
                    continue;
                }
                asked.push((number, sign));
                questions.push(question);
            }
            for ((number, sign), score) in asked.into_iter().zip(self.asker.ask(&questions)?) {
                if let Some(sum) = &mut comparisons[number] {
                    *sum += sign * score.reward;
                }
                tokens[first] += score.tokens;
            }
        }
        let found: Vec<Comparison> = pairs
            .iter()
            .zip(comparisons)
            .filter_map(|(&(first, second), log_odds)| {
                Some(Comparison {
                    first,
                    second,
                    log_odds: log_odds.filter(|l| !l.is_nan())?,
                })
            })
            .collect();
        let strengths = strengths(all.len(), &known, &found);
        let answer = |(number, reward): (usize, f64)| {
            let met = |c: &Comparison| c.first == number || c.second == number;
            // Alone, it is the origin.
            if all.len() > 1 && !found.iter().any(met) {
                let none = || SampleError::Other("no comparison with another response".into());
                return Err(too_long[number].clone().unwrap_or_else(none));
            }
            Ok(Score {
                reward,
                tokens: tokens[number],
                ..Score::default()
            })
        };
        Ok(strengths.into_iter().enumerate().map(answer).collect())
    }
}

/// Who meets whom, of so many new ones with the numbers from 0, and so many elites behind them: every
/// new one the next few in a circle, and all elites.
fn pairs(new: usize, elites: usize, opponents: usize) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for step in 1..=opponents.div_ceil(2).min(new / 2) {
        // Half a circle away, each pair would come twice.
        let from = if 2 * step == new { new / 2 } else { new };
        pairs.extend((0..from).map(|i| (i, (i + step) % new)));
    }
    for i in 0..new {
        pairs.extend((new..new + elites).map(|elite| (i, elite)));
    }
    pairs
}

impl Reward for Pairwise {
    fn name(&self) -> String {
        format!("pairwise {}", self.asker.model().path().display())
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        let alone = "a comparison needs two responses to the same prompt";
        let mut answers: Vec<Answer> = vec![Err(SampleError::Other(alone.into())); samples.len()];
        let mut seen: Vec<&str> = Vec::new();
        for sample in samples {
            if seen.contains(&sample.prompt) {
                continue;
            }
            seen.push(sample.prompt);
            let same =
                |(i, other): (usize, &Sample<'_>)| (other.prompt == sample.prompt).then_some(i);
            let members: Vec<usize> = samples.iter().enumerate().filter_map(same).collect();
            if members.len() < 2 {
                continue;
            }
            let group: Vec<Sample<'_>> = members.iter().map(|&i| samples[i]).collect();
            for (member, answer) in members.into_iter().zip(self.score_beside(&group, &[])?) {
                answers[member] = answer;
            }
        }
        Ok(answers)
    }

    /// Those of one prompt. One response without elites is the origin, and has the reward 0.
    fn score_beside(
        &mut self,
        samples: &[Sample<'_>],
        elites: &[(Sample<'_>, f64)],
    ) -> Result<Scores> {
        self.compare(samples, elites).map_err(Error::in_reward)
    }

    fn compares(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_meets_so_many_others_once_and_all_elites() {
        for (new, elites, opponents) in [(16, 2, 4), (4, 1, 3), (2, 0, 4), (1, 2, 4), (5, 0, 9)] {
            let pairs = pairs(new, elites, opponents);
            for i in 0..new {
                let mut met: Vec<usize> = pairs
                    .iter()
                    .filter_map(|&(a, b)| match i {
                        _ if a == i => Some(b),
                        _ if b == i => Some(a),
                        _ => None,
                    })
                    .collect();
                let count = met.len();
                met.sort_unstable();
                met.dedup();
                assert_eq!(met.len(), count, "{new} {opponents}: nobody twice");
                assert!(!met.contains(&i));
                let others = met.iter().filter(|&&other| other < new).count();
                assert!(
                    others >= opponents.min(new - 1),
                    "{new} {opponents}: {others}"
                );
                assert_eq!(count - others, elites);
            }
        }
        assert!(pairs(0, 2, 4).is_empty());
    }
}
