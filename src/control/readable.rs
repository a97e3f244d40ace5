//! Whether a reward that reads the beginning of an answer knows enough to give up on it.
//!
//! A search of T answers that scores each at a fraction f of its length, goes on with the share k
//! that scored best, and spends on new ones what it did not write of the others, begins
//! N = T/(f + k(1 − f)). Where the scores of beginnings and of answers are normal with the
//! correlation ρ, its best answer is above that of T whole ones by
//!
//! ```text
//! G = ρi + √(1 − ρ²i(i − z))·m(kN) − m(T),   z = Φ⁻¹(1 − k),   i = φ(z)/k
//! ```
//!
//! standard deviations, m(n) being the expected largest of n standard normal numbers. i and
//! 1 − i(i − z) are mean and variance of the best share k of a standard normal. That the rewards of
//! that share are normal as well is an approximation: it is within 0.03 for ρ up to 0.5, 0.07 too low for
//! ρ = 0.9 and k = 1/8, and useless above that.

use std::f64::consts::{PI, SQRT_2};

/// Φ(x).
fn cumulative(x: f64) -> f64 {
    0.5 * libm::erfc(-x / SQRT_2)
}

/// φ(x).
fn density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * PI).sqrt()
}

/// Φ⁻¹(p), by halving.
fn quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        match cumulative(middle) < p {
            true => low = middle,
            false => high = middle,
        }
    }
    0.5 * (low + high)
}

/// m(n), the expected largest of n standard normal numbers, for any n above 0: the mean of the
/// distribution Φⁿ.
#[must_use]
pub fn expected_largest(n: f64) -> f64 {
    // ∫ (1 − Φⁿ) over x > 0 less ∫ Φⁿ over x < 0, by the trapezium rule, which is exact here to
    // far more than is needed.
    let step = 1.0 / 64.0;
    let tail = |x: f64| {
        let log = n * (-cumulative(-x)).ln_1p();
        -log.exp_m1() - (n * cumulative(-x).ln()).exp()
    };
    let inner: f64 = (1..64 * 12).map(|k| tail(f64::from(k) * step)).sum();
    step * (0.5 * tail(0.0) + inner)
}

/// What it is worth to give up answers whose beginnings score badly,
///
/// ```text
/// G = ρi + √(1 − ρ²i(i − z))·m(kN) − m(T),   z = Φ⁻¹(1 − k),   i = φ(z)/k,   N = T/(f + k(1 − f))
/// ```
///
/// in standard deviations of the answers' rewards: what a search of `answers` whole answers gains
/// by giving up, at the fraction `at` of their length, on all but the share `kept`, where the score of
/// a beginning and that of its answer are correlated by `correlation`.
///
/// Source: the mean and variance of a truncated normal distribution, taken for normal again: within
/// 0.03 for ρ up to 0.5, too low above.
#[must_use]
pub fn rejection_gain(correlation: f64, at: f64, kept: f64, answers: f64) -> f64 {
    let begun = answers / (at + kept * (1.0 - at));
    let z = quantile(1.0 - kept);
    let mean = density(z) / kept;
    let variance = 1.0 - correlation * correlation * mean * (mean - z);
    correlation * mean + variance.max(0.0).sqrt() * expected_largest(kept * begun)
        - expected_largest(answers)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    #[test]
    fn largest_numbers_are_those_of_the_tables() {
        for (n, expected) in [
            (1.0, 0.0),
            (2.0, 0.564_19),
            (10.0, 1.538_75),
            (100.0, 2.507_59),
        ] {
            let found = expected_largest(n);
            assert!((found - expected).abs() < 1e-4, "{n}: {found}");
        }
        assert!((quantile(0.975) - 1.959_964).abs() < 1e-5);
    }

    #[test]
    fn the_gain_is_that_of_a_simulation() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        for (correlation, at, kept, off) in [
            (0.5_f64, 0.25_f64, 0.25_f64, 0.03),
            (0.2, 0.1, 0.5, 0.03),
            (0.9, 0.5, 0.125, 0.1),
        ] {
            let answers = 64.0;
            let begun = (answers / (at + kept * (1.0 - at))) as usize;
            let (mut sum, runs) = (0.0, 4000);
            for _ in 0..runs {
                let mut pairs: Vec<(f64, f64)> = (0..begun)
                    .map(|_| {
                        let early: f64 = StandardNormal.sample(&mut random);
                        let rest: f64 = StandardNormal.sample(&mut random);
                        let rest = (1.0 - correlation * correlation).sqrt() * rest;
                        (early, correlation * early + rest)
                    })
                    .collect();
                pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
                let best = pairs[..(kept * begun as f64).round() as usize].iter();
                sum += best.map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
            }
            let simulated = sum / f64::from(runs) - expected_largest(answers);
            let formula = rejection_gain(correlation, at, kept, answers);
            assert!(
                (simulated - formula).abs() < off,
                "{correlation} {at} {kept}: {simulated} {formula}"
            );
        }
    }

    #[test]
    fn it_pays_from_some_correlation_on() {
        // Break-even for 128 answers, with the best of some shares.
        let best = |correlation, at| {
            let shares = [0.5, 0.25, 0.125];
            let gains = shares.map(|kept| rejection_gain(correlation, at, kept, 128.0));
            gains.into_iter().fold(f64::NEG_INFINITY, f64::max)
        };
        for (at, even) in [(0.1, 0.05), (0.25, 0.13), (0.5, 0.27)] {
            assert!(best(even - 0.04, at) < 0.0, "{at}");
            assert!(best(even + 0.04, at) > 0.0, "{at}");
        }
    }
}
