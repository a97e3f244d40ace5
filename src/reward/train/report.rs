//! What a trained head is worth on groups that it has not seen.

use std::fmt;

use ndarray::Array2;
use serde::Serialize;

use super::fit::{GridPoint, softplus};
use super::measure::{Estimate, Measured, Threshold, auc, correlation, decided};
use super::{Dataset, LinearHead, Objective, split};

/// How much data is on one side of the split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Ratings or preferences.
    pub examples: usize,
    /// Groups of them.
    pub groups: usize,
}

/// How a head was trained, and what it is worth on held-out groups.
///
/// Accuracy is the share of right answers: for logistic, whether the reward is above 0 where the
/// score is the higher one; for ridge, of pairs of examples with different scores, which is
/// higher; for Bradley–Terry, which response is preferred.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainReport {
    /// What the head was fitted to; never [`Objective::Auto`].
    pub objective: Objective,
    /// Features `d` of a text.
    pub features: usize,
    /// What it was fitted to.
    pub training: Side,
    /// What it was measured on, once.
    pub held_out: Side,
    /// The penalty `λ` chosen, on standardised features and the mean loss.
    pub regularisation: f64,
    /// Validation losses within the training groups, by which it was chosen.
    pub cross_validation: Vec<GridPoint>,
    /// Share of right answers.
    pub accuracy: Estimate,
    /// Area under the ROC curve; logistic only.
    pub auc: Option<f64>,
    /// Mean of −log P(what is true), in nats; logistic and Bradley–Terry.
    pub log_loss: Option<f64>,
    /// Correlation of rewards and scores; ridge only.
    pub pearson: Option<f64>,
    /// Share of the scores' variance explained, negative if worse than their mean; ridge only.
    pub r_squared: Option<f64>,
    /// Accuracy of always giving the more frequent answer; 0.5 for pairs.
    pub majority_accuracy: f64,
    /// Accuracy of the response's length in characters alone: of "longer wins", or of "shorter
    /// wins" where that was better in training (and, for logistic, from the length that was best
    /// there).
    pub length_accuracy: Estimate,
    /// Accuracy above [`TrainReport::length_accuracy`], on the same examples.
    pub above_length: Estimate,
    /// Whether the accuracy is more than two standard errors above the majority's and 0.5.
    pub better_than_chance: bool,
    /// Whether it is more than two standard errors above that of the length alone.
    pub better_than_length: bool,
}

/// One side of the split.
pub(super) struct Rows<'a> {
    /// `[n, d]`, row after row; of a preference, chosen − rejected.
    pub features: Vec<f32>,
    /// `[n]`, as the loss takes them.
    pub targets: Vec<f64>,
    /// Lengths in characters `[n]`; of a preference, chosen − rejected.
    lengths: Vec<f64>,
    groups: Vec<&'a str>,
}

impl<'a> Rows<'a> {
    /// The examples at `indices`; `features` `[texts, d]`, `targets` and `groups` are of all.
    pub(super) fn new(
        dataset: &'a Dataset,
        features: &Array2<f32>,
        targets: &[f64],
        groups: &[&'a str],
        indices: &[usize],
    ) -> Self {
        let length = |text: &str| text.chars().count() as f64;
        let mut rows = Self {
            features: Vec::with_capacity(indices.len() * features.ncols()),
            targets: indices.iter().map(|&i| targets[i]).collect(),
            lengths: Vec::with_capacity(indices.len()),
            groups: indices.iter().map(|&i| groups[i]).collect(),
        };
        for &i in indices {
            match dataset {
                Dataset::Ratings(ratings) => {
                    rows.features.extend(features.row(i));
                    rows.lengths.push(length(&ratings[i].response));
                }
                Dataset::Preferences(preferences) => {
                    let (chosen, rejected) = (features.row(2 * i), features.row(2 * i + 1));
                    rows.features
                        .extend(chosen.iter().zip(rejected).map(|(c, r)| c - r));
                    let p = &preferences[i];
                    rows.lengths.push(length(&p.chosen) - length(&p.rejected));
                }
            }
        }
        rows
    }

    pub(super) fn side(&self) -> Side {
        Side {
            examples: self.targets.len(),
            groups: split::distinct(&self.groups).len(),
        }
    }

    /// The rewards `[n]`; of preferences, their differences.
    pub(super) fn scores(&self, head: &LinearHead) -> Vec<f64> {
        let rows = self.features.chunks_exact(head.weight.len());
        rows.map(|row| head.score(row)).collect()
    }
}

/// What the length alone says, as learnt from the training side.
pub(super) enum Baselines {
    /// Label 1 from a length on, or up to it.
    Threshold(Threshold),
    /// 1 for longer wins, −1 for shorter wins.
    Sign(f64),
}

impl Baselines {
    pub(super) fn new(objective: Objective, training: &Rows<'_>) -> Self {
        let longer = match objective {
            Objective::Logistic => {
                return Self::Threshold(Threshold::best(&training.lengths, &training.targets));
            }
            Objective::Ridge => correlation(&training.lengths, &training.targets).0 >= 0.0,
            _ => share_positive(&training.lengths).value >= 0.5,
        };
        Self::Sign(if longer { 1.0 } else { -1.0 })
    }

