//! Ridge regression in its dual form, the penalty chosen by leaving one out.
//!
//! ```text
//! α = (K + μI)⁻¹ r,   K_ij = φ_i·φ_j
//! residual of i without i:  α_i / ([(K + μI)⁻¹]_ii − 1/(nμ))
//! ```
//!
//! Features and targets are centred, and the 1/(nμ) is what the centring costs: without it a
//! sample that is left out would still have a say in the mean that it is measured from, and pure
//! noise would seem explained where the features outnumber the samples.
//!
//! The dual form suits few samples of many features: n × n however wide the features are.
//! Source: Golub, Heath & Wahba 1979 for the leave-one-out residuals; with I − H = μ(K + μI)⁻¹ − J/n
//! for the unpenalised intercept.

use ndarray::{Array2, ArrayView2};

/// Penalties tried, in units of the mean diagonal entry of the kernel.
const PENALTIES: [f64; 6] = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// A fitted ridge regression.
#[derive(Clone, Debug, PartialEq)]
pub struct RidgeFit {
    /// Dual coefficients α `[n]`: the weights of the features are `Σ_i α_i φ_i`.
    pub dual: Vec<f64>,
    /// Share of the targets' variance that is explained when each sample is predicted without
    /// itself, 0 to 1; 0 where leaving out explains nothing.
    pub r2: f64,
    /// What each target is predicted to be without it `[n]`.
    pub left_out: Vec<f64>,
}

/// Regression of `targets` `[n]` on features with the Gram matrix `kernel` `[n, n]`, both
/// centred by the caller.
///
/// The answer is all zeros when the targets or the features do not differ, or are not finite.
///
/// # Panics
/// If the shapes do not agree.
#[must_use]
pub fn ridge(kernel: ArrayView2<'_, f64>, targets: &[f64]) -> RidgeFit {
    let n = targets.len();
    assert_eq!(kernel.dim(), (n, n), "one row and column for each target");
    let nothing = RidgeFit {
        dual: vec![0.0; n],
        r2: 0.0,
        left_out: vec![0.0; n],
    };
    let squares: f64 = targets.iter().map(|r| r * r).sum();
    let scale = kernel.diag().sum() / n.max(1) as f64;
    if !(squares > 0.0 && squares.is_finite() && scale > 0.0 && scale.is_finite()) {
        return nothing;
    }
    let mut best = (f64::INFINITY, nothing);
    for penalty in PENALTIES {
        let Some((dual, residuals)) = fit(kernel, targets, penalty * scale) else {
            continue;
        };
        let error = residuals.iter().map(|e| e * e).sum::<f64>();
        if error < best.0 {
            let left_out = targets.iter().zip(&residuals).map(|(t, e)| t - e);
            let fit = RidgeFit {
                dual,
                r2: (1.0 - error / squares).clamp(0.0, 1.0),
                left_out: left_out.collect(),
            };
            best = (error, fit);
        }
    }
    best.1
}

/// Dual coefficients and leave-one-out residuals.
fn fit(kernel: ArrayView2<'_, f64>, targets: &[f64], penalty: f64) -> Option<(Vec<f64>, Vec<f64>)> {
    let n = targets.len();
    let inverse = inverse_factor(kernel, penalty)?;
    // (K + μI)⁻¹ = MᵀM with M = L⁻¹.
    let half: Vec<f64> = (0..n)
        .map(|i| (0..=i).map(|k| inverse[(i, k)] * targets[k]).sum())
        .collect();
    let mut dual = vec![0.0; n];
    let mut diagonal = vec![0.0; n];
    for i in 0..n {
        for k in 0..=i {
            let m = inverse[(i, k)];
            dual[k] += m * half[i];
            diagonal[k] += m * m;
        }
    }
    // Never negative: the vector of ones is an eigenvector of (K + μI)⁻¹ with value 1/μ.
    let centring = 1.0 / (n as f64 * penalty);
    let pairs = dual.iter().zip(&diagonal);
    let residuals: Vec<f64> = pairs.map(|(a, d)| a / (d - centring)).collect();
    let finite = residuals.iter().all(|e| e.is_finite());
    finite.then_some((dual, residuals))
}

