//! Votes: independent samples as in best-of-n, and the answer that most of them agree on
//! (self-consistency).
//!
//! What a response votes for is found in its text: the last match of a pattern, or all of it, read
//! as its last number or compared as words. Each has one vote, or, weighted, e^{reward/λ} votes; of
//! the responses with the answer that got most, the one with the highest reward is taken. Responses
//! that say nothing do not vote, and where none does the highest reward wins.
//!
//! Source: arXiv 2203.11171.

use std::cmp::Ordering;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::best_of_n::BestOfN;
use super::entry::{Entry, Group, SAMPLING, read, setting};
use super::{Facts, Method, Outcome, Proposal, Ranked, Rounds, Settings, Telemetry, positive};
use crate::error::{Error, Result};
use crate::rollout::SamplingOptions;

pub(super) const ENTRY: Entry = Entry {
    name: "vote",
    about: "the answer that most independent samples agree on (self-consistency)",
    settings: &[
        Group {
            only_with: None,
            settings: &[
                setting(
                    "answer-pattern",
                    "REGEX",
                    "what of a response its answer is: the first group of the last match, or all of \
                     it; without one, the whole response",
                ),
                setting(
                    "vote-on",
                    "KIND",
                    "what is compared of it, number for its last number or words for all of its \
                     words",
                ),
                setting(
                    "votes",
                    "KIND",
                    "plain for one of each response, or reward for exp(reward / lambda) of each",
                ),
            ],
        },
        Group {
            only_with: Some(("votes", "reward")),
            settings: &[setting("lambda", "L", "temperature, in reward units")],
        },
        Group {
            only_with: None,
            settings: SAMPLING,
        },
    ],
    presets: &[],
    build: read::<VoteSettings>,
};

/// What is compared of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum VoteOn {
    /// The last number: `1,200`, `1200.0` and `$1200` are the same.
    #[default]
    Number,
    /// The words, whatever their case and what stands between them.
    Words,
}

/// How votes count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Votes {
    /// One each.
    #[default]
    Plain,
    /// e^{reward/λ} each.
    Reward,
}

/// Settings of the vote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct VoteSettings {
    /// What of a response its answer is (default: all of it).
    answer_pattern: Option<String>,
    /// What is compared of answers (default [`VoteOn::Number`]).
    vote_on: VoteOn,
    /// How votes count (default [`Votes::Plain`]).
    votes: Votes,
    /// λ of weighted votes, in reward units (default 1).
    lambda: f64,
    /// How tokens are drawn.
    #[serde(flatten)]
    sampling: SamplingOptions,
}

impl Default for VoteSettings {
    fn default() -> Self {
        Self {
            answer_pattern: None,
            vote_on: VoteOn::default(),
            votes: Votes::default(),
            lambda: 1.0,
            sampling: SamplingOptions::default(),
        }
    }
}

impl VoteSettings {
    fn pattern(&self) -> Result<Option<Regex>> {
        let compile = |text: &String| {
            Regex::new(text).map_err(|error| {
                let error = error.to_string();
                let reason = error.lines().last().unwrap_or_default();
                let reason = reason.trim_start_matches("error: ");
                Error::field("answer-pattern", format!("{text:?}: {reason}"))
            })
        };
        self.answer_pattern.as_ref().map(compile).transpose()
    }
}

impl Settings for VoteSettings {
    fn validate(&self, _rounds: &Rounds) -> Result<()> {
        positive("lambda", self.lambda)?;
        self.pattern()?;
        self.sampling.validate()
    }

    fn build(&self, rounds: &Rounds, _facts: &Facts) -> Result<Box<dyn Method>> {
        Ok(Box::new(Vote {
            draws: BestOfN::new(rounds, &self.sampling),
            pattern: self.pattern()?,
            settings: self.clone(),
        }))
    }

    /// The answer is not the best of the draws, and how far it is from one depends on the model.
    fn kl_bound(&self, _candidates: usize, _mean: Option<f64>) -> Option<f64> {
        None
    }

    fn draws_its_answer(&self) -> bool {
        true
    }
}

/// The state of the vote for one prompt.
struct Vote {
    draws: BestOfN,
    pattern: Option<Regex>,
    settings: VoteSettings,
}

impl Vote {
    /// What a response votes for; `None` for nothing.
    fn said(&self, text: &str) -> Option<String> {
        let answer = match &self.pattern {
            None => text,
            Some(pattern) => {
                let last = pattern.captures_iter(text).last()?;
                last.get(1).or_else(|| last.get(0))?.as_str()
            }
        };
        match self.settings.vote_on {
            VoteOn::Number => last_number(answer),
            VoteOn::Words => words(answer),
        }
    }
}

