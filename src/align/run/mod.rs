//! One run: a search for the answer to one prompt, which says what it wants generated and scored,
//! and takes both when it comes.
//!
//! ```text
//! propose ──► candidates being written ──► take ──► is_written ──► close ─┐
//!    ▲                                                                    │
//!    └────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Where the method does not wait for outcomes, candidates of the next iterations fill the places
//! that those of the first leave free; iterations are scored in their order all the same. One that
//! was begun and is not needed, because the run ends before it, is thrown away: its candidates and
//! tokens count as generated, and nothing else is said of them.
//!
//! A run never waits for anything: whoever drives it, alone or among others, is a
//! [`Batch`](super::Batch).

mod scoring;
mod sharing;
mod stops;

use std::sync::Arc;
use std::time::Instant;

use crate::align::LOOK;
use crate::align::divergence::Divergence;
use crate::align::events::EventKind;
use crate::align::open::{Open, Seat};
use crate::align::parts::{self, ScaledPart};
use crate::align::patience::Patience;
use crate::align::record::{Alignment, IterationStats, ModelNames, StopReason, Timings};
use crate::align::request::{AlignOptions, Prompt};
use crate::align::rewards::{Asked, RunRewards, beginnings, samples};
use crate::align::run::scoring::Scoring;
use crate::align::share::Share;
use crate::align::tally::Tally;
use crate::error::{Error, Result};
use crate::llama::{Model, Token};
use crate::method::{Method, Outcome, Proposal, Ranked};
use crate::rollout::{Candidate, Written};
use crate::stop::Stop;

/// One run.
pub(super) struct Run {
    prompt: Arc<Prompt>,
    options: AlignOptions,
    stop: Stop,
    method: Box<dyn Method>,
    started: Instant,
    open: Open,
    scoring: Option<Scoring>,
    /// When the iteration that is scored next was begun, or came to its turn.
    begun: Instant,
    /// The same without the method's own time.
    asked: Instant,
    /// Tokens generated since then.
    tokens: usize,
    tally: Tally,
    timings: Timings,
    iterations: Vec<IterationStats>,
    /// The parts of the reward, once the first iteration is scored.
    parts: Option<Vec<ScaledPart>>,
    held_out_failed: bool,
    divergence: Divergence,
    patience: Patience,
    stopped: Option<StopReason>,
    /// Why the reward has failed as a whole, which ended the run.
    failure: Option<String>,
    /// How many candidates of the iteration that is open the budget of tokens pays for, where it
    /// is not all.
    paid: Option<usize>,
    /// Reward calls left to a method that asks while responses are written; one is kept for the
    /// response itself.
    calls_left: usize,
    /// Whether such a method asked for more than that: it cannot do what it is for any longer.
    unguided: bool,
    /// What of it is written and scored here, where that is not all.
    share: Option<Share>,
    /// What is written elsewhere of the iteration that is open.
    away: Vec<(Seat, Proposal)>,
}

