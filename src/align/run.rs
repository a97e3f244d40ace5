//! One run: a search for the answer to one prompt, which says what it wants generated and scored,
//! and takes both when it comes.
//!
//! ```text
//! propose ──► candidates being written ──► take ──► is_written ──► close ─┐
//!    ▲                                                                    │
//!    └────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A run never waits for anything: whoever drives it, alone or among others, is a
//! [`Batch`](super::Batch).

use std::sync::Arc;
use std::time::Instant;

use super::divergence::Divergence;
use super::events::EventKind;
use super::record::{Alignment, IterationStats, ModelNames, ScoredCandidate, StopReason, Timings};
use super::request::{AlignOptions, Stop};
use super::rewards::{RunRewards, beginnings, score};
use super::tally::Tally;
use crate::error::{Error, Result};
use crate::llama::{Model, Token};
use crate::method::{Method, Outcome, Proposal};
use crate::reward::Sample;
use crate::rollout::{Candidate, End, Progress, Written};

/// The iteration that is open.
struct Iteration {
    begun: Instant,
    /// When its candidates were asked for.
    asked: Instant,
    /// By number; `None` for one that is still being written, or that a stop kept from it.
    candidates: Vec<Option<Candidate>>,
    /// Tokens of each so far.
    written: Vec<usize>,
    /// How many of them the budget of tokens pays for, where it is not all.
    paid: Option<usize>,
    progress: Progress,
    /// Candidates that are still being written.
    open: usize,
}

/// One run.
pub(super) struct Run {
    prompt: Arc<str>,
    options: AlignOptions,
    stop: Stop,
    method: Box<dyn Method>,
    started: Instant,
    iteration: Option<Iteration>,
    tally: Tally,
    timings: Timings,
    iterations: Vec<IterationStats>,
    held_out_failed: bool,
    divergence: Divergence,
    stopped: Option<StopReason>,
    /// Reward calls left to a method that asks while responses are written; one is kept for the
    /// response itself.
    calls_left: usize,
    /// Whether such a method asked for more than that: it cannot do what it is for any longer.
    unguided: bool,
}

impl Run {
    /// A run on `prompt`, the text that the reward sees.
    pub(super) fn new(
        prompt: Arc<str>,
        options: AlignOptions,
        method: Box<dyn Method>,
        stop: Stop,
    ) -> Self {
        Self {
            prompt,
            stop,
            method,
            started: Instant::now(),
            iteration: None,
            tally: Tally::default(),
            timings: Timings::default(),
            iterations: Vec::new(),
            held_out_failed: false,
            divergence: Divergence::default(),
            stopped: None,
            calls_left: options.budget.reward_calls.unwrap_or(usize::MAX),
            unguided: false,
            options,
        }
    }

    /// How the run begins.
    pub(super) fn begin(&mut self, rewards: &RunRewards<'_>) -> Result<EventKind> {
        if self.options.stop_on_divergence && rewards.held_out.is_none() {
            return Err(Error::field(
                "stop-on-divergence",
                "there is no second reward to watch; give a `held-out-reward`",
            ));
        }
        let (samples, iterations) = self.method.shape();
        Ok(EventKind::RunStarted {
            prompt: self.prompt.to_string(),
            method: self.method.name(),
            seed: self.options.rounds.seed,
            samples,
            iterations,
        })
    }

    /// Opens the next iteration: what is to be generated. Nothing when the run is at its end.
    pub(super) fn propose(&mut self) -> Vec<Proposal> {
        if self.stopped.is_some() {
            return Vec::new();
        }
        let begun = Instant::now();
        let proposals = self.method.propose();
        if !proposals.is_empty() {
            self.iteration = Some(Iteration {
                begun,
                asked: Instant::now(),
                candidates: proposals.iter().map(|_| None).collect(),
                written: vec![0; proposals.len()],
                paid: None,
                progress: Progress::default(),
                open: proposals.len(),
            });
        }
        proposals
    }

    /// Most tokens of a response.
    pub(super) fn max_tokens(&self) -> usize {
        self.options.rounds.max_tokens
    }

