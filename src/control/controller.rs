//! The controllers behind one face: proposals out, scored candidates in.

use std::sync::Arc;

use serde::Serialize;

use super::noise::NoiseKey;
use super::options::{ControlError, SearchOptions, SmcOptions, WeightedOptions};
use super::price::{Cost, PriceGuard};
use super::sampler::Sampler;
use super::search::{Search, Trial};
use super::trajectory::{Beginning, Trajectory};
use super::weighted::{Scored, WeightedMean};

/// What an update says about an iteration; fields that it has no use for are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Telemetry {
    /// Effective sample size 1/Σw² of the weights of the candidates.
    pub ess: Option<f64>,
    /// Temperature of the weights, in reward units.
    pub lambda: Option<f64>,
    /// Standard deviation of the noise on a pre-logit.
    pub sigma: Option<f64>,
    /// |U|/(σ√(dτ)) after the iteration's update; for a search, whose mean is the same at every
    /// position, |u|/(σ₀√d) with σ₀ that of `sigma` = auto.
    pub u_norm: Option<f64>,
    /// KL(Q_U‖P) in nats after the iteration's update; of a population an estimate of KL(q*_λ‖P).
    pub kl: Option<f64>,
    /// Estimate of the free energy λ·log E_P\[exp(r/λ)\], in reward units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_energy: Option<f64>,
    /// Share of a population's moves that were accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acceptance: Option<f64>,
    /// Share of the reward's variance that the mean's direction explains of candidates that it
    /// was not made from, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r2: Option<f64>,
    /// Most nats a token that the answer may cost, where there is a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_limit: Option<f64>,
    /// Correlation of the rewards of beginnings and of their answers, where beginnings are reviewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_correlation: Option<f64>,
}

/// The perturbations of one candidate.
#[derive(Clone, Debug)]
pub enum Perturbation {
    /// Fresh noise around a mean `[τ, d]`.
    Noise {
        /// The mean, and the noise's options.
        controller: Arc<WeightedMean>,
        /// Iteration of the candidate, from 0.
        iteration: u32,
        /// Its number within the iteration, from 0.
        candidate: u32,
    },
    /// Noise of several places.
    Trajectory(Trajectory),
}

impl Perturbation {
    /// Adds v_t to `row` `[d]`, the pre-logits behind the t `tokens` of the response so far; answers
    /// false, and leaves the row alone, from the horizon on. `row_of` reads the row W_j `[d]` of the
    /// output matrix: see [`Trajectory::perturb`].
    ///
    /// # Errors
    /// What `row_of` failed with.
    ///
    /// # Panics
    /// If `row` does not have the controller's width.
    pub fn perturb<E>(
        &self,
        tokens: &[i32],
        row_of: impl FnMut(i32, &mut [f32]) -> Result<(), E>,
        row: &mut [f32],
    ) -> Result<bool, E> {
        match self {
            Self::Noise {
                controller,
                iteration,
                candidate,
            } => {
                controller.perturb(*iteration, *candidate, tokens.len(), row);
                Ok(tokens.len() < controller.options().horizon)
            }
            Self::Trajectory(trajectory) => trajectory.perturb(tokens, row_of, row),
        }
    }

    /// Tokens that the candidate begins with, as far as they are known: see
    /// [`Trajectory::beginning`].
    #[must_use]
    pub fn beginning(&self) -> Beginning {
        match self {
            Self::Noise { .. } => Beginning::default(),
            Self::Trajectory(trajectory) => Arc::clone(trajectory.beginning()),
        }
    }

    /// Positions from the start whose noise is an earlier candidate's, and so their tokens.
    #[must_use]
    pub fn kept(&self) -> usize {
        match self {
            Self::Noise { .. } => 0,
            Self::Trajectory(trajectory) => trajectory.kept(),
        }
    }

    /// Whether the token at `position` is to be drawn at temperature 1, by
    /// [`uniform`](Self::uniform).
    #[must_use]
    pub fn draws(&self, position: usize) -> bool {
        match self {
            Self::Noise { .. } => false,
            Self::Trajectory(trajectory) => trajectory.draws(position),
        }
    }

    /// A number in `[0, 1)` for choosing the token at `position` by chance.
    #[must_use]
    pub fn uniform(&self, position: usize) -> f64 {
        match self {
            Self::Noise {
                controller,
                iteration,
                candidate,
            } => NoiseKey {
                seed: controller.options().seed,
                iteration: *iteration,
                candidate: *candidate,
                position: u32::try_from(position).unwrap_or(u32::MAX),
            }
            .uniform(),
            Self::Trajectory(trajectory) => trajectory.uniform(position),
        }
    }
}

/// The state of a controller for one prompt.
pub struct Controller {
    kind: Kind,
    iteration: u32,
}

enum Kind {
    Weights(Arc<WeightedMean>, PriceGuard),
    Smc(Box<Sampler>),
    Search(Box<Search>),
}

impl Controller {
    /// The search of [`Search`], which has seen nothing.
    ///
    /// # Errors
    /// [`ControlError::Option`] names the option that is out of range and its value.
    pub fn search(options: SearchOptions) -> Result<Self, ControlError> {
        Ok(Self {
            kind: Kind::Search(Box::new(Search::new(options)?)),
            iteration: 0,
        })
    }

