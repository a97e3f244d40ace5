//! RE-Control: the pre-logits of every token are moved uphill on a value network before the output
//! matrix, `z ← z + η∇V(z)`, m times.
//!
//! The network comes from `aisp-llama train-value`. Tokens are drawn as best-of-n's are, the first
//! candidate takes the most probable ones; every candidate counts as a sample.
//!
//! Source: arXiv 2406.05954.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use serde::{Deserialize, Serialize};

use super::best_of_n::BestOfN;
use super::entry::{Entry, Group, SAMPLING, read, setting};
use super::{
    Facts, Method, Outcome, Place, Proposal, Rounds, Settings, Telemetry, at_least_one, positive,
};
use crate::control::{Lesson, ValueNetwork};
use crate::error::{Error, Result};
use crate::llama::Edit;
use crate::rollout::{SamplingOptions, Steer, TokenChoice};

pub(super) const ENTRY: Entry = Entry {
    name: "re-control",
    about: "pre-logits moved uphill on a value network",
    settings: &[
        Group {
            only_with: None,
            settings: &[
                setting(
                    "value",
                    "FILE.safetensors",
                    "the value network that `train-value` made",
                ),
                setting("step", "X", "step size"),
                setting("steps", "M", "gradient steps at each token"),
            ],
        },
        Group {
            only_with: None,
            settings: SAMPLING,
        },
    ],
    presets: &[],
    build: read::<ReControlSettings>,
};

/// Settings of RE-Control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReControlSettings {
    /// File of the value network; there is no method without one.
    value: Option<PathBuf>,
    /// η (default 0.5).
    step: f64,
    /// Gradient steps m at each token (default 30).
    steps: usize,
    /// How tokens are drawn.
    #[serde(flatten)]
    sampling: SamplingOptions,
}

impl Default for ReControlSettings {
    fn default() -> Self {
        Self {
            value: None,
            step: 0.5,
            steps: 30,
            sampling: SamplingOptions::default(),
        }
    }
}

impl ReControlSettings {
    fn path(&self) -> Result<&Path> {
        self.value.as_deref().ok_or_else(|| {
            let reason = "not given; give the network that `aisp-llama train-value` makes";
            Error::field("value", reason)
        })
    }
}

impl Settings for ReControlSettings {
    fn validate(&self, _rounds: &Rounds) -> Result<()> {
        positive("step", self.step)?;
        at_least_one("steps", self.steps)?;
        self.sampling.validate()?;
        self.path().map(drop)
    }

    fn build(&self, rounds: &Rounds, facts: &Facts) -> Result<Box<dyn Method>> {
        let path = self.path()?;
        let network = ValueNetwork::read(path)?;
        if network.width() != facts.width() {
            let reason = format!(
                "{}: made for pre-logits of width {}, not {}; train one for this model",
                path.display(),
                network.width(),
                facts.width()
            );
            return Err(Error::field("value", reason));
        }
        Ok(Box::new(ReControl {
            climb: Arc::new(Climb {
                network: Arc::new(network),
                step: self.step as f32,
                steps: self.steps,
            }),
            choice: TokenChoice::Sample(self.sampling),
            rounds: *rounds,
            iteration: 0,
        }))
    }

    fn files(&self) -> Vec<&Path> {
        self.value.as_deref().into_iter().collect()
    }
}

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
    fn edit(&self) -> Option<Arc<dyn Edit>> {
        Some(self.climb.clone())
    }

    fn uniform(&self, position: usize) -> f64 {
        self.place.uniform(position)
    }
}

/// The state of RE-Control for one prompt.
struct ReControl {
    climb: Arc<Climb>,
    choice: TokenChoice,
    rounds: Rounds,
    iteration: usize,
}

impl Method for ReControl {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn shape(&self) -> (usize, usize) {
        (self.rounds.samples, self.rounds.iterations)
    }

    fn propose(&mut self) -> Vec<Proposal> {
        let places = self.rounds.places(self.iteration);
        self.iteration += 1;
        places
            .map(|place| Proposal {
                choice: match (place.iteration, place.candidate) {
                    (0, 0) => TokenChoice::Argmax,
                    _ => self.choice,
                },
                steer: Some(Arc::new(Steered {
                    climb: Arc::clone(&self.climb),
                    place,
                })),
                ..Proposal::default()
            })
            .collect()
    }

    fn observe(&mut self, _outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        Ok(Telemetry::default())
    }

    fn waits(&self) -> bool {
        false
    }
}

/// Draws responses as best-of-n does, and gives away what a value network learns from: those with
/// a reward.
pub struct Lessons {
    draws: BestOfN,
    width: usize,
    lessons: Sender<Lesson>,
}

impl Lessons {
    /// Of a model whose pre-logits have `width` columns.
    #[must_use]
    pub fn new(
        rounds: &Rounds,
        sampling: &SamplingOptions,
        width: usize,
        lessons: Sender<Lesson>,
    ) -> Self {
        Self {
            draws: BestOfN::new(rounds, sampling),
            width,
            lessons,
        }
    }
}

impl Method for Lessons {
    fn name(&self) -> &'static str {
        self.draws.name()
    }

    fn shape(&self) -> (usize, usize) {
        self.draws.shape()
    }

    fn propose(&mut self) -> Vec<Proposal> {
        self.draws.propose()
    }

    fn observe(&mut self, outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        for outcome in outcomes.iter().filter(|o| o.reward.is_finite()) {
            let shape = (outcome.tokens.len(), self.width);
            let pre_logits = Array2::from_shape_vec(shape, outcome.pre_logits.to_vec())
                .map_err(|e| Error::Run(format!("pre-logits: {e}")))?;
            // That nobody is left to learn from it does not matter.
            let _ = self.lessons.send(Lesson {
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
