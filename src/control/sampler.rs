//! The population with what it is told of candidates: their price, and, where it learns one, a mean
//! that it draws its proposals around.
//!
//! The mean is that of a search: the direction that the reward follows, behind the words that a
//! response has said already. It is a proposal and nothing else: tokens are drawn from
//! q_u = softmax(W(z + u)), and each candidate has the weight Π p(y_t)/q_u(y_t) for it, which is exact
//! ([weighted steps](super::smc)). Its length is the one whose draws cost as many nats as they may,
//! measured on the last candidates, Σ_t log q_u(y_t) − log p(y_t).

use std::collections::HashMap;

use super::controller::{Telemetry, costs};
use super::options::{ControlError, SmcOptions};
use super::price::{PriceGuard, TokenNats};
use super::regression::{Regression, Text};
use super::search::Trial;
use super::smc::{Smc, SmcProposal, SmcTrial, Step};
use super::trajectory::{Beginning, Trajectory, beginning};

/// What a population is told.
pub(super) struct Sampler {
    smc: Smc,
    guard: PriceGuard,
    mean: Option<Learner>,
    iteration: u32,
    /// What every candidate so far has written, by iteration and number within it.
    written: HashMap<(u32, u32), (Vec<i32>, Vec<TokenNats>)>,
}

/// A mean that is learnt.
struct Learner {
    /// Nats that a candidate's new tokens may cost on average.
    nats: f64,
    /// Norm of the mean for a reward that it explains entirely.
    long: f64,
    regression: Regression,
    texts: Vec<Text>,
    tokens: Vec<Vec<i32>>,
}

impl Learner {
    fn learn(&mut self, trials: &[Trial], horizon: usize) {
        let known = self.texts.len();
        for trial in trials.iter().filter(|t| t.reward.is_finite()) {
            if !self.tokens.contains(&trial.tokens) {
                self.tokens.push(trial.tokens.clone());
                self.texts.push(trial.text(horizon));
            }
        }
        let texts: Vec<&Text> = self.texts.iter().collect();
        self.regression.learn(&texts, known);
    }

    /// Makes the mean longer or shorter: what a mean costs is about the square of its length.
    fn hold(&mut self, spent: f64) {
        let factor = match spent > 0.0 {
            true => (self.nats / spent).sqrt().clamp(0.5, 1.5),
            false => 1.5,
        };
        self.long *= factor;
    }
}

impl Sampler {
    /// `steer` is [`SamplerSettings::steer`](super::SamplerSettings::steer), `unit` σ₀ of `sigma` =
    /// auto.
    pub(super) fn new(
        options: SmcOptions,
        guard: PriceGuard,
        steer: f64,
        unit: f64,
    ) -> Result<Self, ControlError> {
        let long = unit * (options.width as f64).sqrt();
        let mean = (steer > 0.0).then(|| Learner {
            nats: steer,
            long,
            regression: Regression::default(),
            texts: Vec::new(),
            tokens: Vec::new(),
        });
        Ok(Self {
            smc: Smc::new(options)?,
            guard,
            mean,
            iteration: 0,
            written: HashMap::new(),
        })
    }

    pub(super) fn guard(&self) -> &PriceGuard {
        &self.guard
    }

    /// The positions whose rows of the output matrix it looks at.
    pub(super) fn rows_within(&self) -> Option<usize> {
        self.mean.as_ref().map(|_| self.smc.options().horizon)
    }

    /// The perturbations of `samples` candidates.
    pub(super) fn propose(&mut self, samples: u32) -> Vec<Trajectory> {
        let learnt = self.mean.as_ref().and_then(|learner| {
            let long = learner.long * learner.regression.r2().sqrt();
            learner.regression.mean(long)
        });
        let step = match learnt {
            Some(_) => Step::Weighted,
            None => Step::Markov,
        };
        let proposals = self.smc.draw(samples, step, learnt);
        let with_beginning = |proposal: SmcProposal| {
            let parent = proposal.parent.and_then(|parent| self.written.get(&parent));
            let known = parent.map_or_else(Beginning::default, |(tokens, nats)| {
                beginning(tokens, nats, proposal.cut)
            });
            proposal.trajectory.behind(&known)
        };
        proposals.into_iter().map(with_beginning).collect()
    }

    /// Takes the outcomes of the last proposals.
    pub(super) fn update(&mut self, trials: Vec<Trial>) -> Telemetry {
        self.guard.observe_first(&costs(&trials));
        let horizon = self.smc.options().horizon;
        let ratio = |trial: &Trial| -> f64 {
            let cut = self.smc.cut(trial.candidate);
            let new = trial.nats.iter().take(horizon).skip(cut);
            new.map(|token| f64::from(token.log_ratio)).sum()
        };
        let ratios: Vec<f64> = trials.iter().map(ratio).collect();
        let weighted = self.smc.step() == Step::Weighted;
        let judged = trials
            .iter()
            .zip(&ratios)
            .map(|(trial, &log_ratio)| SmcTrial {
                candidate: trial.candidate,
                reward: self.guard.worth(trial.reward, trial.cost),
                length: trial.tokens.len(),
                log_ratio,
            });
        let report = self.smc.update(judged.collect());
        for trial in &trials {
            let place = (self.iteration, trial.candidate);
            let written = (trial.tokens.clone(), trial.nats.clone());
            self.written.insert(place, written);
        }
        self.iteration += 1;
        let mut r2 = None;
        if let Some(learner) = &mut self.mean {
            learner.learn(&trials, horizon);
            if weighted && !ratios.is_empty() {
                learner.hold(-ratios.iter().sum::<f64>() / ratios.len() as f64);
            }
            r2 = Some(learner.regression.r2());
        }
        Telemetry {
            ess: Some(report.ess),
            lambda: Some(report.lambda).filter(|lambda| lambda.is_finite()),
            sigma: (!self.smc.options().draws).then_some(self.smc.options().sigma),
            kl: Some(report.kl),
            free_energy: Some(report.free_energy),
            acceptance: report.acceptance,
            r2,
            price_limit: self.guard.limit(),
            ..Telemetry::default()
        }
    }
}
