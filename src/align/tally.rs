//! What a run has counted so far: its scored candidates, the best of them, what they cost.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::record::{IterationStats, ScoredCandidate, Usage};
use crate::control::Telemetry;
use crate::error::Error;
use crate::reward::Answer;
use crate::rollout::{Candidate, End, Price};

/// Candidates without a reward, by reason.
#[derive(Default)]
struct Failures {
    empty: usize,
    other: usize,
    last: String,
}

/// Responses that rewards which compare are given beside new ones.
const ELITES: usize = 2;

/// One of the best responses so far.
pub(super) struct Elite {
    pub(super) text: String,
    pub(super) reward: f64,
    pub(super) held_out: Option<f64>,
}

/// Why a candidate without a text has no reward.
const EMPTY: &str = "empty response";

/// Why a candidate that does not come to its answer has no reward.
const UNFINISHED: &str = "reasoning without an end; give a larger `max-tokens`, or `think` = off";

/// The count.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) usage: Usage,
    /// All candidates, the best first once they are [ranked](Self::rank).
    pub(super) ranked: Vec<ScoredCandidate>,
    /// By text: its score, and what the held-out reward says.
    known: HashMap<String, (Answer, Option<f64>)>,
    failures: Failures,
}

impl ScoredCandidate {
    /// Candidate `index` of `iteration`, before it is scored.
    pub(super) fn new(iteration: usize, index: usize, candidate: &Candidate) -> Self {
        Self {
            iteration,
            candidate: index,
            reward: None,
            parts: Vec::new(),
            held_out: None,
            price: Price::of(&candidate.nats),
            too_dear: false,
            repeat: false,
            tokens: candidate.tokens.len(),
            known: candidate.known,
            end: candidate.end,
            text: candidate.text.clone(),
            reasoning: candidate.reasoning.clone(),
            error: candidate.unfinished.then(|| UNFINISHED.into()),
            truncated: false,
        }
    }
}

