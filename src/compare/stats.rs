//! Means, and how sure they are.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

use crate::math::{mean, standard_deviation};

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// Mean difference with the 95 % interval of a paired t, `groups` being the paired differences of
/// one prompt each: d̄ ± t(n − 1)·s/√n over the n prompts' means. The seeds of one prompt are
/// averaged first, as they are no independent prompts. `None` for fewer than two prompts.
///
/// Source: Student, *The probable error of a mean*, Biometrika 6, 1908.
#[must_use]
pub fn paired_t(groups: &[Vec<f64>]) -> Option<Interval> {
    let groups = groups.iter().filter(|g| !g.is_empty());
    let means: Vec<f64> = groups.map(|g| mean(g)).collect();
    // One prompt says nothing about others.
    if means.len() < 2 {
        return None;
    }
    let error = standard_deviation(&means) / (means.len() as f64).sqrt();
    let half = t_quantile(0.95, means.len() - 1) * error;
    let mean = mean(&means);
    Some(Interval {
        mean,
        low: mean - half,
        high: mean + half,
    })
}

/// The t with P(|T| ≤ t) = `share`, for Student's T with so many degrees of `freedom`, at least 1.
fn t_quantile(share: f64, freedom: usize) -> f64 {
    // The angle whose tangent is t/√freedom, halved in until no number is between the two ends.
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    loop {
        let angle = f64::midpoint(low, high);
        if angle <= low || angle >= high {
            return (freedom as f64).sqrt() * angle.tan();
        }
        match within(angle, freedom) < share {
            true => low = angle,
            false => high = angle,
        }
    }
}

/// P(|T| ≤ t) at t = √freedom·tan(angle): a finite sum for whole degrees of freedom.
///
/// Source: Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.7.3 and 26.7.4.
fn within(angle: f64, freedom: usize) -> f64 {
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2;
    let (mut term, mut sum) = (if odd == 1 { cosine } else { 1.0 }, 0.0);
    for power in (odd..freedom.saturating_sub(1)).step_by(2) {
        sum += term;
        term *= cosine * cosine * (power + 1) as f64 / (power + 2) as f64;
    }
    match odd {
        1 => FRAC_2_PI * (angle + sine * sum),
        _ => sine * sum,
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::StandardNormal;

    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, t) in [
            (1, 12.706),
            (2, 4.303),
            (3, 3.182),
            (4, 2.776),
            (5, 2.571),
            (7, 2.365),
            (10, 2.228),
            (23, 2.069),
            (30, 2.042),
            (60, 2.000),
            (120, 1.980),
            (100_000, 1.960),
        ] {
            let found = t_quantile(0.95, freedom);
            assert!((found - t).abs() < 6e-4, "{freedom}: {found}");
        }
        for (share, freedom, t) in [(0.99, 1, 63.657), (0.99, 8, 3.355), (0.9, 23, 1.714)] {
            let found = t_quantile(share, freedom);
            assert!((found - t).abs() < 6e-4, "{share}, {freedom}: {found}");
        }
    }

    /// In what share of simulations the interval of so many prompts has 0 in it, a prompt's
    /// difference being the sum of `part(x)` over `numbers` standard normal x.
    fn coverage(prompts: usize, numbers: usize, part: fn(f64) -> f64) -> f64 {
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let rounds = 20_000;
        let covered = (0..rounds).filter(|_| {
            let mut number = |_| part(random.sample(StandardNormal));
            let groups: Vec<Vec<f64>> = (0..prompts)
                .map(|_| vec![(0..numbers).map(&mut number).sum()])
                .collect();
            let interval = paired_t(&groups).unwrap();
            interval.low <= 0.0 && 0.0 <= interval.high
        });
        covered.count() as f64 / f64::from(rounds)
    }

    #[test]
    fn the_interval_covers_what_it_says() {
        for prompts in [2, 4, 8, 24] {
            let share = coverage(prompts, 1, |x| x);
            assert!((0.945..0.955).contains(&share), "{prompts}: {share}");
            // χ² with 8 degrees of freedom: skewness 1.
            let share = coverage(prompts, 8, |x| x * x - 1.0);
            assert!((0.92..0.97).contains(&share), "skewed, {prompts}: {share}");
        }
    }

    #[test]
    fn seeds_of_one_prompt_are_one_group() {
        // Ten seeds of each of two prompts say no more than two prompts do.
        let few = paired_t(&[vec![0.0], vec![1.0]]).unwrap();
        let many = paired_t(&[vec![0.0; 10], vec![1.0; 10]]).unwrap();
        assert_eq!(few, many);
        assert_eq!(few.mean, 0.5);
        assert!((few.high - (0.5 + 12.706 * 0.5)).abs() < 1e-3, "{few:?}");
        // A prompt counts once, however many of its seeds are there.
        let uneven = paired_t(&[vec![0.0], vec![1.0; 9]]).unwrap();
        assert_eq!(uneven, few);
    }

    #[test]
    fn one_prompt_has_no_interval() {
        assert_eq!(paired_t(&[]), None);
        assert_eq!(paired_t(&[vec![]]), None);
        assert_eq!(paired_t(&[vec![0.4, 0.5], vec![]]), None);
    }
}
