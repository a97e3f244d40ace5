//! Sums that several rooms need.

/// `log Σ exp(x)` without overflow; −∞ for no values.
pub(crate) fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return top;
    }
    top + values.map(|x| (x - top).exp()).sum::<f64>().ln()
}

/// Pearson's correlation of pairs; `None` for fewer than two, and where either does not vary.
pub(crate) fn correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    let n = pairs.len() as f64;
    let (x, y) = pairs
        .iter()
        .fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in pairs {
        xx += (a - x) * (a - x);
        xy += (a - x) * (b - y);
        yy += (b - y) * (b - y);
    }
    Some(xy / (xx * yy).sqrt()).filter(|found| found.is_finite())
}

/// Mean; NaN for no values.
#[must_use]
#[cfg(feature = "engine")]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sample standard deviation; 0 for fewer than two values.
#[must_use]
#[cfg(feature = "engine")]
pub fn standard_deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let centre = mean(values);
    let squares: f64 = values.iter().map(|x| (x - centre).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// The largest of `logits` and `log Σ exp(l − largest)`, whose sum is what a logit's
/// log-probability is the logit minus. Apart, as their sum would cost the last digits.
#[cfg(feature = "engine")]
pub(crate) fn normaliser(logits: &[f32]) -> (f32, f64) {
    let largest = largest(logits);
    (
        largest,
        log_sum_exp(logits.iter().map(|&l| f64::from(l - largest))),
    )
}

/// The largest of `values`, NaN left out; −∞ for none.
#[cfg(feature = "engine")]
pub(crate) fn largest(values: &[f32]) -> f32 {
    // Of lanes, so that the compiler may use vectors.
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (sixteens, rest) = values.as_chunks::<16>();
    for sixteen in sixteens {
        for (lane, &value) in lanes.iter_mut().zip(sixteen) {
            *lane = lane.max(value);
        }
    }
    lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max)
}

/// What is said of softmax(`logits`) as a whole.
#[cfg(feature = "engine")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Softmax {
    largest: f32,
    /// log Σ exp(l − largest).
    normaliser: f64,
    /// In nats.
    pub(crate) entropy: f64,
}

#[cfg(feature = "engine")]
impl Softmax {
    /// Of these logits.
    pub(crate) fn of(logits: &[f32]) -> Self {
        let largest = largest(logits);
        let (mut sum, mut moment) = (0.0_f64, 0.0_f64);
        // One thing at a time and sums of lanes, so that the compiler uses vectors.
        let (mut xs, mut weights) = ([0.0_f32; 512], [0.0_f32; 512]);
        for chunk in logits.chunks(512) {
            let (xs, weights) = (&mut xs[..chunk.len()], &mut weights[..chunk.len()]);
            for (x, logit) in xs.iter_mut().zip(chunk) {
                *x = (logit - largest).max(LEAST);
            }
            for (weight, &x) in weights.iter_mut().zip(&*xs) {
                *weight = exp(x);
            }
            let (mut sums, mut moments) = ([0.0_f32; 8], [0.0_f32; 8]);
            let ((xs, last_xs), (weights, last)) = (xs.as_chunks::<8>(), weights.as_chunks::<8>());
            for (x, weight) in xs.iter().zip(weights) {
                for lane in 0..8 {
                    sums[lane] += weight[lane];
                    moments[lane] += weight[lane] * x[lane];
                }
            }
            for (lane, (x, weight)) in last_xs.iter().zip(last).enumerate() {
                sums[lane] += weight;
                moments[lane] += weight * x;
            }
            sum += sums.iter().map(|&s| f64::from(s)).sum::<f64>();
            moment += moments.iter().map(|&m| f64::from(m)).sum::<f64>();
        }
        let normaliser = sum.ln();
        Self {
            largest,
            normaliser,
            entropy: (normaliser - moment / sum).max(0.0),
        }
    }

    /// Of each of them, by as many threads at most.
    pub(crate) fn of_each(logits: &[&[f32]], threads: usize) -> Vec<Self> {
        // Fewer are done before a thread has begun.
        const A_THREAD: usize = 1 << 20;
        let each = |logits: &[&[f32]]| logits.iter().map(|l| Self::of(l)).collect::<Vec<_>>();
        let all: usize = logits.iter().map(|l| l.len()).sum();
        let threads = threads.min(all / A_THREAD).max(1);
        let part = logits.len().div_ceil(threads).max(1);
        let Some((own, others)) = logits.split_at_checked(part) else {
            return each(logits);
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = others
                .chunks(part)
                .map(|part| scope.spawn(move || each(part)))
                .collect();
            let mut all = each(own);
            for other in others {
                // What panicked there panics here.
                all.extend(
                    other
                        .join()
                        .unwrap_or_else(|e| std::panic::resume_unwind(e)),
                );
            }
            all
        })
    }

    /// −log p, in nats, of a token with this logit.
    pub(crate) fn surprise(&self, logit: f32) -> f64 {
        self.normaliser + f64::from(self.largest - logit)
    }
}

