//! Many runs on one rollout.
//!
//! A [`Batch::turn`] asks every run what it wants generated, writes one token of every candidate,
//! hands candidates to their runs, and scores the iterations that are complete: the candidates of
//! one run fill the gaps of another. No run waits for another's iteration, and none can change
//! another's answer: the bytes are those of a batch of its own (dense models on the CPU). What the
//! clock decides is not among them: scoring takes its time of the turn. Nor is what a judge that
//! several runs share had to read anew ([`Usage::reward_tokens`](super::Usage::reward_tokens)).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::events::{Event, RunId};
use super::record::{Alignment, ModelNames};
use super::request::{AlignOptions, Stop};
use super::rewards::Rewards;
use super::run::Run;
use crate::error::{Error, Result};
use crate::llama::{Model, Token};
use crate::method::Method;
use crate::rollout::{Candidate, Job, JobId, PromptId, Rollout, RolloutOptions};

/// A rollout with the runs that share it.
pub struct Batch {
    rollout: Rollout,
    runs: BTreeMap<RunId, Member>,
    /// Which candidate of which run a job is.
    jobs: HashMap<JobId, (RunId, usize)>,
    /// Runs so far.
    pub(super) added: u64,
}

struct Member {
    run: Run,
    prompt: PromptId,
    begun: bool,
}

/// A run that is over, with its answer or why there is none.
pub type Ended = (RunId, Result<Alignment>);

impl Batch {
    /// An empty batch.
    ///
    /// # Errors
    /// Those of [`Rollout::new`].
    pub fn new(model: Arc<Model>, options: &RolloutOptions) -> Result<Self> {
        Ok(Self {
            rollout: Rollout::new(model, options)?,
            runs: BTreeMap::new(),
            jobs: HashMap::new(),
            added: 0,
        })
    }

