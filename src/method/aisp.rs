//! AISP: adaptive importance sampling on the pre-logits.
//!
//! The mathematics is in [`crate::control`]: [`Smc`](crate::control::Smc), a population on the
//! paper's target, and [`WeightedMean`](crate::control::WeightedMean), the paper's update (arXiv
//! 2510.26219, algorithm 1). This is their place in the loop.

use serde::{Deserialize, Serialize};

use super::entry::{Entry, Group, SAMPLING, read, setting};
use super::perturbed::{NOISE, PRICE, PerturbedSettings};
use super::{Facts, Method, Rounds, Settings};
use crate::control::{Controller, SamplerSettings, Update};
use crate::error::{Error, Result};

pub(super) const ENTRY: Entry = Entry {
    name: "aisp",
    about: "adaptive importance sampling on the pre-logits (AISP)",
    settings: &[
        Group {
            only_with: None,
            settings: &[
                setting(
                    "update",
                    "RULE",
                    "what it makes of the weights: smc, a population that is resampled and moved, \
                     or weights, their mean, as in the paper",
                ),
                setting(
                    "lambda",
                    "X|auto",
                    "temperature of the weights in reward units, or auto for a set effective \
                     sample size; a population's falls to it, or with auto as far as it gets",
                ),
                setting(
                    "ess",
                    "FRACTION",
                    "effective sample size that lambda auto aims at and a population keeps at each \
                     step, as a fraction of the candidates",
                ),
            ],
        },
        Group {
            only_with: Some(("update", "smc")),
            settings: &[
                setting(
                    "noise",
                    "gumbel|gaussian",
                    "tokens drawn from the model itself around a learnt mean, or noise on the \
                     pre-logits",
                ),
                setting(
                    "steer",
                    "NATS",
                    "what the proposals of the learnt mean may cost a candidate on average, which its \
                     weight pays back; 0 learns none, as gaussian noise and windows do",
                ),
                setting(
                    "move",
                    "KIND",
                    "noise that a move draws anew: cut, from a position on, or window",
                ),
                setting("window", "N", "positions of a window"),
                setting("chain", "N", "moves at one temperature"),
            ],
        },
        Group {
            only_with: Some(("update", "weights")),
            settings: &[
                setting(
                    "alpha",
                    "X",
                    "how far the penalty's base follows the mean, 0 to 1",
                ),
                setting(
                    "unmasked",
                    "",
                    "count positions past a candidate's end as well",
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
    // σ² = 0.5, λ = 0.3, α = 0.999, the weighted mean of all rows, and nothing of ours.
    presets: &[(
        "paper",
        r#"{"update": "weights", "sigma": 0.7071067811865476, "lambda": 0.3, "alpha": 0.999, "unmasked": true,
            "floor": 0, "price": "off"}"#,
    )],
    build: read::<Own>,
};

/// Settings of AISP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Own {
    #[serde(flatten)]
    controller: SamplerSettings,
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
        if self.controller.draws() && self.perturbed.draws_tokens() {
            let reason = "tokens are drawn already; or give `noise` = gaussian";
            return Err(Error::field("draw-tokens", reason));
        }
        let steer = self.controller.steer;
        if !self.controller.draws() && steer != SamplerSettings::default().steer {
            let reason = format!("{steer}; it only goes with `update` = smc and `noise` = gumbel");
            return Err(Error::field("steer", reason));
        }
        // The controller knows its own ranges.
        self.controller(rounds, 1, || Ok(1.0)).map(drop)
    }

    fn build(&self, rounds: &Rounds, facts: &Facts) -> Result<Box<dyn Method>> {
        let controller = self.controller(rounds, facts.width(), || facts.row_spread())?;
        self.perturbed
            .build(ENTRY.name, controller, None, rounds, facts)
    }

    /// A population's estimate is no bound.
    fn kl_bound(&self, _candidates: usize, mean: Option<f64>) -> Option<f64> {
        mean.filter(|_| self.controller.update == Update::Weights)
    }
}
