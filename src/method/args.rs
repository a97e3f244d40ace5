//! ARGS: the reward guides every token. Among the k most probable tokens the one with the largest
//! logit + w·r(prompt, response so far + token) is taken.
//!
//! The first response takes the largest score, further ones draw from softmax(score/T). Each
//! token costs k reward calls, which count against a budget like any others; when they run out the
//! run ends, and a response that is not whole yet is dropped unless it is the first. Responses are
//! written one after the other: k calls cost more than the row that they are for, and side by side
//! a limit would end all of them half-way.
//!
//! Source: arXiv 2402.01694.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::{Entry, Group, read, setting};
use super::{Facts, Method, Outcome, Place, Proposal, Rounds, Settings, Telemetry, at_least_one};
use crate::error::{Error, Result};
use crate::llama::Token;
use crate::rollout::{Ask, Chooser, SamplingOptions, Steer, TokenChoice};

pub(super) const ENTRY: Entry = Entry {
    name: "args",
    about: "the reward guides every token (ARGS)",
    settings: &[Group {
        only_with: None,
        settings: &[
            setting("guided", "K", "tokens that are scored at each position"),
            setting("weight", "W", "weight of the reward against a logit"),
            setting(
                "temp",
                "T",
                "temperature of the responses after the first, which takes the best tokens",
            ),
        ],
    }],
    presets: &[],
    build: read::<ArgsSettings>,
};

/// Settings of ARGS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ArgsSettings {
    /// Tokens that are scored at each position, k (default 10).
    guided: usize,
    /// Weight w of the reward against a logit (default 1.5).
    weight: f64,
    /// Temperature T of the responses after the first (default that of sampling).
    #[serde(serialize_with = "crate::rollout::shortest")]
    temp: f32,
}

impl Default for ArgsSettings {
    fn default() -> Self {
        Self {
            guided: 10,
            weight: 1.5,
            temp: SamplingOptions::default().temperature,
        }
    }
}

impl Settings for ArgsSettings {
    fn validate(&self, _rounds: &Rounds) -> Result<()> {
        at_least_one("guided", self.guided)?;
        if !self.weight.is_finite() {
            let reason = format!("{}; give a finite number", self.weight);
            return Err(Error::field("weight", reason));
        }
        let sampling = SamplingOptions {
            temperature: self.temp,
            ..SamplingOptions::default()
        };
        sampling.validate()
    }

    fn build(&self, rounds: &Rounds, _facts: &Facts) -> Result<Box<dyn Method>> {
        Ok(Box::new(ArgsDecoding {
            settings: self.clone(),
            seed: rounds.seed,
            responses: rounds.samples.saturating_mul(rounds.iterations),
            response: 0,
        }))
    }
}

/// The state of ARGS for one prompt.
struct ArgsDecoding {
    settings: ArgsSettings,
    seed: u64,
    responses: usize,
    response: usize,
}

struct Guide {
    guided: usize,
    weight: f64,
    /// 0 takes the largest score.
    temperature: f64,
    place: Place,
}

impl Steer for Guide {
    fn uniform(&self, position: usize) -> f64 {
        self.place.uniform(position)
    }

    fn choose(&self, tokens: &[Token], logits: &[f32], ask: &mut Ask<'_>) -> Result<Option<Token>> {
        let options = SamplingOptions {
            temperature: 1.0,
            top_k: self.guided,
            top_p: 1.0,
            min_p: 0.0,
        };
        let mut chooser = Chooser::default();
        let best = chooser.filter(&options, logits);
        let continued: Vec<Vec<Token>> = best
            .iter()
            .map(|&(_, token)| tokens.iter().copied().chain([token]).collect())
            .collect();
        let rewards = known(ask(&continued)?);
        let scores: Vec<(f64, Token)> = best
            .iter()
            .zip(rewards)
            .map(|(&(logit, token), r)| (f64::from(logit) + self.weight * r, token))
            .collect();
        Ok(pick(&scores, self.temperature, self.uniform(tokens.len())))
    }
}

/// Rewards with the mean of the others in place of those that are missing: a continuation
/// without any text yet is neither better nor worse.
fn known(rewards: Vec<Option<f64>>) -> Vec<f64> {
    let there: Vec<f64> = rewards.iter().flatten().copied().collect();
    let mean = there.iter().sum::<f64>() / there.len().max(1) as f64;
    rewards.into_iter().map(|r| r.unwrap_or(mean)).collect()
}

/// The token with the largest score, or one drawn from softmax(score/T).
fn pick(scores: &[(f64, Token)], temperature: f64, uniform: f64) -> Option<Token> {
    let best = scores
        .iter()
        .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))?;
    if temperature <= 0.0 {
        return Some(best.1);
    }
    let weight = |score: f64| ((score - best.0) / temperature).exp();
    let mut left = uniform * scores.iter().map(|s| weight(s.0)).sum::<f64>();
    for &(score, token) in scores {
        left -= weight(score);
        if left < 0.0 {
            return Some(token);
        }
    }
    Some(best.1)
}

impl Method for ArgsDecoding {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn shape(&self) -> (usize, usize) {
        (1, self.responses)
    }

    fn propose(&mut self) -> Vec<Proposal> {
        if self.response == self.responses {
            return Vec::new();
        }
        vec![Proposal {
            steer: Some(Arc::new(Guide {
                guided: self.settings.guided,
                weight: self.settings.weight,
                temperature: match self.response {
                    0 => 0.0,
                    _ => f64::from(self.settings.temp),
                },
                place: Place {
                    seed: self.seed,
                    iteration: u32::try_from(self.response).unwrap_or(u32::MAX),
                    candidate: 0,
                },
            })),
            choice: TokenChoice::Argmax,
            ..Proposal::default()
        }]
    }

    fn observe(&mut self, _outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        self.response += 1;
        Ok(Telemetry::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_score_wins_and_draws_follow_the_softmax() {
        let scores = [(1.0, 7), (2.0, 8), (2.0, 3)];
        assert_eq!(pick(&scores, 0.0, 0.9), Some(3));
        let shares = scores.map(|s| (s.0 - 2.0_f64).exp());
        let total: f64 = shares.iter().sum();
        let drawn = |token| {
            let draws = (0..1000).map(|i| pick(&scores, 1.0, (f64::from(i) + 0.5) / 1000.0));
            draws.filter(|&t| t == Some(token)).count() as f64 / 1000.0
        };
        for (share, (_, token)) in shares.into_iter().zip(scores) {
            assert!((drawn(token) - share / total).abs() < 0.002);
        }
        assert_eq!(pick(&[], 0.0, 0.0), None);
    }

    #[test]
    fn missing_rewards_are_neutral() {
        assert_eq!(known(vec![Some(1.0), None, Some(3.0)]), [1.0, 2.0, 3.0]);
        assert_eq!(known(vec![None]), [0.0]);
    }
}
