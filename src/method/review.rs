//! Early rejection: candidates whose beginning scores badly are given up, and new ones begun in their
//! place, where the reward can read a beginning.
//!
//! Whether it can is measured: the first iteration is scored at a quarter of the longest response as
//! well as at its end. [`rejection_gain`] says what giving up would be worth with that correlation,
//! less one standard error of it; it is done where that is more than nothing, with the share that is
//! worth most. Beginnings are compared with beginnings of the same length, those of the last
//! iteration that had enough of them. Two candidates an iteration are never given up, so that the
//! correlation stays that of all.
//!
//! Source: (chosen), measured in `docs/controller.md`.

use std::sync::{Arc, Mutex, PoisonError};

use super::Outcome;
use crate::control::rejection_gain;
use crate::error::Result;
use crate::llama::Token;
use crate::math::correlation;
use crate::rollout::Ask;

/// Where a beginning ends, as a part of the longest response.
const AT: f64 = 0.25;
/// Shares that may be kept.
const KEPT: [f64; 3] = [0.5, 0.25, 0.125];
/// Candidates of an iteration that are never given up.
const SPARED: u32 = 2;
/// Above this correlation the formula says too little.
const HIGHEST: f64 = 0.75;
/// Pairs that a correlation takes.
const PAIRS: usize = 8;

/// What the candidates of one iteration are told.
pub(super) struct Review {
    /// Tokens of a beginning.
    at: usize,
    /// The least score of a beginning that is gone on with, where any is given up.
    least: Option<f64>,
    /// (candidate, score) of the beginnings so far.
    scores: Mutex<Vec<(u32, f64)>>,
}

impl Review {
    /// Whether `candidate` is gone on with after `tokens`.
    pub(super) fn goes_on(
        &self,
        candidate: u32,
        tokens: &[Token],
        ask: &mut Ask<'_>,
    ) -> Result<bool> {
        if tokens.len() != self.at {
            return Ok(true);
        }
        let score = ask(&[tokens.to_vec()])?.into_iter().next().flatten();
        let Some(score) = score else {
            return Ok(true);
        };
        let mut scores = self.scores.lock().unwrap_or_else(PoisonError::into_inner);
        scores.push((candidate, score));
        Ok(candidate < SPARED || self.least.is_none_or(|least| score >= least))
    }
}

/// The reviews of a run.
pub(super) struct Reviews {
    at: usize,
    /// Whole answers that the run pays for.
    answers: f64,
    open: Arc<Review>,
    /// (score of the beginning, reward) of candidates that none of the others was chosen by.
    pairs: Vec<(f64, f64)>,
    /// Share that is kept, where any is given up.
    kept: Option<f64>,
}

impl Reviews {
    /// Reviews for a run of so many candidates of at most `max_tokens`; `None` where they are too
    /// short to have a beginning.
    pub(super) fn new(answers: usize, max_tokens: usize) -> Option<Self> {
        let at = (AT * max_tokens as f64).round() as usize;
        let review = Review {
            at,
            least: None,
            scores: Mutex::default(),
        };
        (at > 0 && at < max_tokens).then(|| Self {
            at,
            answers: answers as f64,
            open: Arc::new(review),
            pairs: Vec::new(),
            kept: None,
        })
    }

    /// Whether a candidate is reviewed whose first `kept` tokens are those of an earlier one.
    pub(super) fn reviews(&self, kept: usize) -> bool {
        kept < self.at
    }

    /// That of the iteration that is proposed next.
    pub(super) fn next(&self) -> Arc<Review> {
        Arc::clone(&self.open)
    }

    /// Candidates that may be begun for the tokens of `samples` whole ones, where a share of
    /// `reviewed` of them is reviewed.
    pub(super) fn begun(&self, samples: usize, reviewed: f64) -> usize {
        let kept = self.kept.filter(|_| self.open.least.is_some());
        let each = kept.map_or(1.0, |kept| 1.0 - reviewed * (1.0 - AT) * (1.0 - kept));
        (samples as f64 / each).round() as usize
    }