impl Run {
    /// A run on `prompt`, as the reward sees it.
    pub(super) fn new(
        prompt: Arc<Prompt>,
        options: AlignOptions,
        mut method: Box<dyn Method>,
        stop: Stop,
    ) -> Self {
        method.stops_with(&stop);
        let now = Instant::now();
        Self {
            prompt,
            stop,
            method,
            started: now,
            open: Open::default(),
            scoring: None,
            begun: now,
            asked: now,
            tokens: 0,
            tally: Tally::default(),
            timings: Timings::default(),
            iterations: Vec::new(),
            parts: None,
            held_out_failed: false,
            divergence: Divergence::default(),
            patience: Patience::default(),
            stopped: None,
            failure: None,
            paid: None,
            calls_left: options.budget.reward_calls.unwrap_or(usize::MAX),
            unguided: false,
            share: None,
            away: Vec::new(),
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
        self.check_share()?;
        let (samples, iterations) = self.method.shape();
        if self.options.reward_scale {
            parts::check(&rewards.reward.parts(), samples)?;
        }
        Ok(EventKind::RunStarted {
            prompt: self.prompt.text().to_owned(),
            method: self.method.name(),
            seed: self.options.rounds.seed,
            samples,
            iterations,
        })
    }

    /// Opens the next iteration: what is to be generated, and for whom. Nothing when the run is at
    /// its end.
    pub(super) fn propose(&mut self) -> Vec<(Seat, Proposal)> {
        if self.stopped.is_some() {
            return Vec::new();
        }
        let (begun, first) = (Instant::now(), !self.is_open());
        let proposals = self.method.propose();
        if proposals.is_empty() {
            return Vec::new();
        }
        if first {
            (self.begun, self.asked) = (begun, Instant::now());
        }
        let seats = self.open.push(proposals.len());
        self.own(seats.zip(proposals).collect())
    }

    /// Whether an iteration is open: being written, or scored.
    pub(super) fn is_open(&self) -> bool {
        self.is_scoring() || self.open.finished().is_some()
    }

    /// Whether the next iteration may be begun before the open ones are scored: the method does
    /// not wait for them, and no budget ends with them. One of tokens might, whatever is open.
    pub(super) fn looks_ahead(&self) -> bool {
        let (budget, usage) = (&self.options.budget, self.open.usage(self.tally.usage));
        let waits = self.method.waits() || self.share.is_some();
        !waits && budget.generated_tokens.is_none() && !budget.is_spent(&usage)
    }

    /// Whether it never has two candidates at once.
    pub(super) fn is_alone(&self) -> bool {
        let (samples, iterations) = self.method.shape();
        samples == 1 && (iterations == 1 || self.method.waits())
    }

    /// Most tokens of a response.
    pub(super) fn max_tokens(&self) -> usize {
        self.options.rounds.max_tokens
    }

    /// Whether it ends with a number of tokens.
    pub(super) fn counts_tokens(&self) -> bool {
        self.options.budget.generated_tokens.is_some()
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
        let texts = beginnings(model, &self.options.form, responses);
        let written = texts.iter().enumerate();
        let written: Vec<(usize, &String)> = written
            .filter_map(|(i, text)| Some((i, text.as_ref()?)))
            .collect();
        let mut answers = vec![None; texts.len()];
        self.unguided |= written.len() >= self.calls_left;
        if written.is_empty() || self.unguided {
            return Ok(answers);
        }
        if self.share.is_some() {
            let reason = "this `method` asks for rewards while responses are written, each of which \
                          would be somewhere else; leave it out";
            return Err(Error::field("workers", reason));
        }
        if self.options.reward_scale {
            let reason = "this `method` asks for rewards before any iteration has deviations to divide \
                          them by; leave it out";
            return Err(Error::field("reward-scale", reason));
        }
        self.calls_left -= written.len();
        let samples = samples(&self.prompt, written.iter().map(|(_, text)| text.as_str()));
        let mut asked = Asked::of(&mut *rewards.reward, &samples, &[]);
        while !asked.is_there() && !asked.becomes_there(&self.stop, false) {
            std::thread::sleep(LOOK);
        }
        let scores = match asked.scores() {
            Ok(scores) => scores,
            Err(error) => {
                self.end_by(error)?;
                return Ok(answers);
            }
        };
        self.tally.usage.reward_calls += written.len();
        for ((index, _), score) in written.into_iter().zip(scores) {
            if let Ok(score) = score {
                self.tally.usage.reward_tokens += score.tokens;
                answers[index] = Some(score.reward).filter(|r| r.is_finite());
            }
        }
        Ok(answers)
    }

    /// Takes what a step has written of a candidate; whether that was its end.
    pub(super) fn take(&mut self, seat: Seat, written: Written) -> Result<bool> {
        self.tokens += 1;
        self.open.take(seat, written)
    }

    /// Takes a candidate that a stop has cut short, or kept from being written.
    pub(super) fn take_cancelled(&mut self, seat: Seat, candidate: Option<Candidate>) {
        self.open.take_cancelled(seat, candidate);
    }

    /// How far the iteration is that is scored next.
    pub(super) fn progress(&self) -> Option<EventKind> {
        Some(EventKind::Progress {
            iteration: self.iterations.len(),
            tokens: self.tokens,
            finished: self.open.finished()?,
            seconds: self.asked.elapsed().as_secs_f64(),
        })
    }

    /// Whether all candidates of the iteration that is scored next are there.
    pub(super) fn is_written(&self) -> bool {
        !self.is_scoring() && self.open.is_written()
    }

    /// Has the first of the open iterations scored, and closes it once its scores are there. Responses
    /// cut short by a stop are scored only when there is nothing else to answer with.
    pub(super) fn close(
        &mut self,
        mut rewards: RunRewards<'_>,
        tell: &mut dyn FnMut(EventKind),
    ) -> Result<()> {
        let Some(iteration) = self.open.pop() else {
            return Ok(());
        };
        self.timings.generation_seconds += self.asked.elapsed().as_secs_f64();
        let mut candidates = iteration.candidates;
        if let Some(paid) = self.paid {
            // The first one, cut short, is better than no answer.
            candidates.truncate(paid.max(usize::from(self.tally.best().is_none())));
        }
        for candidate in candidates.iter().flatten() {
            self.tally.usage.candidates += 1;
            self.tally.usage.generated_tokens += candidate.tokens.len() - candidate.known;
        }
        // There is an answer, and these are not to change it: the run ended without them.
        if self.out_of_guidance() || self.ended_before() || self.failure.is_some() {
            self.asked = Instant::now();
            return Ok(());
        }
        if let Some(error) = iteration.failed {
            return Err(error);
        }
        let wanted = self.wanted(candidates, tell);
        self.ask_for(&mut rewards, wanted);
        self.score(&mut rewards, tell)
    }

    /// Gives the outcomes to the method, and puts the iteration down, for which so many tokens were
    /// generated.
    fn observe(
        &mut self,
        outcomes: &[Outcome<'_>],
        generated: usize,
        tell: &mut dyn FnMut(EventKind),
    ) -> Result<()> {
        let control = Instant::now();
        let telemetry = self.method.observe(outcomes)?;
        self.timings.control_seconds += control.elapsed().as_secs_f64();
        let Self { method, tally, .. } = self;
        tally.rank(|reward, price| method.worth(reward, price));
        let index = self.iterations.len();
        let stats = IterationStats {
            telemetry,
            tokens: generated,
            seconds: self.begun.elapsed().as_secs_f64(),
            ..tally.stats(index)
        };
        tell(EventKind::IterationDone(stats.clone()));
        self.iterations.push(stats);
        let diverged = self.divergence.observe(&self.tally.pairs(index));
        let (rewards, best) = (self.tally.rewards(index), self.tally.best());
        let best = best.and_then(|c| Some(self.method.worth(c.reward?, c.price.as_ref())));
        let waited = self.patience.observe(&rewards, best);
        self.stopped = self.stopped.or_else(|| self.why_stop(diverged, waited));
        // What was begun ahead counts from here on.
        self.tokens = 0;
        self.asked = Instant::now();
        self.begun = self.asked;
        Ok(())
    }

    /// The answer, once there is nothing more to propose.
    pub(super) fn finish(
        mut self,
        names: ModelNames,
        tell: &mut dyn FnMut(EventKind),
    ) -> Result<Alignment> {
        let ranked = self.tally.ranked.iter().map_while(|c| {
            Some(Ranked {
                reward: c.reward?,
                text: &c.text,
            })
        });
        let ranked: Vec<Ranked<'_>> = ranked.collect();
        let answer = match ranked.is_empty() {
            true => 0,
            false => self.method.answer(&ranked).min(ranked.len() - 1),
        };
        let answer = self.tally.ranked.get(answer).filter(|c| c.reward.is_some());
        let Some(best) = answer.cloned() else {
            let failure = self.failure.map(Error::Reward);
            return Err(failure.unwrap_or_else(|| self.tally.no_answer()));
        };
        self.timings.total_seconds = self.started.elapsed().as_secs_f64();
        self.timings.tokens_per_second =
            self.tally.usage.generated_tokens as f64 / self.timings.generation_seconds.max(1e-9);
        let stop = self.stopped.unwrap_or(StopReason::Completed);
        let tokens_saved = self.tokens_saved();
        tell(EventKind::RunFinished {
            tokens_saved,
            stop,
            reward: best.reward,
            usage: self.tally.usage,
            timings: self.timings,
        });
        Ok(Alignment {
            prompt: self.prompt.text().to_owned(),
            response: best.text,
            reasoning: best.reasoning,
            reward: best.reward.unwrap_or(f64::NAN),
            parts: best.parts,
            price: best.price,
            held_out: best.held_out,
            method: self.method.name(),
            seed: self.options.rounds.seed,
            samples: self.method.shape().0,
            reward_parts: self.parts.unwrap_or_default(),
            stop,
            failure: self.failure,
            tokens_saved,
            iterations: self.iterations,
            usage: self.tally.usage,
            timings: self.timings,
            names,
            candidates: self.tally.ranked,
        })
    }
}