/// log p − log q of `token`, p being softmax(`own`) and q softmax(`moved`) over the tokens where
/// `moved` is finite.
#[cfg(feature = "engine")]
pub(crate) fn log_ratio(own: &[f32], moved: &[f32], token: usize) -> f64 {
    let allowed = || own.iter().zip(moved).filter(|(_, q)| q.is_finite());
    let p = log_sum_exp(allowed().map(|(&p, _)| f64::from(p)));
    let q = log_sum_exp(allowed().map(|(_, &q)| f64::from(q)));
    (f64::from(own[token]) - p) - (f64::from(moved[token]) - q)
}

/// Below this e^x is nothing beside e^0.
#[cfg(feature = "engine")]
const LEAST: f32 = -80.0;

/// e^x for x from [`LEAST`] to 0, to a relative 10⁻⁵, without a branch.
#[cfg(feature = "engine")]
fn exp(x: f32) -> f32 {
    // Adding this rounds to a whole number, which then stands in the last bits.
    const ROUND: f32 = 12_582_912.0;
    let scaled = x * std::f32::consts::LOG2_E;
    let shifted = scaled + ROUND;
    let fraction = (scaled - (shifted - ROUND)) * std::f32::consts::LN_2;
    let whole = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let power = f32::from_bits(whole.wrapping_add(127) << 23);
    // Taylor; |fraction| ≤ ln 2 / 2.
    let series = 1.0
        + fraction
            * (1.0
                + fraction
                    * (0.5
                        + fraction
                            * (1.0 / 6.0
                                + fraction
                                    * (1.0 / 24.0 + fraction * (1.0 / 120.0 + fraction / 720.0)))));
    power * series
}

#[cfg(all(test, feature = "engine"))]
mod tests {
    use super::*;

    #[test]
    fn exponentials() {
        for i in 0..80_000 {
            let x = -(i as f32) / 1000.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 1e-5, "{x}");
        }
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn the_largest_is_no_nan() {
        let mut values: Vec<f32> = (0..100).map(|i| -(i as f32)).collect();
        for place in [0, 17, 95, 96, 99] {
            values[place] = 5.0;
            values[99 - place] = f32::NAN;
            assert_eq!(largest(&values), 5.0, "{place}");
            (values[place], values[99 - place]) = (-6.0, -7.0);
        }
        assert_eq!(largest(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn surprise_and_entropy_are_those_of_the_softmax() {
        let logits: Vec<f32> = (0..1003).map(|i| ((i * 37 % 101) as f32).sqrt()).collect();
        let (largest, rest) = normaliser(&logits);
        let log_p = |l: f32| f64::from(l - largest) - rest;
        let entropy: f64 = logits.iter().map(|&l| -log_p(l) * log_p(l).exp()).sum();
        let softmax = Softmax::of(&logits);
        assert!((softmax.surprise(logits[17]) + log_p(logits[17])).abs() < 1e-6);
        let found = softmax.entropy;
        assert!((found - entropy).abs() < 1e-5, "{found} {entropy}");
        // So many that threads share them, and so few that they do not.
        let many = logits.repeat(1 + (1 << 20) / logits.len());
        for logits in [&logits, &many] {
            let found = Softmax::of(logits).entropy;
            for (rows, threads) in [(0, 2), (1, 1), (1, 4), (5, 2), (5, 3), (4, 9)] {
                let all = Softmax::of_each(&vec![logits.as_slice(); rows], threads);
                assert_eq!(all.len(), rows);
                assert!(all.iter().all(|each| each.entropy == found));
            }
        }
        // Certain, whatever else is impossible.
        let certain = [f32::NEG_INFINITY, 3.0, f32::NEG_INFINITY];
        let softmax = Softmax::of(&certain);
        assert!(softmax.surprise(3.0).abs() < 1e-12 && softmax.entropy.abs() < 1e-12);
    }
}
