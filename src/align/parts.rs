//! The parts of a reward that is a sum: how much each of them moves it, and how they come into one
//! unit.
//!
//! A rule is between 0 and 1, a reward model between −30 and 30: of their sum the rule decides
//! nothing. With [`reward_scale`](super::AlignOptions::reward_scale) a part counts by its deviations:
//! reward = Σ weight·part/s, s its standard deviation over the texts of the run's first iteration, 1
//! where that is 0. It stays what it is from then on, so that all rewards of a run are in one unit.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::math::standard_deviation;
use crate::reward::{Answer, RewardPart, Score};

/// How many times the deviations of all others together that of a part is which decides everything.
const DECIDES: f64 = 4.0;

/// A part of the reward, as the first iteration of a run has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScaledPart {
    /// Its name and its weight.
    #[serde(flatten)]
    pub part: RewardPart,
    /// Standard deviation over the texts of the first iteration, in its own unit; 0 for fewer than
    /// two of them.
    pub deviation: f64,
    /// What it is divided by.
    pub scale: f64,
}

/// Whether parts can be divided by deviations at all.
pub(crate) fn check(parts: &[RewardPart], samples: usize) -> Result<()> {
    let refuse = |reason| Err(Error::field("reward-scale", reason));
    if parts.len() < 2 {
        return refuse("there is one reward, and nothing to weigh it against; leave it out");
    }
    if samples < 2 {
        return refuse("one candidate has no deviation; give `samples` of at least 2");
    }
    Ok(())
}

/// The parts, those of the first `answers` of a run; divided by their deviations where `scaled`.
pub(super) fn measure(parts: Vec<RewardPart>, answers: &[Answer], scaled: bool) -> Vec<ScaledPart> {
    let own = |index: usize| -> Vec<f64> {
        let answers = answers.iter().flatten();
        let values = answers.filter_map(|score| score.parts.get(index).copied());
        values.filter(|value| value.is_finite()).collect()
    };
    let measured = |(index, part)| {
        let deviation = standard_deviation(&own(index));
        ScaledPart {
            part,
            deviation,
            scale: match scaled && deviation > 0.0 {
                true => deviation,
                false => 1.0,
            },
        }
    };
    parts.into_iter().enumerate().map(measured).collect()
}

/// The reward of a score, its parts divided by their scales.
pub(super) fn scaled(parts: &[ScaledPart], score: &Score) -> f64 {
    let values = parts.iter().zip(&score.parts);
    values
        .map(|(part, value)| part.part.weight * value / part.scale)
        .sum()
}

/// The part that decides everything, where one does.
pub(super) fn decisive(parts: &[ScaledPart]) -> Option<usize> {
    let moves = |part: &ScaledPart| part.part.weight.abs() * part.deviation / part.scale;
    let all: f64 = parts.iter().map(moves).sum();
    parts.iter().position(|part| {
        let own = moves(part);
        own > 0.0 && own >= DECIDES * (all - own)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reward::SampleError;

    fn part(name: &str, weight: f64) -> RewardPart {
        let name = name.into();
        RewardPart { name, weight }
    }

    fn answer(parts: [f64; 2]) -> Answer {
        Ok(Score {
            parts: parts.to_vec(),
            ..Score::default()
        })
    }

    fn answers() -> Vec<Answer> {
        vec![
            answer([0.0, -30.0]),
            answer([1.0, 30.0]),
            Err(SampleError::Other("no".into())),
            answer([f64::NAN, 0.0]),
        ]
    }

    #[test]
    fn one_part_decides_until_they_are_divided_by_their_deviations() {
        let parts = || vec![part("rule", 1.0), part("model", 1.0)];
        let raw = measure(parts(), &answers(), false);
        assert_eq!((raw[1].deviation, raw[1].scale), (30.0, 1.0));
        assert_eq!(decisive(&raw), Some(1));
        let divided = measure(parts(), &answers(), true);
        assert_eq!(divided[1].scale, 30.0);
        assert_eq!(decisive(&divided), None);
        let score = answer([0.5_f64.sqrt(), 60.0]).unwrap();
        assert!((scaled(&divided, &score) - 3.0).abs() < 1e-12);
    }

    #[test]
    fn weights_count() {
        let parts = vec![part("rule", 60.0), part("model", -1.0)];
        assert_eq!(decisive(&measure(parts, &answers(), false)), None);
    }

    #[test]
    fn what_does_not_vary_is_divided_by_nothing_and_decides_nothing() {
        let same = [answer([2.0, 5.0]), answer([2.0, 5.0])];
        let parts = || vec![part("a", 1.0), part("b", 1.0)];
        let still = measure(parts(), &same, true);
        assert_eq!([still[0].scale, still[1].scale], [1.0, 1.0]);
        assert_eq!(decisive(&still), None);
        let alone = measure(parts(), &same[..1], true);
        assert_eq!(alone[0].scale, 1.0);
        // The other one then decides.
        let one = [answer([2.0, 5.0]), answer([2.0, 6.0])];
        assert_eq!(decisive(&measure(parts(), &one, true)), Some(1));
    }
}
