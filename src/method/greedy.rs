//! Greedy decoding: one candidate, always the most probable token. What the model says by
//! itself, for comparison.

use super::{Method, Outcome, Proposal, Telemetry};
use crate::error::Result;
use crate::rollout::TokenChoice;

/// The state of greedy decoding for one prompt.
#[derive(Default)]
pub struct Greedy {
    done: bool,
}

impl Greedy {
    /// Greedy decoding.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Method for Greedy {
    fn propose(&mut self) -> Vec<Proposal> {
        if self.done {
            return Vec::new();
        }
        vec![Proposal {
            steer: None,
            choice: TokenChoice::Argmax,
        }]
    }

    fn observe(&mut self, _outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        self.done = true;
        Ok(Telemetry::default())
    }
}
