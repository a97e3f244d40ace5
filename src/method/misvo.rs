//! MISVO: the mean of the pre-logits climbs the reward along the exact policy gradient, priced
//! with the Fisher metric of the unsteered model.
//!
//! ```text
//! y^i ~ softmax(W(z_t + u_t)),   A_i = r_i − mean_{j≠i} r_j
//! g_t = (1/K) Σ_i A_i Wᵀ(e_{y_t^i} − p_t^i)
//! u_t ← u_t + η(g_t − λ F_t u_t),   F_t u = Wᵀ(p∘v − p(p·v)),   v = W u
//! ```
//!
//! F_t is averaged over the rollouts of the first iteration. With p̄ their mean probabilities and
//! m_i = Wᵀp_i it is F_t u = Wᵀ(p̄∘v) − mean_i m_i(m_i·u), so that no p_i has to be kept.
//!
//! Tokens are drawn through the same chain as best-of-n's (chosen), and p is the whole softmax: the
//! gradient is exact at temperature 1, top-p 1, top-k 0 and min-p 0.
//! Source: arXiv 2609.30218.

use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayView2, Axis};

use super::{Method, MethodOptions, ModelFacts, Outcome, Place, Proposal, Telemetry};
use crate::control::LambdaRule;
use crate::error::{Error, Result};
use crate::output::OutputRows;
use crate::rollout::{Steer, TokenChoice};

/// η, where it is not given.
pub const DEFAULT_STEP: f64 = 0.1;
/// λ, where it is not given.
const DEFAULT_LAMBDA: f64 = 1.0;
/// Rows of probabilities in memory at once.
const ROWS: usize = 256;

