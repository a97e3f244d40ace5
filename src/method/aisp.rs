//! AISP: perturbations are drawn around a mean, and the mean moves to what scored well.
//!
//! The mathematics is in [`crate::control`]: [`Search`] by default, [`Aisp`] for the paper's
//! update (arXiv 2510.26219, algorithm 1). This is their place in the loop.

use std::sync::Arc;

use super::{
    Method, MethodOptions, ModelFacts, Outcome, Place, Proposal, Sigma, Telemetry, Update,
};
use crate::control::{
    Aisp, AispOptions, GUMBEL_SD, Scored, Search, SearchOptions, Trajectory, Trial,
    calibrated_sigma,
};
use crate::error::{Error, Result};
use crate::llama::OutputRows;
use crate::rollout::{Stream, TokenChoice};

/// Target effective sample size as a fraction of the samples, where λ is not given.
pub const DEFAULT_ESS_FRACTION: f64 = 0.25;

/// Target standard deviation of a logit, where σ is not given: that of Gumbel noise at
/// temperature 0.8, with which argmax would sample at that temperature.
pub const DEFAULT_LOGIT_SD: f64 = 0.8 * GUMBEL_SD;

/// The state of AISP for one prompt.
pub struct AispMethod {
    controller: Controller,
    choice: TokenChoice,
    samples: u32,
    iterations: u32,
    iteration: u32,
}

enum Controller {
    /// The importance-weighted mean of the noise.
    Weights(Arc<Aisp>),
    /// Regression on the output matrix, and elites.
    Search(Box<Search>, Option<Arc<OutputRows>>),
}

/// The perturbations of one candidate around a mean `[τ, d]`.
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

impl Stream for Trajectory {
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
    /// [`Error::Usage`] for options out of range.
    pub fn new(options: &MethodOptions, facts: &ModelFacts) -> Result<Self> {
        let sigma = match options.sigma {
            Sigma::Fixed(sigma) => sigma,
            Sigma::LogitSd(sd) => calibrated_sigma(sd, facts.rms_row_norm),
        };
        let horizon = options.horizon.unwrap_or(options.max_tokens);
        let horizon = horizon.min(options.max_tokens);
        let weights = Aisp::new(AispOptions {
            alpha: options.alpha,
            lambda: options.lambda,
            mask_past_end: options.mask_past_end,
            null_candidate: options.null_candidate,
            ..AispOptions::new(horizon, facts.width, sigma, options.seed)
        })?;
        let search = Search::new(SearchOptions {
            steer: options.steer,
            elites: options.elites,
            mutation: options.mutation,
            mutation_decay: options.mutation_decay,
            mutation_floor: options.mutation_floor,
            null_candidate: options.null_candidate,
            ..SearchOptions::new(horizon, facts.width, sigma, options.seed)
        })?;
        Ok(Self {
            controller: match options.update {
                Update::Weights => Controller::Weights(Arc::new(weights)),
                Update::Regression => Controller::Search(Box::new(search), facts.output.clone()),
            },
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

    fn streams(&mut self) -> Vec<Arc<dyn Stream>> {
        let iteration = self.iteration;
        match &mut self.controller {
            Controller::Search(search, _) => {
                let trajectories = search.propose(self.samples).into_iter();
                trajectories.map(|t| Arc::new(t) as _).collect()
            }
            Controller::Weights(controller) => (0..self.samples)
                .map(|candidate| {
                    let controller = Arc::clone(controller);
                    let seed = controller.options().seed;
                    let place = Place {
                        seed,
                        iteration,
                        candidate,
                    };
                    Arc::new(CandidateStream { controller, place }) as _
                })
                .collect(),
        }
    }
}

impl Method for AispMethod {
    fn propose(&mut self) -> Vec<Proposal> {
        if self.iteration == self.iterations {
            return Vec::new();
        }
        let choice = self.choice;
        let proposal = |stream| Proposal {
            stream: Some(stream),
            choice,
        };
        self.streams().into_iter().map(proposal).collect()
    }

    fn observe(&mut self, outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        let iteration = self.iteration;
        self.iteration += 1;
        match &mut self.controller {
            Controller::Search(search, rows) => observe(search, rows.as_deref(), outcomes),
            Controller::Weights(controller) => {
                let scored: Vec<Scored> = outcomes
                    .iter()
                    .map(|o| Scored {
                        candidate: o.candidate,
                        reward: o.reward,
                        length: o.tokens.len(),
                    })
                    .collect();
                // The proposals are gone by now, so this does not copy the mean.
                let controller = Arc::make_mut(controller);
                let report = controller.update(iteration, &scored);
                Ok(Telemetry {
                    ess: Some(report.ess),
                    lambda: Some(report.lambda),
                    sigma: Some(controller.options().sigma),
                    u_norm: Some(report.u_norm),
                    kl: Some(report.kl),
                    r2: None,
                })
            }
        }
    }
}

/// Gives the outcomes to the search, with the rows of the output matrix that their tokens name.
fn observe(
    search: &mut Search,
    rows: Option<&OutputRows>,
    outcomes: &[Outcome<'_>],
) -> Result<Telemetry> {
    let options = search.options().clone();
    let mut row = vec![0.0; options.width];
    let mut trials = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        let mut features = vec![0.0; options.width];
        for &token in outcome.tokens.iter().take(options.horizon) {
            if options.steer == 0.0 {
                break;
            }
            let missing = || Error::Run("the search has no output matrix to learn from".into());
            rows.ok_or_else(missing)?.row(token, &mut row)?;
            for (sum, w) in features.iter_mut().zip(&row) {
                *sum += w;
            }
        }
        trials.push(Trial {
            candidate: outcome.candidate,
            reward: outcome.reward,
            tokens: outcome.tokens.to_vec(),
            features,
        });
    }
    let report = search.update(trials);
    Ok(Telemetry {
        // The elites weigh the same.
        ess: Some(report.elites as f64),
        lambda: None,
        sigma: Some(options.sigma),
        u_norm: Some(report.u_norm),
        kl: Some(report.kl),
        r2: Some(report.r2),
    })
}
