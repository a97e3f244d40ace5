//! The two AISP controllers behind one face: proposals out, scored candidates in.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::noise::NoiseKey;
use super::options::{ControlError, SearchOptions, WeightedOptions};
use super::search::{Search, Trial};
use super::trajectory::Trajectory;
use super::weighted::{Scored, WeightedMean};

/// How AISP learns from an iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Update {
    /// Ridge regression of the reward on the output matrix, and elites: see [`Search`].
    #[default]
    Regression,
    /// The importance-weighted mean of the noise, as in the paper: see [`WeightedMean`].
    Weights,
}

/// What an update says about an iteration; fields that it has no use for are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Telemetry {
    /// Effective sample size 1/Σw² of the candidates that the next iteration starts from.
    pub ess: Option<f64>,
    /// Temperature of the weights, in reward units.
    pub lambda: Option<f64>,
    /// Standard deviation of the noise on a pre-logit.
    pub sigma: Option<f64>,
    /// |U|/(σ√(dτ)) after the iteration's update.
    pub u_norm: Option<f64>,
    /// KL(Q_U‖P) in nats after the iteration's update.
    pub kl: Option<f64>,
    /// Share of the reward's variance that the mean's direction explains of candidates that it
    /// was not made from, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r2: Option<f64>,
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
    /// Adds v_t to `row` `[d]`, the pre-logits at response position t, counted from 0; answers
    /// false, and leaves the row alone, from the horizon on.
    ///
    /// # Panics
    /// If `row` does not have the controller's width.
    pub fn perturb(&self, position: usize, row: &mut [f32]) -> bool {
        match self {
            Self::Noise {
                controller,
                iteration,
                candidate,
            } => {
                controller.perturb(*iteration, *candidate, position, row);
                position < controller.options().horizon
            }
            Self::Trajectory(trajectory) => trajectory.perturb(position, row),
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

/// The state of AISP for one prompt.
pub struct Controller {
    kind: Kind,
    iteration: u32,
}

enum Kind {
    Weights(Arc<WeightedMean>),
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

    /// The paper's update, [`WeightedMean`], from a mean of zero.
    ///
    /// # Errors
    /// [`ControlError::Option`] names the option that is out of range and its value.
    pub fn weighted(options: WeightedOptions) -> Result<Self, ControlError> {
        Ok(Self {
            kind: Kind::Weights(Arc::new(WeightedMean::new(options)?)),
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
            Kind::Weights(controller) => (0..samples)
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
        matches!(&self.kind, Kind::Search(search) if search.options().steer > 0.0)
    }

    /// One candidate of the last proposals with its reward, for [`update`](Self::update). `sum`
    /// adds up the output matrix's rows W_j `[d]` of tokens j, and is asked only where the
    /// controller [looks at them](Self::looks_at_rows).
    ///
    /// # Errors
    /// What `sum` failed with.
    pub fn trial<E>(
        &self,
        candidate: u32,
        reward: f64,
        tokens: &[i32],
        sum: impl FnOnce(&[i32]) -> Result<Vec<f32>, E>,
    ) -> Result<Trial, E> {
        let features = match &self.kind {
            Kind::Search(search) if self.looks_at_rows() => {
                sum(&tokens[..tokens.len().min(search.options().horizon)])?
            }
            _ => Vec::new(),
        };
        Ok(Trial {
            candidate,
            reward,
            tokens: tokens.to_vec(),
            features,
        })
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
                    // The elites weigh the same.
                    ess: Some(report.elites as f64),
                    lambda: None,
                    sigma: Some(search.options().sigma),
                    u_norm: Some(report.u_norm),
                    kl: Some(report.kl),
                    r2: Some(report.r2),
                }
            }
            Kind::Weights(controller) => {
                let scored: Vec<Scored> = trials
                    .iter()
                    .map(|trial| Scored {
                        candidate: trial.candidate,
                        reward: trial.reward,
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
                    r2: None,
                }
            }
        }
    }
}