/// Products with the output matrix W `[vocabulary, d]`.
trait Matrix: Send + Sync {
    /// `[vocabulary, d]`.
    fn shape(&self) -> (usize, usize);
    /// W x of every row of `x` `[n, d]`.
    fn logits(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>>;
    /// Wᵀ p of every row of `p` `[n, vocabulary]`.
    fn transposed(&self, p: ArrayView2<'_, f32>) -> Result<Array2<f32>>;
}

impl Matrix for OutputRows {
    fn shape(&self) -> (usize, usize) {
        (self.vocabulary(), self.width())
    }

    fn logits(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        Self::logits(self, x)
    }

    fn transposed(&self, p: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        Self::transposed(self, p)
    }
}

/// The state of MISVO for one prompt.
pub struct Misvo {
    output: Arc<dyn Matrix>,
    choice: TokenChoice,
    seed: u64,
    samples: u32,
    iterations: u32,
    iteration: u32,
    step: f32,
    lambda: f32,
    /// u `[τ, d]`.
    mean: Arc<Array2<f32>>,
    fisher: Option<Fisher>,
}

/// The Fisher metric by position, averaged over all rollouts like the gradient: one that has ended
/// adds nothing.
struct Fisher {
    rollouts: usize,
    /// p̄ `[τ, vocabulary]`; zero where no rollout reached.
    probabilities: Array2<f32>,
    /// m_i `[rollouts, d]` by position.
    expected: Vec<Array2<f32>>,
}

struct Moved {
    mean: Arc<Array2<f32>>,
    place: Place,
}

impl Steer for Moved {
    fn perturb(&self, position: usize, row: &mut [f32]) -> bool {
        let inside = position < self.mean.nrows();
        if inside {
            for (z, u) in row.iter_mut().zip(self.mean.row(position)) {
                *z += u;
            }
        }
        inside
    }

    fn uniform(&self, position: usize) -> f64 {
        self.place.uniform(position)
    }
}

impl Misvo {
    /// MISVO from a mean of zero.
    ///
    /// # Errors
    /// [`Error::Model`] for a model whose logits are not W z alone.
    pub fn new(options: &MethodOptions, facts: &ModelFacts) -> Result<Self> {
        let missing = || Error::Run("MISVO has no output matrix to learn from".into());
        let output = facts.output.clone().ok_or_else(missing)?;
        output.check_plain("misvo")?;
        Ok(Self::on(output, options))
    }

    fn on(output: Arc<dyn Matrix>, options: &MethodOptions) -> Self {
        let horizon = options.horizon.unwrap_or(options.max_tokens);
        let horizon = horizon.min(options.max_tokens);
        Self {
            mean: Arc::new(Array2::zeros((horizon, output.shape().1))),
            output,
            choice: TokenChoice::Sample(options.sampling),
            seed: options.seed,
            samples: options.samples as u32,
            iterations: options.iterations as u32,
            iteration: 0,
            step: options.step.unwrap_or(DEFAULT_STEP) as f32,
            lambda: match options.lambda {
                LambdaRule::Fixed(lambda) => lambda as f32,
                LambdaRule::Ess(_) => DEFAULT_LAMBDA as f32,
            },
            fisher: None,
        }
    }

    /// The gradient g `[τ, d]`, and in the first iteration the metric.
    fn gradient(&mut self, scored: &[(&Outcome<'_>, f32)]) -> Result<Array2<f32>> {
        let (horizon, width) = self.mean.dim();
        let vocabulary = self.output.shape().0;
        let first = self.fisher.is_none();
        let mut weighted = Array2::<f32>::zeros((horizon, vocabulary));
        let mut fisher = Fisher {
            rollouts: scored.len(),
            probabilities: Array2::zeros((if first { horizon } else { 0 }, vocabulary)),
            expected: Vec::new(),
        };
        let alive = |t: usize| scored.iter().filter(move |(o, _)| o.tokens.len() > t);
        let group = (ROWS / scored.len().max(1)).max(1);
        for start in (0..horizon).step_by(group) {
            let places: Vec<(usize, &(&Outcome<'_>, f32))> = (start..horizon.min(start + group))
                .flat_map(|t| alive(t).map(move |s| (t, s)))
                .collect();
            let mut x = Array2::<f32>::zeros((places.len(), width));
            for (mut row, (t, (outcome, _))) in x.rows_mut().into_iter().zip(&places) {
                let z = &outcome.pre_logits[t * width..(t + 1) * width];
                let sum = z.iter().zip(self.mean.row(*t)).map(|(z, u)| z + u);
                row.iter_mut().zip(sum).for_each(|(x, sum)| *x = sum);
            }
            let mut p = self.output.logits(x.view())?;
            p.rows_mut()
                .into_iter()
                .for_each(|mut row| softmax(row.as_slice_mut()));
            for (row, (t, (outcome, advantage))) in p.rows().into_iter().zip(&places) {
                weighted.row_mut(*t).scaled_add(-advantage, &row);
                weighted[(*t, outcome.tokens[*t] as usize)] += advantage;
                if first {
                    let share = 1.0 / scored.len() as f32;
                    fisher.probabilities.row_mut(*t).scaled_add(share, &row);
                }
            }
            if first {
                let expected = self.output.transposed(p.view())?;
                for t in start..horizon.min(start + group) {
                    let own = places.iter().enumerate().filter(|(_, place)| place.0 == t);
                    let own: Vec<usize> = own.map(|(row, _)| row).collect();
                    fisher.expected.push(expected.select(Axis(0), &own));
                }
            }
        }
        if first {
            self.fisher = Some(fisher);
        }
        let gradient = self.output.transposed(weighted.view())?;
        Ok(gradient / scored.len() as f32)
    }

    /// F u `[τ, d]`.
    fn metric(&self) -> Result<Array2<f32>> {
        let Some(fisher) = &self.fisher else {
            return Ok(Array2::zeros(self.mean.dim()));
        };
        let mut v = self.output.logits(self.mean.view())?;
        v *= &fisher.probabilities;
        let mut product = self.output.transposed(v.view())?;
        for (t, expected) in fisher.expected.iter().enumerate() {
            let u = self.mean.row(t).to_owned();
            let own = outer(expected.view(), u, fisher.rollouts);
            product.row_mut(t).scaled_add(-1.0, &own);
        }
        Ok(product)
    }
}

/// Σ_i m_i(m_i·u) / count of the rows m_i `[n, d]`.
fn outer(m: ArrayView2<'_, f32>, u: Array1<f32>, count: usize) -> Array1<f32> {
    m.t().dot(&m.dot(&u)) / count.max(1) as f32
}

fn softmax(row: Option<&mut [f32]>) {
    let Some(row) = row else { return };
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in row.iter_mut() {
        *x = (*x - largest).exp();
        sum += *x;
    }
    row.iter_mut().for_each(|x| *x /= sum);
}

/// Leave-one-out advantages `A_i = r_i − mean_{j≠i} r_j`; zero for a single reward.
fn advantages(rewards: &[f64]) -> Vec<f64> {
    let n = rewards.len() as f64;
    let sum: f64 = rewards.iter().sum();
    let others = |r: f64| (sum - r) / (n - 1.0);
    let all = rewards
        .iter()
        .map(|&r| if n > 1.0 { r - others(r) } else { 0.0 });
    all.collect()
}

impl Method for Misvo {
    fn propose(&mut self) -> Vec<Proposal> {
        if self.iteration == self.iterations {
            return Vec::new();
        }
        (0..self.samples)
            .map(|candidate| Proposal {
                steer: Some(Arc::new(Moved {
                    mean: Arc::clone(&self.mean),
                    place: Place {
                        seed: self.seed,
                        iteration: self.iteration,
                        candidate,
                    },
                })),
                choice: self.choice,
            })
            .collect()
    }

    fn observe(&mut self, outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        self.iteration += 1;
        let mut telemetry = Telemetry {
            lambda: Some(f64::from(self.lambda)),
            ..Telemetry::default()
        };
        // Nobody draws from the last mean.
        if self.iteration == self.iterations {
            return Ok(telemetry);
        }
        let scored: Vec<&Outcome<'_>> = outcomes.iter().filter(|o| o.reward.is_finite()).collect();
        let rewards: Vec<f64> = scored.iter().map(|o| o.reward).collect();
        let scored: Vec<(&Outcome<'_>, f32)> = scored
            .into_iter()
            .zip(advantages(&rewards))
            .map(|(o, a)| (o, a as f32))
            .collect();
        if scored.is_empty() {
            return Ok(telemetry);
        }
        let gradient = self.gradient(&scored)?;
        let metric = self.metric()?;
        let mut mean = Array2::clone(&self.mean);
        mean.scaled_add(self.step, &gradient);
        mean.scaled_add(-self.step * self.lambda, &metric);
        // An absurd reward is no reason to lose the mean, and with it the run.
        if mean.iter().all(|u| u.is_finite()) {
            self.mean = Arc::new(mean);
        }
        // ½ uᵀFu is the KL of the draws to second order.
        let metric = self.metric()?;
        telemetry.kl = Some(0.5 * f64::from((&metric * &*self.mean).sum()));
        Ok(telemetry)
    }

    fn keeps_pre_logits(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_leave_one_out() {
        assert_eq!(advantages(&[1.0, 2.0, 6.0]), [-3.0, -1.5, 4.5]);
        assert_eq!(advantages(&[5.0]), [0.0]);
        assert!(advantages(&[0.3, 0.7, -2.0]).iter().sum::<f64>().abs() < 1e-12);
    }

    impl Matrix for Array2<f32> {
        fn shape(&self) -> (usize, usize) {
            self.dim()
        }

        fn logits(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
            Ok(x.dot(&self.t()))
        }

        fn transposed(&self, p: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
            Ok(p.dot(self))
        }
    }

    const WIDTH: usize = 3;
    const HORIZON: usize = 2;

    fn matrix() -> Array2<f32> {
        Array2::from_shape_fn((5, WIDTH), |(i, j)| ((i * 3 + j) as f32 * 1.7).sin())
    }

    fn misvo(options: MethodOptions) -> Misvo {
        let options = MethodOptions {
            max_tokens: HORIZON,
            ..options
        };
        Misvo::on(Arc::new(matrix()), &options)
    }

    /// Three responses, the second of one token, the last without a usable reward.
    fn outcomes(z: &Array2<f32>) -> [Outcome<'_>; 4] {
        let z = z.as_slice().unwrap();
        let outcome = |candidate, reward, tokens, row: usize| Outcome {
            candidate,
            reward,
            tokens,
            pre_logits: &z[row * WIDTH..(row + tokens.len()) * WIDTH],
        };
        [
            outcome(0, 1.0, &[4, 0], 0),
            outcome(1, 2.5, &[2], 2),
            outcome(2, -0.5, &[1, 3], 3),
            outcome(3, f64::NAN, &[1, 1], 5),
        ]
    }

    fn pre_logits() -> Array2<f32> {
        Array2::from_shape_fn((7, WIDTH), |(i, j)| ((i * 5 + j * 2) as f32 * 0.9).cos())
    }

    /// Position t of response i: z, token and advantage, by the formulas alone.
    fn places(z: &Array2<f32>) -> Vec<(usize, Array1<f32>, usize, f32)> {
        let a = [0.0, 2.25, -2.25];
        [
            (0, 0, 4, a[0]),
            (1, 1, 0, a[0]),
            (0, 2, 2, a[1]),
            (0, 3, 1, a[2]),
            (1, 4, 3, a[2]),
        ]
        .into_iter()
        .map(|(t, row, token, a)| (t, z.row(row).to_owned(), token, a))
        .collect()
    }

    fn probabilities(w: &Array2<f32>, x: &Array1<f32>) -> Array1<f32> {
        let mut p = w.dot(x);
        softmax(p.as_slice_mut());
        p
    }

    #[test]
    fn two_updates_follow_the_formulas() {
        let (step, lambda) = (0.3_f32, 0.7_f32);
        let mut method = misvo(MethodOptions {
            step: Some(f64::from(step)),
            lambda: LambdaRule::Fixed(f64::from(lambda)),
            ..MethodOptions::default()
        });
        let (w, z) = (matrix(), pre_logits());
        let mut u = Array2::<f32>::zeros((HORIZON, WIDTH));
        for _ in 0..2 {
            method.observe(&outcomes(&z)).unwrap();
            let mut next = u.clone();
            for (t, z, token, advantage) in places(&z) {
                let mut score = -probabilities(&w, &(&z + &u.row(t)));
                score[token] += 1.0;
                let g = w.t().dot(&score) * (advantage / 3.0);
                // The metric is that of the unsteered rollouts.
                let p = probabilities(&w, &z);
                let v = w.dot(&u.row(t));
                let f = w.t().dot(&(&p * &v - &p * p.dot(&v))) / 3.0;
                next.row_mut(t).scaled_add(step, &(g - f * lambda));
            }
            u = next;
            let apart = (&*method.mean - &u).mapv(f32::abs).sum();
            assert!(apart < 1e-5, "{apart}: {:?} {u:?}", method.mean);
        }
        assert!(
            u.iter().all(|u| u.abs() > 1e-3),
            "nothing was tested: {u:?}"
        );
    }

    #[test]
    fn an_absurd_reward_leaves_the_mean_where_it_was() {
        let z = pre_logits();
        let mut all = outcomes(&z);
        all[0].reward = -1e300;
        let mut method = misvo(MethodOptions::default());
        method.observe(&all).unwrap();
        assert!(method.mean.iter().all(|u| *u == 0.0));
    }
}