/// L⁻¹ of the Cholesky factor K + μI = LLᵀ, lower triangular; `None` when it is not positive
/// definite.
fn inverse_factor(kernel: ArrayView2<'_, f64>, penalty: f64) -> Option<Array2<f64>> {
    let n = kernel.nrows();
    let mut factor = Array2::<f64>::zeros((n, n));
    for i in 0..n {
        for j in 0..=i {
            let (a, b) = (factor.row(i), factor.row(j));
            let products: f64 = (0..j).map(|k| a[k] * b[k]).sum();
            if i == j {
                let pivot = kernel[(i, i)] + penalty - products;
                if pivot.is_nan() || pivot <= 0.0 {
                    return None;
                }
                factor[(i, i)] = pivot.sqrt();
            } else {
                factor[(i, j)] = (kernel[(i, j)] - products) / factor[(j, j)];
            }
        }
    }
    // Forward substitution on the unit vectors, row by row of the inverse.
    let mut inverse = Array2::<f64>::zeros((n, n));
    for i in 0..n {
        let mut row = vec![0.0; i + 1];
        for k in 0..i {
            let l = factor[(i, k)];
            for (out, m) in row.iter_mut().zip(inverse.row(k)).take(k + 1) {
                *out -= l * m;
            }
        }
        row[i] += 1.0;
        for (k, value) in row.into_iter().enumerate() {
            inverse[(i, k)] = value / factor[(i, i)];
        }
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::NoiseKey;

    fn features(n: usize, d: usize) -> Array2<f64> {
        let mut all = vec![0.0; n * d];
        NoiseKey {
            seed: 5,
            iteration: 0,
            candidate: 0,
            position: 0,
        }
        .standard_normal(&mut all);
        let wide = all.into_iter().map(f64::from).collect();
        Array2::from_shape_vec((n, d), wide).unwrap()
    }

    fn centred(x: &Array2<f64>, targets: &[f64]) -> (Array2<f64>, Vec<f64>) {
        let level = targets.iter().sum::<f64>() / targets.len() as f64;
        let x = x - &x.mean_axis(ndarray::Axis(0)).unwrap();
        (x, targets.iter().map(|t| t - level).collect())
    }

    #[test]
    fn leave_one_out_is_what_leaving_one_out_gives() {
        let raw = features(9, 4);
        let rewards: Vec<f64> = (0..9)
            .map(|i| raw[(i, 0)] - 0.5 * raw[(i, 2)] + 0.1 * i as f64)
            .collect();
        let (x, targets) = centred(&raw, &rewards);
        let (_, residuals) = fit(x.dot(&x.t()).view(), &targets, 0.7).unwrap();
        let quick: f64 = residuals.iter().map(|e| e * e).sum();
        let slow: f64 = (0..9)
            .map(|left| {
                let rest: Vec<usize> = (0..9).filter(|&i| i != left).collect();
                let part = raw.select(ndarray::Axis(0), &rest);
                let t: Vec<f64> = rest.iter().map(|&i| rewards[i]).collect();
                let centre = part.mean_axis(ndarray::Axis(0)).unwrap();
                let level = t.iter().sum::<f64>() / 8.0;
                let (part, t) = centred(&part, &t);
                let (dual, _) = fit(part.dot(&part.t()).view(), &t, 0.7).unwrap();
                let weights = part.t().dot(&ndarray::Array1::from(dual));
                let predicted = level + (&raw.row(left) - &centre).dot(&weights);
                (rewards[left] - predicted).powi(2)
            })
            .sum();
        assert!((quick - slow).abs() < 1e-9 * slow, "{quick} {slow}");
    }

    #[test]
    fn a_linear_reward_is_explained_and_noise_is_not() {
        let raw = features(60, 8);
        let linear: Vec<f64> = raw.rows().into_iter().map(|r| 2.0 * r[1] - r[3]).collect();
        let (x, linear) = centred(&raw, &linear);
        assert!(ridge(x.dot(&x.t()).view(), &linear).r2 > 0.98);
        let unrelated: Vec<f64> = features(120, 1).iter().skip(60).copied().collect();
        let (_, unrelated) = centred(&raw, &unrelated);
        assert!(ridge(x.dot(&x.t()).view(), &unrelated).r2 < 0.1);
    }

    #[test]
    fn noise_is_not_explained_by_more_features_than_samples() {
        let raw = features(16, 500);
        let noise: Vec<f64> = features(600, 1).iter().skip(584).copied().collect();
        let (x, noise) = centred(&raw, &noise);
        assert!(ridge(x.dot(&x.t()).view(), &noise).r2 < 0.05);
    }

    #[test]
    fn nothing_to_learn_gives_zeros() {
        let x = features(5, 3);
        let kernel = x.dot(&x.t());
        for targets in [vec![0.0; 5], vec![f64::NAN; 5]] {
            let fit = ridge(kernel.view(), &targets);
            assert_eq!((fit.r2, fit.dual), (0.0, vec![0.0; 5]));
        }
        let flat = ridge(Array2::zeros((5, 5)).view(), &[1.0, -1.0, 0.0, 0.5, -0.5]);
        assert_eq!(flat.r2, 0.0);
        assert_eq!(ridge(Array2::zeros((0, 0)).view(), &[]).r2, 0.0);
    }
}
