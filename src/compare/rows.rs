//! Rows and the folder that keeps them.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use super::shard::json;
use super::{By, Cell, Folder, Plan, RESULTS, Shard, diversity, place, standard_deviation};
use crate::align::{Alignment, Usage};
use crate::error::{Error, Result};

/// Which row of a plan it is: prompt, seed and method.
pub(super) type Name<'a> = (usize, u64, &'a str);

/// A run after one of its iterations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Candidates generated so far.
    pub samples: usize,
    /// What counts against a budget of candidates: those generated, or the reward calls where a
    /// method asks more often.
    pub spent: usize,
    /// Mean reward of the iteration; `None` for one that a limit cut short, whose first
    /// finished candidates stand for nothing.
    pub mean: Option<f64>,
    /// Sample standard deviation of the iteration's rewards; 0 where there is no mean, infinite (in
    /// JSON null) where it is beyond all numbers.
    #[serde(deserialize_with = "or_infinite")]
    pub sd: f64,
    /// Reward of the best candidate so far.
    pub best: Option<f64>,
    /// Its price in nats a token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub best_price: Option<f64>,
    /// Mean price of the iteration in nats a token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mean_price: Option<f64>,
    /// Held-out reward of the candidate with the highest reward so far.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_out_best: Option<f64>,
    /// Mean held-out reward of the iteration.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_out_mean: Option<f64>,
    /// Effective sample size.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ess: Option<f64>,
    /// |U|/(σ√(dτ)).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub u_norm: Option<f64>,
    /// KL in nats of the next iteration's mean: see [`Row::kl`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kl: Option<f64>,
    /// Tokens generated so far.
    pub tokens: usize,
    /// Seconds so far.
    pub seconds: f64,
}

/// A number, or null for an infinite one, which JSON has none of.
fn or_infinite<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::INFINITY))
}

/// One run of one method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Index of the prompt, from 0.
    pub prompt: usize,
    /// The seed.
    pub seed: u64,
    /// The method as it was written.
    pub method: String,
    /// The answer: the response with the highest reward, unless the method draws one.
    pub response: String,
    /// Its reward.
    pub reward: f64,
    /// Its held-out reward.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_out: Option<f64>,
    /// Mean reward of the last whole iteration.
    pub mean_last: Option<f64>,
    /// Sample standard deviation of the last whole iteration's rewards, as in a [`Checkpoint`].
    #[serde(deserialize_with = "or_infinite")]
    pub sd_last: f64,
    /// Its diversity.
    pub diversity: f64,
    /// Cosine of the embeddings of prompt and response.
    pub coherence: Option<f64>,
    /// −log p(response | prompt) by the model itself, in nats a token.
    pub surprise: Option<f64>,
    /// The answer's price in nats a token: see [`Price`](crate::rollout::Price).
    #[serde(default)]
    pub price: Option<f64>,
    /// Bound on the KL divergence in nats of the last iteration from the method's own unsteered
    /// draws: log n − (n−1)/n for the best of n samples, KL(Q_U‖P) of the perturbations for
    /// methods that move their mean. A search that refines elites has none.
    pub kl: Option<f64>,
    /// Every iteration.
    pub iterations: Vec<Checkpoint>,
    /// What the run cost.
    pub usage: Usage,
    /// Wall-clock seconds.
    pub seconds: f64,
}

