//! The population of a sequential Monte Carlo sampler: its weights, how far they let the
//! temperature fall, and who goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::trajectory::{Origin, Trajectory};
use crate::math::log_sum_exp;

/// Largest step of 1/λ, in units of 1/(largest − smallest reward): below that λ, only the best
/// rewards count.
const STEEPEST: f64 = 1e9;
/// Where the step is cut off whatever the rewards, so that it stays a number.
const LARGEST: f64 = 1e100;
/// Halvings of the bracket, to the last bit.
const BISECTIONS: u32 = 100;

/// A member of the population.
#[derive(Clone, Debug)]
pub struct SmcParticle {
    /// Its perturbations.
    pub trajectory: Trajectory,
    /// Its reward.
    pub reward: f64,
    /// Its weight; all of them sum to 1.
    pub weight: f64,
}

/// A candidate in the population.
#[derive(Clone)]
pub(super) struct Particle {
    /// Whose noise it uses, by position.
    pub(super) origins: Arc<[Origin]>,
    /// The candidate that it is.
    pub(super) place: Origin,
    pub(super) reward: f64,
    /// Positions L that its text uses, at least 1.
    pub(super) used: usize,
    /// Log of its weight, up to a constant that all share.
    pub(super) log_weight: f64,
}

#[derive(Default)]
pub(super) struct Population {
    pub(super) particles: Vec<Particle>,
}

impl Population {
    /// The normalised weights `[n]`.
    pub(super) fn weights(&self) -> Vec<f64> {
        let logs = || self.particles.iter().map(|p| p.log_weight);
        let norm = log_sum_exp(logs());
        logs().map(|w| (w - norm).exp()).collect()
    }

    /// The rewards of the different candidates, copies of one having their weights together: what
    /// is only copied says nothing new.
    pub(super) fn rewards(&self) -> Rewards {
        let mut of: BTreeMap<(u32, u32), (f64, f64)> = BTreeMap::new();
        for p in &self.particles {
            let place = (p.place.iteration, p.place.candidate);
            let (_, weight) = of.entry(place).or_insert((p.reward, f64::NEG_INFINITY));
            *weight = log_sum_exp([*weight, p.log_weight].into_iter());
        }
        Rewards::new(of.into_values())
    }

    /// Whether some weigh more than others.
    pub(super) fn is_weighted(&self) -> bool {
        let mut pairs = self.particles.windows(2);
        pairs.any(|p| p[0].log_weight != p[1].log_weight)
    }

    /// Different candidates that have weight.
    pub(super) fn distinct(&self) -> usize {
        let pairs = self.particles.iter().zip(self.weights());
        let alive = pairs.filter(|(_, weight)| *weight > 0.0);
        let places = alive.map(|(p, _)| (p.place.iteration, p.place.candidate));
        places.collect::<BTreeSet<_>>().len()
    }

    /// Multiplies the weights by `exp(step·r)`.
    pub(super) fn temper(&mut self, step: f64) {
        let best = self.rewards().best;
        for particle in &mut self.particles {
            particle.log_weight += step * (particle.reward - best);
        }
    }

    /// Becomes `samples` ancestors of equal weight, drawn from itself by its weights; `offset` is
    /// one uniform number in [0, 1). It must not be empty.
    pub(super) fn resample(&mut self, samples: usize, offset: f64) {
        // In the order of the rewards, so that an ancestor's neighbours are like it.
        let by_reward = |a: &Particle, b: &Particle| a.reward.total_cmp(&b.reward);
        self.particles.sort_by(by_reward);
        let ancestors = systematic(&self.weights(), samples, offset);
        let ancestor = |index: usize| Particle {
            log_weight: 0.0,
            ..self.particles[index].clone()
        };
        self.particles = ancestors.into_iter().map(ancestor).collect();
    }
}

/// A weighted population, seen as rewards.
pub(super) struct Rewards {
    /// Log of the normalised weights `[n]`, none of them −∞.
    log_weights: Vec<f64>,
    best: f64,
    /// `r_i − best`.
    shortfalls: Vec<f64>,
}

