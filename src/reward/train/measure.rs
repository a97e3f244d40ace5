//! Measures scores against labels, with standard errors that take the group as the unit.
//!
//! A figure `θ` is kept with the influence of every example on it, `θ̂ − θ ≈ Σ_i influence_i`.
//! Examples of a group are not independent, groups are; so with `G` groups
//!
//! ```text
//! SE² = G/(G − 1) · Σ_g (Σ_{i in g} influence_i)²
//! ```
//!
//! and the difference of two figures on the same examples has the differences as influences.

use std::collections::BTreeMap;

use serde::Serialize;

/// A figure with its standard error, in the figure's unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// Its standard error; groups are the units.
    pub standard_error: f64,
}

impl Estimate {
    /// Whether the figure is more than two standard errors above `bound`.
    #[must_use]
    pub fn exceeds(&self, bound: f64) -> bool {
        self.value - 2.0 * self.standard_error > bound
    }
}

/// A figure with every example's influence on it.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub value: f64,
    influence: Vec<f64>,
}

impl Measured {
    /// The share of right answers: 1 right, 0 wrong, 0.5 undecided.
    pub(super) fn share(right: &[f64]) -> Self {
        let n = right.len() as f64;
        let value = right.iter().sum::<f64>() / n;
        let influence = right.iter().map(|r| (r - value) / n).collect();
        Self { value, influence }
    }

    /// The share of pairs of examples with different targets that the scores put in the same
    /// order; 0.5 for equal scores.
    pub(super) fn pairs_in_order(scores: &[f64], targets: &[f64]) -> Self {
        let n = scores.len();
        let (mut right, mut pairs) = (vec![0.0; n], vec![0.0; n]);
        for i in 0..n {
            for j in 0..i {
                let wanted = (targets[i] - targets[j]).signum();
                if targets[i] == targets[j] {
                    continue;
                }
                let verdict = decided((scores[i] - scores[j]) * wanted);
                for k in [i, j] {
                    right[k] += verdict;
                    pairs[k] += 1.0;
                }
            }
        }
        // Every pair was counted twice; each of its ends carries the pair's whole deviation.
        let total = pairs.iter().sum::<f64>() / 2.0;
        let value = right.iter().sum::<f64>() / 2.0 / total;
        let both = right.iter().zip(&pairs);
        let influence = both.map(|(r, p)| (r - p * value) / total).collect();
        Self { value, influence }
    }

    /// With the standard error over `groups`, one name for each example.
    pub(super) fn estimate(&self, groups: &[&str]) -> Estimate {
        let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
        for (group, influence) in groups.iter().zip(&self.influence) {
            *sums.entry(group).or_default() += influence;
        }
        let count = sums.len() as f64;
        let squares: f64 = sums.values().map(|sum| sum * sum).sum();
        Estimate {
            value: self.value,
            standard_error: (squares * count / (count - 1.0).max(1.0)).sqrt(),
        }
    }

    /// By how much this figure is above `other`, measured on the same examples.
    pub(super) fn above(&self, other: &Self) -> Self {
        let both = self.influence.iter().zip(&other.influence);
        Self {
            value: self.value - other.value,
            influence: both.map(|(a, b)| a - b).collect(),
        }
    }
}

/// 1 for a positive margin, 0 for a negative one, 0.5 for none.
pub(super) fn decided(margin: f64) -> f64 {
    match margin {
        m if m > 0.0 => 1.0,
        m if m < 0.0 => 0.0,
        _ => 0.5,
    }
}

/// Area under the ROC curve: the share of (positive, negative) pairs in order, equal scores
/// counting half. `targets` are 0 or 1, both there.
pub(super) fn auc(scores: &[f64], targets: &[f64]) -> f64 {
    let mut order: Vec<(f64, f64)> = scores
        .iter()
        .copied()
        .zip(targets.iter().copied())
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut won) = (0.0, 0.0);
    for tied in order.chunk_by(|a, b| a.0 == b.0) {
        let positives: f64 = tied.iter().map(|(_, target)| target).sum();
        let negatives = tied.len() as f64 - positives;
        won += positives * (below + negatives / 2.0);
        below += negatives;
    }
    won / (below * (scores.len() as f64 - below))
}

/// Pearson's correlation, and the share of the targets' variance that the scores explain
/// (negative when the mean explains more).
pub(super) fn correlation(scores: &[f64], targets: &[f64]) -> (f64, f64) {
    let n = scores.len() as f64;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / n;
    let (score_mean, target_mean) = (mean(scores), mean(targets));
    let (mut xx, mut xy, mut yy, mut errors) = (0.0, 0.0, 0.0, 0.0);
    for (score, target) in scores.iter().zip(targets) {
        let (x, y) = (score - score_mean, target - target_mean);
        xx += x * x;
        xy += x * y;
        yy += y * y;
        errors += (score - target).powi(2);
    }
    // Equal scores tell nothing apart; 0/0 would not survive JSON.
    let r = if xx > 0.0 { xy / (xx * yy).sqrt() } else { 0.0 };
    (r, 1.0 - errors / yy)
}

/// The rule "label 1 above (or below) this value" that is right most often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Threshold {
    value: f64,
    sign: f64,
}

impl Threshold {
    /// The best rule for `values` with `targets` 0 or 1.
    pub(super) fn best(values: &[f64], targets: &[f64]) -> Self {
        let mut order: Vec<(f64, f64)> = values
            .iter()
            .copied()
            .zip(targets.iter().copied())
            .collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut best = Self {
            value: f64::NEG_INFINITY,
            sign: 1.0,
        };
        // Right answers of "1 above": all ones at first, then what is passed changes sides.
        let n = order.len() as f64;
        let mut right: f64 = targets.iter().sum();
        let mut most = right;
        for tied in order.chunk_by(|a, b| a.0 == b.0) {
            let positives: f64 = tied.iter().map(|(_, target)| target).sum();
            right += tied.len() as f64 - 2.0 * positives;
            let value = tied.first().map_or(0.0, |tied| tied.0);
            for (sign, right) in [(1.0, right), (-1.0, n - right)] {
                if right > most {
                    most = right;
                    best = Self { value, sign };
                }
            }
        }
        best
    }

    /// Whether the rule says 1. A value at the threshold is below it.
    pub(super) fn says_one(self, value: f64) -> bool {
        (value > self.value) == (self.sign > 0.0)
    }
}
