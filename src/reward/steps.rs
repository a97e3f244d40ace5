//! A process reward: another reward's scores of a response up to the end of each of its steps, of
//! which the last, the least or the mean is the reward.
//!
//! Steps end at a marker, a blank line by default, which belongs to the step before it; what follows
//! the last one is a step too, and white space at the end of a step is left out. A response without a
//! marker is one step.
//!
//! Source: Lightman et al., *Let's verify step by step*, arXiv 2305.20050; the least and the mean as in
//! Wang et al., *Math-Shepherd*, arXiv 2312.08935.

use std::path::Path;
use std::sync::Arc;

use super::options::Options;
use super::{
    Answer, Reward, RewardKind, RewardLoader, RewardOption, RewardSource, Sample, SampleError,
    Score, Scores, kinds,
};
use crate::error::{Error, Result};

/// Its place among the kinds.
pub(super) const KIND: RewardKind = RewardKind {
    name: "steps",
    form: "steps:last|min|mean",
    about: "another reward's score up to each step of a response: the last, the least or the mean",
    terms: &[],
    options: &[
        RewardOption::new(
            "reward",
            "\"KIND:…\"",
            "what scores the steps; has to be given",
        ),
        RewardOption::new(
            "marker",
            "TEXT",
            "what ends a step; \\n is a line break [default: an empty line]",
        ),
    ],
    parse,
};

fn parse(text: &str) -> Result<Arc<dyn RewardSource>> {
    let (name, mut options) = Options::parse(&KIND, text)?;
    let count = match name.as_str() {
        "last" => StepCount::Last,
        "min" => StepCount::Min,
        "mean" => StepCount::Mean,
        _ => return Err(KIND.refuse(format!("{name}: none of last, min, mean"))),
    };
    let marker = options.line_breaks("marker");
    let Some(reward) = options.text("reward") else {
        let reason = "what scores the steps? give reward=\"KIND:…\" in double quotes";
        return Err(KIND.refuse(reason));
    };
    options.finish()?;
    Ok(Arc::new(StepsSource {
        reward: kinds::parse(&reward)?,
        count,
        marker: marker.unwrap_or_else(|| "\n\n".into()),
    }))
}

/// A reward of steps by that of responses.
#[derive(Debug)]
struct StepsSource {
    reward: Arc<dyn RewardSource>,
    count: StepCount,
    marker: String,
}

impl RewardSource for StepsSource {
    fn files(&self) -> Vec<&Path> {
        self.reward.files()
    }

    fn load(&self, loader: &mut RewardLoader) -> Result<Box<dyn Reward>> {
        let reward = self.reward.load(loader)?;
        Ok(Box::new(Steps::new(reward, self.count, &self.marker)?))
    }
}

/// What the scores of the steps come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepCount {
    /// The score of the last one.
    Last,
    /// The least.
    Min,
    /// Their mean.
    Mean,
}

/// A reward of the steps of a response.
pub struct Steps {
    reward: Box<dyn Reward>,
    count: StepCount,
    marker: String,
}

impl Steps {
    /// Has `reward` score what a response says up to each `marker`.
    ///
    /// # Errors
    /// [`Error::Field`] for an empty marker, and a reward that only
    /// [compares](Reward::compares) responses.
    pub fn new(reward: Box<dyn Reward>, count: StepCount, marker: &str) -> Result<Self> {
        if marker.is_empty() {
            return Err(KIND.refuse("marker= is empty; leave it out, or give a text"));
        }
        if reward.compares() {
            let name = reward.name();
            return Err(KIND.refuse(format!("{name} only compares responses; give a score")));
        }
        Ok(Self {
            reward,
            count,
            marker: marker.to_owned(),
        })
    }