    /// How the length does on `rows`.
    fn measure(&self, objective: Objective, rows: &Rows<'_>) -> Measured {
        match self {
            Self::Threshold(rule) => {
                let both = rows.lengths.iter().zip(&rows.targets);
                let right = both.map(|(&l, &t)| right(rule.says_one(l), t));
                Measured::share(&right.collect::<Vec<_>>())
            }
            Self::Sign(sign) => {
                let scores: Vec<f64> = rows.lengths.iter().map(|l| l * sign).collect();
                accuracy(objective, &scores, &rows.targets)
            }
        }
    }
}

/// The figures of `scores` on the held-out side; what it does not know is left empty.
pub(super) fn measure(
    objective: Objective,
    held_out: &Rows<'_>,
    scores: &[f64],
    baselines: Baselines,
) -> TrainReport {
    let (targets, groups) = (&held_out.targets, &held_out.groups);
    let measured = accuracy(objective, scores, targets);
    let by_length = baselines.measure(objective, held_out);
    let accuracy = measured.estimate(groups);
    let above_length = measured.above(&by_length).estimate(groups);
    let ridge = (objective == Objective::Ridge).then(|| correlation(scores, targets));
    let majority_accuracy = match objective {
        Objective::Logistic => {
            let ones = targets.iter().sum::<f64>() / targets.len() as f64;
            ones.max(1.0 - ones)
        }
        _ => 0.5,
    };
    TrainReport {
        objective,
        features: 0,
        training: Side::default(),
        held_out: Side::default(),
        regularisation: 0.0,
        cross_validation: Vec::new(),
        accuracy,
        auc: (objective == Objective::Logistic).then(|| auc(scores, targets)),
        log_loss: (objective != Objective::Ridge).then(|| log_loss(scores, targets)),
        pearson: ridge.map(|(pearson, _)| pearson),
        r_squared: ridge.map(|(_, r_squared)| r_squared),
        majority_accuracy,
        length_accuracy: by_length.estimate(groups),
        above_length,
        better_than_chance: accuracy.exceeds(majority_accuracy.max(0.5)),
        better_than_length: above_length.exceeds(0.0),
    }
}

fn accuracy(objective: Objective, scores: &[f64], targets: &[f64]) -> Measured {
    match objective {
        Objective::Ridge => Measured::pairs_in_order(scores, targets),
        Objective::Logistic => {
            let both = scores.iter().zip(targets);
            Measured::share(&both.map(|(&s, &t)| right(s > 0.0, t)).collect::<Vec<_>>())
        }
        _ => share_positive(scores),
    }
}

fn right(says_one: bool, target: f64) -> f64 {
    f64::from(u8::from(says_one == (target > 0.5)))
}

fn share_positive(margins: &[f64]) -> Measured {
    Measured::share(&margins.iter().map(|&m| decided(m)).collect::<Vec<_>>())
}

fn log_loss(scores: &[f64], targets: &[f64]) -> f64 {
    let both = scores.iter().zip(targets);
    let sum: f64 = both.map(|(s, t)| softplus(*s) - t * s).sum();
    sum / scores.len() as f64
}

impl TrainReport {
    /// What may be said of the head, in a sentence.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match (self.better_than_chance, self.better_than_length) {
            (true, true) => "better than chance, and than the response's length alone",
            (true, false) => {
                "better than chance, but not shown to be better than the response's length alone"
            }
            (false, _) => "not shown to be better than chance; do not use this head as a reward",
        }
    }
}

impl fmt::Display for TrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |side: Side| format!("{} examples, {} groups", side.examples, side.groups);
        let plus_minus = |e: Estimate| format!("{:.4} ± {:.4}", e.value, e.standard_error);
        let mut row = |name: &str, value: String| writeln!(f, "{name:<22}{value}");
        row(
            "Objective",
            format!("{}, {} features", self.objective, self.features),
        )?;
        row("Trained on", side(self.training))?;
        row("Measured on", side(self.held_out))?;
        row("Regularisation", format!("{:.2e}", self.regularisation))?;
        let accuracy = match self.objective {
            Objective::Ridge => "Pairs in order",
            _ => "Accuracy",
        };
        row(accuracy, plus_minus(self.accuracy))?;
        row("  majority", format!("{:.4}", self.majority_accuracy))?;
        row("  length alone", plus_minus(self.length_accuracy))?;
        row("  above length", plus_minus(self.above_length))?;
        let others = [
            ("AUC", self.auc),
            ("Log-loss", self.log_loss),
            ("Pearson r", self.pearson),
            ("R²", self.r_squared),
        ];
        for (name, value) in others {
            if let Some(value) = value {
                row(name, format!("{value:.4}"))?;
            }
        }
        row("Verdict", self.verdict().into())
    }
}