/// The last number of a text, in one spelling.
fn last_number(text: &str) -> Option<String> {
    static NUMBER: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\d+(?:,\d{3})*(?:\.\d+)?").ok());
    let last = NUMBER.as_ref()?.find_iter(text).last()?;
    let number: f64 = last.as_str().replace(',', "").parse().ok()?;
    // A minus sign, but no hyphen and no range ("1-10").
    let before = text[..last.start()].strip_suffix('-');
    let negative = before.is_some_and(|rest| !rest.ends_with(char::is_alphanumeric));
    // Zero has no sign.
    let number = if negative { 0.0 - number } else { number };
    Some(number.to_string())
}

/// The words of a text, in lower case.
fn words(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

impl Method for Vote {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn shape(&self) -> (usize, usize) {
        self.draws.shape()
    }

    fn propose(&mut self) -> Vec<Proposal> {
        self.draws.propose()
    }

    fn observe(&mut self, outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        self.draws.observe(outcomes)
    }

    fn waits(&self) -> bool {
        self.draws.waits()
    }

    fn answer(&mut self, candidates: &[Ranked<'_>]) -> usize {
        let best = candidates.first().map_or(0.0, |c| c.reward);
        // Each answer, its votes, and the first response that gave it.
        let mut answers: Vec<(String, f64, usize)> = Vec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            let Some(said) = self.said(candidate.text) else {
                continue;
            };
            let votes = match self.settings.votes {
                Votes::Plain => 1.0,
                Votes::Reward => ((candidate.reward - best) / self.settings.lambda).exp(),
            };
            match answers.iter_mut().find(|(answer, ..)| *answer == said) {
                Some((_, sum, _)) => *sum += votes,
                None => answers.push((said, votes, index)),
            }
        }
        let more = |a: &(String, f64, usize), b: &(String, f64, usize)| {
            let votes = a.1.partial_cmp(&b.1).unwrap_or(Ordering::Equal);
            votes.then(b.2.cmp(&a.2))
        };
        let most = answers.into_iter().max_by(more);
        most.map_or(0, |(_, _, index)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(settings: VoteSettings) -> Vote {
        Vote {
            draws: BestOfN::new(&Rounds::default(), &settings.sampling),
            pattern: settings.pattern().unwrap(),
            settings,
        }
    }

    fn answer(settings: VoteSettings, candidates: &[(f64, &str)]) -> usize {
        let ranked = candidates
            .iter()
            .map(|&(reward, text)| Ranked { reward, text });
        vote(settings).answer(&ranked.collect::<Vec<_>>())
    }

    const FIVE: [(f64, &str); 5] = [
        (3.0, "It is 7."),
        (2.0, "3 + 5 make 8"),
        (1.0, "no idea"),
        (0.5, "So the answer is $8.00."),
        (0.0, "8 or 9? 8.0!"),
    ];

    #[test]
    fn the_answer_of_most_wins_and_its_best_response_is_taken() {
        assert_eq!(answer(VoteSettings::default(), &FIVE), 1);
    }

    #[test]
    fn votes_may_weigh_as_much_as_their_rewards() {
        let weighted = |lambda| VoteSettings {
            votes: Votes::Reward,
            lambda,
            ..VoteSettings::default()
        };
        assert_eq!(answer(weighted(0.1), &FIVE), 0);
        assert_eq!(answer(weighted(10.0), &FIVE), 1);
    }

    #[test]
    fn equal_votes_and_none_at_all_leave_it_to_the_reward() {
        let settings = VoteSettings::default;
        assert_eq!(answer(settings(), &[(2.0, "1"), (1.0, "2")]), 0);
        assert_eq!(answer(settings(), &[(2.0, "a"), (1.0, "b")]), 0);
        assert_eq!(answer(settings(), &[(2.0, "a"), (1.0, "2")]), 1);
        assert_eq!(answer(settings(), &[]), 0);
    }

    #[test]
    fn a_pattern_says_where_the_answer_stands() {
        let settings = VoteSettings {
            answer_pattern: Some(r"(?i)answer:\s*\(?([A-D])".into()),
            vote_on: VoteOn::Words,
            ..VoteSettings::default()
        };
        let candidates = [
            (3.0, "Answer: A. No, wait. Answer: (C)"),
            (2.0, "B"),
            (1.0, "answer: b"),
            (0.0, "ANSWER: B!"),
        ];
        assert_eq!(answer(settings, &candidates), 2);
        let broken = VoteSettings {
            answer_pattern: Some("(".into()),
            ..VoteSettings::default()
        };
        let error = broken.validate(&Rounds::default()).unwrap_err().to_string();
        assert!(error.starts_with("answer-pattern: \"(\""), "{error}");
    }

    #[test]
    fn numbers_and_words_have_one_spelling() {
        for (text, number) in [
            ("1,234.50 euros", Some("1234.5")),
            ("x-3, then -3", Some("-3")),
            ("-0", Some("0")),
            ("1-10", Some("10")),
            ("4.", Some("4")),
            ("none", None),
            ("in 2024, 12", Some("12")),
        ] {
            assert_eq!(last_number(text).as_deref(), number, "{text}");
        }
        assert_eq!(words(" It's — PARIS! ").as_deref(), Some("it s paris"));
        assert_eq!(words("…"), None);
    }
}
