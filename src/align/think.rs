//! Reasoning before a search: written once, and shared by all candidates, which are answers alone.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::request::{AlignOptions, Prompt};
use super::share::Share;
use super::{Aligner, Alignment, Batch, RunId};
use crate::control::{NoiseKey, prompt_seed};
use crate::error::{Error, Result};
use crate::llama::{ChatOptions, ChatTemplate, Model, ReasoningMarkers, Token, Turn};
use crate::method::{Facts, Method};
use crate::rollout::{
    Candidate, End, Form, Job, PromptId, Rollout, SamplingOptions, Steer, TokenChoice,
};
use crate::stop::Stop;

/// How reasoning is drawn: what the makers of DeepSeek-R1 and Qwen3 recommend.
const CHOICE: TokenChoice = TokenChoice::Sample(SamplingOptions {
    temperature: 0.6,
    top_k: 20,
    top_p: 0.95,
    min_p: 0.0,
});

/// Reasoning before a search, where the model [thinks](crate::llama::Think).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasoningOptions {
    /// Most tokens of it (default 1024); it is closed then, and 0 closes it at once.
    pub budget: usize,
    /// How many are written (default 1). Each has a search of its own, and the best answer of all is
    /// the answer.
    pub count: usize,
}

impl Default for ReasoningOptions {
    fn default() -> Self {
        Self {
            budget: 1024,
            count: 1,
        }
    }
}

impl ReasoningOptions {
    pub(super) fn validate(self) -> Result<()> {
        match self.count {
            0 => Err(Error::field("reasonings", "0; give at least 1")),
            _ => Ok(()),
        }
    }
}

/// A prompt as the model sees it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// The conversation that it is, where it is one.
    pub turn: Option<Turn>,
}

impl Opened {
    /// That of `prompt`.
    ///
    /// # Errors
    /// [`Error::Model`] for a conversation without a chat template, [`Error::Field`] when the
    /// template refuses it.
    pub fn new(model: &Model, chat: &ChatOptions, prompt: &Prompt) -> Result<Self> {
        Ok(match prompt {
            Prompt::Raw(text) => Self {
                tokens: model.tokenize(text, true, true),
                turn: None,
            },
            Prompt::Chat(messages) => {
                let template = ChatTemplate::new(model, chat)?;
                let (tokens, turn) = template.tokenize_open(model, messages)?;
                let turn = Some(turn);
                Self { tokens, turn }
            }
        })
    }

    /// How reasoning is marked, where the model writes any before the answer.
    pub(crate) fn thinks(&self) -> Option<ReasoningMarkers> {
        let turn = self.turn.as_ref().filter(|turn| turn.thinks)?;
        turn.reasoning
    }

    /// The same options for responses to it.
    pub(super) fn options(&self, options: &AlignOptions) -> AlignOptions {
        let mut options = options.clone();
        let known = self.turn.as_ref().and_then(|turn| turn.reasoning);
        options.form.reasoning = options.form.reasoning.or(known);
        options
    }
}

/// A prompt with the reasoning that its answers follow.
#[derive(Clone)]
pub(super) struct Thought {
    pub(super) tokens: Vec<Token>,
    /// The reasoning, where there is any.
    pub(super) text: Option<String>,
    /// Tokens that were written of it.
    pub(super) written: usize,
}

/// Thoughts, and what they depend on.
pub(super) struct Thoughts {
    prompt: Vec<Token>,
    seed: u64,
    thoughts: Vec<Thought>,
    seconds: f64,
}

impl Thought {
    /// An answer behind it, with what it took.
    pub(super) fn of(self, mut answer: Alignment) -> Alignment {
        answer.reasoning = match (self.text, answer.reasoning) {
            (Some(shared), Some(own)) => Some(format!("{shared}\n\n{own}")),
            (shared, own) => shared.or(own),
        };
        answer.usage.reasoning_tokens += self.written;
        answer
    }
}

/// A search for the answer behind one thought, to the prompt of this number.
pub(super) struct Search<'a> {
    pub(super) number: usize,
    pub(super) prompt: &'a Prompt,
    pub(super) thought: Thought,
    pub(super) options: AlignOptions,
    /// In place of that of the options.
    pub(super) method: Option<Box<dyn Method>>,
    /// What of it is written here.
    pub(super) share: Option<Share>,
}

