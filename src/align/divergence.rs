//! Over-optimisation made visible: the reward that is optimised rises while one that only
//! watches falls.

/// Mean and standard error of the mean of the rewards of one iteration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Level {
    mean: f64,
    error: f64,
}

impl Level {
    /// Of at least two finite rewards.
    pub(super) fn of(rewards: &[f64]) -> Option<Self> {
        let n = rewards.len() as f64;
        if rewards.len() < 2 {
            return None;
        }
        let mean = rewards.iter().sum::<f64>() / n;
        let squares: f64 = rewards.iter().map(|r| (r - mean) * (r - mean)).sum();
        Some(Self {
            mean,
            error: (squares / (n - 1.0) / n).sqrt(),
        })
    }

    /// Whether this mean is above the other by more than two standard errors of their
    /// difference: about one chance in forty if nothing moved.
    fn above(&self, other: &Self) -> bool {
        self.mean - other.mean > 2.0 * self.error.hypot(other.error)
    }
}

/// Watches two rewards over the iterations.
#[derive(Default)]
pub(super) struct Divergence {
    seen: Vec<(Level, Level)>,
}

impl Divergence {
    /// Takes the candidates of one iteration, (reward, held-out reward), and answers whether
    /// there is an earlier iteration since which the reward has risen and the held-out
    /// reward has fallen, both beyond chance ([`Level::above`]).
    pub(super) fn observe(&mut self, pairs: &[(f64, f64)]) -> bool {
        let (rewards, held_out): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        let (Some(reward), Some(held_out)) = (Level::of(&rewards), Level::of(&held_out)) else {
            return false;
        };
        let diverged = self
            .seen
            .iter()
            .any(|(r, h)| reward.above(r) && h.above(&held_out));
        self.seen.push((reward, held_out));
        diverged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight candidates around a mean.
    fn around(reward: f64, held_out: f64) -> Vec<(f64, f64)> {
        let spread = [-0.3, 0.3, -0.2, 0.2, -0.1, 0.1, 0.0, 0.0];
        spread.iter().map(|s| (reward + s, held_out - s)).collect()
    }

    #[test]
    fn a_rise_with_a_fall_is_seen() {
        let mut watch = Divergence::default();
        assert!(!watch.observe(&around(1.0, 1.0)));
        assert!(!watch.observe(&around(2.0, 1.0)));
        assert!(watch.observe(&around(2.0, 0.0)));
    }

    #[test]
    fn both_falling_both_rising_and_chance_are_not() {
        let mut watch = Divergence::default();
        assert!(!watch.observe(&around(1.0, 1.0)));
        assert!(!watch.observe(&around(0.0, 0.0)));
        assert!(!watch.observe(&around(2.0, 2.0)));
        assert!(!watch.observe(&around(2.05, 1.95)));
    }

    #[test]
    fn too_few_candidates_say_nothing() {
        let mut watch = Divergence::default();
        assert!(!watch.observe(&around(1.0, 1.0)));
        assert!(!watch.observe(&[(5.0, -5.0)]));
        assert!(!watch.observe(&[]));
    }
}
