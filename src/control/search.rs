//! The default AISP controller: what it learns is a direction in the output matrix, and what it
//! keeps is the noise of its best candidates.
//!
//! Every iteration proposes from a mixture of Gaussians with means known in closed form:
//!
//! ```text
//! v_t^i = u_k + σ·ε_t^i                with probability ρ_k, and always in iteration 0
//! v_t^i = v_t of an elite candidate    otherwise
//! ```
//!
//! **The mean.** A token y_t chosen under the noise says that v_t points along W_{y_t}, all that
//! the reward can know of v_t; averaging W_{y_t} instead of v_t is the Rao–Blackwellised estimate
//! and has none of the noise of the d directions that no token depends on. The mean u_k is the
//! ridge regression of all rewards so far on φ_i = Σ_t (W_{y_t^i} − W̄), the same at every
//! position, of norm
//!
//! ```text
//! |u_k| = s·σ√d·√R²
//! ```
//!
//! with R² the share of the reward that the regression explains of candidates left out of it: a
//! reward that no direction explains gets no mean.
//!
//! **The elites.** The best few distinct candidates of all iterations are simulated again with the
//! noise of some positions drawn anew: ρ_k falls from iteration to iteration, so that the search
//! turns from exploring to refining. A candidate is a list of places whose noise it uses; no
//! perturbation is ever stored.
//!
//! Source: (chosen), measured in `docs/controller.md`; adaptive multiple importance sampling
//! (Cornuet et al. 2012) for using the samples of all iterations.

use std::sync::Arc;

use ndarray::Array2;

use super::noise::NoiseKey;
use super::options::{ControlError, SearchOptions};
use super::ridge::ridge;
use super::trajectory::{Origin, Trajectory};

/// Candidates that the regression looks at, the latest ones: it costs their cube.
const MEMORY: usize = 512;

/// One scored candidate as the search sees it.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its number within the iteration.
    pub candidate: u32,
    /// Its reward; a NaN or infinite one is counted and otherwise ignored.
    pub reward: f64,
    /// Its token ids; two candidates with the same ones are one elite.
    pub tokens: Vec<i32>,
    /// Σ_t W_{y_t} `[d]` over its tokens within the horizon; not looked at where `steer` is 0.
    pub features: Vec<f32>,
}

/// What one update found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchReport {
    /// Elites that the next iteration starts from.
    pub elites: usize,
    /// Share of the reward's variance that the direction explains of left-out candidates.
    pub r2: f64,
    /// |u|/(σ√d) of the next iteration.
    pub u_norm: f64,
    /// `τ|u|²/(2σ²)` in nats: KL of the next iteration's fresh noise.
    pub kl: f64,
    /// Candidates with a NaN or infinite reward.
    pub rejected: usize,
}

/// A candidate of an earlier iteration.
struct Seen {
    reward: f64,
    tokens: Vec<i32>,
    features: Vec<f32>,
    origins: Arc<[Origin]>,
}

/// The search for one prompt.
pub struct Search {
    options: SearchOptions,
    iteration: u32,
    means: Arc<[Option<Arc<[f32]>>]>,
    proposed: Vec<Arc<[Origin]>>,
    seen: Vec<Seen>,
    /// Indices of `seen`, the best first.
    elites: Vec<usize>,
}