impl Search<'_> {
    /// Begins it in `batch`.
    pub(super) fn begin(
        self,
        batch: &mut Batch,
        facts: &Facts,
        stop: &Stop,
    ) -> Result<(RunId, Thought)> {
        let rounds = self.options.rounds.on(&self.thought.tokens);
        let method = match self.method {
            Some(method) => method,
            None => self.options.method.build(&rounds, facts)?,
        };
        let tokens = self.thought.tokens.clone();
        let run = batch.add(
            self.prompt.clone(),
            tokens,
            self.options,
            method,
            stop.clone(),
        )?;
        if let Some(share) = self.share {
            batch.share(run, share);
        }
        Ok((run, self.thought))
    }
}

/// What the searches for one answer have come to.
#[derive(Default)]
pub(super) struct Answers {
    /// Searches that go on, or are not begun yet.
    pub(super) missing: usize,
    best: Option<Alignment>,
    failed: Option<Error>,
}

impl Answers {
    /// Takes what one has come to.
    pub(super) fn take(&mut self, result: Result<Alignment>) {
        self.missing = self.missing.saturating_sub(1);
        match (result, self.best.take()) {
            (Ok(answer), None) => self.best = Some(answer),
            (Ok(answer), Some(best)) => {
                let usage = best.usage.and(&answer.usage);
                let failure = best.failure.clone().or(answer.failure.clone());
                let mut better = match answer.reward > best.reward {
                    true => answer,
                    false => best,
                };
                better.usage = usage;
                if let Some(reason) = failure {
                    better = better.cut_short_by(&Error::Reward(reason));
                }
                self.best = Some(better);
            }
            (Err(error), best) => {
                self.best = best.map(|best| best.cut_short_by(&error));
                self.failed = self.failed.take().or(Some(error));
            }
        }
    }

    /// The best answer with what all of them took, or why there is none.
    pub(super) fn best(self) -> Result<Alignment> {
        let failed = self.failed;
        let none = || failed.unwrap_or_else(|| Error::Run("nothing was searched".into()));
        self.best.ok_or_else(none)
    }
}

/// The chance of one reasoning.
struct Draw {
    seed: u64,
    number: u32,
}

impl Steer for Draw {
    fn uniform(&self, position: usize) -> f64 {
        let key = NoiseKey {
            seed: self.seed,
            iteration: u32::MAX,
            candidate: self.number,
            position: u32::try_from(position).unwrap_or(u32::MAX),
        };
        key.uniform()
    }
}

impl Aligner {
    /// Most tokens that reasoning behind a prompt takes, its markers included; 0 where there is none.
    pub(super) fn reasoning_tokens(&self, opened: &Opened) -> usize {
        let Some(markers) = opened.thinks() else {
            return 0;
        };
        let around = [markers.beginning(), markers.ending()];
        let around = around.map(|text| self.model.tokenize(&text, false, true).len());
        self.options.reasoning.budget + around.iter().sum::<usize>()
    }

    /// The thoughts behind every one of these prompts, `count` each, or one that is the prompt alone
    /// where the model does not think; and the seconds that they took. Those of the last prompt are
    /// known, and take again what they took: who comes second has no gain by it. Reasoning ends
    /// early after a request on `stop`, or at the limit of time.
    pub(super) fn think(
        &mut self,
        prompts: &[Opened],
        options: &AlignOptions,
        count: usize,
        stop: &Stop,
    ) -> Result<(Vec<Vec<Thought>>, f64)> {
        let seed = options.rounds.seed;
        if let ([one], Some(known)) = (prompts, &self.thoughts)
            && (&known.prompt, known.seed) == (&one.tokens, seed)
            && known.thoughts.len() == count
        {
            return Ok((vec![known.thoughts.clone()], known.seconds));
        }
        let begun = Instant::now();
        let limit = options.budget.seconds.map(Duration::from_secs_f64);
        let ends = || stop.is_requested() || limit.is_some_and(|limit| begun.elapsed() >= limit);
        let written = self.reason(prompts, options, count, &ends)?;
        let (whole, seconds) = (!ends(), begun.elapsed().as_secs_f64());
        let mut written = written.into_iter();
        let budget = self.options.reasoning.budget;
        let behind = |prompt: &Opened| match prompt.thinks() {
            None => vec![Thought {
                tokens: prompt.tokens.clone(),
                text: None,
                written: 0,
            }],
            Some(markers) => {
                let before = opened(&self.model, prompt, markers);
                let closed = |candidate| close(&self.model, &before, markers, candidate);
                match budget {
                    0 => vec![closed(None)],
                    _ => written.by_ref().take(count).map(closed).collect(),
                }
            }
        };
        let all: Vec<Vec<Thought>> = prompts.iter().map(behind).collect();
        if let ([one], [thoughts], true) = (prompts, &all[..], whole) {
            self.thoughts = Some(Thoughts {
                prompt: one.tokens.clone(),
                seed,
                thoughts: thoughts.clone(),
                seconds,
            });
        }
        Ok((all, seconds))
    }

