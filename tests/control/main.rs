//! The controller against closed forms, Monte Carlo and numbers computed elsewhere: no model needed.
//!
//! Monte Carlo tests run on fixed seeds; their tolerances are five standard errors of the estimate.

mod closed_forms;
mod contracts;
mod drawn;
mod noise;
mod numpy;
mod search;
mod smc;
mod smc_language;
mod weights;

use aisp_llama::control::*;
use ndarray::{Array1, Array2};
use proptest::prelude::*;
use serde_json::Value;

const SIGMA: f64 = 0.5;

fn options(horizon: usize, width: usize, alpha: f64, lambda: LambdaRule) -> WeightedOptions {
    WeightedOptions {
        alpha,
        lambda,
        ..WeightedOptions::new(horizon, width, SIGMA, 7)
    }
}

fn controller(options: WeightedOptions) -> WeightedMean {
    WeightedMean::new(options).expect("valid options")
}

/// A mean [τ, d] of size about `scale`, different for each `seed`.
fn some_mean(horizon: usize, width: usize, scale: f32, seed: u64) -> Array2<f32> {
    let mut mean = Array2::zeros((horizon, width));
    for (position, mut row) in mean.rows_mut().into_iter().enumerate() {
        normals(
            key(seed, 900, 0, position as u32),
            row.as_slice_mut().unwrap(),
        );
    }
    mean * scale
}

fn key(seed: u64, iteration: u32, candidate: u32, position: u32) -> NoiseKey {
    NoiseKey {
        seed,
        iteration,
        candidate,
        position,
    }
}

fn normals(key: NoiseKey, out: &mut [f32]) -> &[f32] {
    key.standard_normal(out);
    out
}

/// The perturbation V [τ, d] of a candidate, read off rows of zeros.
fn perturbation(aisp: &WeightedMean, iteration: u32, candidate: u32) -> Array2<f32> {
    let mut v = Array2::zeros(aisp.mean().dim());
    for (position, mut row) in v.rows_mut().into_iter().enumerate() {
        aisp.perturb(iteration, candidate, position, row.as_slice_mut().unwrap());
    }
    v
}

/// Candidates `0..n` of full length, scored by a function of their perturbation.
fn score(
    aisp: &WeightedMean,
    iteration: u32,
    n: u32,
    reward: impl Fn(&Array2<f32>) -> f64,
) -> Vec<Scored> {
    let length = aisp.options().horizon;
    let scored = |candidate| Scored {
        candidate,
        reward: reward(&perturbation(aisp, iteration, candidate)),
        length,
    };
    (0..n).map(scored).collect()
}

fn with_rewards(rewards: &[f64], length: usize) -> Vec<Scored> {
    with_lengths(rewards, &vec![length; rewards.len()])
}

fn with_lengths(rewards: &[f64], lengths: &[usize]) -> Vec<Scored> {
    let pairs = rewards.iter().zip(lengths);
    (0..)
        .zip(pairs)
        .map(|(i, (&reward, &length))| entry(i, reward, length))
        .collect()
}

fn entry(candidate: u32, reward: f64, length: usize) -> Scored {
    Scored {
        candidate,
        reward,
        length,
    }
}

fn dot(a: &Array2<f64>, v: &Array2<f32>) -> f64 {
    a.iter().zip(v).map(|(a, &v)| a * f64::from(v)).sum()
}

fn wide(mean: &Array2<f32>) -> Array2<f64> {
    mean.mapv(f64::from)
}

/// Standard error of a self-normalised estimate of `E[v_j]` when the weights are `exp(b·v)`, drawn
/// from a Gaussian of deviation σ: `E_q[w²(v_j − μ_j)²]/n` with `w = exp(b·v)/E_q[exp(b·v)]`.
fn tilted_error(b: &Array2<f64>, n: u32) -> Array2<f64> {
    let sigma2 = SIGMA * SIGMA;
    let factor = (sigma2 * b.mapv(|x| x * x).sum()).exp();
    b.mapv(|x| (factor * (sigma2 + sigma2 * sigma2 * x * x) / f64::from(n)).sqrt())
}

fn assert_within(found: &Array2<f64>, expected: &Array2<f64>, tolerance: &Array2<f64>) {
    for ((f, e), t) in found.iter().zip(expected).zip(tolerance) {
        assert!((f - e).abs() <= *t, "{f} is not within {t} of {e}");
    }
}

fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}
