//! AISP: every iteration draws perturbations around the mean U, and moves U to their
//! weighted average.
//!
//! The mathematics is in [`crate::control`]; this is its place in the loop.
//! Source: arXiv 2510.26219, algorithm 1.

use std::sync::Arc;

use super::{Method, MethodOptions, ModelFacts, Outcome, Place, Proposal, Sigma, Telemetry};
use crate::control::{Aisp, AispOptions, GUMBEL_SD, Scored, calibrated_sigma};
use crate::error::Result;
use crate::rollout::{Stream, TokenChoice};

/// Target effective sample size as a fraction of the samples, where λ is not given.
pub const DEFAULT_ESS_FRACTION: f64 = 0.25;

/// Target standard deviation of a logit, where σ is not given: that of Gumbel noise at
/// temperature 0.8, with which argmax would sample at that temperature.
pub const DEFAULT_LOGIT_SD: f64 = 0.8 * GUMBEL_SD;

/// The state of AISP for one prompt.
pub struct AispMethod {
    controller: Arc<Aisp>,
    choice: TokenChoice,
    samples: u32,
    iterations: u32,
    iteration: u32,
}

/// The perturbations of one candidate.
struct CandidateStream {
    controller: Arc<Aisp>,
    place: Place,
}

impl Stream for CandidateStream {
    fn perturb(&self, position: usize, row: &mut [f32]) -> bool {
        let perturbed = position < self.controller.options().horizon;
        if perturbed {
            let Place {
                iteration,
                candidate,
                ..
            } = self.place;
            self.controller.perturb(iteration, candidate, position, row);
        }
        perturbed
    }

    fn uniform(&self, position: usize) -> f64 {
        self.place.uniform(position)
    }
}

impl AispMethod {
    /// AISP from U = 0.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) for options out of range.
    pub fn new(options: &MethodOptions, facts: &ModelFacts) -> Result<Self> {
        let sigma = match options.sigma {
            Sigma::Fixed(sigma) => sigma,
            Sigma::LogitSd(sd) => calibrated_sigma(sd, facts.rms_row_norm),
        };
        let horizon = options.horizon.unwrap_or(options.max_tokens);
        let controller = Aisp::new(AispOptions {
            alpha: options.alpha,
            lambda: options.lambda,
            mask_past_end: options.mask_past_end,
            null_candidate: options.null_candidate,
            ..AispOptions::new(
                horizon.min(options.max_tokens),
                facts.width,
                sigma,
                options.seed,
            )
        })?;
        Ok(Self {
            controller: Arc::new(controller),
            choice: if options.draw_tokens {
                TokenChoice::Sample(options.sampling)
            } else {
                TokenChoice::Argmax
            },
            samples: options.samples as u32,
            iterations: options.iterations as u32,
            iteration: 0,
        })
    }

    /// The controller, with the mean U.
    #[must_use]
    pub fn controller(&self) -> &Aisp {
        &self.controller
    }
}

impl Method for AispMethod {
    fn propose(&mut self) -> Vec<Proposal> {
        if self.iteration == self.iterations {
            return Vec::new();
        }
        (0..self.samples)
            .map(|candidate| Proposal {
                stream: Some(Arc::new(CandidateStream {
                    controller: Arc::clone(&self.controller),
                    place: Place {
                        seed: self.controller.options().seed,
                        iteration: self.iteration,
                        candidate,
                    },
                })),
                choice: self.choice,
            })
            .collect()
    }

    fn observe(&mut self, outcomes: &[Outcome]) -> Telemetry {
        let scored: Vec<Scored> = outcomes
            .iter()
            .map(|o| Scored {
                candidate: o.candidate,
                reward: o.reward,
                length: o.length,
            })
            .collect();
        // The proposals are gone by now, so this does not copy the mean.
        let controller = Arc::make_mut(&mut self.controller);
        let report = controller.update(self.iteration, &scored);
        self.iteration += 1;
        Telemetry {
            ess: Some(report.ess),
            lambda: Some(report.lambda),
            sigma: Some(controller.options().sigma),
            u_norm: Some(report.u_norm),
            kl: Some(report.kl),
        }
    }
}
