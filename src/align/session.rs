//! Requests that come and go on one rollout: what a server drives.
//!
//! A [`Session`] is to a [`Batch`] what [`Aligner::align`](super::Aligner::align) is to a run:
//! reasoning, where the model thinks, then a search behind each. Nothing waits: every
//! [`turn`](Session::turn) goes a step on with every candidate of every request, and the answer to a
//! request is, to the byte, the one that it has alone (dense models on the CPU).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::events::{EventKind, RunId};
use super::record::Alignment;
use super::request::{AlignOptions, Prompt};
use super::rewards::{Rewards, RunRewards};
use super::share::Share;
use super::think::{Answers, Opened, Search, Thought, close, opened, reasonings};
use super::{Aligner, Batch, check_scale};
use crate::error::{Error, Result};
use crate::llama::ReasoningMarkers;
use crate::method::{Method, Rounds};
use crate::rollout::{JobId, PromptId};
use crate::stop::Stop;

/// What becomes of the method of a request before it begins.
pub type Wrap = dyn Fn(Box<dyn Method>) -> Box<dyn Method> + Send;

/// A request.
pub struct Request {
    /// The prompt as the reward sees it.
    pub prompt: Prompt,
    /// The same as the model sees it.
    pub opened: Opened,
    /// What is asked for; a length that the context has no room for is cut to what it has.
    pub options: AlignOptions,
    /// Reasonings to search behind, where the model thinks.
    pub reasonings: usize,
    /// What becomes of its method; it may watch what is written.
    pub wrap: Option<Box<Wrap>>,
    /// Asks for the best answer so far.
    pub stop: Stop,
    /// What of it is written here, where other processes have their share as well; its prompt is one
    /// that the model does not think about.
    pub share: Option<Share>,
}

/// What is told of a request.
pub enum Told<'a> {
    /// What the model thought before its answers.
    Reasoning(&'a str),
    /// What happens in a search.
    Event(&'a EventKind),
}

/// A generator with the requests that share it.
pub struct Session {
    aligner: Aligner,
    requests: BTreeMap<RunId, Member>,
    /// The request of each run, and what its answers follow.
    runs: HashMap<RunId, (RunId, Thought)>,
    begun: u64,
}

struct Member {
    request: Request,
    begun: Instant,
    reasoning_seconds: f64,
    /// Reasonings that are being written.
    thinking: Option<Thinking>,
    answers: Answers,
}

struct Thinking {
    prompt: PromptId,
    markers: ReasoningMarkers,
    jobs: Vec<JobId>,
}

/// The rewards of requests, as their runs ask for them.
struct OfRuns<'a> {
    runs: &'a HashMap<RunId, (RunId, Thought)>,
    rewards: &'a mut dyn Rewards,
}

impl Rewards for OfRuns<'_> {
    fn of(&mut self, run: RunId) -> RunRewards<'_> {
        let request = self.runs.get(&run).map_or(run, |(request, _)| *request);
        self.rewards.of(request)
    }
}

impl Session {
    /// Takes a generator whose [context](super::EngineOptions::context) is given: it is made here.
    ///
    /// # Errors
    /// [`Error::Field`] without one, or where the memory has no room for it.
    pub fn new(mut aligner: Aligner) -> Result<Self> {
        if aligner.options.context.is_none() {
            return Err(Error::field("context", "not given"));
        }
        aligner.batch_for(0, 0)?;
        Ok(Self {
            aligner,
            requests: BTreeMap::new(),
            runs: HashMap::new(),
            begun: 0,
        })
    }

    /// Tokens of a response that there is room for behind a prompt.
    ///
    /// # Errors
    /// [`Error::Field`] where there is none.
    pub fn room(&self, prompt: &Opened) -> Result<usize> {
        let length = prompt.tokens.len() + self.aligner.reasoning_tokens(prompt);
        self.aligner.longest(length, Rounds::TO_THE_END)
    }

