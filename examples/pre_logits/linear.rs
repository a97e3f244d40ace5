//! A little linear algebra, and order statistics.

use std::ops::Range;

use aisp_llama::ndarray::{Array1, Array2, Axis, s};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// Where groups of these sizes are.
pub fn ranges(sizes: &[usize]) -> impl Iterator<Item = Range<usize>> {
    sizes.iter().scan(0, |end, size| {
        *end += size;
        Some(*end - size..*end)
    })
}

/// From the smallest to the largest.
pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Quantile p of sorted values.
pub fn quantile(sorted: &[f64], p: f64) -> f64 {
    sorted[(p * (sorted.len() - 1) as f64).round() as usize]
}

/// Quantile p of χ² with an even number k of degrees of freedom.
pub fn chi_squared(k: usize, p: f64) -> f64 {
    // P(χ² > x) = e^(-x/2) Σ_{j < k/2} (x/2)^j / j!
    let above = |x: f64| {
        let terms = (1..k / 2).scan(1.0, |term, j| {
            *term *= x / 2.0 / j as f64;
            Some(*term)
        });
        (-x / 2.0).exp() * (1.0 + terms.sum::<f64>())
    };
    let (mut low, mut high) = (0.0, 20.0 * k as f64);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        match above(middle) > 1.0 - p {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}

/// The first k principal components of z [n, d] as columns [d, k], with their variances: by
/// subspace iteration.
pub fn components(z: &Array2<f64>, k: usize, rng: &mut ChaCha8Rng) -> (Array2<f64>, Vec<f64>) {
    let centred = z - &z.mean_axis(Axis(0)).unwrap_or_default();
    let covariance = centred.t().dot(&centred) / (z.nrows() - 1) as f64;
    let mut q = Array2::from_shape_simple_fn((z.ncols(), k), || rng.sample(StandardNormal));
    for _ in 0..100 {
        q = covariance.dot(&q);
        for i in 0..k {
            let mut column = q.column(i).to_owned();
            for j in 0..i {
                let overlap = q.column(j).dot(&column);
                column.scaled_add(-overlap, &q.column(j));
            }
            column /= column.dot(&column).sqrt();
            q.column_mut(i).assign(&column);
        }
    }
    let variances = (0..k).map(|i| q.column(i).dot(&covariance.dot(&q.column(i))));
    let variances = variances.collect();
    (q, variances)
}

/// Eigenvalues of a symmetric matrix, and its eigenvectors as columns: by Jacobi's rotations.
pub fn eigen(matrix: &Array2<f64>) -> (Array1<f64>, Array2<f64>) {
    let n = matrix.nrows();
    let mut a = matrix.clone();
    let mut vectors = Array2::eye(n);
    for _ in 0..12 {
        for p in 0..n {
            for q in p + 1..n {
                if a[[p, q]].powi(2) < 1e-30 * (a[[p, p]] * a[[q, q]]).abs() {
                    continue;
                }
                let theta = (a[[q, q]] - a[[p, p]]) / (2.0 * a[[p, q]]);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let c = 1.0 / t.hypot(1.0);
                let rotate = |x: &mut f64, y: &mut f64| {
                    (*x, *y) = (c * *x - t * c * *y, t * c * *x + c * *y)
                };
                for i in 0..n {
                    let (mut x, mut y) = (a[[i, p]], a[[i, q]]);
                    rotate(&mut x, &mut y);
                    (a[[i, p]], a[[i, q]]) = (x, y);
                }
                for i in 0..n {
                    let (mut x, mut y) = (a[[p, i]], a[[q, i]]);
                    rotate(&mut x, &mut y);
                    (a[[p, i]], a[[q, i]]) = (x, y);
                    let (mut x, mut y) = (vectors[[i, p]], vectors[[i, q]]);
                    rotate(&mut x, &mut y);
                    (vectors[[i, p]], vectors[[i, q]]) = (x, y);
                }
            }
        }
    }
    (a.diag().to_owned(), vectors)
}

/// L of a positive definite A = L Lᵀ, lower triangular.
pub fn cholesky(a: &Array2<f64>) -> Array2<f64> {
    let n = a.nrows();
    let mut l = Array2::<f64>::zeros((n, n));
    for i in 0..n {
        for j in 0..=i {
            let (left, right) = (l.slice(s![i, ..j]), l.slice(s![j, ..j]));
            let rest = a[[i, j]] - left.dot(&right);
            l[[i, j]] = match i == j {
                true => rest.sqrt(),
                false => rest / l[[j, j]],
            };
        }
    }
    l
}

/// A⁻¹ B for a positive definite A.
pub fn solve(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
    let (l, n) = (cholesky(a), a.nrows());
    let mut x = b.clone();
    for mut column in x.columns_mut() {
        for i in 0..n {
            let sum: f64 = (0..i).map(|j| l[[i, j]] * column[j]).sum();
            column[i] = (column[i] - sum) / l[[i, i]];
        }
        for i in (0..n).rev() {
            let sum: f64 = (i + 1..n).map(|j| l[[j, i]] * column[j]).sum();
            column[i] = (column[i] - sum) / l[[i, i]];
        }
    }
    x
}
