//! From the rewards of the candidates to how much each of them counts.
//!
//! ```text
//! s_i = r_i/λ − penalty_i,   w_i = exp(s_i) / Σ_j exp(s_j),   ess = 1 / Σ_i w_i²
//! ```
//!
//! The temperature λ is given in reward units or found from the effective sample size it should
//! lead to. A reward that is NaN or infinite gets weight 0.
//!
//! Source: arXiv 2510.26219 for the weights; λ by effective sample size and the rejection of
//! non-finite rewards are (chosen).

use serde::{Deserialize, Serialize};

use crate::math::log_sum_exp;

/// λ when no value of it makes a difference: fewer than two different rewards.
const INDIFFERENT_LAMBDA: f64 = 1.0;
/// Ends of the search for λ, in units of (largest − smallest reward). The lower end is far down
/// because one absurdly bad reward stretches the spread without changing the λ that is wanted.
const BRACKET: (f64, f64) = (1e-9, 1e4);
/// Grid over the bracket: 10 points a decade.
const SCAN_STEPS: u32 = 130;
/// Halvings of one grid cell, to the last bit of log λ.
const BISECTIONS: u32 = 60;

/// How the temperature λ of the weights is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum LambdaRule {
    /// This λ, in reward units; positive.
    Fixed(f64),
    /// The λ whose effective sample size is this fraction of the valid candidates, in (0, 1].
    ///
    /// Found by bisection on log λ, between 10⁻⁹ and 10⁴ times the spread of the rewards. Where
    /// penalties let several λ fit, it is the smallest of them. Where none fits, it is the nearer
    /// end of that range: the upper one for fraction 1, the lower one when the target is below
    /// one candidate or below the number of candidates that share the best reward. With fewer
    /// than two different rewards λ has no effect and 1 is reported.
    Ess(f64),
}

/// Weights of the candidates of one iteration, in the order of the rewards.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Log of the normalised weights `[n]`; −∞ for rejected candidates.
    pub log_weights: Vec<f64>,
    /// The temperature used, in reward units.
    pub lambda: f64,
    /// Effective sample size `1/Σw²`, in candidates; 0 when none is valid.
    pub ess: f64,
    /// Candidates with a NaN or infinite reward (or penalty): weight 0.
    pub rejected: usize,
}

impl Weights {
    /// The normalised weights `[n]`: they sum to 1, or are all 0 when no candidate is valid.
    pub fn weights(&self) -> Vec<f64> {
        self.log_weights.iter().map(|w| w.exp()).collect()
    }
}

/// Weights `w_i ∝ exp(r_i/λ − penalty_i)`.
///
/// `rewards` `[n]` are in reward units, `penalties` `[n]` in nats: `((1−α)/σ²)·Σ_t u_t·v_t^i`, up to
/// a constant that all candidates share.
/// A fixed λ outside `f64`'s positive normal range is moved to its nearest end, NaN to the lower.
///
/// # Panics
/// If the two slices differ in length.
pub fn importance_weights(rewards: &[f64], penalties: &[f64], rule: LambdaRule) -> Weights {
    assert_eq!(
        rewards.len(),
        penalties.len(),
        "one penalty for each reward"
    );
    let valid = |i: &usize| rewards[*i].is_finite() && penalties[*i].is_finite();
    let kept: Vec<usize> = (0..rewards.len()).filter(valid).collect();
    let scores = Scores::new(
        kept.iter().map(|&i| rewards[i]).collect(),
        kept.iter().map(|&i| penalties[i]).collect(),
    );

    let lambda = match rule {
        LambdaRule::Fixed(lambda) if lambda > f64::MIN_POSITIVE => lambda.min(f64::MAX),
        LambdaRule::Fixed(_) => f64::MIN_POSITIVE,
        LambdaRule::Ess(fraction) => scores.solve(fraction * kept.len() as f64),
    };
    let norm = log_sum_exp(scores.at(lambda));
    let mut log_weights = vec![f64::NEG_INFINITY; rewards.len()];
    for (&i, score) in kept.iter().zip(scores.at(lambda)) {
        log_weights[i] = score - norm;
    }
    Weights {
        log_weights,
        lambda,
        ess: scores.ess(lambda),
        rejected: rewards.len() - kept.len(),
    }
}

/// Finite rewards and penalties, as functions of λ.
struct Scores {
    /// `r_i − max r`: never positive, so that no λ can make a score overflow upwards.
    shortfalls: Vec<f64>,
    penalties: Vec<f64>,
}

impl Scores {
    fn new(mut rewards: Vec<f64>, penalties: Vec<f64>) -> Self {
        let best = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        rewards.iter_mut().for_each(|r| *r -= best);
        Self {
            shortfalls: rewards,
            penalties,
        }
    }

    /// The scores `s_i` up to a constant; that of the best reward is finite.
    fn at(&self, lambda: f64) -> impl Iterator<Item = f64> + Clone {
        self.shortfalls
            .iter()
            .zip(&self.penalties)
            .map(move |(r, p)| r / lambda - p)
    }

    /// Effective sample size at `lambda`.
    fn ess(&self, lambda: f64) -> f64 {
        let top = self.at(lambda).fold(f64::NEG_INFINITY, f64::max);
        let (sum, squares) = self.at(lambda).fold((0.0, 0.0), |(sum, squares), score| {
            let weight = (score - top).exp();
            (sum + weight, squares + weight * weight)
        });
        // The best score contributes exactly 1, so only an empty set has no squares.
        if squares > 0.0 {
            sum * sum / squares
        } else {
            0.0
        }
    }

    /// The λ at which the effective sample size is `target`, see [`LambdaRule::Ess`].
    fn solve(&self, target: f64) -> f64 {
        let worst = self.shortfalls.iter().copied().fold(0.0, f64::min);
        if worst == 0.0 {
            return INDIFFERENT_LAMBDA;
        }
        // Capped so that the upper end stays finite.
        let spread = (-worst).min(1e300);
        let low = (spread * BRACKET.0).max(f64::MIN_POSITIVE).ln();
        let high = (spread * BRACKET.1).max(f64::MIN_POSITIVE).ln();
        let excess = |log_lambda: f64| self.ess(log_lambda.exp()) - target;

        // Penalties can make the size rise and fall again as λ grows, hence the scan.
        let first = excess(low);
        let (mut left, mut below) = (low, first < 0.0);
        let mut last = first;
        for step in 1..=SCAN_STEPS {
            let right = low + (high - low) * f64::from(step) / f64::from(SCAN_STEPS);
            last = excess(right);
            if (last < 0.0) != below {
                return bisect(left, right, |x| (excess(x) < 0.0) == below).exp();
            }
            (left, below) = (right, last < 0.0);
        }
        if first.abs() <= last.abs() {
            low.exp()
        } else {
            high.exp()
        }
    }
}

/// Where `is_left`, true at `left` and false at `right`, changes.
fn bisect(mut left: f64, mut right: f64, is_left: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..BISECTIONS {
        let middle = 0.5 * (left + right);
        if is_left(middle) {
            left = middle;
        } else {
            right = middle;
        }
    }
    0.5 * (left + right)
}
