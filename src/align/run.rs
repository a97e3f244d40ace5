//! One run in progress: what was generated, scored and counted so far, and why it ends.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::time::Instant;

use super::divergence::Divergence;
use super::{AlignOptions, Stop};
use crate::error::{Error, Result};
use crate::events::{
    Alignment, Event, IterationStats, ModelNames, ScoredCandidate, StopReason, Timings, Usage,
};
use crate::method::{Method, Outcome};
use crate::reward::{Reward, Sample};
use crate::rollout::{Candidate, End, Job, Rollout};

/// Candidates without a reward, by reason.
#[derive(Default)]
struct Failures {
    empty: usize,
    other: usize,
    last: String,
}

/// One run in progress.
pub(super) struct Run<'a> {
    prompt: &'a str,
    options: &'a AlignOptions,
    stop: &'a Stop,
    started: Instant,
    usage: Usage,
    timings: Timings,
    iterations: Vec<IterationStats>,
    best: Option<f64>,
    held_out_best: Option<f64>,
    divergence: Divergence,
    ranked: Vec<ScoredCandidate>,
    failures: Failures,
    pub(super) stopped: Option<StopReason>,
}

impl<'a> Run<'a> {
    pub(super) fn new(prompt: &'a str, options: &'a AlignOptions, stop: &'a Stop) -> Self {
        Self {
            prompt,
            options,
            stop,
            started: Instant::now(),
            usage: Usage::default(),
            timings: Timings::default(),
            iterations: Vec::new(),
            best: None,
            held_out_best: None,
            divergence: Divergence::default(),
            ranked: Vec::new(),
            failures: Failures::default(),
            stopped: None,
        }
    }

    fn iteration(&self) -> usize {
        self.iterations.len()
    }

    pub(super) fn generate(
        &mut self,
        rollout: &mut Rollout,
        jobs: &[Job],
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Vec<Option<Candidate>>> {
        let begun = Instant::now();
        let iteration = self.iteration();
        let (stop, started) = (self.stop, self.started);
        let limit = self.options.budget.seconds;
        let mut stopped = None;
        let candidates = rollout.run(jobs, &mut |progress| {
            observe(&Event::Progress {
                iteration,
                tokens: progress.tokens,
                finished: progress.finished,
                seconds: begun.elapsed().as_secs_f64(),
            });
            if stop.is_requested() {
                stopped = Some(StopReason::Interrupted);
            } else if limit.is_some_and(|limit| started.elapsed().as_secs_f64() >= limit) {
                stopped = Some(StopReason::TimeLimit);
            }
            match stopped {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            }
        })?;
        self.stopped = stopped;
        self.timings.generation_seconds += begun.elapsed().as_secs_f64();
        for candidate in candidates.iter().flatten() {
            self.usage.candidates += 1;
            self.usage.generated_tokens += candidate.tokens.len();
        }
        Ok(candidates)
    }

    /// Counts what the method itself asked the reward.
    pub(super) fn guided(&mut self, usage: Usage) {
        self.usage.reward_calls += usage.reward_calls;
        self.usage.reward_tokens += usage.reward_tokens;
    }

    /// Scores what the iteration brought. Responses cut short by a stop are scored only
    /// when there is nothing else to answer with.
    pub(super) fn score<'c>(
        &mut self,
        reward: &mut dyn Reward,
        held_out: &mut Option<Box<dyn Reward>>,
        candidates: &'c [Option<Candidate>],
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Vec<Outcome<'c>>> {
        let begun = Instant::now();
        let finished = |c: &Candidate| c.end != End::Stopped;
        let any = self.best.is_some() || candidates.iter().flatten().any(finished);
        let used: Vec<(usize, &Candidate)> = candidates
            .iter()
            .enumerate()
            .filter_map(|(i, c)| Some((i, c.as_ref()?)))
            .filter(|(_, c)| finished(c) || !any)
            .collect();
        let samples: Vec<Sample<'_>> = used
            .iter()
            .filter(|(_, c)| !c.text.trim().is_empty())
            .map(|(_, c)| Sample {
                prompt: self.prompt,
                response: &c.text,
            })
            .collect();
        let scores = if samples.is_empty() {
            Vec::new()
        } else {
            reward.score(&samples)?
        };
        if scores.len() != samples.len() {
            return Err(Error::Reward(format!(
                "{} scores for {} responses",
                scores.len(),
                samples.len()
            )));
        }
        self.timings.reward_seconds += begun.elapsed().as_secs_f64();
        let mut watched = self.watch(held_out, &samples, observe).into_iter();
        let mut scores = scores.into_iter();
        let mut outcomes = Vec::with_capacity(used.len());
        for (index, candidate) in used {
            let mut scored = ScoredCandidate {
                iteration: self.iteration(),
                candidate: index,
                reward: None,
                held_out: None,
                tokens: candidate.tokens.len(),
                end: candidate.end,
                text: candidate.text.clone(),
                error: None,
                truncated: false,
            };
            if candidate.text.trim().is_empty() {
                self.failures.empty += 1;
                scored.error = Some("empty response".into());
            } else {
                self.usage.reward_calls += 1;
                scored.held_out = watched.next().flatten();
                match scores.next() {
                    Some(Ok(score)) => {
                        self.usage.reward_tokens += score.tokens;
                        self.usage.truncated += usize::from(score.truncated);
                        scored.truncated = score.truncated;
                        if score.reward.is_finite() {
                            scored.reward = Some(score.reward);
                        } else {
                            scored.error = Some(format!("the reward is {}", score.reward));
                        }
                    }
                    Some(Err(error)) => scored.error = Some(error.to_string()),
                    None => scored.error = Some("no score".into()),
                }
                if let Some(error) = &scored.error {
                    self.failures.other += 1;
                    self.failures.last.clone_from(error);
                }
            }
            self.usage.unscored += usize::from(scored.reward.is_none());
            outcomes.push(Outcome {
                candidate: u32::try_from(index).unwrap_or(u32::MAX),
                reward: scored.reward.unwrap_or(f64::NAN),
                tokens: &candidate.tokens,
                pre_logits: &candidate.pre_logits,
            });
            observe(&Event::CandidateScored(scored.clone()));
            if scored.reward > self.best {
                self.best = scored.reward;
                self.held_out_best = scored.held_out;
            }
            self.ranked.push(scored);
        }
        Ok(outcomes)
    }

