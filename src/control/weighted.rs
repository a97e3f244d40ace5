//! One AISP controller: it perturbs pre-logits and moves its mean towards what was rewarded.
//!
//! ```text
//! v_t^i = u_t + σ·ε_t^i
//! s_i   = r_i/λ − ((1−α)/σ²)·Σ_{t < len_i} u_t·(v_t^i − u_t)
//! u_t   ← Σ_{i: len_i > t} w_i·v_t^i / Σ_{i: len_i > t} w_i,   w_i ∝ exp(s_i)
//! ```
//!
//! `len_i` is the number of tokens of candidate `i`, or τ for all when the mask is off. Where no
//! candidate is alive `u_t` stays. `V` is never held: the update makes the noise again from its
//! keys, so memory is O(τ·d) however many candidates there are.
//!
//! The penalty is centred (chosen): the paper's `u_t·v_t^i` differs by `|u_t|²`, the same for every
//! candidate that uses row t. With all rows used it cancels in the weights; with a mask it would
//! charge every candidate for its length, `(1−α)|u_t|²/σ²` nats a position.
//!
//! Source: arXiv 2510.26219; the mask is (chosen).

use ndarray::{Array2, ArrayView2};
use serde::Serialize;

use super::noise::NoiseKey;
use super::options::{ControlError, WeightedOptions};
use super::weights::importance_weights;
use crate::math::log_sum_exp;

/// One scored candidate as the controller sees it.
#[derive(Clone, Copy, Debug)]
pub struct Scored {
    /// Its number within the iteration, the one its noise was drawn with.
    pub candidate: u32,
    /// Its reward; NaN and infinities are counted and otherwise ignored.
    pub reward: f64,
    /// Response tokens generated, including the end-of-turn token.
    pub length: usize,
}

/// What one update did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UpdateReport {
    /// Effective sample size of the weights, in candidates; 0 when all were rejected.
    pub ess: f64,
    /// The temperature used, in reward units.
    pub lambda: f64,
    /// `|U|/(σ√(dτ))` after the update; 0 when σ is 0.
    pub u_norm: f64,
    /// `KL(Q_U ‖ P)` in nats after the update, see [`soft_kl`].
    pub kl: f64,
    /// Candidates with a NaN or infinite reward.
    pub rejected: usize,
}

/// `KL(N(U, σ²I) ‖ N(0, σ²I)) = Σ_t |u_t|² / (2σ²)` in nats, for a `mean` of any shape `[τ, d]`.
///
/// With σ = 0 it is 0 for a mean of zero and infinite otherwise.
pub fn soft_kl(mean: ArrayView2<'_, f32>, sigma: f64) -> f64 {
    match squared_norm(mean) {
        0.0 => 0.0,
        squares => squares / (2.0 * sigma * sigma),
    }
}

/// Adaptive importance sampling on pre-logits for one prompt.
///
/// ```
/// use aisp_llama::control::{WeightedMean, WeightedOptions, Scored};
///
/// let mut aisp = WeightedMean::new(WeightedOptions::new(2, 4, 0.7, 1)).unwrap();
/// let scored = [0, 1, 2].map(|candidate| {
///     let mut pre_logits = [0.0; 4];
///     aisp.perturb(0, candidate, 0, &mut pre_logits);
///     Scored { candidate, reward: f64::from(pre_logits[0]), length: 1 }
/// });
/// let report = aisp.update(0, &scored);
/// assert_eq!(report.rejected, 0);
/// ```
#[derive(Clone, Debug)]
pub struct WeightedMean {
    options: WeightedOptions,
    /// U, `[τ, d]`, row by row.
    mean: Array2<f32>,
}

impl WeightedMean {
    /// A controller whose mean is zero.
    ///
    /// # Errors
    /// [`ControlError::Option`] names the option that is out of range and its value.
    pub fn new(options: WeightedOptions) -> Result<Self, ControlError> {
        options.validate()?;
        let mean = Array2::zeros((options.horizon, options.width));
        Ok(Self { options, mean })
    }

    /// The options it was made with.
    pub fn options(&self) -> &WeightedOptions {
        &self.options
    }

