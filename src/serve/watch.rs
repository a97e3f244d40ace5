//! What is written of an answer, while it is: tokens as they come, how probable they are, and what a
//! request adds to the logits.
//!
//! A [`Watched`] method is another one whose candidates tell what they have; unless something is
//! added to the logits, they choose the tokens that they would choose unwatched. Of a search only what
//! it has written in the end is put down: its own choices are not to be taken from it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::logprobs::{Likely, entry};
use crate::error::Result;
use serde_json::Value;

use crate::llama::{Edit, Model, Token};
use crate::method::{Method, Outcome, Proposal, Ranked, Telemetry};
use crate::rollout::{Ask, Chooser, Price, Steer, TokenChoice};
use crate::stop::Stop;

/// What a request adds to the logits of a plain answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Bias {
    /// To those of these tokens; −∞ forbids one.
    pub(super) tokens: Vec<(Token, f32)>,
    /// Taken from those of tokens in the answer, once.
    pub(super) presence: f32,
    /// The same for each time that it is there.
    pub(super) frequency: f32,
}

impl Bias {
    pub(super) fn is_none(&self) -> bool {
        self.tokens.is_empty() && self.presence == 0.0 && self.frequency == 0.0
    }

    fn add(&self, tokens: &[Token], logits: &mut [f32]) {
        let at = |token: Token| usize::try_from(token).unwrap_or(usize::MAX);
        for &(token, bias) in &self.tokens {
            if let Some(logit) = logits.get_mut(at(token)) {
                *logit += bias;
            }
        }
        if self.presence != 0.0 || self.frequency != 0.0 {
            let mut counts: HashMap<Token, f32> = HashMap::new();
            tokens
                .iter()
                .for_each(|&token| *counts.entry(token).or_default() += 1.0);
            for (token, count) in counts {
                if let Some(logit) = logits.get_mut(at(token)) {
                    *logit -= self.presence + self.frequency * count;
                }
            }
        }
    }
}

/// A token of a plain answer.
pub(super) struct Step<'a> {
    /// Which answer, from 0.
    pub(super) candidate: usize,
    /// It so far.
    pub(super) tokens: &'a [Token],
}

