//! When to stop because nothing better comes.

use crate::math::standard_deviation;

/// Part of the first rewards' standard deviation that a better answer is better by.
const LEAST: f64 = 0.1;

/// Watches the best answer over the iterations.
#[derive(Default)]
pub(super) struct Patience {
    /// Standard deviation of the first iteration's rewards.
    spread: Option<f64>,
    best: Option<f64>,
    /// Iterations since that was reached.
    waited: usize,
}

impl Patience {
    /// Takes the rewards of one iteration's new texts, and what the best candidate so far is worth;
    /// answers how many iterations in a row have brought nothing that is better by a tenth of the
    /// first rewards' standard deviation.
    pub(super) fn observe(&mut self, rewards: &[f64], best: Option<f64>) -> usize {
        if self.spread.is_none() && rewards.len() > 1 {
            self.spread = Some(standard_deviation(rewards));
        }
        let needed = LEAST * self.spread.unwrap_or(0.0);
        let better = match (best, self.best) {
            (Some(best), Some(last)) => best > last + needed,
            (best, _) => best.is_some(),
        };
        match better {
            true => (self.best, self.waited) = (best, 0),
            false => self.waited += 1,
        }
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hardly_better_does_not_count_and_adds_up() {
        let mut patience = Patience::default();
        // A standard deviation of 1: a tenth is needed.
        let mut observe = |best| patience.observe(&[-1.0, 0.0, 1.0], Some(best));
        assert_eq!([1.0, 1.05, 1.09].map(&mut observe), [0, 1, 2]);
        // More than a tenth above the 1.0 that was the last to count.
        assert_eq!([1.11, 1.11, 5.0].map(&mut observe), [0, 1, 0]);
    }

    #[test]
    fn where_nothing_has_a_reward_one_waits() {
        let mut patience = Patience::default();
        assert_eq!(patience.observe(&[], None), 1);
        assert_eq!(patience.observe(&[2.0], Some(2.0)), 0);
        assert_eq!(patience.observe(&[2.0], Some(2.0)), 1);
        assert_eq!(patience.observe(&[3.0], Some(3.0)), 0);
    }
}