impl Tally {
    /// The texts of `candidates` that have no score yet, each once.
    pub(super) fn unknown<'a>(&self, candidates: &'a [(usize, Candidate)]) -> Vec<&'a str> {
        let mut texts: Vec<&str> = Vec::new();
        for (_, candidate) in candidates {
            let text = candidate.text.as_str();
            if !is_empty(candidate) && !self.known.contains_key(text) && !texts.contains(&text) {
                texts.push(text);
            }
        }
        texts
    }

    /// Puts down what a text was given, and counts it.
    pub(super) fn learn(&mut self, text: &str, answer: Answer, held_out: Option<f64>) {
        self.usage.reward_calls += 1;
        if let Ok(score) = &answer {
            self.usage.reward_tokens = self.usage.reward_tokens.saturating_add(score.tokens);
        }
        self.known.insert(text.to_owned(), (answer, held_out));
    }

    /// Counts a candidate that its method gave up: it has no reward.
    pub(super) fn give_up(&mut self, candidate: ScoredCandidate) {
        self.usage.given_up += 1;
        self.ranked.push(candidate);
    }

    /// Counts a candidate, whose text is known or empty, and puts down its reward.
    pub(super) fn count(&mut self, mut scored: ScoredCandidate) -> &ScoredCandidate {
        match self.known.get(&scored.text) {
            Some((Ok(score), held_out)) => {
                self.usage.truncated += usize::from(score.truncated);
                scored.truncated = score.truncated;
                scored.parts.clone_from(&score.parts);
                scored.held_out = *held_out;
                match score.reward.is_finite() {
                    true => scored.reward = Some(score.reward),
                    false => scored.error = Some(format!("the reward is {}", score.reward)),
                }
            }
            Some((Err(error), _)) => scored.error = Some(error.to_string()),
            // Reasoning that has no end is the reason, and stands there.
            None if scored.error.is_some() => {}
            None => {
                self.failures.empty += 1;
                scored.error = Some(EMPTY.into());
            }
        }
        if let Some(error) = scored.error.as_ref().filter(|error| *error != EMPTY) {
            self.failures.other += 1;
            self.failures.last.clone_from(error);
        }
        self.usage.unscored += usize::from(scored.reward.is_none());
        let same = |c: &ScoredCandidate| c.end != End::GivenUp && c.text == scored.text;
        scored.repeat = self.ranked.iter().any(same);
        self.ranked.push(scored);
        &self.ranked[self.ranked.len() - 1]
    }

    /// Ranks the candidates by what each is `worth`: −∞ for those that are too dear, which come
    /// next, the cheapest first; those without a reward come last. Of equals the earlier one
    /// comes first.
    pub(super) fn rank(&mut self, worth: impl Fn(f64, Option<&Price>) -> f64) {
        let of = |c: &ScoredCandidate| c.reward.map(|reward| worth(reward, c.price.as_ref()));
        for candidate in &mut self.ranked {
            candidate.too_dear = of(candidate) == Some(f64::NEG_INFINITY);
        }
        let dear = |c: &ScoredCandidate| match (c.too_dear, c.price) {
            (true, Some(price)) => price.per_token,
            _ => 0.0,
        };
        self.ranked.sort_by(|a, b| {
            let worth = of(b).partial_cmp(&of(a)).unwrap_or(Ordering::Equal);
            let place = (a.iteration, a.candidate).cmp(&(b.iteration, b.candidate));
            worth.then(dear(a).total_cmp(&dear(b))).then(place)
        });
    }

    /// The best candidate, where one has a reward.
    pub(super) fn best(&self) -> Option<&ScoredCandidate> {
        self.ranked.first().filter(|c| c.reward.is_some())
    }

    /// The best responses so far, each once.
    pub(super) fn elites(&self) -> Vec<Elite> {
        let once = self.ranked.iter().filter(|c| !c.repeat);
        let elite = |c: &ScoredCandidate| {
            Some(Elite {
                text: c.text.clone(),
                reward: c.reward?,
                held_out: c.held_out,
            })
        };
        once.filter_map(elite).take(ELITES).collect()
    }

    /// The candidates of an iteration whose text is new.
    fn new_of(&self, iteration: usize) -> impl Iterator<Item = &ScoredCandidate> {
        let own = self.ranked.iter().filter(move |c| c.iteration == iteration);
        own.filter(|c| !c.repeat)
    }

    /// Of each of those that has both: its reward, and what the held-out one says.
    pub(super) fn pairs(&self, iteration: usize) -> Vec<(f64, f64)> {
        self.new_of(iteration)
            .filter_map(|c| Some((c.reward?, c.held_out?)))
            .collect()
    }

    /// The rewards of the new texts of an iteration.
    pub(super) fn rewards(&self, iteration: usize) -> Vec<f64> {
        self.new_of(iteration).filter_map(|c| c.reward).collect()
    }

    /// What an iteration came to, the last one so far, as far as it is counted here.
    pub(super) fn stats(&self, index: usize) -> IterationStats {
        let own = self.ranked.iter().filter(|c| c.iteration == index);
        let scored = || self.new_of(index).filter(|c| c.reward.is_some());
        let best = self.best();
        IterationStats {
            index,
            mean_reward: average(self.rewards(index).into_iter()),
            max_reward: own.filter_map(|c| c.reward).reduce(f64::max),
            best_reward: best.and_then(|c| c.reward),
            mean_price: average(scored().filter_map(|c| Some(c.price?.per_token))),
            best_price: best.and_then(|c| Some(c.price?.per_token)),
            held_out_mean: average(self.pairs(index).iter().map(|p| p.1)),
            held_out_best: best.and_then(|c| c.held_out),
            telemetry: Telemetry::default(),
            tokens: 0,
            reward_calls: self.usage.reward_calls,
            seconds: 0.0,
        }
    }

    /// Why there is no answer.
    pub(super) fn no_answer(&self) -> Error {
        let Failures { empty, other, last } = &self.failures;
        match (empty, other) {
            (0, 0) => Error::Run(
                "stopped before a candidate had any token; nothing to answer with".into(),
            ),
            (_, 0) => Error::Run(format!(
                "every candidate is empty ({empty} of {empty}): the model ends its turn at once; \
                 check the prompt and the chat template (`chat-template`, `chat`)"
            )),
            _ => Error::Unscored(format!(
                "no response could be scored: {other} of {} failed, the last with: {last}",
                empty + other
            )),
        }
    }
}

/// Whether there is nothing to score.
pub(super) fn is_empty(candidate: &Candidate) -> bool {
    candidate.text.trim().is_empty()
}

/// The mean, where there is anything to average.
fn average(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    let sum: f64 = values.iter().sum();
    (!values.is_empty()).then(|| sum / values.len() as f64)
}