    /// Whether no request is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether nothing is to be written: all requests wait for their scores.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.aligner.batch.as_ref().is_some_and(Batch::waits)
    }

    /// Requests in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// The places of the batch: whose candidate is written in each.
    #[must_use]
    pub fn places(&self) -> Vec<Option<RunId>> {
        let Some(batch) = &self.aligner.batch else {
            return Vec::new();
        };
        let thinks = |member: &Member, job| {
            let thinking = member.thinking.as_ref();
            thinking.is_some_and(|thinking| thinking.jobs.contains(&job))
        };
        let of = |(job, run): (JobId, Option<RunId>)| match run {
            Some(run) => self.runs.get(&run).map(|(request, _)| *request),
            None => {
                let mut all = self.requests.iter();
                all.find(|(_, m)| thinks(m, job)).map(|(id, _)| *id)
            }
        };
        batch.places().map(|place| place.and_then(of)).collect()
    }

    /// Begins a request; it is known under the answer from here on.
    ///
    /// # Errors
    /// [`Error::Field`] for options out of range or a prompt that does not fit, and those of the
    /// method.
    pub fn begin(&mut self, mut request: Request) -> Result<RunId> {
        request.options = request.opened.options(&request.options);
        let rounds = &mut request.options.rounds;
        rounds.max_tokens = rounds.max_tokens.min(self.room(&request.opened)?);
        request.options.validate()?;
        check_scale(&request.options, request.reasonings)?;
        let id = RunId(self.begun);
        self.begun += 1;
        let mut member = Member {
            request,
            begun: Instant::now(),
            reasoning_seconds: 0.0,
            thinking: None,
            answers: Answers::default(),
        };
        if let Err(error) = self.think(id, &mut member) {
            self.cancel(id);
            return Err(error);
        }
        self.requests.insert(id, member);
        Ok(id)
    }

    /// Begins the reasoning of a request; where there is none, its search.
    fn think(&mut self, id: RunId, member: &mut Member) -> Result<()> {
        let request = &member.request;
        let budget = self.aligner.options.reasoning.budget;
        let Some(markers) = request.opened.thinks() else {
            let thought = Thought {
                tokens: request.opened.tokens.clone(),
                text: None,
                written: 0,
            };
            return self.search(id, member, vec![thought]);
        };
        if budget == 0 {
            let before = opened(&self.aligner.model, &request.opened, markers);
            let thought = close(&self.aligner.model, &before, markers, None);
            return self.search(id, member, vec![thought]);
        }
        let batch = self.aligner.batch.as_mut().ok_or_else(gone)?;
        let shape = (request.reasonings.max(1), budget);
        let (rollout, options) = (batch.rollout_mut(), &request.options);
        let (prompt, jobs) = reasonings(rollout, &request.opened, markers, options, shape)?;
        let jobs = jobs.map(|job| batch.submit_aside(job));
        member.thinking = Some(Thinking {
            prompt,
            markers,
            jobs: jobs.collect::<Result<_>>()?,
        });
        Ok(())
    }

    /// Begins the searches of a request, one behind each thought.
    fn search(&mut self, id: RunId, member: &mut Member, thoughts: Vec<Thought>) -> Result<()> {
        let Aligner { facts, batch, .. } = &mut self.aligner;
        let batch = batch.as_mut().ok_or_else(gone)?;
        let Request {
            prompt,
            options,
            wrap,
            stop,
            share,
            ..
        } = &mut member.request;
        for thought in thoughts {
            let rounds = options.rounds.on(&thought.tokens);
            let method = options.method.build(&rounds, facts)?;
            let method = match wrap {
                Some(wrap) => wrap(method),
                None => method,
            };
            let search = Search {
                number: 0,
                prompt,
                thought,
                options: options.clone(),
                method: Some(method),
                share: share.take(),
            };
            let (run, thought) = search.begin(batch, facts, stop)?;
            member.answers.missing += 1;
            self.runs.insert(run, (id, thought));
        }
        Ok(())
    }

    /// Takes a request out, without an answer; the others go on.
    pub fn cancel(&mut self, request: RunId) {
        let member = self.requests.remove(&request);
        let Some(batch) = &mut self.aligner.batch else {
            return;
        };
        if let Some(thinking) = member.and_then(|member| member.thinking) {
            thinking
                .jobs
                .iter()
                .for_each(|job| drop(batch.take_aside(*job)));
            batch.rollout_mut().forget_prompt(thinking.prompt);
        }
        self.runs.retain(|run, (of, _)| {
            let other = *of != request;
            if !other {
                batch.cancel(*run);
            }
            other
        });
    }

    /// A step of every candidate that is being written, and whatever becomes possible by it.
    /// Answers with the requests that are over. `rewards` and `observe` know requests by the number
    /// that [`begin`](Self::begin) gave.
    pub fn turn(
        &mut self,
        rewards: &mut dyn Rewards,
        observe: &mut dyn FnMut(RunId, Told<'_>),
    ) -> Vec<(RunId, Result<Alignment>)> {
        let mut ended = Vec::new();
        for id in self.thought() {
            if let Err(error) = self.answer_behind(id, observe) {
                ended.push((id, Err(error)));
            }
        }
        let Some(batch) = &mut self.aligner.batch else {
            return ended;
        };
        let runs = &self.runs;
        let mut rewards = OfRuns { runs, rewards };
        let over = batch.turn(&mut rewards, &mut |event| {
            if let Some((request, _)) = runs.get(&event.run) {
                observe(*request, Told::Event(&event.kind));
            }
        });
        for (run, result) in over {
            let Some((id, thought)) = self.runs.remove(&run) else {
                continue;
            };
            let Some(member) = self.requests.get_mut(&id) else {
                continue;
            };
            member.answers.take(result.map(|answer| thought.of(answer)));
            if member.answers.missing == 0 {
                let seconds = member.reasoning_seconds;
                let best = std::mem::take(&mut member.answers).best();
                let best = best.map(|mut answer| {
                    answer.timings.reasoning_seconds = seconds;
                    answer.timings.total_seconds += seconds;
                    answer
                });
                ended.push((id, best));
            }
        }
        for (id, _) in &ended {
            self.cancel(*id);
        }
        ended
    }

    /// The requests whose reasoning is over, or has to be.
    fn thought(&self) -> Vec<RunId> {
        let Some(batch) = &self.aligner.batch else {
            return Vec::new();
        };
        let over = |(_, member): &(&RunId, &Member)| {
            let late = |limit| member.begun.elapsed().as_secs_f64() >= limit;
            let ends = || {
                let limit = member.request.options.budget.seconds;
                member.request.stop.is_requested() || limit.is_some_and(late)
            };
            let jobs = |thinking: &Thinking| thinking.jobs.iter().all(|job| batch.is_over(*job));
            let thinking = member.thinking.as_ref();
            thinking.is_some_and(|thinking| jobs(thinking) || ends())
        };
        let all = self.requests.iter().filter(over);
        all.map(|(id, _)| *id).collect()
    }

    /// Closes the reasoning of a request, and begins its searches.
    fn answer_behind(&mut self, id: RunId, observe: &mut dyn FnMut(RunId, Told<'_>)) -> Result<()> {
        let Some(mut member) = self.requests.remove(&id) else {
            return Ok(());
        };
        let thoughts = self.thoughts(&mut member);
        let searched = thoughts.and_then(|thoughts| {
            for text in thoughts.iter().filter_map(|thought| thought.text.as_ref()) {
                observe(id, Told::Reasoning(text));
            }
            self.search(id, &mut member, thoughts)
        });
        self.requests.insert(id, member);
        searched
    }

    fn thoughts(&mut self, member: &mut Member) -> Result<Vec<Thought>> {
        let Some(thinking) = member.thinking.take() else {
            return Ok(Vec::new());
        };
        let model = Arc::clone(&self.aligner.model);
        let batch: &mut Batch = self.aligner.batch.as_mut().ok_or_else(gone)?;
        let before = opened(&model, &member.request.opened, thinking.markers);
        batch.rollout_mut().forget_prompt(thinking.prompt);
        let taken: Vec<_> = thinking
            .jobs
            .iter()
            .map(|job| batch.take_aside(*job))
            .collect();
        let closed = taken
            .into_iter()
            .map(|written| Ok(close(&model, &before, thinking.markers, written?)));
        let thoughts = closed.collect();
        member.reasoning_seconds = member.begun.elapsed().as_secs_f64();
        if let Some(seconds) = &mut member.request.options.budget.seconds {
            *seconds = (*seconds - member.reasoning_seconds).max(f64::MIN_POSITIVE);
        }
        thoughts
    }
}

fn gone() -> Error {
    Error::Run("the generator is gone".into())
}
