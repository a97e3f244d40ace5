//! Fits a linear head by penalised least squares or logistic regression.
//!
//! With standardised features `z = (x − c)/s` the fit minimises, over `w` and an intercept that
//! is not penalised,
//!
//! ```text
//! mean_i loss(w·z_i + b, y_i) + λ/2 · |w|²
//! ridge          loss = (score − y)²/2          y standardised
//! logistic       loss = log(1 + e^score) − y·score     y 0 or 1
//! Bradley–Terry  logistic on x = chosen − rejected, y = 1, c = 0, no intercept
//! ```
//!
//! One solver serves all three: L-BFGS needs two products with the features a step, where a
//! normal equation would need `n·d²` and, for every fold and `λ`, `d³` operations. Features stay
//! raw: the scaling is applied to the weights, so a result holds for raw features as it is.
//!
//! `λ` is chosen by cross-validation over groups, from strong to weak, each fold starting at its
//! last result.

use super::lbfgs::{Stopping, minimise};

/// Grid of `λ`, strongest first: 10 values, evenly spaced in the logarithm.
const GRID_SIZE: usize = 10;
const GRID_STRONGEST: f64 = 1e2;
const GRID_WEAKEST: f64 = 1e-4;

/// The path ends when this many `λ` in a row were worse than the best.
const PATIENCE: usize = 2;

/// Stopping in units of the standardised gradient at zero weights.
const CHOOSING: (f64, usize) = (1e-4, 100);
const FINAL: (f64, usize) = (1e-8, 1000);

/// The loss of one example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    Squared,
    Logistic,
}

impl Loss {
    /// The loss and its derivative by the score.
    fn at(self, score: f64, target: f64) -> (f64, f64) {
        match self {
            Self::Squared => {
                let error = score - target;
                (error * error / 2.0, error)
            }
            Self::Logistic => (softplus(score) - target * score, sigmoid(score) - target),
        }
    }
}

/// `log(1 + e^x)`, the log-loss of a score of `−x` log-odds for what happened.
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `score = weight · x + bias` on raw features.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Linear {
    /// `[d]`
    pub weight: Vec<f64>,
    pub bias: f64,
}

/// Mean validation loss of one `λ`, in units of the loss; least squares with standardised scores.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct GridPoint {
    /// The penalty `λ`.
    pub lambda: f64,
    /// Mean loss over the validation examples of all folds: log-loss in nats, or half the squared
    /// error of scores standardised to variance 1.
    pub loss: f64,
}

/// What is fitted: rows with targets, and their scaling.
pub(super) struct Problem {
    /// `[n, d]`, raw, row after row
    features: Vec<f32>,
    /// `[n]`, as the loss takes them
    targets: Vec<f64>,
    loss: Loss,
    intercept: bool,
    /// `[d]`
    centre: Vec<f64>,
    /// `[d]`, `1/s`; 0 for a feature that never changes
    inverse_scale: Vec<f64>,
    /// Mean and deviation of the scores, put back into a finished fit.
    target_scale: (f64, f64),
}

impl Problem {
    /// `features` `[n, d]`, row after row, with `targets` `[n]`, both not empty. Without an
    /// intercept nothing is centred.
    pub(super) fn new(
        features: Vec<f32>,
        mut targets: Vec<f64>,
        loss: Loss,
        intercept: bool,
    ) -> Self {
        let n = targets.len();
        let d = features.len() / n;
        let mut centre = vec![0.0; d];
        if intercept {
            for row in features.chunks_exact(d) {
                for (c, &x) in centre.iter_mut().zip(row) {
                    *c += f64::from(x) / n as f64;
                }
            }
        }
        let mut inverse_scale = vec![0.0; d];
        for row in features.chunks_exact(d) {
            for ((v, c), &x) in inverse_scale.iter_mut().zip(&centre).zip(row) {
                *v += (f64::from(x) - c).powi(2) / n as f64;
            }
        }
        for (v, c) in inverse_scale.iter_mut().zip(&centre) {
            // What is below an f32's precision is rounding, not a feature.
            let constant = *v <= (1e-7 * c).powi(2);
            *v = if constant { 0.0 } else { 1.0 / v.sqrt() };
        }
        let mut target_scale = (0.0, 1.0);
        if loss == Loss::Squared {
            let mean = targets.iter().sum::<f64>() / n as f64;
            let variance = targets.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / n as f64;
            if variance > 0.0 {
                target_scale = (mean, variance.sqrt());
            }
            for y in &mut targets {
                *y = (*y - target_scale.0) / target_scale.1;
            }
        }
        Self {
            features,
            targets,
            loss,
            intercept,
            centre,
            inverse_scale,
            target_scale,
        }
    }

