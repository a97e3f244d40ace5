//! Soft best-of-n: the samples of best-of-n, of which the answer is drawn with probability
//! ∝ exp(r/λ). λ → 0 is best-of-n, λ → ∞ one plain sample.
//!
//! Source: Verdun et al. 2025 (soft best-of-n sampling); λ as in AISP's weights.

use serde::{Deserialize, Serialize};

use super::best_of_n::{BestOfN, best_of_draws};
use super::entry::{Entry, Group, SAMPLING, read, setting};
use super::{
    Facts, Method, Outcome, Place, Proposal, Ranked, Rounds, Settings, Telemetry, positive,
};
use crate::control::{LambdaRule, importance_weights};
use crate::error::Result;
use crate::rollout::SamplingOptions;

pub(super) const ENTRY: Entry = Entry {
    name: "soft-best-of-n",
    about: "one of independent samples, drawn by its reward",
    settings: &[
        Group {
            only_with: None,
            settings: &[setting(
                "lambda",
                "X",
                "temperature of the draw among the samples, in reward units",
            )],
        },
        Group {
            only_with: None,
            settings: SAMPLING,
        },
    ],
    presets: &[],
    build: read::<SoftBestOfNSettings>,
};

/// Settings of soft best-of-n.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SoftBestOfNSettings {
    /// λ, in reward units (default 0.3).
    lambda: f64,
    /// How tokens are drawn.
    #[serde(flatten)]
    sampling: SamplingOptions,
}

impl Default for SoftBestOfNSettings {
    fn default() -> Self {
        Self {
            lambda: 0.3,
            sampling: SamplingOptions::default(),
        }
    }
}

impl Settings for SoftBestOfNSettings {
    fn validate(&self, _rounds: &Rounds) -> Result<()> {
        positive("lambda", self.lambda)?;
        self.sampling.validate()
    }

    fn build(&self, rounds: &Rounds, _facts: &Facts) -> Result<Box<dyn Method>> {
        Ok(Box::new(SoftBestOfN::new(self, rounds)))
    }

    fn kl_bound(&self, candidates: usize, _mean: Option<f64>) -> Option<f64> {
        best_of_draws(candidates)
    }

    fn draws_its_answer(&self) -> bool {
        true
    }
}

/// The state of soft best-of-n for one prompt.
struct SoftBestOfN {
    draws: BestOfN,
    lambda: f64,
    seed: u64,
}

impl SoftBestOfN {
    fn new(settings: &SoftBestOfNSettings, rounds: &Rounds) -> Self {
        Self {
            draws: BestOfN::new(rounds, &settings.sampling),
            lambda: settings.lambda,
            seed: rounds.seed,
        }
    }
}

impl Method for SoftBestOfN {
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
        let telemetry = self.draws.observe(outcomes)?;
        Ok(Telemetry {
            lambda: Some(self.lambda),
            ..telemetry
        })
    }

    fn waits(&self) -> bool {
        self.draws.waits()
    }

    fn answer(&mut self, candidates: &[Ranked<'_>]) -> usize {
        let rewards: Vec<f64> = candidates.iter().map(|c| c.reward).collect();
        let rule = LambdaRule::Fixed(self.lambda);
        let weights = importance_weights(&rewards, &vec![0.0; rewards.len()], rule).weights();
        // A place that no candidate has, and another one for every prompt: one number for all
        // prompts of a seed would make all of them lucky or none.
        let place = Place {
            seed: rewards.iter().fold(self.seed, |hash, reward| {
                (hash.rotate_left(5) ^ reward.to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            }),
            iteration: u32::MAX,
            candidate: u32::MAX,
        };
        let mut left = place.uniform(0);
        for (index, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return index;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(rewards: [f64; 3]) -> [Ranked<'static>; 3] {
        rewards.map(|reward| Ranked { reward, text: "" })
    }

    fn answers(lambda: f64) -> [usize; 3] {
        let mut counts = [0; 3];
        for seed in 0..2000 {
            let settings = SoftBestOfNSettings {
                lambda,
                ..SoftBestOfNSettings::default()
            };
            let rounds = Rounds {
                seed,
                ..Rounds::default()
            };
            let mut method = SoftBestOfN::new(&settings, &rounds);
            counts[method.answer(&ranked([2.0, 1.0, 0.0]))] += 1;
        }
        counts
    }

    #[test]
    fn answers_follow_the_weights() {
        let total: f64 = [2.0_f64, 1.0, 0.0].iter().map(|r| r.exp()).sum();
        for (count, reward) in answers(1.0).into_iter().zip([2.0_f64, 1.0, 0.0]) {
            let p = reward.exp() / total;
            let error = (2000.0 * p * (1.0 - p)).sqrt();
            assert!((f64::from(count as u32) - 2000.0 * p).abs() < 5.0 * error);
        }
        assert_eq!(answers(1e-3), [2000, 0, 0]);
    }

    #[test]
    fn prompts_of_one_seed_are_drawn_for_apart() {
        let settings = SoftBestOfNSettings {
            lambda: 1.0,
            ..SoftBestOfNSettings::default()
        };
        let mut method = SoftBestOfN::new(&settings, &Rounds::default());
        let mut counts = [0; 3];
        for prompt in 0..2000 {
            let level = 0.001 * f64::from(prompt);
            counts[method.answer(&ranked([level + 2.0, level + 1.0, level]))] += 1;
        }
        // 1,331, 489 and 180 by the weights.
        assert!((1225..1437).contains(&counts[0]), "{counts:?}");
        assert!((390..590).contains(&counts[1]), "{counts:?}");
    }
}