    /// The mean U, `[τ, d]`, in pre-logit units.
    pub fn mean(&self) -> ArrayView2<'_, f32> {
        self.mean.view()
    }

    /// Replaces the mean U, for instance by one saved earlier.
    ///
    /// # Errors
    /// [`ControlError::Shape`] if it is not `[τ, d]`, [`ControlError::NotFinite`] if it holds NaN or
    /// an infinity. The mean is then as it was.
    pub fn set_mean(&mut self, mean: Array2<f32>) -> Result<(), ControlError> {
        if mean.dim() != self.mean.dim() {
            return Err(ControlError::Shape {
                found: mean.dim(),
                expected: self.mean.dim(),
            });
        }
        if let Some(((position, column), &value)) =
            mean.indexed_iter().find(|(_, v)| !v.is_finite())
        {
            return Err(ControlError::NotFinite {
                position,
                column,
                value,
            });
        }
        self.mean.assign(&mean);
        Ok(())
    }

    /// Adds `v_t = u_t + σ·ε` to `row`, the pre-logits `[d]` of one candidate at one position.
    ///
    /// `position` counts response tokens from 0; from τ on the row is left as it is.
    ///
    /// # Panics
    /// If `row` does not have the controller's width.
    pub fn perturb(&self, iteration: u32, candidate: u32, position: usize, row: &mut [f32]) {
        assert_eq!(row.len(), self.options.width, "pre-logit width");
        if position >= self.options.horizon {
            return;
        }
        let mut noise = vec![0.0; row.len()];
        Noise::of(&self.options, iteration).fill(candidate, position, &mut noise);
        let sigma = self.options.sigma as f32;
        for ((z, &u), &epsilon) in row.iter_mut().zip(self.mean.row(position)).zip(&noise) {
            *z += displaced(u, sigma, epsilon);
        }
    }

    /// One update from the candidates of `iteration`, drawn from the current mean, which it replaces.
    ///
    /// The order of `candidates` does not matter, to the last bit. With all of them rejected, or
    /// none given, the mean stays. With σ = 0 all perturbations equal the mean: the penalty is taken
    /// as 0 and the mean stays.
    pub fn update(&mut self, iteration: u32, candidates: &[Scored]) -> UpdateReport {
        let noise = Noise::of(&self.options, iteration);
        self.update_with(candidates, |candidate, position, row| {
            noise.fill(candidate, position, row)
        })
    }

    /// [`update`](Self::update) with the standard normals of (candidate, position) from `noise`.
    ///
    /// For tests that compare with numbers from elsewhere.
    #[doc(hidden)]
    pub fn update_with(
        &mut self,
        candidates: &[Scored],
        noise: impl Fn(u32, usize, &mut [f32]),
    ) -> UpdateReport {
        // Candidates finish in an order that depends on batching; sums must not.
        let mut candidates = candidates.to_vec();
        candidates.sort_by_key(|c| c.candidate);

        let rewards: Vec<f64> = candidates.iter().map(|c| c.reward).collect();
        let penalties = self.penalties(&candidates, &noise);
        let weights = importance_weights(&rewards, &penalties, self.options.lambda);
        if self.options.sigma > 0.0 && weights.rejected < candidates.len() {
            self.mean = self.weighted_mean(&candidates, &weights.log_weights, &noise);
        }

        let sigma = self.options.sigma;
        let entries = self.mean.len() as f64;
        UpdateReport {
            ess: weights.ess,
            lambda: weights.lambda,
            u_norm: match sigma {
                0.0 => 0.0,
                _ => (squared_norm(self.mean.view()) / entries).sqrt() / sigma,
            },
            kl: soft_kl(self.mean.view(), sigma),
            rejected: weights.rejected,
        }
    }

    /// Positions of a candidate that count.
    fn rows(&self, candidate: &Scored) -> usize {
        match self.options.mask_past_end {
            true => candidate.length.min(self.options.horizon),
            false => self.options.horizon,
        }
    }

    /// `((1−α)/σ²)·Σ_t u_t·v_t` of each candidate, in nats.
    fn penalties(
        &self,
        candidates: &[Scored],
        noise: &impl Fn(u32, usize, &mut [f32]),
    ) -> Vec<f64> {
        let WeightedOptions {
            sigma,
            alpha,
            width,
            ..
        } = self.options;
        if sigma == 0.0 || alpha == 1.0 || self.mean.iter().all(|&u| u == 0.0) {
            return vec![0.0; candidates.len()];
        }
        let price = (1.0 - alpha) / (sigma * sigma);
        let mut row = vec![0.0; width];
        let mut product = |candidate: &Scored, position: usize| -> f64 {
            noise(candidate.candidate, position, &mut row);
            let mean = self.mean.row(position);
            let terms = mean.iter().zip(&row).map(|(&u, &epsilon)| {
                let v = displaced(u, sigma as f32, epsilon);
                f64::from(u) * (f64::from(v) - f64::from(u))
            });
            terms.sum()
        };
        let mut penalty = |candidate: &Scored| match candidate.reward.is_finite() {
            true => {
                price
                    * (0..self.rows(candidate))
                        .map(|t| product(candidate, t))
                        .sum::<f64>()
            }
            false => 0.0,
        };
        candidates.iter().map(&mut penalty).collect()
    }

    /// The new mean, `[τ, d]`: each row is averaged over the candidates that reached it.
    fn weighted_mean(
        &self,
        candidates: &[Scored],
        log_weights: &[f64],
        noise: &impl Fn(u32, usize, &mut [f32]),
    ) -> Array2<f32> {
        let WeightedOptions {
            horizon,
            width,
            sigma,
            ..
        } = self.options;
        // Normalised in the log domain: those who reach a late row may all weigh far less than a
        // short candidate, so little that their weights are 0 as numbers.
        let norms: Vec<f64> = (0..horizon)
            .map(|t| {
                let all = candidates.iter().zip(log_weights);
                log_sum_exp(
                    all.filter(|(c, _)| t < self.rows(c))
                        .map(|(_, &weight)| weight),
                )
            })
            .collect();

        let mut sums = Array2::<f64>::zeros((horizon, width));
        let mut row = vec![0.0; width];
        for (candidate, &log_weight) in candidates.iter().zip(log_weights) {
            if log_weight == f64::NEG_INFINITY {
                continue;
            }
            for (t, norm) in norms.iter().enumerate().take(self.rows(candidate)) {
                let weight = (log_weight - norm).exp();
                if weight == 0.0 {
                    continue;
                }
                noise(candidate.candidate, t, &mut row);
                for ((sum, &u), &epsilon) in
                    sums.row_mut(t).iter_mut().zip(self.mean.row(t)).zip(&row)
                {
                    *sum += weight * f64::from(displaced(u, sigma as f32, epsilon));
                }
            }
        }

        let mut mean = self.mean.clone();
        for (t, norm) in norms.iter().enumerate() {
            if norm.is_finite() {
                mean.row_mut(t)
                    .zip_mut_with(&sums.row(t), |u, &sum| *u = sum as f32);
            }
        }
        mean
    }
}

/// The standard normals of one iteration.
#[derive(Clone, Copy)]
struct Noise {
    seed: u64,
    iteration: u32,
    null_candidate: bool,
    silent: bool,
}

impl Noise {
    fn of(options: &WeightedOptions, iteration: u32) -> Self {
        Self {
            seed: options.seed,
            iteration,
            null_candidate: options.null_candidate,
            silent: options.sigma == 0.0,
        }
    }

    fn fill(&self, candidate: u32, position: usize, row: &mut [f32]) {
        if self.silent || self.null_candidate && candidate == 0 {
            return row.fill(0.0);
        }
        let Self {
            seed, iteration, ..
        } = *self;
        // Positions are below the horizon, which the options keep within 32 bits.
        NoiseKey {
            seed,
            iteration,
            candidate,
            position: position as u32,
        }
        .standard_normal(row);
    }
}

/// `v = u + σ·ε`, in the one arithmetic that generation and update share.
fn displaced(u: f32, sigma: f32, epsilon: f32) -> f32 {
    u + sigma * epsilon
}

fn squared_norm(mean: ArrayView2<'_, f32>) -> f64 {
    mean.iter().map(|&u| f64::from(u) * f64::from(u)).sum()
}
