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
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::llama::Token;
use crate::math::largest;
use crate::method::entry::{Entry, Group, SAMPLING, read, setting};
use crate::method::{
    Facts, Method, Outcome, Place, Proposal, Rounds, Settings, Telemetry, at_least_one, positive,
};
use crate::output::OutputRows;
use crate::rollout::{SamplingOptions, Steer, TokenChoice};
use crate::stop::Stop;

pub(super) const ENTRY: Entry = Entry {
    name: "misvo",
    about: "policy gradient on the mean of the pre-logits",
    settings: &[
        Group {
            only_with: None,
            settings: &[
                setting("step", "X", "step size"),
                setting(
                    "lambda",
                    "X",
                    "price of the KL divergence, in reward units a nat",
                ),
                setting(
                    "horizon",
                    "T",
                    "response positions that are moved, if not all",
                ),
            ],
        },
        Group {
            only_with: None,
            settings: SAMPLING,
        },
    ],
    presets: &[],
    build: read::<MisvoSettings>,
};

/// Settings of MISVO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MisvoSettings {
    /// η (default 0.1).
    step: f64,
    /// λ (default 1).
    lambda: f64,
    /// Positions that are moved; by default all.
    horizon: Option<usize>,
    /// How tokens are drawn.
    #[serde(flatten)]
    sampling: SamplingOptions,
}

impl Default for MisvoSettings {
    fn default() -> Self {
        Self {
            step: 0.1,
            lambda: 1.0,
            horizon: None,
            sampling: SamplingOptions::default(),
        }
    }
}

impl Settings for MisvoSettings {
    fn validate(&self, _rounds: &Rounds) -> Result<()> {
        positive("step", self.step)?;
        positive("lambda", self.lambda)?;
        at_least_one("horizon", self.horizon.unwrap_or(1))?;
        self.sampling.validate()
    }

    fn build(&self, rounds: &Rounds, facts: &Facts) -> Result<Box<dyn Method>> {
        let output = facts.output()?;
        output.check_plain(ENTRY.name)?;
        Ok(Box::new(Misvo::new(output, self, rounds)))
    }
}

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
struct Misvo {
    output: Arc<dyn Matrix>,
    choice: TokenChoice,
    rounds: Rounds,
    iteration: usize,
    step: f32,
    lambda: f32,
    /// u `[τ, d]`.
    mean: Arc<Array2<f32>>,
    fisher: Option<Fisher>,
    stop: Stop,
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
    fn perturb(&self, tokens: &[Token], row: &mut [f32]) -> Result<bool> {
        let inside = tokens.len() < self.mean.nrows();
        if inside {
            for (z, u) in row.iter_mut().zip(self.mean.row(tokens.len())) {
                *z += u;
            }
        }
        Ok(inside)
    }

    fn uniform(&self, position: usize) -> f64 {
        self.place.uniform(position)
    }
}

impl Misvo {
    /// MISVO from a mean of zero.
    fn new(output: Arc<dyn Matrix>, settings: &MisvoSettings, rounds: &Rounds) -> Self {
        let horizon = settings.horizon.unwrap_or(rounds.max_tokens);
        let horizon = horizon.min(rounds.max_tokens);
        Self {
            mean: Arc::new(Array2::zeros((horizon, output.shape().1))),
            output,
            choice: TokenChoice::Sample(settings.sampling),
            rounds: *rounds,
            iteration: 0,
            step: settings.step as f32,
            lambda: settings.lambda as f32,
            fisher: None,
            stop: Stop::new(),
        }
    }

    /// The gradient g `[τ, d]`, and in the first iteration the metric; nothing after a request to stop.
    fn gradient(&mut self, scored: &[(&Outcome<'_>, f32)]) -> Result<Option<Array2<f32>>> {
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
            if self.stop.is_requested() {
                return Ok(None);
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
        Ok(Some(gradient / scored.len() as f32))
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
    let largest = largest(row);
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
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn shape(&self) -> (usize, usize) {
        (self.rounds.samples, self.rounds.iterations)
    }

    fn stops_with(&mut self, stop: &Stop) {
        self.stop = stop.clone();
    }

    fn propose(&mut self) -> Vec<Proposal> {
        let places = self.rounds.places(self.iteration);
        places
            .map(|place| Proposal {
                steer: Some(Arc::new(Moved {
                    mean: Arc::clone(&self.mean),
                    place,
                })),
                choice: self.choice,
                ..Proposal::default()
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
        if self.iteration == self.rounds.iterations {
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
        let Some(gradient) = self.gradient(&scored)? else {
            return Ok(telemetry);
        };
        let metric = self.metric()?;
        let mut mean = Array2::clone(&self.mean);
        mean.scaled_add(self.step, &gradient);
        mean.scaled_add(-self.step * self.lambda, &metric);
        // An absurd reward is no reason to lose the mean, and with it the run.
        if mean.iter().all(|u| u.is_finite()) {
            self.mean = Arc::new(mean);
        }
        if self.stop.is_requested() {
            return Ok(telemetry);
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
mod tests;