    /// Whether candidates must bring their pre-logits.
    pub(super) fn keeps_pre_logits(&self) -> bool {
        self.method.keeps_pre_logits()
    }

    /// The rewards of beginnings of a response, for a method that asks. Without calls left there
    /// are none, and the run ends: at once, or with this response where it has no other.
    pub(super) fn ask(
        &mut self,
        rewards: RunRewards<'_>,
        model: &Model,
        responses: &[Vec<Token>],
    ) -> Result<Vec<Option<f64>>> {
        let texts = beginnings(model, responses);
        let written = texts.iter().enumerate();
        let written: Vec<(usize, &String)> = written
            .filter_map(|(i, text)| Some((i, text.as_ref()?)))
            .collect();
        let mut answers = vec![None; texts.len()];
        self.unguided |= written.len() >= self.calls_left;
        if written.is_empty() || self.unguided {
            return Ok(answers);
        }
        self.calls_left -= written.len();
        let samples: Vec<Sample<'_>> = written
            .iter()
            .map(|(_, text)| Sample {
                prompt: &self.prompt,
                response: text,
            })
            .collect();
        let scores = rewards.reward.score(&samples)?;
        self.tally.usage.reward_calls += written.len();
        for ((index, _), score) in written.into_iter().zip(scores) {
            if let Ok(score) = score {
                self.tally.usage.reward_tokens += score.tokens;
                answers[index] = Some(score.reward).filter(|r| r.is_finite());
            }
        }
        Ok(answers)
    }

    /// Takes what a step has written for candidate `index`; whether that was its end.
    pub(super) fn take(&mut self, index: usize, written: Written) -> Result<bool> {
        let Some(iteration) = &mut self.iteration else {
            return Ok(true);
        };
        iteration.progress.count(&written);
        iteration.written[index] += 1;
        let Some(candidate) = written.done else {
            return Ok(false);
        };
        iteration.candidates[index] = Some(candidate?);
        iteration.open -= 1;
        Ok(true)
    }

    /// Takes a candidate that a stop has cut short, or kept from being written.
    pub(super) fn take_cancelled(&mut self, index: usize, candidate: Option<Candidate>) {
        if let Some(iteration) = &mut self.iteration {
            iteration.candidates[index] = candidate;
            iteration.open -= 1;
        }
    }

    /// How far the open iteration is.
    pub(super) fn progress(&self) -> Option<EventKind> {
        let iteration = self.iteration.as_ref()?;
        Some(EventKind::Progress {
            iteration: self.iterations.len(),
            tokens: iteration.progress.tokens,
            finished: iteration.progress.finished,
            seconds: iteration.asked.elapsed().as_secs_f64(),
        })
    }

    /// Whether the candidates that are being written are no longer wanted.
    pub(super) fn is_over(&mut self) -> bool {
        if self.stop.is_requested() {
            self.stopped = Some(StopReason::Interrupted);
        } else if self.out_of_time() {
            self.stopped = Some(StopReason::TimeLimit);
        } else if self.out_of_tokens() || self.out_of_guidance() {
            self.stopped = Some(StopReason::Budget);
        }
        self.stopped.is_some()
    }

    /// Whether a method that asks can ask no more, and there is an answer that it was guided to.
    fn out_of_guidance(&self) -> bool {
        self.unguided && self.tally.best().is_some()
    }

    fn out_of_tokens(&mut self) -> bool {
        let Some(iteration) = &mut self.iteration else {
            return false;
        };
        let finished = iteration.candidates.iter().map(Option::is_some);
        let written = finished.zip(iteration.written.iter().copied());
        iteration.paid = self.options.budget.paid(&self.tally.usage, written);
        iteration.paid.is_some()
    }

    fn out_of_time(&self) -> bool {
        let elapsed = self.started.elapsed().as_secs_f64();
        let limit = self.options.budget.seconds;
        limit.is_some_and(|limit| elapsed >= limit)
    }

    /// Whether all candidates of the open iteration are there.
    pub(super) fn is_written(&self) -> bool {
        self.iteration.as_ref().is_some_and(|i| i.open == 0)
    }

