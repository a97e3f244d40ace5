//! Greedy decoding: one candidate, always the most probable token. What the model says by
//! itself, for comparison.

use serde::{Deserialize, Serialize};

use super::entry::{Entry, read};
use super::{Facts, Method, Outcome, Proposal, Rounds, Settings, Telemetry};
use crate::error::Result;
use crate::rollout::TokenChoice;

pub(super) const ENTRY: Entry = Entry {
    name: "greedy",
    about: "one answer, always the most probable token",
    settings: &[],
    presets: &[],
    build: read::<GreedySettings>,
};

/// Settings of greedy decoding: none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GreedySettings {}

impl Settings for GreedySettings {
    fn validate(&self, _rounds: &Rounds) -> Result<()> {
        Ok(())
    }

    fn build(&self, _rounds: &Rounds, _facts: &Facts) -> Result<Box<dyn Method>> {
        Ok(Box::new(Greedy { done: false }))
    }
}

/// The state of greedy decoding for one prompt.
struct Greedy {
    done: bool,
}

impl Method for Greedy {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn shape(&self) -> (usize, usize) {
        (1, 1)
    }

    fn propose(&mut self) -> Vec<Proposal> {
        if self.done {
            return Vec::new();
        }
        vec![Proposal {
            choice: TokenChoice::Argmax,
            ..Proposal::default()
        }]
    }

    fn observe(&mut self, _outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        self.done = true;
        Ok(Telemetry::default())
    }
}
