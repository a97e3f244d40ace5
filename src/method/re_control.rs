//! RE-Control: the pre-logits of every token are moved uphill on a value network before the output
//! matrix, `z ← z + η∇V(z)`, m times.
//!
//! The network comes from `aisp-llama train-value`. Tokens are drawn as best-of-n's are, the first
//! candidate takes the most probable ones; every candidate counts as a sample.
//!
//! Source: arXiv 2406.05954.

use std::path::Path;
use std::sync::Arc;

use ndarray::{Array2, ArrayView2, ArrayViewMut2};

use super::{BestOfN, Method, MethodOptions, ModelFacts, Outcome, Place, Proposal, Telemetry};
use crate::control::{Lesson, ValueNetwork};
use crate::error::{Error, Result};
use crate::llama::Edit;
use crate::rollout::{Steer, TokenChoice};

/// η, where it is not given.
pub const DEFAULT_STEP: f64 = 0.5;
/// Gradient steps m at each token.
pub const DEFAULT_STEPS: usize = 30;

/// Climbs the network.
struct Climb {
    network: Arc<ValueNetwork>,
    step: f32,
    steps: usize,
}

impl Edit for Climb {
    fn edit(&self, z: ArrayView2<'_, f32>, mut v: ArrayViewMut2<'_, f32>) {
        let mut x = &z + &v;
        for _ in 0..self.steps {
            let gradients = self.network.gradients(x.view());
            x.scaled_add(self.step, &gradients);
        }
        v.assign(&(&x - &z));
    }
}

struct Steered {
    climb: Arc<Climb>,
    place: Place,
}

impl Steer for Steered {
    fn perturb(&self, _position: usize, _row: &mut [f32]) -> bool {
        false
    }

    fn edit(&self) -> Option<Arc<dyn Edit>> {
        Some(self.climb.clone())
    }

    fn uniform(&self, position: usize) -> f64 {
        self.place.uniform(position)
    }
}

/// The state of RE-Control for one prompt.
pub struct ReControl {
    climb: Arc<Climb>,
    choice: TokenChoice,
    seed: u64,
    samples: u32,
    iterations: u32,
    iteration: u32,
}

impl ReControl {
    /// RE-Control with the network of `options.value`.
    ///
    /// # Errors
    /// [`Error::Field`] where there is none, or one for pre-logits of another width.
    pub fn new(options: &MethodOptions, facts: &ModelFacts) -> Result<Self> {
        let wrong = |reason: String| Error::field("value", reason);
        let path = options.value.as_deref().ok_or_else(|| {
            wrong("re-control needs a value network; make one with `aisp-llama train-value`".into())
        })?;
        let network = ValueNetwork::read(Path::new(path))?;
        if network.width() != facts.width {
            return Err(wrong(format!(
                "{path}: made for pre-logits of width {}, not {}; train one for this model",
                network.width(),
                facts.width
            )));
        }
        Ok(Self {
            climb: Arc::new(Climb {
                network: Arc::new(network),
                step: options.step.unwrap_or(DEFAULT_STEP) as f32,
                steps: options.steps,
            }),
            choice: TokenChoice::Sample(options.sampling),
            seed: options.seed,
            samples: options.samples as u32,
            iterations: options.iterations as u32,
            iteration: 0,
        })
    }
}

impl Method for ReControl {
    fn propose(&mut self) -> Vec<Proposal> {
        if self.iteration == self.iterations {
            return Vec::new();
        }
        (0..self.samples)
            .map(|candidate| Proposal {
                steer: Some(Arc::new(Steered {
                    climb: Arc::clone(&self.climb),
                    place: Place {
                        seed: self.seed,
                        iteration: self.iteration,
                        candidate,
                    },
                })),
                choice: match (self.iteration, candidate) {
                    (0, 0) => TokenChoice::Argmax,
                    _ => self.choice,
                },
            })
            .collect()
    }

    fn observe(&mut self, _outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        self.iteration += 1;
        Ok(Telemetry::default())
    }
}

/// Draws responses as best-of-n does, and keeps what a value network learns from.
pub struct Lessons {
    draws: BestOfN,
    width: usize,
    lessons: Vec<Lesson>,
}

impl Lessons {
    /// Of a model whose pre-logits have `width` columns; `options` are valid.
    #[must_use]
    pub fn new(options: &MethodOptions, width: usize) -> Self {
        Self {
            draws: BestOfN::new(options),
            width,
            lessons: Vec::new(),
        }
    }

    /// The responses with a reward.
    #[must_use]
    pub fn into_lessons(self) -> Vec<Lesson> {
        self.lessons
    }
}

impl Method for Lessons {
    fn propose(&mut self) -> Vec<Proposal> {
        self.draws.propose()
    }

    fn observe(&mut self, outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        for outcome in outcomes.iter().filter(|o| o.reward.is_finite()) {
            let shape = (outcome.tokens.len(), self.width);
            let pre_logits = Array2::from_shape_vec(shape, outcome.pre_logits.to_vec())
                .map_err(|e| Error::Run(format!("pre-logits: {e}")))?;
            self.lessons.push(Lesson {
                pre_logits,
                reward: outcome.reward,
            });
        }
        self.draws.observe(outcomes)
    }

    fn keeps_pre_logits(&self) -> bool {
        true
    }
}