    /// Scores the iteration and closes it. Responses cut short by a stop are scored only when
    /// there is nothing else to answer with.
    pub(super) fn close(
        &mut self,
        mut rewards: RunRewards<'_>,
        tell: &mut dyn FnMut(EventKind),
    ) -> Result<()> {
        let Some(Iteration {
            begun,
            asked,
            mut candidates,
            paid,
            ..
        }) = self.iteration.take()
        else {
            return Ok(());
        };
        self.timings.generation_seconds += asked.elapsed().as_secs_f64();
        if let Some(paid) = paid {
            // The first one, cut short, is better than no answer.
            candidates.truncate(paid.max(usize::from(self.tally.best().is_none())));
        }
        for candidate in candidates.iter().flatten() {
            self.tally.usage.candidates += 1;
            self.tally.usage.generated_tokens += candidate.tokens.len();
        }
        // There is an answer, and these are not to change it.
        if self.out_of_guidance() {
            return Ok(());
        }
        let finished = |c: &Candidate| c.end != End::Stopped;
        let any = self.tally.best().is_some() || candidates.iter().flatten().any(finished);
        let used: Vec<(usize, &Candidate)> = candidates
            .iter()
            .enumerate()
            .filter_map(|(i, c)| Some((i, c.as_ref()?)))
            .filter(|(_, c)| finished(c) || !any)
            .collect();
        self.score(&mut rewards, &used, tell)?;
        let mut outcomes = Vec::with_capacity(used.len());
        for (index, candidate) in used {
            let scored = ScoredCandidate::new(self.iterations.len(), index, candidate);
            let scored = self.tally.count(scored);
            outcomes.push(Outcome {
                candidate: u32::try_from(index).unwrap_or(u32::MAX),
                reward: scored.reward.unwrap_or(f64::NAN),
                tokens: &candidate.tokens,
                nats: &candidate.nats,
                pre_logits: &candidate.pre_logits,
            });
            tell(EventKind::CandidateScored(scored.clone()));
        }
        self.observe(&outcomes, begun, tell)
    }

    /// Scores the texts of `candidates` that have no score yet.
    fn score(
        &mut self,
        rewards: &mut RunRewards<'_>,
        candidates: &[(usize, &Candidate)],
        tell: &mut dyn FnMut(EventKind),
    ) -> Result<()> {
        let texts = self.tally.unknown(candidates);
        let prompt = Arc::clone(&self.prompt);
        let samples: Vec<Sample<'_>> = texts
            .iter()
            .map(|&response| Sample {
                prompt: &prompt,
                response,
            })
            .collect();
        let begun = Instant::now();
        let scores = score(&mut *rewards.reward, &samples)?;
        self.timings.reward_seconds += begun.elapsed().as_secs_f64();
        let watched = self.watch(rewards, &samples, tell);
        let mut watched = watched.into_iter();
        for (text, score) in texts.into_iter().zip(scores) {
            self.tally.learn(text, score, watched.next().flatten());
        }
        Ok(())
    }

