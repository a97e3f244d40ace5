//! A population search on AISP's noise: the best candidates are continued from a cut, around a mean
//! that follows a regression of the reward.
//!
//! The mathematics is in [`control::Search`](crate::control::Search). This is its place in the loop.

use serde::{Deserialize, Serialize};

use super::entry::{Entry, Group, SAMPLING, read, setting};
use super::perturbed::{NOISE, PRICE, PerturbedSettings};
use super::review::Reviews;
use super::{Facts, Method, Rounds, Settings};
use crate::control::{Controller, SearchSettings};
use crate::error::Result;

pub(super) const ENTRY: Entry = Entry {
    name: "search",
    about: "noise on the pre-logits, a learnt mean, and the best candidates continued",
    settings: &[
        Group {
            only_with: None,
            settings: &[
                setting(
                    "steer",
                    "X",
                    "norm of the mean in units of the noise's, for a reward that it explains \
                     entirely and as far as the price allows",
                ),
                setting(
                    "elites",
                    "N",
                    "candidates that are continued from a cut; 0 draws all noise anew",
                ),
                setting(
                    "cut",
                    "RULE",
                    "where they are cut, entropy for tokens that the model was undecided at, or even",
                ),
                setting(
                    "fresh",
                    "SHARE",
                    "share of an iteration's candidates that are drawn anew",
                ),
                setting(
                    "early-rejection",
                    "auto|off",
                    "give up candidates whose beginning scores badly and begin others, where the \
                     first iteration says that the reward can read a beginning",
                ),
                setting(
                    "start",
                    "KIND",
                    "what the first iteration is, draws of the model itself at temperature 1 or noise",
                ),
            ],
        },
        Group {
            only_with: None,
            settings: PRICE,
        },
        Group {
            only_with: None,
            settings: NOISE,
        },
        Group {
            only_with: Some(("draw-tokens", "true")),
            settings: SAMPLING,
        },
    ],
    presets: &[],
    build: read::<Own>,
};

/// Whether candidates are given up by their beginnings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum EarlyRejection {
    /// Where it is measured to pay: see [`Reviews`].
    Auto,
    /// Never; beginnings are not scored.
    #[default]
    Off,
}

/// Settings of the search.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Own {
    /// Whether candidates may be given up (default [`EarlyRejection::Off`]).
    early_rejection: EarlyRejection,
    #[serde(flatten)]
    controller: SearchSettings,
    #[serde(flatten)]
    perturbed: PerturbedSettings,
}

impl Own {
    fn controller(
        &self,
        rounds: &Rounds,
        width: usize,
        row_spread: impl Fn() -> Result<f64>,
    ) -> Result<Controller> {
        let horizon = self.perturbed.horizon(rounds);
        self.controller
            .controller(horizon, width, rounds.seed, row_spread)
    }
}

impl Settings for Own {
    fn validate(&self, rounds: &Rounds) -> Result<()> {
        self.perturbed.validate()?;
        // The controller knows its own ranges.
        self.controller(rounds, 1, || Ok(1.0)).map(drop)
    }

    fn build(&self, rounds: &Rounds, facts: &Facts) -> Result<Box<dyn Method>> {
        let controller = self.controller(rounds, facts.width(), || facts.row_spread())?;
        let answers = rounds.samples * rounds.iterations;
        let reviews = match self.early_rejection {
            EarlyRejection::Auto => Reviews::new(answers, rounds.max_tokens),
            EarlyRejection::Off => None,
        };
        self.perturbed
            .build(ENTRY.name, controller, reviews, rounds, facts)
    }

    /// Continued candidates are not drawn from the mean.
    fn kl_bound(&self, _candidates: usize, _mean: Option<f64>) -> Option<f64> {
        None
    }
}