impl Row {
    /// What is kept of a run.
    #[must_use]
    pub fn new(plan: &Plan, cell: Cell, run: &Alignment, coherence: Option<f64>) -> Self {
        let method = &plan.methods[cell.method];
        let mut samples = 0;
        let mut tokens = 0;
        let mut seconds = 0.0;
        let checkpoints: Vec<Checkpoint> = run
            .iterations
            .iter()
            .map(|stats| {
                let own = run.candidates.iter();
                let own: Vec<_> = own.filter(|c| c.iteration == stats.index).collect();
                let rewards: Vec<f64> = own.iter().filter_map(|c| c.reward).collect();
                let whole = own.len() >= run.samples;
                samples += own.len();
                tokens += stats.tokens;
                seconds += stats.seconds;
                Checkpoint {
                    samples,
                    spent: samples.max(stats.reward_calls),
                    mean: stats.mean_reward.filter(|mean| whole && mean.is_finite()),
                    sd: if whole {
                        standard_deviation(&rewards)
                    } else {
                        0.0
                    },
                    best: stats.best_reward,
                    best_price: stats.best_price,
                    mean_price: stats.mean_price,
                    held_out_best: stats.held_out_best,
                    held_out_mean: stats.held_out_mean,
                    ess: stats.telemetry.ess,
                    u_norm: stats.telemetry.u_norm,
                    kl: stats.telemetry.kl,
                    tokens,
                    seconds,
                }
            })
            .collect();
        let last = checkpoints.iter().rfind(|c| c.mean.is_some());
        // The last iteration was drawn from the mean that the one before it left.
        let before = checkpoints.len().checked_sub(2).map(|i| &checkpoints[i]);
        Self {
            prompt: cell.prompt,
            seed: cell.seed,
            method: method.label().to_owned(),
            response: run.response.clone(),
            reward: run.reward,
            held_out: run.held_out,
            mean_last: last.and_then(|c| c.mean),
            sd_last: last.map_or(0.0, |c| c.sd),
            diversity: diversity(&run.response),
            coherence,
            surprise: run.price.map(|price| price.surprise),
            price: run.price.map(|price| price.per_token),
            kl: method
                .settings()
                .kl_bound(samples, before.and_then(|c| c.kl)),
            usage: run.usage,
            seconds: run.timings.total_seconds,
            iterations: checkpoints,
        }
    }

    /// Which it is.
    pub(super) fn name(&self) -> Name<'_> {
        (self.prompt, self.seed, &self.method)
    }

    /// The run after its last iteration that a budget pays for.
    #[must_use]
    pub fn at(&self, by: By, budget: f64) -> Option<&Checkpoint> {
        self.iterations.iter().rfind(|c| c.cost(by) <= budget)
    }
}

impl Checkpoint {
    /// What the run has cost so far: candidates, or reward calls where there were more of them,
    /// tokens, or seconds.
    #[must_use]
    pub fn cost(&self, by: By) -> f64 {
        match by {
            By::Candidates => self.spent as f64,
            By::Tokens => self.tokens as f64,
            By::Seconds => self.seconds,
        }
    }
}

/// The rows of the same prompt and seed, where both are there.
pub(super) fn pairs<'a>(own: &[&'a Row], base: &[&'a Row]) -> Vec<(&'a Row, &'a Row)> {
    let same = |a: &Row, b: &Row| (a.prompt, a.seed) == (b.prompt, b.seed);
    let with = |a: &&'a Row| Some((*a, *base.iter().find(|b| same(a, b))?));
    own.iter().filter_map(with).collect()
}

/// Differences of `own` to `base`, paired by prompt and seed, a group for each prompt.
pub(super) fn differences(
    own: &[&Row],
    base: &[&Row],
    value: impl Fn(&Row) -> Option<f64>,
) -> Vec<Vec<f64>> {
    let mut groups: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (a, b) in pairs(own, base) {
        if let (Some(x), Some(y)) = (value(a), value(b)) {
            groups.entry(a.prompt).or_default().push(x - y);
        }
    }
    groups.into_values().collect()
}

/// A run that came to no answer: what is kept in the place of its row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Index of the prompt, from 0.
    pub prompt: usize,
    /// The seed.
    pub seed: u64,
    /// The method as it was written.
    pub method: String,
    /// Why there is no answer.
    pub error: String,
    /// Whether there were responses, and the reward had an answer to none of them.
    pub unscored: bool,
}

