//! Best-of-n: independent samples at the user's temperature, the highest reward wins.
//!
//! It has the same budget as AISP, samples · iterations; an iteration is only a report.

use std::sync::Arc;

use super::{Method, MethodOptions, Outcome, Place, Proposal, Telemetry};
use crate::error::Result;
use crate::rollout::{Steer, TokenChoice};

/// The state of best-of-n for one prompt.
pub struct BestOfN {
    choice: TokenChoice,
    seed: u64,
    samples: u32,
    iterations: u32,
    iteration: u32,
}

/// The randomness of one sample.
struct Draw(Place);

impl Steer for Draw {
    fn perturb(&self, _position: usize, _row: &mut [f32]) -> bool {
        false
    }

    fn uniform(&self, position: usize) -> f64 {
        self.0.uniform(position)
    }
}

impl BestOfN {
    /// Best-of-n with the sampling options given; `options` are valid.
    #[must_use]
    pub fn new(options: &MethodOptions) -> Self {
        Self {
            choice: TokenChoice::Sample(options.sampling),
            seed: options.seed,
            samples: options.samples as u32,
            iterations: options.iterations as u32,
            iteration: 0,
        }
    }
}

impl Method for BestOfN {
    fn propose(&mut self) -> Vec<Proposal> {
        if self.iteration == self.iterations {
            return Vec::new();
        }
        (0..self.samples)
            .map(|candidate| Proposal {
                steer: Some(Arc::new(Draw(Place {
                    seed: self.seed,
                    iteration: self.iteration,
                    candidate,
                }))),
                choice: self.choice,
            })
            .collect()
    }

    fn observe(&mut self, _outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        self.iteration += 1;
        Ok(Telemetry::default())
    }
}