    /// What the held-out reward says of each sample. It only watches: when it fails as a
    /// whole the run goes on without it.
    fn watch(
        &mut self,
        rewards: &mut RunRewards<'_>,
        samples: &[Sample<'_>],
        tell: &mut dyn FnMut(EventKind),
    ) -> Vec<Option<f64>> {
        let wanted = !samples.is_empty() && !self.held_out_failed;
        let Some(reward) = rewards.held_out.as_mut().filter(|_| wanted) else {
            return Vec::new();
        };
        let begun = Instant::now();
        let scores = reward.score(samples);
        self.timings.held_out_seconds += begun.elapsed().as_secs_f64();
        match scores {
            Ok(scores) => scores
                .into_iter()
                .map(|score| Some(score.ok()?.reward).filter(|r| r.is_finite()))
                .collect(),
            Err(error) => {
                self.held_out_failed = true;
                let reason = error.to_string();
                tell(EventKind::HeldOutFailed { reason });
                Vec::new()
            }
        }
    }

    /// Gives the outcomes to the method, and puts the iteration down.
    fn observe(
        &mut self,
        outcomes: &[Outcome<'_>],
        begun: Instant,
        tell: &mut dyn FnMut(EventKind),
    ) -> Result<()> {
        let control = Instant::now();
        let telemetry = self.method.observe(outcomes)?;
        self.timings.control_seconds += control.elapsed().as_secs_f64();
        let Self { method, tally, .. } = self;
        tally.rank(|reward, price| method.worth(reward, price));
        let index = self.iterations.len();
        let own = tally.ranked.iter().filter(|c| c.iteration == index);
        let new: Vec<&ScoredCandidate> = own.clone().filter(|c| !c.repeat).collect();
        let pairs: Vec<(f64, f64)> = new
            .iter()
            .filter_map(|c| Some((c.reward?, c.held_out?)))
            .collect();
        let scored = || new.iter().filter(|c| c.reward.is_some());
        let best = tally.best();
        let stats = IterationStats {
            index,
            mean_reward: average(scored().filter_map(|c| c.reward)),
            max_reward: own.filter_map(|c| c.reward).reduce(f64::max),
            best_reward: best.and_then(|c| c.reward),
            mean_price: average(scored().filter_map(|c| Some(c.price?.per_token))),
            best_price: best.and_then(|c| Some(c.price?.per_token)),
            held_out_mean: average(pairs.iter().map(|p| p.1)),
            held_out_best: best.and_then(|c| c.held_out),
            telemetry,
            tokens: outcomes.iter().map(|o| o.tokens.len()).sum(),
            reward_calls: tally.usage.reward_calls,
            seconds: begun.elapsed().as_secs_f64(),
        };
        tell(EventKind::IterationDone(stats.clone()));
        self.iterations.push(stats);
        let diverged = self.divergence.observe(&pairs);
        self.stopped = self.stopped.or_else(|| self.why_stop(diverged));
        Ok(())
    }

    /// Why the run ends between two iterations, if it does.
    fn why_stop(&self, diverged: bool) -> Option<StopReason> {
        let target = self.options.target_reward;
        if self.stop.is_requested() {
            Some(StopReason::Interrupted)
        } else if target.is_some_and(|t| self.tally.best().is_some_and(|c| c.reward >= Some(t))) {
            Some(StopReason::TargetReward)
        } else if diverged && self.options.stop_on_divergence {
            Some(StopReason::Divergence)
        } else if self.out_of_time() {
            Some(StopReason::TimeLimit)
        } else if self.unguided || self.options.budget.is_spent(&self.tally.usage) {
            Some(StopReason::Budget)
        } else {
            None
        }
    }

    /// The answer, once there is nothing more to propose.
    pub(super) fn finish(
        mut self,
        names: ModelNames,
        tell: &mut dyn FnMut(EventKind),
    ) -> Result<Alignment> {
        let rewards: Vec<f64> = self.tally.ranked.iter().map_while(|c| c.reward).collect();
        let answer = match rewards.is_empty() {
            true => 0,
            false => self.method.answer(&rewards).min(rewards.len() - 1),
        };
        let answer = self.tally.ranked.get(answer).filter(|c| c.reward.is_some());
        let Some(best) = answer.cloned() else {
            return Err(self.tally.no_answer());
        };
        self.timings.total_seconds = self.started.elapsed().as_secs_f64();
        self.timings.tokens_per_second =
            self.tally.usage.generated_tokens as f64 / self.timings.generation_seconds.max(1e-9);
        let stop = self.stopped.unwrap_or(StopReason::Completed);
        tell(EventKind::RunFinished {
            stop,
            reward: best.reward,
            usage: self.tally.usage,
            timings: self.timings,
        });
        Ok(Alignment {
            prompt: self.prompt.to_string(),
            response: best.text,
            reward: best.reward.unwrap_or(f64::NAN),
            price: best.price,
            held_out: best.held_out,
            method: self.method.name(),
            seed: self.options.rounds.seed,
            samples: self.method.shape().0,
            stop,
            iterations: self.iterations,
            usage: self.tally.usage,
            timings: self.timings,
            names,
            candidates: self.tally.ranked,
        })
    }
}

/// The mean, where there is anything to average.
fn average(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    let sum: f64 = values.iter().sum();
    (!values.is_empty()).then(|| sum / values.len() as f64)
}