impl Failure {
    /// That of `cell`, where `error` says nothing of the reward or the engine as a whole.
    pub(super) fn of(plan: &Plan, cell: Cell, error: &Error) -> Option<Self> {
        let (error, unscored) = match error {
            Error::Run(reason) => (reason, false),
            Error::Unscored(reason) => (reason, true),
            _ => return None,
        };
        Some(Self {
            prompt: cell.prompt,
            seed: cell.seed,
            method: plan.methods[cell.method].label().to_owned(),
            error: error.clone(),
            unscored,
        })
    }

    /// Which it is.
    pub(super) fn name(&self) -> Name<'_> {
        (self.prompt, self.seed, &self.method)
    }

    /// The error that ended the run, with where it came up.
    #[must_use]
    pub fn to_error(&self) -> Error {
        let reason = format!("{}: {}", place(self.name()), self.error);
        match self.unscored {
            true => Error::Unscored(reason),
            false => Error::Run(reason),
        }
    }
}

/// The rows of one plan, or of a share of its prompts, in a folder, which nobody else writes to
/// meanwhile.
pub struct Store {
    folder: Folder,
    shard: Shard,
    rows: Vec<Row>,
    failures: Vec<Failure>,
}

impl Store {
    /// Opens `folder` for the rows of `plan` that `shard` has, making it where there is none. The rows
    /// that are there stay, whosever they are; one that was cut off in the middle is dropped.
    ///
    /// # Errors
    /// Those of [`Folder::open`], and [`Error::Field`] for a line that is no row, none of this plan,
    /// or one for the second time.
    pub fn open(folder: &Path, plan: &Plan, shard: Shard) -> Result<Self> {
        let (folder, lines) = Folder::open(folder, RESULTS, &json(plan)?)?;
        let (mut rows, mut failures) = (Vec::new(), Vec::new());
        let (mut of_rows, mut of_failures) = (Vec::new(), Vec::new());
        for line in lines {
            let number = line.number;
            match line.value.get("error") {
                Some(_) => {
                    failures.push(folder.read::<Failure>(line)?);
                    of_failures.push(number);
                }
                None => {
                    rows.push(folder.read::<Row>(line)?);
                    of_rows.push(number);
                }
            }
        }
        // Every row has its one place in the plan.
        let mut free: HashSet<_> = plan.cells().map(|cell| plan.name(cell)).collect();
        let all: HashSet<_> = free.clone();
        let of_rows = of_rows.into_iter().zip(rows.iter().map(Row::name));
        let of_failures = of_failures.into_iter();
        let of_failures = of_failures.zip(failures.iter().map(Failure::name));
        for (number, of) in of_rows.chain(of_failures) {
            if !free.remove(&of) {
                let what = match all.contains(&of) {
                    true => "stands there twice",
                    false => "is no row of this comparison",
                };
                return Err(folder.refuse(number, &format!("{} {what}", place(of))));
            }
        }
        Ok(Self {
            folder,
            shard,
            rows,
            failures,
        })
    }

    /// The rows so far.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The runs that came to no answer.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Whether the row is still to be computed: it is this shard's, and neither it nor a failure in
    /// its place is there.
    #[must_use]
    pub fn lacks(&self, plan: &Plan, cell: Cell) -> bool {
        let name = plan.name(cell);
        let there = self.rows.iter().any(|r| r.name() == name)
            || self.failures.iter().any(|f| f.name() == name);
        self.shard.has(cell.prompt) && !there
    }

    /// Adds a row in one piece.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn append(&mut self, row: &Row) -> Result<()> {
        self.folder.append(row)?;
        self.rows.push(row.clone());
        Ok(())
    }

    /// Adds what stands in the place of rows.
    pub(super) fn add_failures(&mut self, new: impl Iterator<Item = Failure>) -> Result<()> {
        for failure in new {
            self.folder.append(&failure)?;
            self.failures.push(failure);
        }
        Ok(())
    }
}