    /// The rollout.
    #[must_use]
    pub fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// The rollout, for jobs beside the runs; nobody may be in the batch.
    pub(super) fn rollout_mut(&mut self) -> &mut Rollout {
        &mut self.rollout
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Adds a run of `method`, whatever that of `options` is, on a prompt: its `tokens`, and the `text` that the reward sees. A
    /// request on `stop`, and a limit of time, end the run after the step it is in; finished
    /// candidates are still scored.
    ///
    /// # Errors
    /// [`Error::Field`] for options out of range, or a prompt that does not fit.
    pub fn add(
        &mut self,
        text: &str,
        tokens: Vec<Token>,
        options: AlignOptions,
        method: Box<dyn Method>,
        stop: Stop,
    ) -> Result<RunId> {
        options.check_limits()?;
        self.rollout
            .check_room(tokens.len(), options.rounds.max_tokens)?;
        let prompt = self.rollout.add_prompt(tokens)?;
        let id = RunId(self.added);
        self.added += 1;
        let run = Run::new(text.into(), options, method, stop);
        let member = Member {
            run,
            prompt,
            begun: false,
        };
        self.runs.insert(id, member);
        Ok(id)
    }

    /// Takes a run out, without an answer; the others go on.
    pub fn cancel(&mut self, run: RunId) {
        self.cancel_jobs(run);
        if let Some(member) = self.runs.remove(&run) {
            self.rollout.forget_prompt(member.prompt);
        }
    }

    /// One token of every candidate that is being written, and whatever becomes possible by it.
    /// Answers with the runs that are over; an empty batch answers with none.
    pub fn turn(
        &mut self,
        rewards: &mut dyn Rewards,
        observe: &mut dyn FnMut(&Event),
    ) -> Vec<Ended> {
        let mut ended = Vec::new();
        for id in self.ids() {
            match self.propose(id, rewards, observe) {
                Ok(true) => {}
                Ok(false) => ended.extend(self.finish(id, rewards, observe)),
                Err(error) => ended.push((id, Err(error))),
            }
        }
        self.remove(&ended);
        match self.step(rewards) {
            Ok(failed) => ended.extend(failed.into_iter().map(|(id, error)| (id, Err(error)))),
            Err(error) => {
                // One engine for all of them.
                let reason = error.to_string();
                let ids = self.ids().into_iter();
                let first = std::iter::once(error);
                let errors = first.chain(std::iter::repeat_with(|| Error::Engine(reason.clone())));
                ended.extend(ids.zip(errors.map(Err)));
            }
        }
        self.remove(&ended);
        for id in self.ids() {
            if let Err(error) = self.close(id, rewards, observe) {
                ended.push((id, Err(error)));
            }
        }
        self.remove(&ended);
        ended
    }

    fn ids(&self) -> Vec<RunId> {
        self.runs.keys().copied().collect()
    }

    fn remove(&mut self, ended: &[Ended]) {
        for (id, _) in ended {
            self.cancel(*id);
        }
    }

    /// Submits what a run without an open iteration wants generated; false where it is over.
    fn propose(
        &mut self,
        id: RunId,
        rewards: &mut dyn Rewards,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<bool> {
        let Some(member) = self.runs.get_mut(&id) else {
            return Ok(true);
        };
        if !member.begun {
            let kind = member.run.begin(&rewards.of(id))?;
            observe(&Event { run: id, kind });
            member.begun = true;
        }
        if member.run.progress().is_some() {
            return Ok(true);
        }
        let proposals = member.run.propose();
        let proposed = !proposals.is_empty();
        let (max_tokens, keep_pre_logits) =
            (member.run.max_tokens(), member.run.keeps_pre_logits());
        for (index, proposal) in proposals.into_iter().enumerate() {
            let job = self.rollout.submit(Job {
                prompt: member.prompt,
                max_tokens,
                steer: proposal.steer,
                choice: proposal.choice,
                keep_pre_logits,
            })?;
            self.jobs.insert(job, (id, index));
        }
        Ok(proposed)
    }

    /// One token of every candidate; answers with the runs that cannot go on.
    fn step(&mut self, rewards: &mut dyn Rewards) -> Result<Vec<(RunId, Error)>> {
        let Self {
            rollout,
            runs,
            jobs,
            ..
        } = self;
        let model = Arc::clone(rollout.context().model());
        let mut ask = |job, texts: &[Vec<Token>]| {
            let of = jobs.get(&job);
            match of.and_then(|(id, _)| Some((id, runs.get_mut(id)?))) {
                Some((id, member)) => member.run.ask(rewards.of(*id), &model, texts),
                None => Ok(vec![None; texts.len()]),
            }
        };
        let mut failed: Vec<(RunId, Error)> = Vec::new();
        for written in rollout.step(&mut ask)? {
            let Some(&(id, index)) = jobs.get(&written.job) else {
                continue;
            };
            let Some(member) = runs.get_mut(&id) else {
                continue;
            };
            let job = written.job;
            match member.run.take(index, written) {
                Ok(false) => {}
                Ok(true) => drop(jobs.remove(&job)),
                // The first of its candidates says it for all.
                Err(error) if failed.iter().all(|(other, _)| *other != id) => {
                    failed.push((id, error));
                }
                Err(_) => {}
            }
        }
        Ok(failed)
    }

    /// Tells how far a run is, takes it out of the rollout where it is over, and closes its
    /// iteration where that is complete.
    fn close(
        &mut self,
        id: RunId,
        rewards: &mut dyn Rewards,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<()> {
        let Some(member) = self.runs.get_mut(&id) else {
            return Ok(());
        };
        let Some(kind) = member.run.progress() else {
            return Ok(());
        };
        observe(&Event { run: id, kind });
        let over = member.run.is_over();
        if over {
            for (index, candidate) in self.cancel_jobs(id) {
                if let Some(member) = self.runs.get_mut(&id) {
                    member.run.take_cancelled(index, candidate);
                }
            }
        }
        match self.runs.get_mut(&id) {
            Some(member) if member.run.is_written() => {
                let mut tell = |kind| observe(&Event { run: id, kind });
                member.run.close(rewards.of(id), &mut tell)
            }
            _ => Ok(()),
        }
    }

    /// Takes the jobs of a run out of the rollout, with what they have written.
    fn cancel_jobs(&mut self, run: RunId) -> Vec<(usize, Option<Candidate>)> {
        let of_run =
            |(job, (id, index)): (&JobId, &(RunId, usize))| (*id == run).then_some((*job, *index));
        let jobs: Vec<(JobId, usize)> = self.jobs.iter().filter_map(of_run).collect();
        let mut cancelled = Vec::with_capacity(jobs.len());
        for (job, index) in jobs {
            self.jobs.remove(&job);
            cancelled.push((index, self.rollout.cancel(job)));
        }
        cancelled
    }

    fn finish(
        &mut self,
        id: RunId,
        rewards: &mut dyn Rewards,
        observe: &mut dyn FnMut(&Event),
    ) -> Option<Ended> {
        let member = self.runs.remove(&id)?;
        self.rollout.forget_prompt(member.prompt);
        let own = rewards.of(id);
        let names = ModelNames {
            model: self.rollout.context().model().path().display().to_string(),
            reward_model: own.reward.name(),
            held_out_model: own.held_out.map(|reward| reward.name()),
        };
        let mut tell = |kind| observe(&Event { run: id, kind });
        Some((id, member.run.finish(names, &mut tell)))
    }
}
