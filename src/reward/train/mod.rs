//! Trains a linear head from ratings or preferences: the features of each text in, the head and
//! an honest measurement of it out.
//!
//! Groups of examples, never single ones, are split. The held-out groups are read once, after
//! everything is chosen; the head that is returned is the one that was measured, fitted to the
//! other groups only.

mod data;
mod fit;
pub(super) mod lbfgs;
mod measure;
mod report;
mod split;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use ndarray::Array2;
use serde::Serialize;

pub use data::{Dataset, Example, Preference};
pub use fit::GridPoint;
pub use measure::Estimate;
pub use report::{Side, TrainReport};

use self::fit::{Loss, Problem};
use self::report::{Baselines, Rows};
use super::LinearHead;
use crate::error::{Error, Result};

/// Fewest examples and groups of either side of the split.
const MIN_EXAMPLES: usize = 20;
const MIN_GROUPS: usize = 4;

/// What the head is fitted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// By the data: Bradley–Terry for preferences, logistic for ratings with exactly two
    /// different scores, ridge for others.
    #[default]
    Auto,
    /// Least squares; the reward is in the unit of the scores.
    Ridge,
    /// Logistic regression; the reward is the log-odds of the higher score, in nats.
    Logistic,
    /// Logistic regression on differences; a difference of rewards is the log-odds of being
    /// preferred, in nats.
    BradleyTerry,
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Ridge => "ridge",
            Self::Logistic => "logistic",
            Self::BradleyTerry => "bradley-terry",
        })
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "ridge" => Ok(Self::Ridge),
            "logistic" => Ok(Self::Logistic),
            "bradley-terry" => Ok(Self::BradleyTerry),
            _ => Err("none of auto, ridge, logistic, bradley-terry".into()),
        }
    }
}

/// How a head is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// What the head is fitted to. Default: [`Objective::Auto`].
    pub objective: Objective,
    /// Fraction of the groups that is held out, above 0 and below 1. Default: 0.2.
    pub held_out: f64,
    /// Folds of the cross-validation, at least 2; at most one a group is used. Default: 8.
    pub folds: usize,
    /// Seed of the split. Default: 0.
    pub seed: u64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            objective: Objective::Auto,
            held_out: 0.2,
            folds: 8,
            seed: 0,
        }
    }
}

/// Trains a head and measures it. `features` `[texts, d]` are those of [`Dataset::texts`], in
/// its order. Text, pooling and metadata of the head are left to the caller.
///
/// # Errors
/// [`Error::Field`] for options and data that cannot be used together, and for too little data;
/// [`Error::Run`] for features that are missing or not finite.
pub fn train(
    dataset: &Dataset,
    features: &Array2<f32>,
    options: &TrainOptions,
) -> Result<(LinearHead, TrainReport)> {
    check_options(options)?;
    check_features(dataset, features)?;
    let (objective, targets) = targets(dataset, options.objective)?;
    let groups = dataset.groups();
    let total_groups = split::distinct(&groups).len();
    let folds = options.folds.min(total_groups.max(1));
    let split = split::split(&groups, options.held_out, folds, options.seed);

    let rows = |indices: &[usize]| Rows::new(dataset, features, &targets, &groups, indices);
    let (mut training, held_out) = (rows(&split.training), rows(&split.held_out));
    check_side("to train on", &training, objective)?;
    check_side("held out", &held_out, objective)?;

    let loss = match objective {
        Objective::Ridge => Loss::Squared,
        _ => Loss::Logistic,
    };
    let intercept = objective != Objective::BradleyTerry;
    let (fitted, regularisation, cross_validation) = Problem::new(
        std::mem::take(&mut training.features),
        training.targets.clone(),
        loss,
        intercept,
    )
    .choose_and_fit(&split.folds);
    let head = LinearHead {
        weight: fitted.weight.iter().map(|&w| w as f32).collect(),
        bias: fitted.bias as f32,
        ..LinearHead::default()
    };
    if !head
        .weight
        .iter()
        .chain([&head.bias])
        .all(|v| v.is_finite())
    {
        return Err(Error::Run(
            "the fitted weights are not finite; check the scale of scores and features".into(),
        ));
    }
    // What is written is measured: with the weights in f32.
    let scores = held_out.scores(&head);
    let baselines = Baselines::new(objective, &training);
    let measured = report::measure(objective, &held_out, &scores, baselines);
    let report = TrainReport {
        features: features.ncols(),
        training: training.side(),
        held_out: held_out.side(),
        regularisation,
        cross_validation,
        ..measured
    };
    Ok((head, report))
}