/// Is told what is written.
pub(super) type Tell = dyn Fn(Step<'_>) + Send + Sync;

/// What is wanted of the answers that are watched.
#[derive(Default)]
pub(super) struct Watch {
    pub(super) bias: Bias,
    /// Whether it is put down how probable each token is, with so many alternatives.
    pub(super) logprobs: Option<usize>,
    pub(super) likely: Likely,
    /// Whether the tokens of finished candidates are kept.
    pub(super) keeps: bool,
    /// Tokens of finished candidates with their surprise −log p.
    pub(super) written: Mutex<HashMap<Seat, Vec<(Token, f32)>>>,
    /// When the first token was chosen.
    pub(super) first: OnceLock<Instant>,
    /// `None` where nobody wants to know before the end.
    pub(super) tell: Option<Box<Tell>>,
}

/// A candidate: its iteration, and its number there.
pub(super) type Seat = (usize, usize);

/// A method whose candidates are watched.
pub(super) struct Watched {
    inner: Box<dyn Method>,
    watch: Arc<Watch>,
    proposed: usize,
    observed: usize,
}

impl Watched {
    pub(super) fn new(inner: Box<dyn Method>, watch: Arc<Watch>) -> Self {
        Self {
            inner,
            watch,
            proposed: 0,
            observed: 0,
        }
    }
}

struct Watching {
    inner: Option<Arc<dyn Steer>>,
    /// How the inner one's job chooses.
    choice: TokenChoice,
    seat: Seat,
    watch: Arc<Watch>,
}

impl Steer for Watching {
    fn perturb(&self, tokens: &[Token], row: &mut [f32]) -> Result<bool> {
        match &self.inner {
            Some(inner) => inner.perturb(tokens, row),
            None => Ok(false),
        }
    }

    fn uniform(&self, position: usize) -> f64 {
        let inner = self.inner.as_ref();
        inner.map_or(0.0, |inner| inner.uniform(position))
    }

    fn floor(&self) -> f32 {
        self.inner.as_ref().map_or(0.0, |inner| inner.floor())
    }

    fn choice(&self, position: usize) -> Option<TokenChoice> {
        self.inner.as_ref()?.choice(position)
    }

    fn edit(&self) -> Option<Arc<dyn Edit>> {
        self.inner.as_ref()?.edit()
    }

    fn choose(&self, tokens: &[Token], logits: &[f32], ask: &mut Ask<'_>) -> Result<Option<Token>> {
        self.watch.first.get_or_init(Instant::now);
        let watch = &self.watch;
        if watch.logprobs.is_some() || !watch.bias.is_none() {
            let mut biased = logits.to_vec();
            watch.bias.add(tokens, &mut biased);
            let choice = self.choice(tokens.len()).unwrap_or(self.choice);
            let uniform = self.uniform(tokens.len());
            let token = Chooser::default().choose(&choice, &biased, uniform);
            if let Some(count) = watch.logprobs {
                watch.likely.note(self.seat, logits, token, count);
            }
            return Ok(Some(token));
        }
        match &self.inner {
            Some(inner) => inner.choose(tokens, logits, ask),
            None => Ok(None),
        }
    }

    fn goes_on(&self, tokens: &[Token], ask: &mut Ask<'_>) -> Result<bool> {
        if let Some(tell) = &self.watch.tell {
            let candidate = self.seat.1;
            tell(Step { candidate, tokens });
        }
        match &self.inner {
            Some(inner) => inner.goes_on(tokens, ask),
            None => Ok(true),
        }
    }
}

impl Method for Watched {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn shape(&self) -> (usize, usize) {
        self.inner.shape()
    }

    fn propose(&mut self) -> Vec<Proposal> {
        let all = self.inner.propose().into_iter().enumerate();
        let iteration = self.proposed;
        self.proposed += 1;
        all.map(|(candidate, proposal)| Proposal {
            steer: Some(Arc::new(Watching {
                inner: proposal.steer,
                choice: proposal.choice,
                seat: (iteration, candidate),
                watch: Arc::clone(&self.watch),
            })),
            ..proposal
        })
        .collect()
    }

    fn stops_with(&mut self, stop: &Stop) {
        self.inner.stops_with(stop);
    }

    fn observe(&mut self, outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        let wanted = if self.watch.keeps { outcomes } else { &[] };
        let mut written = self
            .watch
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for outcome in wanted {
            let tokens = outcome.tokens.iter().copied();
            let tokens = tokens.zip(outcome.nats.iter().map(|nats| nats.surprise));
            let seat = (self.observed, outcome.candidate as usize);
            written.insert(seat, tokens.collect());
        }
        drop(written);
        self.observed += 1;
        self.inner.observe(outcomes)
    }

    fn waits(&self) -> bool {
        self.inner.waits()
    }

    fn keeps_pre_logits(&self) -> bool {
        self.inner.keeps_pre_logits()
    }

    fn worth(&self, reward: f64, price: Option<&Price>) -> f64 {
        self.inner.worth(reward, price)
    }

    fn answer(&mut self, candidates: &[Ranked<'_>]) -> usize {
        self.inner.answer(candidates)
    }
}

impl Watch {
    /// The tokens of a candidate from number `from` on, with how probable they are.
    pub(super) fn entries(&self, model: &Model, seat: Seat, from: usize) -> Vec<Value> {
        let noted = self.likely.entries(model, seat, from);
        if !noted.is_empty() {
            return noted;
        }
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = written.get(&seat).map_or(&[][..], Vec::as_slice);
        let tokens = tokens.iter().skip(from);
        tokens
            .map(|&(token, surprise)| entry(model, token, -surprise, &[]))
            .collect()
    }
}