    /// What of the response is scored: it up to the end of each step that counts.
    fn beginnings<'a>(&self, response: &'a str) -> Vec<&'a str> {
        let ends = response.match_indices(&self.marker);
        let ends = ends.map(|(at, marker)| at + marker.len());
        let mut all: Vec<&str> = ends
            .chain([response.len()])
            .map(|end| response[..end].trim_end())
            .filter(|beginning| !beginning.is_empty())
            .collect();
        all.dedup();
        match self.count {
            StepCount::Last => all.split_off(all.len().saturating_sub(1)),
            StepCount::Min | StepCount::Mean => all,
        }
    }

    /// The scores of the steps of one response as one.
    fn count(&self, steps: &[Answer]) -> Answer {
        let steps: Vec<Score> = steps
            .iter()
            .cloned()
            .collect::<std::result::Result<_, _>>()?;
        let rewards = || steps.iter().map(|step| step.reward);
        // A minimum must not lose a NaN.
        let least = |a: f64, b: f64| if b < a || b.is_nan() { b } else { a };
        let reward = match self.count {
            StepCount::Last => rewards().next_back(),
            StepCount::Min => rewards().reduce(least),
            StepCount::Mean => Some(rewards().sum::<f64>() / steps.len() as f64),
        };
        let nothing = || SampleError::Other("no step to score".into());
        Ok(Score {
            reward: reward.filter(|_| !steps.is_empty()).ok_or_else(nothing)?,
            tokens: steps.iter().map(|step| step.tokens).sum(),
            truncated: steps.iter().any(|step| step.truncated),
            ..Score::default()
        })
    }
}

impl Reward for Steps {
    fn name(&self) -> String {
        let count = match self.count {
            StepCount::Last => "last",
            StepCount::Min => "min",
            StepCount::Mean => "mean",
        };
        format!("{count} step of {}", self.reward.name())
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        let mut steps = Vec::new();
        let mut counts = Vec::with_capacity(samples.len());
        for sample in samples {
            let beginnings = self.beginnings(sample.response);
            counts.push(beginnings.len());
            steps.extend(beginnings.into_iter().map(|response| Sample {
                response,
                ..*sample
            }));
        }
        let scores = self.reward.score(&steps)?;
        if scores.len() != steps.len() {
            let (name, found, wanted) = (self.reward.name(), scores.len(), steps.len());
            return Err(Error::Reward(format!(
                "{name}: {found} scores for {wanted} steps"
            )));
        }
        let mut rest = &scores[..];
        let answers = counts.into_iter().map(|count| {
            let (own, others) = rest.split_at(count);
            rest = others;
            self.count(own)
        });
        Ok(answers.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reward::{FnReward, RewardSpec};

    /// What each reward says of these responses, where a beginning is worth what its last figure is.
    fn rewards(count: StepCount, responses: &[&str]) -> Vec<Option<f64>> {
        let last = FnReward::new("figure", |_, response| {
            let figure = response.chars().rev().find_map(|c| c.to_digit(10));
            figure.map_or(f64::NAN, f64::from)
        });
        let mut steps = Steps::new(Box::new(last), count, "\n\n").unwrap();
        let samples: Vec<Sample<'_>> = responses
            .iter()
            .map(|response| Sample::new("p", response))
            .collect();
        let scores = steps.score(&samples).unwrap();
        scores
            .into_iter()
            .map(|s| s.ok().map(|s| s.reward))
            .collect()
    }

    const RESPONSES: [&str; 4] = ["7\n\n2\n\n6", "7\n\n2\n\n", "5", "\n\n"];

    #[test]
    fn the_last_the_least_or_the_mean_of_the_steps_counts() {
        let last = rewards(StepCount::Last, &RESPONSES);
        assert_eq!(last, [Some(6.0), Some(2.0), Some(5.0), None]);
        let least = rewards(StepCount::Min, &RESPONSES);
        assert_eq!(least, [Some(2.0), Some(2.0), Some(5.0), None]);
        let mean = rewards(StepCount::Mean, &RESPONSES);
        assert_eq!(mean, [Some(5.0), Some(4.5), Some(5.0), None]);
    }

    #[test]
    fn a_step_without_a_score_leaves_none_to_the_response() {
        let least = rewards(StepCount::Min, &["7\n\n2", "a\n\n2"]);
        assert_eq!(least[0], Some(2.0));
        assert!(least[1].unwrap().is_nan());
    }

    #[test]
    fn steps_are_described_around_another_reward() {
        let parse = |text: &str| RewardSpec::parse(text).map_err(|e| e.to_string());
        let steps = parse("steps:min;marker=\\n;reward=\"head:m.gguf;head=h.gguf\"").unwrap();
        assert_eq!(steps.files().len(), 2);
        for (text, word) in [
            ("steps:most;reward=\"rule:json\"", "none of last, min, mean"),
            ("steps:min", "give reward="),
            ("steps:min;reward=json", "KIND:…"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
