//! Sums that several rooms need.

/// `log Σ exp(x)` without overflow; −∞ for no values.
pub(crate) fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return top;
    }
    top + values.map(|x| (x - top).exp()).sum::<f64>().ln()
}

/// The largest of `logits` and `log Σ exp(l − largest)`, whose sum is what a logit's
/// log-probability is the logit minus. Apart, as their sum would cost the last digits.
#[cfg(feature = "engine")]
pub(crate) fn normaliser(logits: &[f32]) -> (f32, f64) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (
        largest,
        log_sum_exp(logits.iter().map(|&l| f64::from(l - largest))),
    )
}
