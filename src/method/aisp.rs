//! AISP: perturbations are drawn around a mean, and the mean moves to what scored well.
//!
//! The mathematics is in [`crate::control`]: [`Search`](crate::control::Search) by default,
//! [`WeightedMean`](crate::control::WeightedMean) for the paper's update (arXiv 2510.26219, algorithm 1). This is
//! their place in the loop.

use std::sync::Arc;

use super::{Method, MethodOptions, ModelFacts, Outcome, Proposal, Sigma, Telemetry};
use crate::control::{
    Controller, Perturbation, SearchOptions, Trial, WeightedOptions, calibrated_sigma,
};
use crate::error::{Error, Result};
use crate::output::OutputRows;
use crate::rollout::{Steer, TokenChoice};

/// The state of AISP for one prompt.
pub struct AispMethod {
    controller: Controller,
    output: Option<Arc<OutputRows>>,
    choice: TokenChoice,
    samples: u32,
    iterations: u32,
    iteration: u32,
}

impl Steer for Perturbation {
    fn perturb(&self, position: usize, row: &mut [f32]) -> bool {
        Self::perturb(self, position, row)
    }

    fn uniform(&self, position: usize) -> f64 {
        Self::uniform(self, position)
    }
}

impl AispMethod {
    /// AISP from a mean of zero.
    ///
    /// # Errors
    /// [`Error::Field`] for options out of range.
    pub fn new(options: &MethodOptions, facts: &ModelFacts) -> Result<Self> {
        let sigma = match options.sigma {
            Sigma::Fixed(sigma) => sigma,
            Sigma::LogitSd(sd) => calibrated_sigma(sd, facts.rms_row_norm),
        };
        let horizon = options.horizon.unwrap_or(options.max_tokens);
        let horizon = horizon.min(options.max_tokens);
        let weights = WeightedOptions {
            alpha: options.alpha,
            lambda: options.lambda,
            mask_past_end: options.mask_past_end,
            null_candidate: options.null_candidate,
            ..WeightedOptions::new(horizon, facts.width, sigma, options.seed)
        };
        let search = SearchOptions {
            steer: options.steer,
            elites: options.elites,
            mutation: options.mutation,
            mutation_decay: options.mutation_decay,
            mutation_floor: options.mutation_floor,
            null_candidate: options.null_candidate,
            ..SearchOptions::new(horizon, facts.width, sigma, options.seed)
        };
        Ok(Self {
            controller: Controller::new(options.update, weights, search)?,
            output: facts.output.clone(),
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
}

impl Method for AispMethod {
    fn propose(&mut self) -> Vec<Proposal> {
        if self.iteration == self.iterations {
            return Vec::new();
        }
        let choice = self.choice;
        let perturbations = self.controller.propose(self.samples).into_iter();
        perturbations
            .map(|perturbation| Proposal {
                steer: Some(Arc::new(perturbation)),
                choice,
            })
            .collect()
    }

    fn observe(&mut self, outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        self.iteration += 1;
        let mut trials = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let features = match (self.controller.feature_tokens(outcome.tokens), &self.output) {
                (None, _) => Vec::new(),
                (Some(tokens), Some(output)) => output.sum(tokens)?,
                (Some(_), None) => {
                    let reason = "the search has no output matrix to learn from";
                    return Err(Error::Run(reason.into()));
                }
            };
            trials.push(Trial {
                candidate: outcome.candidate,
                reward: outcome.reward,
                tokens: outcome.tokens.to_vec(),
                features,
            });
        }
        Ok(self.controller.update(trials))
    }
}
