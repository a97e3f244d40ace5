//! The direction in the output matrix that a reward follows, learnt from the texts so far.
//!
//! ```text
//! φ_i = Σ_y a_y·(W_y − W̄)      over the different tokens y of text i
//! ```
//!
//! A ridge regression of the rewards on φ, over distinct texts. How much it explains is prequential:
//! how well each regression foretold texts that it had not seen, less what chance would explain.
//!
//! Source: (chosen), measured in `docs/controller.md`.

use std::sync::Arc;

use ndarray::{Array1, Array2, Axis};

use super::ridge::ridge;
use super::trajectory::Mean;
use crate::math::correlation;

/// Texts that the regression looks at, the latest ones: it costs their cube.
pub(super) const MEMORY: usize = 512;
/// Predictions that R² is measured on, the latest ones.
const PREDICTIONS: usize = 256;

/// A text as the regression sees it.
pub(super) struct Text {
    pub(super) reward: f64,
    /// Σ_y a_y.
    pub(super) weights: f64,
    /// Σ_y a_y·W_y `[d]`.
    pub(super) features: Vec<f32>,
}

/// What a regression would say of a text.
struct Predictor {
    /// Mean row W̄ of the tokens that it was fitted on.
    row: Array1<f64>,
    /// Weights of the features.
    weights: Array1<f64>,
    /// Mean of the features, and of the rewards.
    centre: Array1<f64>,
    reward: f64,
}

impl Predictor {
    /// What it says of a text and what is so, both above the mean reward that it knows.
    fn pair(&self, text: &Text) -> (f64, f64) {
        let rows = self.row.iter().zip(&self.centre);
        let terms = text.features.iter().zip(rows).zip(&self.weights);
        let said =
            terms.map(|((&x, (row, centre)), w)| w * (f64::from(x) - text.weights * row - centre));
        (said.sum(), text.reward - self.reward)
    }
}

/// The regressions of a run.
#[derive(Default)]
pub(super) struct Regression {
    predictor: Option<Predictor>,
    /// (prediction, reward), above the mean known then, of texts that the regression had not seen,
    /// the latest last.
    predictions: Vec<(f64, f64)>,
    r2: f64,
}

impl Regression {
    /// Learns from all texts so far; the first `known` of them have been seen by the last call.
    pub(super) fn learn(&mut self, texts: &[&Text], known: usize) {
        if let Some(predictor) = &self.predictor {
            let pairs = texts[known..].iter().map(|text| predictor.pair(text));
            self.predictions.extend(pairs);
        }
        let texts = &texts[texts.len().saturating_sub(MEMORY)..];
        if texts.len() < 3 {
            return;
        }
        let width = texts[0].features.len();
        let mut features = Array2::<f64>::zeros((texts.len(), width));
        for (mut row, text) in features.rows_mut().into_iter().zip(texts) {
            let values = row.iter_mut().zip(&text.features);
            values.for_each(|(out, &x)| *out = f64::from(x));
        }
        let weights: Array1<f64> = texts.iter().map(|text| text.weights).collect();
        let row = features.sum_axis(Axis(0)) / weights.sum().max(1.0);
        for (mut own, weight) in features.rows_mut().into_iter().zip(&weights) {
            own.scaled_add(-weight, &row);
        }
        let centre = features.sum_axis(Axis(0)) / texts.len() as f64;
        features -= &centre;
        let reward = texts.iter().map(|text| text.reward).sum::<f64>() / texts.len() as f64;
        let targets: Vec<f64> = texts.iter().map(|text| text.reward - reward).collect();
        let fit = ridge(features.dot(&features.t()).view(), &targets);
        if self.predictor.is_none() {
            let pairs = fit.left_out.iter().copied().zip(targets.iter().copied());
            self.predictions.extend(pairs);
        }
        let old = self.predictions.len().saturating_sub(PREDICTIONS);
        self.predictions.drain(..old);
        self.r2 = explained(&self.predictions);
        self.predictor = Some(Predictor {
            row,
            weights: features.t().dot(&Array1::from(fit.dual)),
            centre,
            reward,
        });
    }

    /// Share of the reward's variance that the regressions explained of texts that they had not seen,
    /// less what chance would explain.
    pub(super) fn r2(&self) -> f64 {
        self.r2
    }

    /// The direction as a mean of norm `long`; `None` where the reward follows none.
    pub(super) fn mean(&self, long: f64) -> Option<Arc<Mean>> {
        let Predictor { row, weights, .. } = self.predictor.as_ref()?;
        let norm = weights.dot(weights).sqrt();
        let usable = self.r2 > 0.0 && norm > 0.0 && norm.is_finite();
        usable.then(|| {
            Arc::new(Mean {
                u: weights.iter().map(|g| (g * long / norm) as f32).collect(),
                row: Some(row.iter().map(|&w| w as f32).collect()),
            })
        })
    }
}

/// Share of the variance of the second that the first explains, less what chance would: the
/// adjusted square of a positive correlation; 0 for fewer than four pairs.
fn explained(pairs: &[(f64, f64)]) -> f64 {
    let n = pairs.len() as f64;
    match correlation(pairs).filter(|found| *found > 0.0 && n >= 4.0) {
        Some(found) => {
            let share = found * found;
            (share - (1.0 - share) / (n - 2.0)).clamp(0.0, 1.0)
        }
        None => 0.0,
    }
}
