//! What a reward can tell apart: pairs of a better and a worse response, by aspect.
//!
//! The built-in pairs are plain cases that a person decides at a glance. An aspect counts
//! as told apart when so many pairs come out right that coin flips would do as well less
//! than once in twenty times (exact sign test, one-sided: pairs with equal rewards are left out).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, DiscreteCDF};

use super::{Reward, Sample};
use crate::error::{Error, Result};

const BUILT_IN: &str = include_str!("probe.jsonl");
/// Chance of a verdict by luck.
const LEVEL: f64 = 0.05;

/// A better and a worse response to one prompt.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbePair {
    /// What makes the better one better.
    #[serde(default)]
    pub aspect: String,
    /// The prompt.
    #[serde(default)]
    pub prompt: String,
    /// The better response.
    pub better: String,
    /// The worse response.
    pub worse: String,
}

/// What can be said of one aspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeVerdict {
    /// The better response scores higher, beyond chance.
    ToldApart,
    /// The worse response scores higher, beyond chance.
    Reversed,
    /// Neither.
    Chance,
}

/// One aspect in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbeAspect {
    /// Its name.
    pub aspect: String,
    /// Pairs that got two rewards.
    pub pairs: usize,
    /// Pairs whose better response scored higher.
    pub right: usize,
    /// Pairs of two equal rewards, which are left out of the verdict.
    pub equal: usize,
    /// Mean difference, better − worse, in the reward's unit.
    pub mean_difference: f64,
    /// What can be said.
    pub verdict: ProbeVerdict,
}

/// All aspects in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbeReport {
    /// The reward's name.
    pub reward: String,
    /// Every aspect, in the order in which they first occur.
    pub aspects: Vec<ProbeAspect>,
    /// Standard deviation of all rewards, to compare differences with.
    pub reward_sd: f64,
    /// Pairs of which a response had no reward.
    pub failed: usize,
}

/// The built-in pairs, or those of a JSONL text.
///
/// # Errors
/// [`Error::Field`] for a line that is no pair, naming it, and for a text without any.
pub fn probe_pairs(own: Option<(&str, &str)>) -> Result<Vec<ProbePair>> {
    let (name, text) = own.unwrap_or(("built-in pairs", BUILT_IN));
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty());
    let pairs = lines
        .map(|(i, line)| {
            serde_json::from_str(line).map_err(|e| {
                Error::field(
                    "pairs",
                    format!(
                        "{name}, line {}: {e}; every line is {{\"aspect\": \"…\", \"prompt\": \
                         \"…\", \"better\": \"…\", \"worse\": \"…\"}}",
                        i + 1
                    ),
                )
            })
        })
        .collect::<Result<Vec<ProbePair>>>()?;
    match pairs.is_empty() {
        true => Err(Error::field("pairs", format!("{name} holds no pairs"))),
        false => Ok(pairs),
    }
}

/// Scores every pair.
///
/// # Errors
/// Those of the reward.
pub fn probe(reward: &mut dyn Reward, pairs: &[ProbePair]) -> Result<ProbeReport> {
    let mut differences = BTreeMap::<&str, Vec<f64>>::new();
    let mut order: Vec<&str> = Vec::new();
    let mut rewards = Vec::new();
    let mut failed = 0;
    for pair in pairs {
        if !order.contains(&pair.aspect.as_str()) {
            order.push(&pair.aspect);
        }
        let samples = [&pair.better, &pair.worse].map(|text| Sample::new(&pair.prompt, text));
        let scores: Vec<f64> = reward
            .score(&samples)?
            .into_iter()
            .filter_map(|s| Some(s.ok()?.reward).filter(|r| r.is_finite()))
            .collect();
        match scores[..] {
            [better, worse] => {
                rewards.extend([better, worse]);
                let list = differences.entry(&pair.aspect).or_default();
                list.push(better - worse);
            }
            _ => failed += 1,
        }
    }
    let aspects = order
        .into_iter()
        .filter_map(|name| Some(aspect(name, differences.get(name)?)))
        .collect();
    let n = rewards.len().max(1) as f64;
    let mean = rewards.iter().sum::<f64>() / n;
    let squares: f64 = rewards.iter().map(|r| (r - mean) * (r - mean)).sum();
    Ok(ProbeReport {
        reward: reward.name(),
        aspects,
        reward_sd: (squares / n).sqrt(),
        failed,
    })
}

