//! AISP: perturbations are drawn around a mean, and the mean moves to what scored well.
//!
//! The mathematics is in [`crate::control`]: [`Search`](crate::control::Search) by default,
//! [`WeightedMean`](crate::control::WeightedMean) for the paper's update (arXiv 2510.26219,
//! algorithm 1). This is their place in the loop.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::{Entry, Group, SAMPLING, Setting, read, setting};
use super::{Facts, Method, Outcome, Proposal, Rounds, Settings, Telemetry, at_least_one};
use crate::control::{Controller, ControllerSettings, Perturbation, Update};
use crate::error::{Error, Result};
use crate::output::OutputRows;
use crate::rollout::{SamplingOptions, Steer, TokenChoice};

pub(super) const ENTRY: Entry = Entry {
    name: "aisp",
    about: "noise on the pre-logits that moves to what scores well",
    settings: &[
        Group {
            only_with: None,
            settings: &[
                setting(
                    "update",
                    "RULE",
                    "what it learns with, regression or weights",
                ),
                setting(
                    "sigma",
                    "X|auto",
                    "standard deviation of the noise, or auto for one that suits the output matrix",
                ),
                Setting {
                    instead_of: Some("sigma"),
                    ..setting(
                        "logit-sd",
                        "X",
                        "standard deviation of the noise on a logit that sigma auto aims at",
                    )
                },
                setting(
                    "horizon",
                    "T",
                    "response positions that are perturbed, if not all",
                ),
                setting(
                    "null-candidate",
                    "",
                    "make candidate 0 of every iteration the mean itself",
                ),
                setting(
                    "draw-tokens",
                    "",
                    "draw tokens from the perturbed logits instead of taking the largest",
                ),
            ],
        },
        Group {
            only_with: Some(("update", "regression")),
            settings: &[
                setting(
                    "steer",
                    "X",
                    "norm of the mean in units of the noise's, for a reward that it explains \
                     entirely",
                ),
                setting(
                    "elites",
                    "N",
                    "candidates whose noise is refined; 0 draws all noise anew",
                ),
                setting(
                    "mutation",
                    "P",
                    "probability of drawing a position's noise anew in the second iteration",
                ),
                setting(
                    "mutation-decay",
                    "X",
                    "its factor from iteration to iteration",
                ),
                setting("mutation-floor", "P", "where it stops falling"),
            ],
        },
        Group {
            only_with: Some(("update", "weights")),
            settings: &[
                setting(
                    "lambda",
                    "X|auto",
                    "temperature of the weights in reward units, or auto for a set effective \
                     sample size",
                ),
                Setting {
                    instead_of: Some("lambda"),
                    ..setting(
                        "ess",
                        "FRACTION",
                        "effective sample size that lambda auto aims at, as a fraction of the \
                         samples",
                    )
                },
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
            only_with: Some(("draw-tokens", "true")),
            settings: SAMPLING,
        },
    ],
    // σ² = 0.5, λ = 0.3, α = 0.999, the weighted mean of all rows.
    presets: &[(
        "paper",
        r#"{"update": "weights", "sigma": 0.7071067811865476, "lambda": 0.3, "alpha": 0.999,
            "unmasked": true}"#,
    )],
    build: read::<AispSettings>,
};

/// Settings of AISP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct AispSettings {
    /// Those of its controller.
    #[serde(flatten)]
    controller: ControllerSettings,
    /// Positions that are perturbed; by default all.
    horizon: Option<usize>,
    /// Draw tokens from the perturbed logits instead of taking the largest (default false).
    draw_tokens: bool,
    /// How they are drawn then.
    #[serde(flatten)]
    sampling: SamplingOptions,
}

impl AispSettings {
    fn controller(
        &self,
        rounds: &Rounds,
        width: usize,
        rms_row_norm: impl FnOnce() -> Result<f64>,
    ) -> Result<Controller> {
        let horizon = self.horizon.unwrap_or(rounds.max_tokens);
        let horizon = horizon.min(rounds.max_tokens);
        self.controller
            .controller(horizon, width, rounds.seed, rms_row_norm)
    }
}

impl Settings for AispSettings {
    fn validate(&self, rounds: &Rounds) -> Result<()> {
        at_least_one("horizon", self.horizon.unwrap_or(1))?;
        self.sampling.validate()?;
        // The controller knows its own ranges.
        self.controller(rounds, 1, || Ok(1.0)).map(drop)
    }

    fn build(&self, rounds: &Rounds, facts: &Facts) -> Result<Box<dyn Method>> {
        let controller = self.controller(rounds, facts.width(), || facts.rms_row_norm())?;
        Ok(Box::new(Aisp {
            output: match controller.looks_at_rows() {
                true => Some(facts.output()?),
                false => None,
            },
            controller,
            choice: match self.draw_tokens {
                true => TokenChoice::Sample(self.sampling),
                false => TokenChoice::Argmax,
            },
            rounds: *rounds,
            iteration: 0,
        }))
    }

    /// Elites are not drawn from the mean.
    fn kl_bound(&self, _candidates: usize, mean: Option<f64>) -> Option<f64> {
        let refines = self.controller.update == Update::Regression && self.controller.elites > 0;
        mean.filter(|_| !refines)
    }
}

/// The state of AISP for one prompt.
struct Aisp {
    controller: Controller,
    output: Option<Arc<OutputRows>>,
    choice: TokenChoice,
    rounds: Rounds,
    iteration: usize,
}

impl Steer for Perturbation {
    fn perturb(&self, position: usize, row: &mut [f32]) -> bool {
        Self::perturb(self, position, row)
    }

    fn uniform(&self, position: usize) -> f64 {
        Self::uniform(self, position)
    }
}

impl Method for Aisp {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn shape(&self) -> (usize, usize) {
        (self.rounds.samples, self.rounds.iterations)
    }

    fn propose(&mut self) -> Vec<Proposal> {
        if self.iteration == self.rounds.iterations {
            return Vec::new();
        }
        let perturbations = self.controller.propose(self.rounds.samples as u32);
        perturbations
            .into_iter()
            .map(|perturbation| Proposal {
                steer: Some(Arc::new(perturbation)),
                choice: self.choice,
            })
            .collect()
    }

    fn observe(&mut self, outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        self.iteration += 1;
        let sum = |tokens: &[i32]| match &self.output {
            Some(output) => output.sum(tokens),
            None => Err(Error::Run("the output matrix was not asked for".into())),
        };
        let trials = outcomes
            .iter()
            .map(|o| self.controller.trial(o.candidate, o.reward, o.tokens, sum))
            .collect::<Result<_>>()?;
        Ok(self.controller.update(trials))
    }
}