    /// Writes `count` reasonings behind each of these prompts that the model thinks about, in their
    /// order, until `ends`; `None` for those that were not begun.
    fn reason(
        &mut self,
        prompts: &[Opened],
        options: &AlignOptions,
        count: usize,
        ends: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<Candidate>>> {
        let budget = self.options.reasoning.budget;
        let thinkers = prompts.iter().filter_map(|p| Some((p, p.thinks()?)));
        let thinkers: Vec<(&Opened, ReasoningMarkers)> = thinkers.collect();
        if thinkers.is_empty() || budget == 0 {
            return Ok(Vec::new());
        }
        let places = |p: &Opened| p.tokens.len() + self.reasoning_tokens(p);
        let longest = prompts.iter().map(places).max().unwrap_or(0);
        let batch = self.batch_for(longest, options.rounds.max_tokens)?;
        let mut jobs: Vec<Job> = Vec::new();
        let mut of_prompts: Vec<PromptId> = Vec::new();
        for (prompt, markers) in thinkers {
            let rollout = batch.rollout_mut();
            let (id, its) = reasonings(rollout, prompt, markers, options, (count, budget))?;
            of_prompts.push(id);
            jobs.extend(its);
        }
        let written = batch.rollout_mut().run(&jobs, &mut |_| match ends() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        for id in of_prompts {
            batch.rollout_mut().forget_prompt(id);
        }
        written
    }
}

/// The jobs of `count` reasonings of at most `budget` tokens behind a prompt, which `rollout` knows
/// from here on.
pub(super) fn reasonings(
    rollout: &mut Rollout,
    prompt: &Opened,
    markers: ReasoningMarkers,
    options: &AlignOptions,
    (count, budget): (usize, usize),
) -> Result<(PromptId, impl Iterator<Item = Job> + use<>)> {
    let tokens = opened(rollout.context().model(), prompt, markers);
    let seed = prompt_seed(options.rounds.seed, &tokens);
    let form = Form {
        stop: vec![markers.close.into()],
        specials: true,
        ..Form::default()
    };
    let id = rollout.add_prompt_for(tokens, form)?;
    let jobs = (0..count).map(move |number| Job {
        steer: Some(Arc::new(Draw {
            seed,
            number: u32::try_from(number).unwrap_or(u32::MAX),
        })),
        choice: CHOICE,
        // Whatever other prompts there are: an answer does not depend on them.
        alone: count == 1,
        ..Job::new(id, budget)
    });
    Ok((id, jobs))
}

/// The prompt with reasoning opened.
pub(super) fn opened(model: &Model, prompt: &Opened, markers: ReasoningMarkers) -> Vec<Token> {
    let mut tokens = prompt.tokens.clone();
    if prompt.turn.as_ref().is_some_and(|turn| !turn.opened) {
        tokens.extend(model.tokenize(&markers.beginning(), false, true));
    }
    tokens
}

/// The prompt with the reasoning that was written, closed where it is not.
pub(super) fn close(
    model: &Model,
    before: &[Token],
    markers: ReasoningMarkers,
    written: Option<Candidate>,
) -> Thought {
    let mut tokens = before.to_vec();
    let Some(candidate) = written else {
        tokens.extend(model.tokenize(&markers.ending(), false, true));
        return Thought {
            tokens,
            text: None,
            written: 0,
        };
    };
    let count = candidate.tokens.len();
    let whole = candidate.end == End::StopText;
    let ends = usize::from(candidate.end == End::EndOfTurn);
    tokens.extend(&candidate.tokens[..count - ends]);
    let pieces = candidate.tokens.iter().flat_map(|&t| model.piece(t, true));
    let bytes: Vec<u8> = pieces.collect();
    match whole {
        // Behind the marker may already be what belongs there.
        true if bytes.ends_with(markers.close.as_bytes()) => {
            tokens.extend(model.tokenize(markers.behind, false, true));
        }
        true => {}
        false => tokens.extend(model.tokenize(&markers.ending(), false, true)),
    }
    Thought {
        tokens,
        text: Some(candidate.text.trim().to_owned()),
        written: count,
    }
}