    /// Takes what became of the candidates of an iteration.
    pub(super) fn close(&mut self, outcomes: &[Outcome<'_>]) {
        let open = Arc::clone(&self.open);
        let mut scores =
            std::mem::take(&mut *open.scores.lock().unwrap_or_else(PoisonError::into_inner));
        scores.sort_by_key(|(candidate, _)| *candidate);
        let all = self.open.least.is_none();
        for &(candidate, score) in scores.iter().filter(|(c, _)| all || *c < SPARED) {
            let own = outcomes.iter().find(|o| o.candidate == candidate);
            if let Some(reward) = own.map(|o| o.reward).filter(|r| r.is_finite()) {
                self.pairs.push((score, reward));
            }
        }
        self.kept = self.plan();
        let mut least = None;
        if let Some(kept) = self.kept {
            let mut values: Vec<f64> = scores.iter().map(|s| s.1).collect();
            values.sort_by(f64::total_cmp);
            let given_up = ((1.0 - kept) * values.len() as f64) as usize;
            // Too few say nothing of where the share begins; the last limit stands.
            least = match values.len() >= PAIRS {
                true => values.get(given_up).copied(),
                false => self.open.least,
            };
        }
        self.open = Arc::new(Review {
            at: self.at,
            least,
            scores: Mutex::default(),
        });
    }

    /// The share to keep, where giving up the others is worth it.
    fn plan(&self) -> Option<f64> {
        let correlation = self.correlation()?;
        let error = (1.0 - correlation * correlation) / (self.pairs.len() as f64 - 1.0).sqrt();
        let low = (correlation - error).min(HIGHEST);
        let gain = |kept: f64| rejection_gain(low, AT, kept, self.answers);
        let best = KEPT
            .into_iter()
            .max_by(|a, b| gain(*a).total_cmp(&gain(*b)))?;
        (correlation > error && gain(best) > 0.0).then_some(best)
    }

    /// What was measured: the correlation of beginnings and answers.
    pub(super) fn correlation(&self) -> Option<f64> {
        correlation(&self.pairs).filter(|_| self.pairs.len() >= PAIRS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: u32 = 16;

    fn outcome(candidate: u32, reward: f64) -> Outcome<'static> {
        Outcome {
            candidate,
            reward,
            tokens: &[],
            nats: &[],
            pre_logits: &[],
        }
    }

    /// Lets an iteration of candidates with these (score of the beginning, reward) pass; who was gone
    /// on with.
    fn iteration(reviews: &mut Reviews, pairs: &[(f64, f64)]) -> Vec<bool> {
        let review = reviews.next();
        let tokens = [0; 16];
        let mut outcomes = Vec::new();
        let mut goes_on = Vec::new();
        for (candidate, &(score, reward)) in (0..).zip(pairs) {
            let mut ask = |texts: &[Vec<Token>]| {
                assert_eq!(texts, [tokens.to_vec()]);
                Ok(vec![Some(score)])
            };
            // Only a beginning is looked at.
            assert!(review.goes_on(candidate, &tokens[..15], &mut ask).unwrap());
            let on = review.goes_on(candidate, &tokens, &mut ask).unwrap();
            goes_on.push(on);
            outcomes.extend(on.then(|| outcome(candidate, reward)));
        }
        reviews.close(&outcomes);
        goes_on
    }

    fn pairs(reward: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        let scores = (0..SAMPLES).map(|i| f64::from((i * 7) % SAMPLES));
        scores.map(|score| (score, reward(score))).collect()
    }

    #[test]
    fn what_begins_badly_is_given_up_where_beginnings_tell() {
        let mut reviews = Reviews::new(128, 64).unwrap();
        assert!(reviews.reviews(15) && !reviews.reviews(16));
        let telling = pairs(|score| score + 0.1 * (score * 5.0).sin());
        assert!(iteration(&mut reviews, &telling).iter().all(|on| *on));
        assert!(reviews.correlation().unwrap() > 0.99);
        // An eighth of 16 is kept, and the first two are.
        let second = iteration(&mut reviews, &telling);
        for (candidate, (on, (score, _))) in second.iter().zip(&telling).enumerate() {
            assert_eq!(*on, candidate < 2 || *score >= 14.0, "{candidate}");
        }
        // The tokens of 16 whole candidates begin 16/(¼ + ¾·⅛); those of which half are reviewed
        // fewer, and none that is reviewed more.
        assert_eq!(reviews.begun(16, 1.0), 47);
        assert_eq!(reviews.begun(16, 0.5), 24);
        assert_eq!(reviews.begun(16, 0.0), 16);
    }

    #[test]
    fn none_is_given_up_where_beginnings_say_nothing() {
        let mut reviews = Reviews::new(128, 64).unwrap();
        let silent = pairs(|score| (score * 37.0).sin());
        for _ in 0..3 {
            assert!(iteration(&mut reviews, &silent).iter().all(|on| *on));
            assert_eq!(reviews.begun(16, 1.0), 16);
        }
        // Nor where there is nothing to measure by.
        let mut few = Reviews::new(128, 64).unwrap();
        iteration(&mut few, &pairs(|score| score)[..PAIRS - 1]);
        assert_eq!(few.correlation(), None);
        assert_eq!(few.begun(16, 1.0), 16);
    }

    #[test]
    fn an_iteration_with_few_beginnings_keeps_the_limit() {
        let mut reviews = Reviews::new(128, 64).unwrap();
        let telling = pairs(|score| score);
        iteration(&mut reviews, &telling);
        let limit = reviews.next().least;
        iteration(&mut reviews, &[(1.0, 1.0), (2.0, 2.0)]);
        assert_eq!((reviews.next().least, limit), (Some(14.0), Some(14.0)));
    }

    #[test]
    fn a_response_needs_room_for_a_beginning() {
        assert!(Reviews::new(128, 1).is_none());
        assert_eq!(Reviews::new(128, 2).unwrap().at, 1);
    }
}
