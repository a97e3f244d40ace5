//! What the methods with noise on the pre-logits have in common: their place in the loop around a
//! [`Controller`], and the settings that are not the controller's.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::{Setting, setting};
use super::review::{Review, Reviews};
use super::{Facts, Method, Outcome, Proposal, Rounds, Telemetry, at_least_one};
use crate::control::{Controller, Cost, Perturbation, Trial};
use crate::error::{Error, Result};
use crate::llama::Token;
use crate::output::OutputRows;
use crate::rollout::{Ask, Price, SamplingOptions, Steer, TokenChoice};

/// The noise: fields of [`NoiseSettings`](crate::control::NoiseSettings) and [`PerturbedSettings`].
pub(super) const NOISE: &[Setting] = &[
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
        "floor",
        "P",
        "never choose a token less probable by the model itself than this fraction of its most \
         probable one",
    ),
    setting(
        "draw-tokens",
        "",
        "draw tokens from the perturbed logits instead of taking the largest",
    ),
];

/// The price: fields of [`PriceSettings`](crate::control::PriceSettings).
pub(super) const PRICE: &[Setting] = &[
    setting(
        "price",
        "limit|off|X",
        "what an answer's price does, its surprise above the model's own entropy: a limit, nothing, \
         or X reward units less for each nat",
    ),
    setting(
        "price-limit",
        "X|auto",
        "the limit in nats a token, or auto for the mean and one standard deviation of the first \
         iteration",
    ),
];

/// Settings of a method with noise on the pre-logits beside its controller's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct PerturbedSettings {
    /// Positions that are perturbed; by default all.
    horizon: Option<usize>,
    /// Least probability of a token by the model itself: see [`Steer::floor`] (default that of
    /// `min-p`).
    #[serde(serialize_with = "crate::rollout::shortest")]
    floor: f32,
    /// Draw tokens from the perturbed logits instead of taking the largest (default false).
    draw_tokens: bool,
    /// How they are drawn then.
    #[serde(flatten)]
    sampling: SamplingOptions,
}

impl Default for PerturbedSettings {
    fn default() -> Self {
        let sampling = SamplingOptions::default();
        Self {
            horizon: None,
            floor: sampling.min_p,
            draw_tokens: false,
            sampling,
        }
    }
}

impl PerturbedSettings {
    /// Positions that are perturbed.
    pub(super) fn horizon(&self, rounds: &Rounds) -> usize {
        let horizon = self.horizon.unwrap_or(rounds.max_tokens);
        horizon.min(rounds.max_tokens)
    }

    /// Whether tokens are drawn from the perturbed logits.
    pub(super) fn draws_tokens(&self) -> bool {
        self.draw_tokens
    }

    /// Checks the ranges.
    pub(super) fn validate(&self) -> Result<()> {
        at_least_one("horizon", self.horizon.unwrap_or(1))?;
        if !(0.0..=1.0).contains(&self.floor) {
            let reason = format!("{} is not between 0 and 1", self.floor);
            return Err(Error::field("floor", reason));
        }
        self.sampling.validate()
    }

    /// The method `name` around `controller`, with `reviews` where it may give candidates up.
    pub(super) fn build(
        &self,
        name: &'static str,
        controller: Controller,
        reviews: Option<Reviews>,
        rounds: &Rounds,
        facts: &Facts,
    ) -> Result<Box<dyn Method>> {
        Ok(Box::new(Perturbed {
            name,
            reviews,
            output: match controller.looks_at_rows() {
                true => Some(facts.output()?),
                false => None,
            },
            controller,
            floor: self.floor,
            choice: match self.draw_tokens {
                true => TokenChoice::Sample(self.sampling),
                false => TokenChoice::Argmax,
            },
            rounds: *rounds,
            iteration: 0,
        }))
    }
}

/// The state of a method with noise on the pre-logits for one prompt.
struct Perturbed {
    name: &'static str,
    controller: Controller,
    reviews: Option<Reviews>,
    output: Option<Arc<OutputRows>>,
    floor: f32,
    choice: TokenChoice,
    rounds: Rounds,
    iteration: usize,
}

