//! Many runs on one rollout.
//!
//! A [`Batch::turn`] asks every run what it wants generated, goes a step on with every candidate,
//! hands candidates to their runs, and scores the iterations that are complete: the candidates of
//! one run fill the gaps of another, and those of its own next iteration where its method does not
//! wait for outcomes. No run waits for another's iteration, and none can change
//! another's answer: the bytes are those of a batch of its own (dense models on the CPU). What the
//! clock decides is not among them: scoring takes its time of the turn, unless a reward
//! [scores elsewhere](crate::reward::Reward::begin); then the others go on meanwhile. Nor is what a judge that
//! several runs share had to read anew ([`Usage::reward_tokens`](super::Usage::reward_tokens)), nor
//! what was begun and thrown away when a run ended early.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::events::{Event, RunId};
use super::open::Seat;
use super::record::{Alignment, ModelNames};
use super::request::{AlignOptions, Prompt};
use super::rewards::Rewards;
use super::run::Run;
use super::share::Share;
use crate::error::{Error, Result};
use crate::llama::{Model, Token};
use crate::method::{Method, Proposal};
use crate::rollout::{Beginning, Candidate, Job, JobId, PromptId, Rollout, RolloutOptions};
use crate::stop::Stop;

/// A rollout with the runs that share it.
pub struct Batch {
    rollout: Rollout,
    runs: BTreeMap<RunId, Member>,
    /// Which candidate of which run a job is.
    jobs: HashMap<JobId, (RunId, Seat)>,
    /// Jobs of no run, and what has become of them.
    aside: HashMap<JobId, Option<Result<Candidate>>>,
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
            aside: HashMap::new(),
            added: 0,
        })
    }

    /// The rollout.
    #[must_use]
    pub fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// The same, for jobs beside the runs.
    pub(super) fn rollout_mut(&mut self) -> &mut Rollout {
        &mut self.rollout
    }

    /// Submits a job of no run.
    pub(super) fn submit_aside(&mut self, job: Job) -> Result<JobId> {
        let id = self.rollout.submit(job)?;
        self.aside.insert(id, None);
        Ok(id)
    }

    /// Whether a job of no run is over.
    pub(super) fn is_over(&self, job: JobId) -> bool {
        self.aside.get(&job).is_none_or(Option::is_some)
    }

    /// Takes a job of no run out, with what it has written; `None` where that is nothing.
    pub(super) fn take_aside(&mut self, job: JobId) -> Result<Option<Candidate>> {
        match self.aside.remove(&job).flatten() {
            Some(done) => done.map(Some),
            None => Ok(self.rollout.cancel(job)),
        }
    }

    /// The run that has each of the candidates which are being written, and the job where there is none.
    pub(super) fn places(&self) -> impl Iterator<Item = Option<(JobId, Option<RunId>)>> {
        let of = |job: JobId| (job, self.jobs.get(&job).map(|(run, _)| *run));
        self.rollout.places().map(move |place| place.map(of))
    }

    /// Whether nothing is to be written here: all that are in it wait for their scores, or for others.
    #[must_use]
    pub fn waits(&self) -> bool {
        let waits = |member: &Member| member.run.is_scoring() || member.run.listens();
        self.runs.values().any(waits) && self.jobs.is_empty() && self.aside.is_empty()
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Adds a run of `method`, whatever that of `options` is, on a prompt: as the reward sees it, and
    /// its `tokens`. A request on `stop`, and a limit of time, end the run after the step it is in; finished
    /// candidates are still scored.
    ///
    /// # Errors
    /// [`Error::Field`] for options out of range, or a prompt that does not fit.
    pub fn add(
        &mut self,
        prompt: Prompt,
        tokens: Vec<Token>,
        options: AlignOptions,
        method: Box<dyn Method>,
        stop: Stop,
    ) -> Result<RunId> {
        options.check_limits()?;
        self.rollout
            .check_room(tokens.len(), options.rounds.max_tokens)?;
        let form = options.form.clone();
        let tokens = self.rollout.add_prompt_for(tokens, form)?;
        let id = RunId(self.added);
        self.added += 1;
        let run = Run::new(prompt.into(), options, method, stop);
        let member = Member {
            run,
            prompt: tokens,
            begun: false,
        };
        self.runs.insert(id, member);
        Ok(id)
    }

    /// Leaves this process a `share` of a run that was just added; other processes have theirs.
    pub fn share(&mut self, run: RunId, share: Share) {
        if let Some(member) = self.runs.get_mut(&run) {
            member.run.share(share);
        }
    }

    /// Takes a run out, without an answer; the others go on.
    pub fn cancel(&mut self, run: RunId) {
        self.cancel_jobs(run);
        if let Some(member) = self.runs.remove(&run) {
            self.rollout.forget_prompt(member.prompt);
        }
    }

    /// A step of every candidate that is being written, and whatever becomes possible by it.
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
        for id in self.ids() {
            if let Err(error) = self.look_ahead(id) {
                ended.push((id, Err(error)));
            }
        }
        self.remove(&ended);
        match self.step(rewards) {
            Ok(failed) => ended.extend(failed.into_iter().map(|(id, error)| (id, Err(error)))),
            Err(error) => {
                // One engine for all of them.
                let reason = error.to_string();
                let failed = || Some(Err(Error::Engine(reason.clone())));
                self.aside.values_mut().for_each(|job| *job = failed());
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
        match member.run.is_open() {
            true => Ok(true),
            false => self.submit(id),
        }
    }

    /// Submits further iterations of a run that need not wait for the open ones, as long as there
    /// is room in the rollout.
    fn look_ahead(&mut self, id: RunId) -> Result<()> {
        let may = |run: &Run| run.is_open() && run.looks_ahead();
        while self.rollout.free() > 0
            && self.runs.get(&id).is_some_and(|member| may(&member.run))
            && self.submit(id)?
        {}
        Ok(())
    }

    /// Submits the next iteration of a run; false where there is none.
    fn submit(&mut self, id: RunId) -> Result<bool> {
        let Some(member) = self.runs.get_mut(&id) else {
            return Ok(false);
        };
        let proposals = member.run.propose();
        // Of a shared iteration others may have all.
        let proposed = !proposals.is_empty() || member.run.listens();
        self.write(id, proposals)?;
        Ok(proposed)
    }

    /// Submits candidates of a run.
    fn write(&mut self, id: RunId, proposals: Vec<(Seat, Proposal)>) -> Result<()> {
        let Some(member) = self.runs.get(&id) else {
            return Ok(());
        };
        let (max_tokens, keep_pre_logits) =
            (member.run.max_tokens(), member.run.keeps_pre_logits());
        let alone = member.run.is_alone();
        for (seat, proposal) in proposals {
            let job = self.rollout.submit(Job {
                prompt: member.prompt,
                max_tokens,
                steer: proposal.steer,
                choice: proposal.choice,
                // A candidate alone, and one that must bring its pre-logits, is written whole.
                beginning: match alone || keep_pre_logits {
                    true => Beginning::default(),
                    false => proposal.beginning,
                },
                keep_pre_logits,
                alone,
                // A budget cuts where it ends, and not some tokens behind.
                recalls: !member.run.counts_tokens(),
            })?;
            self.jobs.insert(job, (id, seat));
        }
        Ok(())
    }

    /// A step of every candidate; answers with the runs that cannot go on.
    fn step(&mut self, rewards: &mut dyn Rewards) -> Result<Vec<(RunId, Error)>> {
        let Self {
            rollout,
            runs,
            jobs,
            aside,
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
            let Some(&(id, seat)) = jobs.get(&written.job) else {
                if let (Some(job), Some(done)) = (aside.get_mut(&written.job), written.done) {
                    *job = Some(done);
                }
                continue;
            };
            let Some(member) = runs.get_mut(&id) else {
                continue;
            };
            let job = written.job;
            match member.run.take(seat, written) {
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
    /// iterations that are complete.
    fn close(
        &mut self,
        id: RunId,
        rewards: &mut dyn Rewards,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<()> {
        if let Some(kind) = self.runs.get(&id).and_then(|member| member.run.progress()) {
            observe(&Event { run: id, kind });
        }
        let mut tell = |kind| observe(&Event { run: id, kind });
        let Some(member) = self.runs.get_mut(&id) else {
            return Ok(());
        };
        let back = member.run.hear(self.rollout.context().model(), &mut tell)?;
        member.run.score(&mut rewards.of(id), &mut tell)?;
        self.write(id, back)?;
        while self.stop_or_go_on(id) {
            let Some(member) = self.runs.get_mut(&id) else {
                return Ok(());
            };
            member.run.close(rewards.of(id), &mut tell)?;
        }
        Ok(())
    }

    /// Takes the jobs of a run that is over out of the rollout; whether an iteration is complete
    /// then.
    fn stop_or_go_on(&mut self, id: RunId) -> bool {
        let Some(member) = self.runs.get_mut(&id).filter(|m| m.run.is_open()) else {
            return false;
        };
        let over = member.run.is_over();
        let cancelled = match over {
            true => {
                member.run.stop_listening();
                self.cancel_jobs(id)
            }
            false => Vec::new(),
        };
        self.runs.get_mut(&id).is_some_and(|member| {
            for (seat, candidate) in cancelled {
                member.run.take_cancelled(seat, candidate);
            }
            member.run.is_written()
        })
    }

    /// Takes the jobs of a run out of the rollout, with what they have written.
    fn cancel_jobs(&mut self, run: RunId) -> Vec<(Seat, Option<Candidate>)> {
        let of_run =
            |(job, (id, seat)): (&JobId, &(RunId, Seat))| (*id == run).then_some((*job, *seat));
        let jobs: Vec<(JobId, Seat)> = self.jobs.iter().filter_map(of_run).collect();
        let mut cancelled = Vec::with_capacity(jobs.len());
        for (job, seat) in jobs {
            self.jobs.remove(&job);
            cancelled.push((seat, self.rollout.cancel(job)));
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
