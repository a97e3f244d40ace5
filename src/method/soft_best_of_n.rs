//! Soft best-of-n: the samples of best-of-n, of which the answer is drawn with probability
//! ∝ exp(r/λ). λ → 0 is best-of-n, λ → ∞ one plain sample.
//!
//! Source: Verdun et al. 2025 (soft best-of-n sampling); λ as in AISP's weights.

use super::{BestOfN, Method, MethodOptions, Outcome, Place, Proposal, Telemetry};
use crate::control::{LambdaRule, importance_weights};
use crate::error::Result;

/// λ in reward units, where it is not given.
const DEFAULT_LAMBDA: f64 = 0.3;

/// The state of soft best-of-n for one prompt.
pub struct SoftBestOfN {
    draws: BestOfN,
    lambda: f64,
    seed: u64,
}

impl SoftBestOfN {
    /// Soft best-of-n with the sampling options given; `options` are valid.
    #[must_use]
    pub fn new(options: &MethodOptions) -> Self {
        Self {
            draws: BestOfN::new(options),
            lambda: match options.lambda {
                LambdaRule::Fixed(lambda) => lambda,
                LambdaRule::Ess(_) => DEFAULT_LAMBDA,
            },
            seed: options.seed,
        }
    }
}

impl Method for SoftBestOfN {
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

    fn answer(&mut self, rewards: &[f64]) -> usize {
        let rule = LambdaRule::Fixed(self.lambda);
        let weights = importance_weights(rewards, &vec![0.0; rewards.len()], rule).weights();
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

    fn answers(lambda: f64) -> [usize; 3] {
        let mut counts = [0; 3];
        for seed in 0..2000 {
            let mut method = SoftBestOfN::new(&MethodOptions {
                lambda: LambdaRule::Fixed(lambda),
                seed,
                ..MethodOptions::default()
            });
            counts[method.answer(&[2.0, 1.0, 0.0])] += 1;
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
        let mut method = SoftBestOfN::new(&MethodOptions {
            lambda: LambdaRule::Fixed(1.0),
            ..MethodOptions::default()
        });
        let mut counts = [0; 3];
        for prompt in 0..2000 {
            let level = 0.001 * f64::from(prompt);
            counts[method.answer(&[level + 2.0, level + 1.0, level])] += 1;
        }
        // 1,331, 489 and 180 by the weights.
        assert!((1225..1437).contains(&counts[0]), "{counts:?}");
        assert!((390..590).contains(&counts[1]), "{counts:?}");
    }
}