impl Search {
    /// A search that has seen nothing.
    ///
    /// # Errors
    /// [`ControlError::Option`] names the option that is out of range and its value.
    pub fn new(options: SearchOptions) -> Result<Self, ControlError> {
        options.validate()?;
        Ok(Self {
            options,
            iteration: 0,
            means: Arc::new([None]),
            proposed: Vec::new(),
            seen: Vec::new(),
            elites: Vec::new(),
        })
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &SearchOptions {
        &self.options
    }

    /// Probability ρ of drawing a position's noise anew in `iteration`.
    #[must_use]
    pub fn mutation(&self, iteration: u32) -> f64 {
        let SearchOptions {
            mutation,
            mutation_decay,
            mutation_floor,
            ..
        } = self.options;
        let age = iteration.saturating_sub(1).min(1_000_000) as i32;
        (mutation * mutation_decay.powi(age)).max(mutation_floor.min(mutation))
    }

    /// The mean u `[d]` of the current iteration's fresh noise; `None` is zero.
    #[must_use]
    pub fn mean(&self) -> Option<&[f32]> {
        self.means.last()?.as_deref()
    }

    /// The perturbations of `samples` candidates of the current iteration.
    pub fn propose(&mut self, samples: u32) -> Vec<Trajectory> {
        self.proposed = (0..samples).map(|c| self.origins(c)).collect();
        self.proposed
            .iter()
            .map(|origins| Trajectory {
                seed: self.options.seed,
                sigma: self.options.sigma as f32,
                null_candidate: self.options.null_candidate,
                means: Arc::clone(&self.means),
                origins: Arc::clone(origins),
            })
            .collect()
    }

    fn origins(&self, candidate: u32) -> Arc<[Origin]> {
        let fresh = Origin {
            iteration: self.iteration,
            candidate,
        };
        let horizon = self.options.horizon;
        let null = self.options.null_candidate && candidate == 0;
        if self.elites.is_empty() || null {
            return vec![fresh; horizon].into();
        }
        let elite = &self.seen[self.elites[candidate as usize % self.elites.len()]];
        let used = elite.tokens.len().min(horizon);
        let rate = self.mutation(self.iteration);
        let mut origins = elite.origins.to_vec();
        let mut any = false;
        for (position, origin) in origins.iter_mut().enumerate() {
            let key = NoiseKey {
                seed: self.options.seed,
                iteration: fresh.iteration,
                candidate,
                position: position as u32,
            };
            // A candidate that repeats its elite word for word would be wasted.
            let last_chance = position + 1 == used && !any;
            if key.mutation() < rate || last_chance {
                *origin = fresh;
                any = true;
            }
        }
        origins.into()
    }

    /// Takes the outcomes of the last proposals, and begins the next iteration.
    ///
    /// The order of `trials` does not matter.
    ///
    /// # Panics
    /// If a trial's features do not have the width of the options, or its number was not proposed.
    pub fn update(&mut self, trials: Vec<Trial>) -> SearchReport {
        let mut trials = trials;
        trials.sort_by_key(|t| t.candidate);
        let mut rejected = 0;
        for trial in trials {
            if self.options.steer > 0.0 {
                assert_eq!(trial.features.len(), self.options.width, "pre-logit width");
            }
            if !trial.reward.is_finite() {
                rejected += 1;
                continue;
            }
            self.seen.push(Seen {
                reward: trial.reward,
                tokens: trial.tokens,
                features: trial.features,
                origins: Arc::clone(&self.proposed[trial.candidate as usize]),
            });
        }
        self.choose_elites();
        let (mean, r2) = self.direction();
        let dims = self.options.width as f64;
        let squares = mean.iter().flat_map(|m| m.iter());
        let squares: f64 = squares.map(|&u| f64::from(u).powi(2)).sum();
        let sigma = self.options.sigma;
        let ratio = if sigma > 0.0 {
            squares / sigma.powi(2)
        } else {
            0.0
        };
        let mut means = self.means.to_vec();
        means.push(mean);
        self.means = means.into();
        self.iteration += 1;
        SearchReport {
            elites: self.elites.len(),
            r2,
            u_norm: (ratio / dims).sqrt(),
            kl: 0.5 * ratio * self.options.horizon as f64,
            rejected,
        }
    }

    /// The best distinct candidates so far; of equal rewards the earlier one.
    fn choose_elites(&mut self) {
        let mut order: Vec<usize> = (0..self.seen.len()).collect();
        order.sort_by(|&a, &b| self.seen[b].reward.total_cmp(&self.seen[a].reward));
        self.elites.clear();
        for index in order {
            if self.elites.len() == self.options.elites {
                break;
            }
            let tokens = &self.seen[index].tokens;
            if self.elites.iter().all(|&e| self.seen[e].tokens != *tokens) {
                self.elites.push(index);
            }
        }
    }

    /// The next mean, and how much of the reward it explains.
    fn direction(&self) -> (Option<Arc<[f32]>>, f64) {
        let seen = &self.seen[self.seen.len().saturating_sub(MEMORY)..];
        let SearchOptions {
            width,
            horizon,
            sigma,
            steer,
            ..
        } = self.options;
        if seen.len() < 3 || steer == 0.0 || sigma == 0.0 {
            return (None, 0.0);
        }
        let lengths: Vec<f64> = seen
            .iter()
            .map(|s| s.tokens.len().min(horizon) as f64)
            .collect();
        let mut mean_row = vec![0.0; width];
        for s in seen {
            for (sum, &x) in mean_row.iter_mut().zip(&s.features) {
                *sum += f64::from(x);
            }
        }
        let total = lengths.iter().sum::<f64>().max(1.0);
        mean_row.iter_mut().for_each(|m| *m /= total);
        let mut features = Array2::<f64>::zeros((seen.len(), width));
        for (i, s) in seen.iter().enumerate() {
            let own = s.features.iter().zip(&mean_row);
            for (out, (&x, m)) in features.row_mut(i).iter_mut().zip(own) {
                *out = f64::from(x) - lengths[i] * m;
            }
        }
        if let Some(centre) = features.mean_axis(ndarray::Axis(0)) {
            features -= &centre;
        }
        let mean_reward = seen.iter().map(|s| s.reward).sum::<f64>() / seen.len() as f64;
        let targets: Vec<f64> = seen.iter().map(|s| s.reward - mean_reward).collect();
        let fit = ridge(features.dot(&features.t()).view(), &targets);
        let direction = features.t().dot(&ndarray::Array1::from(fit.dual));
        let norm = direction.dot(&direction).sqrt();
        if !(norm > 0.0 && norm.is_finite() && fit.r2 > 0.0) {
            return (None, fit.r2);
        }
        let length = steer * sigma * (width as f64).sqrt() * fit.r2.sqrt();
        let mean = direction.iter().map(|g| (g * length / norm) as f32);
        (Some(mean.collect()), fit.r2)
    }
}