fn aspect(name: &str, differences: &[f64]) -> ProbeAspect {
    let pairs = differences.len();
    let right = differences.iter().filter(|d| **d > 0.0).count();
    let wrong = differences.iter().filter(|d| **d < 0.0).count();
    // Two equal rewards say nothing either way.
    let decided = right + wrong;
    let verdict = if at_least(right, decided) < LEVEL {
        ProbeVerdict::ToldApart
    } else if at_least(wrong, decided) < LEVEL {
        ProbeVerdict::Reversed
    } else {
        ProbeVerdict::Chance
    };
    ProbeAspect {
        aspect: name.to_owned(),
        pairs,
        right,
        equal: pairs - decided,
        mean_difference: differences.iter().sum::<f64>() / pairs.max(1) as f64,
        verdict,
    }
}

/// Probability that `n` coin flips show heads at least `k` times.
fn at_least(k: usize, n: usize) -> f64 {
    match (k as u64).checked_sub(1) {
        None => 1.0,
        Some(below) => Binomial::new(0.5, n as u64).map_or(1.0, |flips| flips.sf(below)),
    }
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.reward)?;
        writeln!(
            f,
            "{:<16} {:>9}  {:>10}  verdict",
            "aspect", "right", "difference"
        )?;
        for a in &self.aspects {
            let verdict = match a.verdict {
                ProbeVerdict::ToldApart => "told apart",
                ProbeVerdict::Reversed => "reversed: the worse one scores higher",
                ProbeVerdict::Chance => "no better than chance",
            };
            let right = format!("{} of {}", a.right, a.pairs);
            let equal = match a.equal {
                0 => String::new(),
                equal => format!(" ({equal} alike)"),
            };
            writeln!(
                f,
                "{:<16} {right:>9}  {:>+10.3}  {verdict}{equal}",
                a.aspect, a.mean_difference
            )?;
        }
        writeln!(
            f,
            "standard deviation of all rewards: {:.3}",
            self.reward_sd
        )?;
        match self.failed {
            0 => Ok(()),
            n => writeln!(f, "{n} pairs have no reward"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reward::FnReward;

    #[test]
    fn coin_flips_are_counted_exactly() {
        assert!((at_least(7, 8) - 9.0 / 256.0).abs() < 1e-15);
        assert!((at_least(0, 8) - 1.0).abs() < 1e-12);
        assert_eq!(at_least(1, 0), 0.0);
        // By whole numbers; the tail is a series, and exact to some digits.
        assert!((at_least(600, 1100) - 0.001_409_772_495_718).abs() < 1e-12);
        assert!((at_least(5000, 10_000) - 0.503_989_323_069_691).abs() < 1e-9);
        assert!(at_least(1100, 1100) < 1e-300);
    }

    #[test]
    fn verdicts_hold_for_any_number_of_pairs_and_leave_equal_rewards_out() {
        // Of so many pairs: right, wrong, equal.
        for (right, wrong, equal, verdict) in [
            (0, 1100, 0, ProbeVerdict::Reversed),
            (0, 0, 1100, ProbeVerdict::Chance),
            (560, 540, 0, ProbeVerdict::Chance),
            (3000, 0, 0, ProbeVerdict::ToldApart),
            (5, 0, 0, ProbeVerdict::ToldApart),
            (5, 0, 40, ProbeVerdict::ToldApart),
            (4, 0, 0, ProbeVerdict::Chance),
        ] {
            let mut differences = vec![1.0; right];
            differences.extend(vec![-1.0; wrong]);
            differences.extend(vec![0.0; equal]);
            let found = aspect("a", &differences);
            assert_eq!(found.verdict, verdict, "{right} {wrong} {equal}");
            assert_eq!((found.pairs, found.equal), (right + wrong + equal, equal));
        }
    }

    #[test]
    fn verdicts_follow_the_reward() {
        let pairs = probe_pairs(None).unwrap();
        let verdicts = |sign: f64| {
            let known = pairs.clone();
            let mut oracle = FnReward::new("oracle", move |_, response| {
                sign * f64::from(u8::from(known.iter().any(|p| p.better == response)))
            });
            let report = probe(&mut oracle, &pairs).unwrap();
            report.aspects.iter().map(|a| a.verdict).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(1.0), [ProbeVerdict::ToldApart; 6]);
        assert_eq!(verdicts(-1.0), [ProbeVerdict::Reversed; 6]);
        assert_eq!(verdicts(0.0), [ProbeVerdict::Chance; 6]);
    }

    #[test]
    fn a_line_that_is_no_pair_is_named() {
        let text = "{\"better\": \"a\", \"worse\": \"b\"}\n\n{\"better\": \"a\"}";
        let error = probe_pairs(Some(("own.jsonl", text)))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("own.jsonl, line 3") && error.contains("worse"),
            "{error}"
        );
        assert!(probe_pairs(Some(("own.jsonl", ""))).is_err());
    }
}