/// One candidate's noise, the floor under its tokens, and its number with the review of its
/// beginning, where it has one.
struct Noise {
    perturbation: Perturbation,
    review: Option<(u32, Arc<Review>)>,
    output: Option<Arc<OutputRows>>,
    floor: f32,
}

impl Steer for Noise {
    fn perturb(&self, tokens: &[Token], row: &mut [f32]) -> Result<bool> {
        let row_of = |token, row: &mut [f32]| match &self.output {
            Some(output) => output.row(token, row),
            None => Ok(()),
        };
        self.perturbation.perturb(tokens, row_of, row)
    }

    fn uniform(&self, position: usize) -> f64 {
        self.perturbation.uniform(position)
    }

    fn floor(&self) -> f32 {
        self.floor
    }

    fn choice(&self, position: usize) -> Option<TokenChoice> {
        let drawn = self.perturbation.draws(position);
        drawn.then_some(TokenChoice::PLAIN)
    }

    fn goes_on(&self, tokens: &[Token], ask: &mut Ask<'_>) -> Result<bool> {
        match &self.review {
            Some((candidate, review)) => review.goes_on(*candidate, tokens, ask),
            None => Ok(true),
        }
    }
}

fn cost(price: &Price) -> Cost {
    Cost {
        nats: price.nats,
        per_token: price.per_token,
        surprise: price.surprise,
    }
}

impl Method for Perturbed {
    fn name(&self) -> &'static str {
        self.name
    }

    fn shape(&self) -> (usize, usize) {
        (self.rounds.samples, self.rounds.iterations)
    }

    fn propose(&mut self) -> Vec<Proposal> {
        if self.iteration == self.rounds.iterations {
            return Vec::new();
        }
        let samples = self.rounds.samples;
        let mut perturbations = self.controller.propose(samples as u32);
        let reviewed = |reviews: &Reviews, perturbations: &[Perturbation]| {
            let new = perturbations.iter().filter(|p| reviews.reviews(p.kept()));
            new.count() as f64 / perturbations.len() as f64
        };
        if let Some(reviews) = &self.reviews {
            let begun = reviews.begun(samples, reviewed(reviews, &perturbations));
            if begun > samples {
                perturbations = self.controller.propose(begun as u32);
            }
        }
        let (choice, floor) = (self.choice, self.floor);
        let proposal = |(candidate, perturbation): (u32, Perturbation)| Proposal {
            beginning: perturbation.beginning(),
            steer: Some(Arc::new(Noise {
                review: self
                    .reviews
                    .as_ref()
                    .filter(|reviews| reviews.reviews(perturbation.kept()))
                    .map(|reviews| (candidate, reviews.next())),
                perturbation,
                output: self.output.clone(),
                floor,
            })),
            choice,
        };
        (0..).zip(perturbations).map(proposal).collect()
    }

    fn observe(&mut self, outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        self.iteration += 1;
        let mut trials = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let trial = Trial {
                candidate: outcome.candidate,
                reward: outcome.reward,
                tokens: outcome.tokens.to_vec(),
                cost: Price::of(outcome.nats).as_ref().map(cost),
                nats: outcome.nats.to_vec(),
                features: Vec::new(),
            };
            let sum = |tokens: &[(i32, f32)]| match &self.output {
                Some(output) => output.sum(tokens),
                None => Ok(Vec::new()),
            };
            trials.push(self.controller.with_rows(trial, sum)?);
        }
        let mut telemetry = self.controller.update(trials);
        if let Some(reviews) = &mut self.reviews {
            reviews.close(outcomes);
            telemetry.prefix_correlation = reviews.correlation();
        }
        Ok(telemetry)
    }

    fn worth(&self, reward: f64, price: Option<&Price>) -> f64 {
        self.controller.worth(reward, price.map(cost))
    }
}