fn check_options(options: &TrainOptions) -> Result<()> {
    if !(options.held_out > 0.0 && options.held_out < 1.0) {
        let reason = format!("{}; must be above 0 and below 1", options.held_out);
        return Err(Error::field("held-out", reason));
    }
    if options.folds < 2 {
        let reason = format!("{}; must be 2 or more", options.folds);
        return Err(Error::field("folds", reason));
    }
    Ok(())
}

fn check_features(dataset: &Dataset, features: &Array2<f32>) -> Result<()> {
    let (rows, texts) = (features.nrows(), dataset.texts().len());
    if rows != texts || features.ncols() == 0 {
        let width = features.ncols();
        let reason =
            format!("features [{rows}, {width}] for {texts} texts; one row each is needed");
        return Err(Error::Run(reason));
    }
    for (i, row) in features.rows().into_iter().enumerate() {
        if !row.iter().all(|x| x.is_finite()) {
            let reason = format!("the features of text {} are not finite", i + 1);
            return Err(Error::Run(reason));
        }
    }
    Ok(())
}

/// The objective that is meant, and the target of each example as its loss takes it.
fn targets(dataset: &Dataset, wanted: Objective) -> Result<(Objective, Vec<f64>)> {
    let mismatch = |reason: &str| Error::field("objective", format!("{wanted}; {reason}"));
    let ratings = match dataset {
        Dataset::Preferences(preferences) => {
            return match wanted {
                Objective::Auto | Objective::BradleyTerry => {
                    Ok((Objective::BradleyTerry, vec![1.0; preferences.len()]))
                }
                _ => Err(mismatch("the data are preferences: bradley-terry or auto")),
            };
        }
        Dataset::Ratings(ratings) => ratings,
    };
    if let Some(i) = ratings.iter().position(|e| !e.score.is_finite()) {
        let reason = format!("the score of example {} is not finite", i + 1);
        return Err(Error::field("data", reason));
    }
    let mut different: Vec<f64> = ratings.iter().map(|e| e.score).collect();
    different.sort_by(f64::total_cmp);
    different.dedup_by(|a, b| a == b);
    let objective = match (wanted, different.len()) {
        (Objective::BradleyTerry, _) => {
            return Err(mismatch("the data are ratings: ridge, logistic or auto"));
        }
        (_, 0 | 1) => {
            let reason = "all scores are equal; a head needs different ones to learn from";
            return Err(Error::field("data", reason));
        }
        (Objective::Auto | Objective::Logistic, 2) => Objective::Logistic,
        (Objective::Logistic, n) => {
            let reason = format!("the data have {n} different scores, not two: ridge or auto");
            return Err(mismatch(&reason));
        }
        (Objective::Auto | Objective::Ridge, _) => Objective::Ridge,
    };
    let scores = ratings.iter().map(|e| e.score);
    let targets = match (objective, different.last()) {
        (Objective::Logistic, Some(&high)) => {
            scores.map(|s| f64::from(u8::from(s == high))).collect()
        }
        _ => scores.collect(),
    };
    Ok((objective, targets))
}

/// Refuses a side with too little to fit or to measure.
fn check_side(name: &str, rows: &Rows<'_>, objective: Objective) -> Result<()> {
    let Side { examples, groups } = rows.side();
    if examples < MIN_EXAMPLES || groups < MIN_GROUPS {
        let reason = format!(
            "{examples} examples in {groups} groups are {name}; at least {MIN_EXAMPLES} in \
             {MIN_GROUPS} are needed, so give more data, or another `held-out`"
        );
        return Err(Error::field("data", reason));
    }
    let constant = rows.targets.windows(2).all(|pair| pair[0] == pair[1]);
    if constant && objective != Objective::BradleyTerry {
        let reason = format!(
            "all scores that are {name} are equal; give more data, another `seed` or `held-out`"
        );
        return Err(Error::field("data", reason));
    }
    Ok(())
}
