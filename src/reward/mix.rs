//! Several rewards as one: Σ weight·reward.

use super::{ReadText, Reward, RewardPart, Sample, Score, Scores};
use crate::error::{Error, Result};

/// A weighted sum of rewards. Each keeps its own unit: the weights make them comparable, or a run
/// that [divides](crate::AlignOptions::reward_scale) them by their deviations. A sample that one of
/// them cannot score has no reward.
pub struct Mix {
    parts: Vec<(f64, Box<dyn Reward>)>,
}

impl Mix {
    /// Puts weights and rewards together.
    ///
    /// # Errors
    /// [`Error::Field`] without any, or for a weight that is 0 or not finite.
    pub fn new(parts: Vec<(f64, Box<dyn Reward>)>) -> Result<Self> {
        if parts.is_empty() {
            return Err(Error::field("reward", "a mix of no rewards"));
        }
        match parts.iter().find(|(w, _)| !w.is_finite() || *w == 0.0) {
            Some((weight, reward)) => Err(Error::field(
                "reward",
                format!(
                    "weight {weight} of {}; must be a number other than 0",
                    reward.name()
                ),
            )),
            None => Ok(Self { parts }),
        }
    }
}

impl Reward for Mix {
    fn name(&self) -> String {
        let names: Vec<String> = self
            .parts
            .iter()
            .map(|(weight, reward)| match weight {
                1.0 => reward.name(),
                _ => format!("{weight}*{}", reward.name()),
            })
            .collect();
        names.join(" + ")
    }

    fn sees(&self) -> String {
        let mut seen: Vec<String> = self.parts.iter().map(|(_, part)| part.sees()).collect();
        // All alike are said once.
        if seen.iter().all(|text| *text == seen[0]) {
            seen.truncate(1);
        }
        seen.join(" + ")
    }

    fn parts(&self) -> Vec<RewardPart> {
        let part = |(weight, reward): &(f64, Box<dyn Reward>)| RewardPart {
            name: reward.name(),
            weight: *weight,
        };
        self.parts.iter().map(part).collect()
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        let mut sums: Scores = vec![Ok(Score::default()); samples.len()];
        for (weight, reward) in &mut self.parts {
            let scores = reward.score(samples)?;
            if scores.len() != samples.len() {
                return Err(Error::Reward(format!(
                    "{} gave {} scores for {} responses",
                    reward.name(),
                    scores.len(),
                    samples.len()
                )));
            }
            for (sum, score) in sums.iter_mut().zip(scores) {
                match (&mut *sum, score) {
                    (Ok(sum), Ok(score)) => {
                        sum.reward += *weight * score.reward;
                        sum.tokens += score.tokens;
                        sum.truncated |= score.truncated;
                        sum.parts.push(score.reward);
                    }
                    (Ok(_), Err(error)) => *sum = Err(error),
                    (Err(_), _) => {}
                }
            }
        }
        Ok(sums)
    }

    fn reads(&self, sample: &Sample<'_>) -> Result<Vec<ReadText>> {
        let each = self.parts.iter().map(|(_, reward)| reward.reads(sample));
        Ok(each.collect::<Result<Vec<_>>>()?.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reward::{FnReward, SampleError};

    const HI: [Sample<'static>; 1] = [Sample::new("p", "hi")];

    fn constant(value: f64) -> Box<dyn Reward> {
        Box::new(FnReward::new(value.to_string(), move |_, _| value))
    }

    #[test]
    fn rewards_add_up_with_their_weights() {
        let mut mix = Mix::new(vec![(2.0, constant(3.0)), (-0.5, constant(4.0))]).unwrap();
        let score = mix.score(&HI).unwrap().pop().unwrap().unwrap();
        assert_eq!((score.reward, score.parts), (4.0, vec![3.0, 4.0]));
        let parts = mix.parts();
        assert_eq!((parts[1].name.as_str(), parts[1].weight), ("4", -0.5));
        assert_eq!(mix.name(), "2*3 + -0.5*4");
    }

    #[test]
    fn weights_that_mean_nothing_are_refused() {
        for weight in [0.0, f64::NAN, f64::INFINITY] {
            assert!(Mix::new(vec![(weight, constant(1.0))]).is_err());
        }
        assert!(Mix::new(Vec::new()).is_err());
    }

    #[test]
    fn a_sample_that_one_part_cannot_score_has_no_reward() {
        struct Refuses;
        impl Reward for Refuses {
            fn name(&self) -> String {
                "refuses".into()
            }
            fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
                Ok(vec![Err(SampleError::Other("no".into())); samples.len()])
            }
        }
        let parts = vec![
            (1.0, constant(1.0)),
            (1.0, Box::new(Refuses) as Box<dyn Reward>),
            (1.0, constant(1.0)),
        ];
        assert!(Mix::new(parts).unwrap().score(&HI).unwrap()[0].is_err());
    }
}