    /// The paper's update, [`WeightedMean`], from a mean of zero, on what candidates are worth with
    /// their price.
    ///
    /// # Errors
    /// [`ControlError::Option`] names the option that is out of range and its value.
    pub fn weighted(options: WeightedOptions, guard: PriceGuard) -> Result<Self, ControlError> {
        Ok(Self {
            kind: Kind::Weights(Arc::new(WeightedMean::new(options)?), guard),
            iteration: 0,
        })
    }

    /// The population of [`Smc`](super::Smc), on what candidates are worth with their price, with a learnt mean
    /// where `steer` is above 0: see [`SamplerSettings::steer`](super::SamplerSettings::steer).
    ///
    /// # Errors
    /// [`ControlError::Option`] names the option that is out of range and its value.
    pub fn population(
        options: SmcOptions,
        guard: PriceGuard,
        steer: f64,
        unit: f64,
    ) -> Result<Self, ControlError> {
        Ok(Self {
            kind: Kind::Smc(Box::new(Sampler::new(options, guard, steer, unit)?)),
            iteration: 0,
        })
    }

    /// The perturbations of `samples` candidates of the current iteration.
    pub fn propose(&mut self, samples: u32) -> Vec<Perturbation> {
        let iteration = self.iteration;
        match &mut self.kind {
            Kind::Search(search) => {
                let trajectories = search.propose(samples).into_iter();
                trajectories.map(Perturbation::Trajectory).collect()
            }
            Kind::Smc(sampler) => {
                let trajectories = sampler.propose(samples).into_iter();
                trajectories.map(Perturbation::Trajectory).collect()
            }
            Kind::Weights(controller, _) => (0..samples)
                .map(|candidate| Perturbation::Noise {
                    controller: Arc::clone(controller),
                    iteration,
                    candidate,
                })
                .collect(),
        }
    }

    /// Whether it learns from the rows of the output matrix.
    #[must_use]
    pub fn looks_at_rows(&self) -> bool {
        self.rows_within().is_some()
    }

    /// The positions whose rows are looked at.
    fn rows_within(&self) -> Option<usize> {
        match &self.kind {
            Kind::Search(search) => {
                let options = search.options();
                (options.steer > 0.0).then_some(options.horizon)
            }
            Kind::Smc(sampler) => sampler.rows_within(),
            Kind::Weights(..) => None,
        }
    }

    /// Fills in what the controller wants to know of the tokens of `trial`. `sum` adds up the output
    /// matrix's rows W_j `[d]` of tokens j, each times a weight, and is asked only where the
    /// controller [looks at them](Self::looks_at_rows).
    ///
    /// # Errors
    /// What `sum` failed with.
    pub fn with_rows<E>(
        &self,
        mut trial: Trial,
        sum: impl FnOnce(&[(i32, f32)]) -> Result<Vec<f32>, E>,
    ) -> Result<Trial, E> {
        if let Some(horizon) = self.rows_within() {
            trial.features = sum(&trial.weights(horizon))?;
        }
        Ok(trial)
    }

    /// What a candidate is worth as an answer, in reward units: see [`PriceGuard::worth`].
    #[must_use]
    pub fn worth(&self, reward: f64, cost: Option<Cost>) -> f64 {
        match &self.kind {
            Kind::Search(search) => search.worth(reward, cost),
            Kind::Weights(_, guard) => guard.worth(reward, cost),
            Kind::Smc(sampler) => sampler.guard().worth(reward, cost),
        }
    }

    /// Takes the outcomes of the last proposals, in any order, and begins the next iteration.
    ///
    /// # Panics
    /// If a trial's features are looked at and do not have the width of the options, or its
    /// number was not proposed.
    pub fn update(&mut self, trials: Vec<Trial>) -> Telemetry {
        let iteration = self.iteration;
        self.iteration += 1;
        match &mut self.kind {
            Kind::Search(search) => {
                let report = search.update(trials);
                Telemetry {
                    sigma: Some(search.options().sigma),
                    u_norm: Some(report.u_norm),
                    r2: Some(report.r2),
                    price_limit: report.price_limit,
                    ..Telemetry::default()
                }
            }
            Kind::Smc(sampler) => sampler.update(trials),
            Kind::Weights(controller, guard) => {
                guard.observe_first(&costs(&trials));
                let scored: Vec<Scored> = trials
                    .iter()
                    .map(|trial| Scored {
                        candidate: trial.candidate,
                        reward: guard.worth(trial.reward, trial.cost),
                        length: trial.tokens.len(),
                    })
                    .collect();
                // The proposals are gone by now, so this does not copy the mean.
                let controller = Arc::make_mut(controller);
                let report = controller.update(iteration, &scored);
                Telemetry {
                    ess: Some(report.ess),
                    lambda: Some(report.lambda),
                    sigma: Some(controller.options().sigma),
                    u_norm: Some(report.u_norm),
                    kl: Some(report.kl),
                    price_limit: guard.limit(),
                    ..Telemetry::default()
                }
            }
        }
    }
}

/// What candidates with a reward cost.
pub(super) fn costs(trials: &[Trial]) -> Vec<Cost> {
    let scored = trials.iter().filter(|t| t.reward.is_finite());
    scored.filter_map(|t| t.cost).collect()
}