impl Rewards {
    /// From finite rewards with the logs of their weights, up to a constant.
    pub(super) fn new(pairs: impl Iterator<Item = (f64, f64)>) -> Self {
        let (mut shortfalls, mut log_weights): (Vec<f64>, Vec<f64>) = pairs
            .filter(|&(_, weight)| weight > f64::NEG_INFINITY)
            .unzip();
        let norm = log_sum_exp(log_weights.iter().copied());
        log_weights.iter_mut().for_each(|w| *w -= norm);
        let best = shortfalls.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // Capped so that a step of 0 leaves even the worst a number.
        shortfalls
            .iter_mut()
            .for_each(|r| *r = (*r - best).max(-1e300));
        Self {
            log_weights,
            best,
            shortfalls,
        }
    }

    /// Effective sample size `1/Σw²`; 0 for nobody.
    pub(super) fn ess(&self) -> f64 {
        match self.log_weights.is_empty() {
            true => 0.0,
            false => (-log_sum_exp(self.log_weights.iter().map(|w| 2.0 * w))).exp(),
        }
    }

    /// The mean reward; NaN for nobody.
    pub(super) fn mean(&self) -> f64 {
        let pairs = self.log_weights.iter().zip(&self.shortfalls);
        match self.log_weights.is_empty() {
            true => f64::NAN,
            false => self.best + pairs.map(|(w, r)| w.exp() * r).sum::<f64>(),
        }
    }

    /// `log Σ w·exp(step·r)`, of normalised weights.
    pub(super) fn log_mean_exp(&self, step: f64) -> f64 {
        step * self.best + self.log_tilted(step)
    }

    /// `log Σ w·exp(step·(r − best))`.
    fn log_tilted(&self, step: f64) -> f64 {
        let pairs = self.log_weights.iter().zip(&self.shortfalls);
        log_sum_exp(pairs.map(|(w, r)| w + step * r))
    }

    /// A step of 1/λ, up to `room` and as large as bisection finds it, that leaves the fraction `kept`
    /// of the effective sample size, `(Σ w·e)²/Σ w·e² ≥ kept` with `e = exp(step·r)` and normalised
    /// weights w, and `fewest` candidates, `(Σ w·e)²/Σ (w·e)²`.
    ///
    /// With equal weights the first is `1/Σw²` over n; with others it is their conditional effective
    /// sample size (Zhou, Johansen and Aston 2016), which falls as the step grows whatever the
    /// weights. Where fewer candidates are left already the step is 0, and where all rewards are the
    /// same: they say nothing.
    pub(super) fn step(&self, kept: f64, fewest: f64, room: f64) -> f64 {
        let spread = -self.shortfalls.iter().copied().fold(0.0, f64::min);
        if spread == 0.0 || kept >= 1.0 {
            return 0.0;
        }
        let enough = |step: f64| {
            let (one, two) = (2.0 * self.log_tilted(step), self.log_tilted(2.0 * step));
            let logs = self.log_weights.iter().zip(&self.shortfalls);
            let squares = log_sum_exp(logs.map(|(w, r)| 2.0 * (w + step * r)));
            one - two >= kept.ln() && one - squares >= fewest.ln()
        };
        if !enough(0.0) {
            return 0.0;
        }
        let (mut low, mut high) = (0.0, (STEEPEST / spread).min(LARGEST).min(room));
        if enough(high) {
            return high;
        }
        for _ in 0..BISECTIONS {
            let middle = 0.5 * (low + high);
            match enough(middle) {
                true => low = middle,
                false => high = middle,
            }
        }
        low
    }
}

/// Systematic resampling: `samples` indices, each on average as often as its weight says, and
/// never more than one off. `offset` is one uniform number in [0, 1).
///
/// The weights are not negative, and one of them is positive.
fn systematic(weights: &[f64], samples: usize, offset: f64) -> Vec<usize> {
    let total: f64 = weights.iter().sum();
    let last = weights.iter().rposition(|&w| w > 0.0).unwrap_or(0);
    let (mut index, mut reached) = (0, weights[0]);
    (0..samples)
        .map(|k| {
            let wanted = (k as f64 + offset) / samples as f64 * total;
            while reached <= wanted && index < last {
                index += 1;
                reached += weights[index];
            }
            index
        })
        .collect()
}
