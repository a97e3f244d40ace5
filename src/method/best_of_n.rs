//! Best-of-n: independent samples at the user's temperature, the highest reward wins.
//!
//! It has the same budget as AISP, samples · iterations; an iteration is only a report.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::{Entry, Group, SAMPLING, read};
use super::{Facts, Method, Outcome, Place, Proposal, Rounds, Settings, Telemetry};
use crate::error::Result;
use crate::rollout::{SamplingOptions, Steer, TokenChoice};

pub(super) const ENTRY: Entry = Entry {
    name: "best-of-n",
    about: "the best of independent samples",
    settings: &[Group {
        only_with: None,
        settings: SAMPLING,
    }],
    presets: &[],
    build: read::<BestOfNSettings>,
};

/// Settings of best-of-n.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BestOfNSettings {
    /// How tokens are drawn.
    #[serde(flatten)]
    pub(super) sampling: SamplingOptions,
}

impl Settings for BestOfNSettings {
    fn validate(&self, _rounds: &Rounds) -> Result<()> {
        self.sampling.validate()
    }

    fn build(&self, rounds: &Rounds, _facts: &Facts) -> Result<Box<dyn Method>> {
        Ok(Box::new(BestOfN::new(rounds, &self.sampling)))
    }

    fn kl_bound(&self, candidates: usize, _mean: Option<f64>) -> Option<f64> {
        best_of_draws(candidates)
    }
}

/// log n − (n−1)/n: what the best of n draws is from a draw, at most.
pub(super) fn best_of_draws(candidates: usize) -> Option<f64> {
    let n = candidates.max(1) as f64;
    Some(n.ln() - (n - 1.0) / n)
}

/// The state of best-of-n for one prompt.
pub(super) struct BestOfN {
    choice: TokenChoice,
    rounds: Rounds,
    iteration: usize,
}

/// The randomness of one sample.
struct Draw(Place);

impl Steer for Draw {
    fn uniform(&self, position: usize) -> f64 {
        self.0.uniform(position)
    }
}

impl BestOfN {
    pub(super) fn new(rounds: &Rounds, sampling: &SamplingOptions) -> Self {
        Self {
            choice: TokenChoice::Sample(*sampling),
            rounds: *rounds,
            iteration: 0,
        }
    }
}

impl Method for BestOfN {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn shape(&self) -> (usize, usize) {
        (self.rounds.samples, self.rounds.iterations)
    }

    fn propose(&mut self) -> Vec<Proposal> {
        let places = self.rounds.places(self.iteration);
        self.iteration += 1;
        places
            .map(|place| Proposal {
                steer: Some(Arc::new(Draw(place))),
                choice: self.choice,
                ..Proposal::default()
            })
            .collect()
    }

    fn observe(&mut self, _outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        Ok(Telemetry::default())
    }

    fn waits(&self) -> bool {
        false
    }
}