    /// What the held-out reward says of each sample. It only watches: when it fails as a
    /// whole the run goes on without it.
    fn watch(
        &mut self,
        held_out: &mut Option<Box<dyn Reward>>,
        samples: &[Sample<'_>],
        observe: &mut dyn FnMut(&Event),
    ) -> Vec<Option<f64>> {
        let Some(reward) = held_out.as_mut().filter(|_| !samples.is_empty()) else {
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
                *held_out = None;
                let reason = error.to_string();
                observe(&Event::HeldOutFailed { reason });
                Vec::new()
            }
        }
    }

    pub(super) fn close_iteration(
        &mut self,
        outcomes: &[Outcome<'_>],
        method: &mut dyn Method,
        begun: Instant,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<()> {
        let control = Instant::now();
        let telemetry = method.observe(outcomes)?;
        self.timings.control_seconds += control.elapsed().as_secs_f64();
        let rewards = outcomes.iter().map(|o| o.reward).filter(|r| r.is_finite());
        let count = rewards.clone().count();
        let index = self.iteration();
        let pairs: Vec<(f64, f64)> = self
            .ranked
            .iter()
            .filter(|c| c.iteration == index)
            .filter_map(|c| Some((c.reward?, c.held_out?)))
            .collect();
        let watched = pairs.iter().map(|p| p.1);
        let stats = IterationStats {
            index,
            mean_reward: (count > 0).then(|| rewards.clone().sum::<f64>() / count as f64),
            max_reward: rewards.reduce(f64::max),
            best_reward: self.best,
            held_out_mean: (!pairs.is_empty()).then(|| watched.sum::<f64>() / pairs.len() as f64),
            held_out_best: self.held_out_best,
            telemetry,
            tokens: outcomes.iter().map(|o| o.tokens.len()).sum(),
            reward_calls: self.usage.reward_calls,
            seconds: begun.elapsed().as_secs_f64(),
        };
        observe(&Event::IterationDone(stats.clone()));
        self.iterations.push(stats);
        let diverged = self.divergence.observe(&pairs) && self.options.stop_on_divergence;
        if self.stopped.is_some() {
            return Ok(());
        }
        let elapsed = self.started.elapsed().as_secs_f64();
        if self.stop.is_requested() {
            self.stopped = Some(StopReason::Interrupted);
        } else if self
            .options
            .target_reward
            .is_some_and(|t| self.best >= Some(t))
        {
            self.stopped = Some(StopReason::TargetReward);
        } else if diverged {
            self.stopped = Some(StopReason::Divergence);
        } else if self
            .options
            .budget
            .seconds
            .is_some_and(|limit| elapsed >= limit)
        {
            self.stopped = Some(StopReason::TimeLimit);
        } else if self.options.budget.is_spent(&self.usage) {
            self.stopped = Some(StopReason::Budget);
        }
        Ok(())
    }

    pub(super) fn finish(
        mut self,
        names: ModelNames,
        method: &mut dyn Method,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Alignment> {
        // Stable: of equal rewards the earlier candidate stays first.
        self.ranked
            .sort_by(|a, b| b.reward.partial_cmp(&a.reward).unwrap_or(Ordering::Equal));
        let rewards: Vec<f64> = self.ranked.iter().map_while(|c| c.reward).collect();
        let answer = match rewards.is_empty() {
            true => 0,
            false => method.answer(&rewards).min(rewards.len() - 1),
        };
        let answer = self.ranked.get(answer).filter(|c| c.reward.is_some());
        let Some(best) = answer.cloned() else {
            return Err(self.no_answer());
        };
        self.timings.total_seconds = self.started.elapsed().as_secs_f64();
        self.timings.tokens_per_second =
            self.usage.generated_tokens as f64 / self.timings.generation_seconds.max(1e-9);
        let stop = self.stopped.unwrap_or(StopReason::Completed);
        observe(&Event::RunFinished {
            stop,
            reward: best.reward,
            usage: self.usage,
            timings: self.timings,
        });
        Ok(Alignment {
            prompt: self.prompt.to_owned(),
            response: best.text,
            reward: best.reward.unwrap_or(f64::NAN),
            held_out: best.held_out,
            method: self.options.method.name(),
            seed: self.options.options.seed,
            samples: self.options.samples(),
            stop,
            iterations: self.iterations,
            usage: self.usage,
            timings: self.timings,
            names,
            candidates: self.ranked,
        })
    }

    fn no_answer(&self) -> Error {
        let Failures { empty, other, last } = &self.failures;
        match (empty, other) {
            (0, 0) => Error::Run(
                "stopped before a candidate had any token; nothing to answer with".into(),
            ),
            (_, 0) => Error::Run(format!(
                "every candidate is empty ({empty} of {empty}): the model ends its turn at once; \
                 check the prompt and the chat template (--chat-template, --no-chat)"
            )),
            _ => Error::Reward(format!(
                "no response could be scored: {other} of {} failed, the last with: {last}",
                empty + other
            )),
        }
    }
}
