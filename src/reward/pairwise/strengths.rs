//! Strengths from comparisons: a Bradley–Terry fit.
//!
//! ```text
//! p(i before j) = σ(s_i − s_j)
//! s = argmin  −Σ w ln σ(s_i − s_j) + (1 − w) ln σ(s_j − s_i)  +  ½·RIDGE·Σ (s_i − m)²
//! ```
//!
//! over the comparisons (i, j, w), where w is how far i was put before j, from 0 to 1. Some strengths
//! are known and stay as they are; m is their mean, or 0 without any. So later fits have the scale and
//! the origin of earlier ones.
//!
//! Source: Bradley and Terry, *Rank analysis of incomplete block designs*, Biometrika 39 (1952).

use crate::math::log_sum_exp;
use crate::reward::train::lbfgs::{Stopping, minimise};

/// Keeps strengths finite that no comparison bounds.
const RIDGE: f64 = 1e-3;

/// One comparison of two by their numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison {
    pub(super) first: usize,
    pub(super) second: usize,
    /// The log-odds that the first is the better one.
    pub(super) log_odds: f64,
}

/// The strengths of so many, of which the last ones are `known`.
pub(super) fn strengths(count: usize, known: &[f64], comparisons: &[Comparison]) -> Vec<f64> {
    let centre = known.iter().sum::<f64>() / known.len().max(1) as f64;
    let mut free = vec![centre; count - known.len()];
    let stopping = Stopping {
        gradient: 1e-9,
        steps: 500,
    };
    minimise(&mut free, stopping, |free, gradient| {
        let of = |i: usize| {
            free.get(i)
                .copied()
                .unwrap_or_else(|| known[i - free.len()])
        };
        let mut loss = 0.0;
        for (g, s) in gradient.iter_mut().zip(free) {
            loss += 0.5 * RIDGE * (s - centre) * (s - centre);
            *g = RIDGE * (s - centre);
        }
        for c in comparisons {
            let (wins, difference) = (sigmoid(c.log_odds), of(c.first) - of(c.second));
            // −ln σ(x) = ln(1 + e^−x).
            let surprise = |x: f64| log_sum_exp([0.0, -x].into_iter());
            loss += wins * surprise(difference) + (1.0 - wins) * surprise(-difference);
            let slope = sigmoid(difference) - wins;
            if let Some(g) = gradient.get_mut(c.first) {
                *g += slope;
            }
            if let Some(g) = gradient.get_mut(c.second) {
                *g -= slope;
            }
        }
        loss
    });
    free
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(true_strengths: &[f64], pairs: &[(usize, usize)]) -> Vec<Comparison> {
        let comparison = |&(first, second): &(usize, usize)| Comparison {
            first,
            second,
            log_odds: true_strengths[first] - true_strengths[second],
        };
        pairs.iter().map(comparison).collect()
    }

    #[test]
    fn consistent_comparisons_give_back_their_strengths() {
        let truth = [1.5, -0.5, 0.25, -1.25];
        let ring = compared(&truth, &[(0, 1), (1, 2), (2, 3), (3, 0)]);
        let found = strengths(4, &[], &ring);
        for (found, truth) in found.iter().zip(truth) {
            assert!((found - truth).abs() < 0.02, "{found} {truth}");
        }
    }

    #[test]
    fn known_strengths_give_the_others_their_origin() {
        let truth = [6.0, 5.0, 5.5];
        let found = strengths(3, &truth[2..], &compared(&truth, &[(0, 1), (0, 2), (1, 2)]));
        assert_eq!(found.len(), 2);
        for (found, truth) in found.iter().zip(truth) {
            assert!((found - truth).abs() < 0.02, "{found} {truth}");
        }
    }

    #[test]
    fn certain_and_contradictory_comparisons_stay_finite() {
        let certain = |first, second| Comparison {
            first,
            second,
            log_odds: f64::INFINITY,
        };
        let found = strengths(3, &[], &[certain(0, 1), certain(1, 2)]);
        assert!(found[0] > found[1] && found[1] > found[2], "{found:?}");
        assert!(found.iter().all(|s| s.is_finite()));
        let cycle = [certain(0, 1), certain(1, 2), certain(2, 0)];
        assert!(strengths(3, &[], &cycle).iter().all(|s| s.abs() < 1e-6));
        assert_eq!(strengths(1, &[], &[]), [0.0]);
    }
}