    /// Chooses `λ` by cross-validation, `folds[i]` the fold of row `i`, and fits all rows.
    /// Returns the fit, its `λ` and the grid as far as it was tried.
    pub(super) fn choose_and_fit(&self, folds: &[usize]) -> (Linear, f64, Vec<GridPoint>) {
        let count = folds.iter().max().map_or(0, |&last| last + 1);
        let split = |fold: usize, inside: bool| -> Vec<usize> {
            let rows = 0..self.targets.len();
            rows.filter(|&i| (folds[i] == fold) == inside).collect()
        };
        let mut paths: Vec<_> = (0..count)
            .map(|fold| (split(fold, false), split(fold, true), self.start()))
            .collect();
        let mut grid: Vec<GridPoint> = Vec::new();
        let (mut best, mut worse) = (f64::INFINITY, 0);
        let mut chosen = GRID_STRONGEST;
        for lambda in lambdas() {
            let mut sum = 0.0;
            for (train, validate, x) in &mut paths {
                self.minimise(train, lambda, CHOOSING, x);
                let (weight, bias) = self.unscaled(x);
                for &i in validate.iter() {
                    let score = dot(self.row(i), &weight) + bias;
                    sum += self.loss.at(score, self.targets[i]).0;
                }
            }
            let loss = sum / self.targets.len() as f64;
            grid.push(GridPoint { lambda, loss });
            if loss < best {
                (best, chosen, worse) = (loss, lambda, 0);
            } else {
                worse += 1;
            }
            if worse == PATIENCE {
                break;
            }
        }
        (self.fit(chosen), chosen, grid)
    }

    /// The fit of all rows with the penalty `lambda`.
    pub(super) fn fit(&self, lambda: f64) -> Linear {
        let all: Vec<usize> = (0..self.targets.len()).collect();
        let mut x = self.start();
        self.minimise(&all, lambda, FINAL, &mut x);
        let (mut weight, bias) = self.unscaled(&x);
        let (mean, deviation) = self.target_scale;
        weight.iter_mut().for_each(|w| *w *= deviation);
        Linear {
            weight,
            bias: bias * deviation + mean,
        }
    }

    /// Zero weights and intercept `[d + 1]`, on standardised features.
    fn start(&self) -> Vec<f64> {
        vec![0.0; self.centre.len() + 1]
    }

    fn minimise(&self, rows: &[usize], lambda: f64, (share, steps): (f64, usize), x: &mut [f64]) {
        let mut gradient = self.start();
        self.value(rows, lambda, &self.start(), &mut gradient);
        let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let stopping = Stopping {
            gradient: share * length,
            steps,
        };
        minimise(x, stopping, |x, g| self.value(rows, lambda, x, g));
    }

    /// Weights and bias for raw features.
    fn unscaled(&self, x: &[f64]) -> (Vec<f64>, f64) {
        let (w, intercept) = x.split_at(self.centre.len());
        let scaled = w.iter().zip(&self.inverse_scale);
        let weight: Vec<f64> = scaled.map(|(w, s)| w * s).collect();
        let shift: f64 = weight.iter().zip(&self.centre).map(|(w, c)| w * c).sum();
        (weight, intercept.first().unwrap_or(&0.0) - shift)
    }

    /// The inverse of [`Problem::unscaled`].
    #[cfg(test)]
    pub(super) fn standardised(&self, fitted: &Linear) -> Vec<f64> {
        let scaled = fitted.weight.iter().zip(&self.inverse_scale);
        let mut x: Vec<f64> = scaled.map(|(w, s)| w / s).collect();
        let shift: f64 = fitted
            .weight
            .iter()
            .zip(&self.centre)
            .map(|(w, c)| w * c)
            .sum();
        x.push(fitted.bias + shift);
        x
    }

    /// The function that is minimised, at weights and intercept `x` `[d + 1]`, with its gradient.
    pub(super) fn value(
        &self,
        rows: &[usize],
        lambda: f64,
        x: &[f64],
        gradient: &mut [f64],
    ) -> f64 {
        let d = self.centre.len();
        let (weight, bias) = self.unscaled(x);
        let (mut loss, mut slopes) = (0.0, 0.0);
        let mut raw = vec![0.0; d];
        for &i in rows {
            let row = self.row(i);
            let score = dot(row, &weight) + bias;
            let (row_loss, slope) = self.loss.at(score, self.targets[i]);
            loss += row_loss;
            slopes += slope;
            for (sum, &x) in raw.iter_mut().zip(row) {
                *sum += slope * f64::from(x);
            }
        }
        let n = rows.len() as f64;
        let mut penalty = 0.0;
        for j in 0..d {
            gradient[j] =
                (raw[j] - slopes * self.centre[j]) * self.inverse_scale[j] / n + lambda * x[j];
            penalty += x[j] * x[j];
        }
        gradient[d] = if self.intercept { slopes / n } else { 0.0 };
        loss / n + lambda / 2.0 * penalty
    }

    fn row(&self, i: usize) -> &[f32] {
        let d = self.centre.len();
        &self.features[i * d..(i + 1) * d]
    }
}

fn lambdas() -> impl Iterator<Item = f64> {
    let ratio = GRID_WEAKEST / GRID_STRONGEST;
    (0..GRID_SIZE).map(move |i| GRID_STRONGEST * ratio.powf(i as f64 / (GRID_SIZE - 1) as f64))
}

/// Eight sums at a time: one sum would wait for itself.
fn dot(x: &[f32], w: &[f64]) -> f64 {
    let (x_chunks, x_rest) = x.as_chunks::<8>();
    let (w_chunks, w_rest) = w.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (x, w) in x_chunks.iter().zip(w_chunks) {
        for k in 0..8 {
            sums[k] += f64::from(x[k]) * w[k];
        }
    }
    let rest = x_rest.iter().zip(w_rest);
    sums.iter().sum::<f64>() + rest.map(|(&x, &w)| f64::from(x) * w).sum::<f64>()
}
