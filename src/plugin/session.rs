//! One alignment run as its host drives it: which calls may follow which, and what they do.

use ndarray::Array2;

use super::aisp_token;
use crate::control::{ControlError, Controller, Perturbation, Telemetry, Trial};
use crate::error::Error;
use crate::output::{OutputHead, OutputRows};

/// Why a call failed.
#[derive(Debug, PartialEq)]
pub(super) enum Failure {
    /// An argument that cannot be.
    Argument(String),
    /// A call at the wrong time.
    Order(String),
    /// The model file cannot be used.
    Model(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Field { .. } => Self::Argument(error.to_string()),
            other => Self::Model(other.to_string()),
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Self::Argument(format!("aisp_create: {error}"))
    }
}

/// How the host brings the perturbation into its logits.
pub(super) enum Tier {
    /// The host's eval callback shows the pre-logits.
    Exact,
    /// The sampler adds W·v to finished logits.
    Sampler(OutputHead),
}

/// What a session is made of.
pub(super) struct Parts {
    pub(super) controller: Controller,
    pub(super) output: OutputRows,
    pub(super) tier: Tier,
    pub(super) samples: u32,
    pub(super) iterations: u32,
}

/// The best candidate so far.
pub(super) struct Best {
    pub(super) tokens: Vec<i32>,
    pub(super) reward: f64,
}

/// The run of one prompt.
pub(super) struct Session {
    parts: Parts,
    /// Iterations that were updated.
    done: u32,
    /// Those of the open iteration; empty between iterations.
    candidates: Vec<Candidate>,
    /// The candidate of each row of the next decode, where it has one; empty once the eval
    /// callback has shown them.
    bound: Vec<Option<usize>>,
    best: Option<Best>,
    mean_reward: Option<f64>,
    telemetry: Telemetry,
}

struct Candidate {
    perturbation: Perturbation,
    tokens: Vec<i32>,
    reward: Option<f64>,
    /// Positions that were perturbed: the next token may be accepted when this is ahead of the
    /// tokens.
    seen: usize,
    /// W·v of a position.
    shift: Option<(usize, Vec<f32>)>,
}

impl Session {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            done: 0,
            candidates: Vec::new(),
            bound: Vec::new(),
            best: None,
            mean_reward: None,
            telemetry: Telemetry::default(),
        }
    }

    /// Opens the next iteration; answers its number of candidates, 0 after the last one.
    pub(super) fn begin(&mut self) -> Result<u32, Failure> {
        if !self.candidates.is_empty() {
            return Err(Failure::Order(
                "aisp_begin: the last iteration is still open; call aisp_update first".into(),
            ));
        }
        if self.done == self.parts.iterations {
            return Ok(0);
        }
        let perturbations = self.parts.controller.propose(self.parts.samples);
        self.candidates = perturbations
            .into_iter()
            .map(|perturbation| Candidate {
                perturbation,
                tokens: Vec::new(),
                reward: None,
                seen: 0,
                shift: None,
            })
            .collect();
        Ok(self.parts.samples)
    }

    /// The candidate with number `index`, still without a reward.
    fn writing(&mut self, call: &str, index: i32) -> Result<&mut Candidate, Failure> {
        let count = self.candidates.len();
        if count == 0 {
            return Err(Failure::Order(format!(
                "{call}: no iteration is open; call aisp_begin first"
            )));
        }
        let candidate = usize::try_from(index)
            .ok()
            .and_then(|i| self.candidates.get_mut(i));
        let candidate = candidate.ok_or_else(|| {
            Failure::Argument(format!(
                "{call}: candidate {index}; there are 0 to {}",
                count - 1
            ))
        })?;
        if candidate.reward.is_some() {
            return Err(Failure::Order(format!(
                "{call}: candidate {index} has its reward already"
            )));
        }
        Ok(candidate)
    }

    /// Says which candidate each output row of the next decode belongs to; −1 is none.
    pub(super) fn bind(&mut self, rows: &[i32]) -> Result<(), Failure> {
        if matches!(self.parts.tier, Tier::Sampler(_)) {
            return Err(Failure::Order(
                "aisp_bind: the sampler tier binds no rows; choose AISP_TIER_EXACT".into(),
            ));
        }
        let mut bound = Vec::with_capacity(rows.len());
        for &row in rows {
            if row == -1 {
                bound.push(None);
                continue;
            }
            self.writing("aisp_bind", row)?;
            let index = row as usize;
            if bound.contains(&Some(index)) {
                return Err(Failure::Argument(format!(
                    "aisp_bind: candidate {row} is bound to two rows"
                )));
            }
            bound.push(Some(index));
        }
        self.bound = bound;
        Ok(())
    }

    /// Adds v to `rows` `[count, d]`, the bound ones, which become z + v; leaves them alone
    /// where nothing is bound.
    pub(super) fn perturb(&mut self, rows: &mut [f32], width: usize) -> Result<(), Failure> {
        if self.bound.is_empty() {
            return Ok(());
        }
        if width != self.parts.output.width() {
            return Err(Failure::Argument(format!(
                "aisp_perturb: pre-logits of width {width}, but model_path has {}: is it the \
                 file of this model?",
                self.parts.output.width()
            )));
        }
        let count = rows.len() / width;
        // Rows of several ubatches come in an order of their own.
        if count != self.bound.len() {
            let remedy = match count < self.bound.len() {
                true => {
                    "llama.cpp cut the batch, whose rows must come in one ubatch. With a stream for \
                     each sequence it cuts where one is left out: keep a row of every candidate, \
                     bound to -1 once it has ended, or set kv_unified = true. A batch has no more \
                     tokens than n_ubatch, and asks logits of every row that is bound"
                }
                false => {
                    "bind every row that the batch asks logits of, -1 for one of no candidate, and \
                     have them decoded in one ubatch"
                }
            };
            return Err(Failure::Order(format!(
                "aisp_perturb: {count} rows came at once, but {} are bound: {remedy}",
                self.bound.len()
            )));
        }
        let bound = std::mem::take(&mut self.bound);
        for (row, index) in rows.chunks_exact_mut(width).zip(bound) {
            let Some(index) = index else { continue };
            let candidate = &mut self.candidates[index];
            let row_of = |token, row: &mut [f32]| self.parts.output.row(token, row);
            let perturbation = &candidate.perturbation;
            perturbation.perturb(&candidate.tokens, row_of, row)?;
            candidate.seen = candidate.tokens.len() + 1;
        }
        Ok(())
    }

    /// Whether so many tokens may be in one array of candidates.
    pub(super) fn check_count(&self, tokens: usize) -> Result<(), Failure> {
        let vocabulary = self.parts.output.vocabulary();
        if tokens <= vocabulary {
            return Ok(());
        }
        Err(Failure::Argument(format!(
            "apply: {tokens} tokens; the vocabulary of model_path has {vocabulary}"
        )))
    }

    /// Makes the logits of `tokens`, some or all of the vocabulary in any order, those of
    /// z + v; on the exact tier they are already, and only that is checked.
    pub(super) fn apply(&mut self, index: i32, tokens: &mut [aisp_token]) -> Result<(), Failure> {
        self.writing("apply", index)?;
        let Tier::Sampler(head) = self.parts.tier else {
            return self.check_seen("apply", index);
        };
        let shift = self.shift(index as usize)?;
        for token in tokens {
            let row = usize::try_from(token.id).ok().and_then(|t| shift.get(t));
            let shift = row.ok_or_else(|| {
                Failure::Argument(format!(
                    "apply: token {} is not in the vocabulary of model_path",
                    token.id
                ))
            })?;
            token.logit = head.shifted(token.logit, *shift);
        }
        let candidate = &mut self.candidates[index as usize];
        candidate.seen = candidate.tokens.len() + 1;
        Ok(())
    }

    /// W·v of a candidate at its position.
    fn shift(&mut self, index: usize) -> Result<&[f32], Failure> {
        let position = self.candidates[index].tokens.len();
        let stale = |c: &Candidate| c.shift.as_ref().is_none_or(|(at, _)| *at != position);
        if stale(&self.candidates[index]) {
            // Whoever is at the same place will ask next: one product for all of them.
            let same = |c: &Candidate| c.reward.is_none() && c.tokens.len() == position;
            let asking: Vec<&mut Candidate> = self
                .candidates
                .iter_mut()
                .filter(|c| same(c) && stale(c))
                .collect();
            let mut v = Array2::zeros((asking.len(), self.parts.output.width()));
            for (candidate, mut row) in asking.iter().zip(v.rows_mut()) {
                let row = row.as_slice_mut().unwrap_or_default();
                let row_of = |token, row: &mut [f32]| self.parts.output.row(token, row);
                let perturbation = &candidate.perturbation;
                perturbation.perturb(&candidate.tokens, row_of, row)?;
            }
            let shifts = self.parts.output.logits(v.view())?;
            if !shifts.iter().all(|shift| shift.is_finite()) {
                return Err(self.parts.output.not_finite().into());
            }
            for (candidate, shift) in asking.into_iter().zip(shifts.rows()) {
                candidate.shift = Some((position, shift.to_vec()));
            }
        }
        let shift = self.candidates[index].shift.as_ref();
        Ok(shift.map_or(&[], |(_, shift)| shift))
    }

    fn check_seen(&self, call: &str, index: i32) -> Result<(), Failure> {
        let candidate = &self.candidates[index as usize];
        if candidate.seen == candidate.tokens.len() + 1 {
            return Ok(());
        }
        let position = candidate.tokens.len();
        let remedy = match self.parts.tier {
            Tier::Sampler(_) => {
                "accept only what the candidate's chain has just chosen, once: \
                 llama_sampler_sample does"
            }
            Tier::Exact if !self.bound.is_empty() => {
                "its row is bound, but no decode has come by aisp_eval_callback since: set \
                 cparams.cb_eval and cb_eval_user_data before the context is made"
            }
            // Every program of llama.cpp does that.
            Tier::Exact if position == 0 => {
                "a first token is not sampled off the logits of the prompt: leave the prompt's last \
                 token out, and decode it once for each candidate at the start of every iteration, \
                 its row bound by aisp_bind"
            }
            Tier::Exact => {
                "no row was bound to it in the last decode; call aisp_bind before each, and accept a \
                 token once, as llama_sampler_sample does"
            }
        };
        Err(Failure::Order(format!(
            "{call}: token {position} of candidate {index} was not perturbed: {remedy}"
        )))
    }

    /// The next token of a candidate.
    pub(super) fn accept(&mut self, index: i32, token: i32) -> Result<(), Failure> {
        let vocabulary = self.parts.output.vocabulary();
        self.writing("accept", index)?;
        if usize::try_from(token).map_or(true, |t| t >= vocabulary) {
            return Err(Failure::Argument(format!(
                "accept: token {token}; the vocabulary of model_path has {vocabulary}"
            )));
        }
        self.check_seen("accept", index)?;
        self.candidates[index as usize].tokens.push(token);
        Ok(())
    }

    /// Forgets the tokens of a candidate that has no reward yet; nothing between iterations.
    pub(super) fn reset(&mut self, index: i32) {
        let open = usize::try_from(index)
            .ok()
            .and_then(|i| self.candidates.get_mut(i));
        if let Some(candidate) = open.filter(|c| c.reward.is_none()) {
            candidate.tokens.clear();
            candidate.seen = 0;
        }
    }

    /// The reward of a finished candidate; NaN or infinite is none.
    pub(super) fn reward(&mut self, index: i32, reward: f64) -> Result<(), Failure> {
        let candidate = self.writing("aisp_reward", index)?;
        if candidate.tokens.is_empty() {
            return Err(Failure::Order(format!(
                "aisp_reward: candidate {index} has no token; let its sampler accept them"
            )));
        }
        candidate.reward = Some(reward);
        if reward.is_finite() && self.best.as_ref().is_none_or(|best| reward > best.reward) {
            let tokens = self.candidates[index as usize].tokens.clone();
            self.best = Some(Best { tokens, reward });
        }
        Ok(())
    }

    /// Closes the iteration: learns from the candidates that have a reward.
    pub(super) fn update(&mut self) -> Result<(), Failure> {
        if self.candidates.is_empty() {
            return Err(Failure::Order(
                "aisp_update: no iteration is open; call aisp_begin first".into(),
            ));
        }
        if self.candidates.iter().all(|c| c.reward.is_none()) {
            return Err(Failure::Order(
                "aisp_update: no candidate has a reward; call aisp_reward first".into(),
            ));
        }
        self.bound.clear();
        let mut trials = Vec::with_capacity(self.candidates.len());
        for (index, candidate) in std::mem::take(&mut self.candidates).into_iter().enumerate() {
            let Some(reward) = candidate.reward else {
                continue;
            };
            let sum = |tokens: &[(i32, f32)]| self.parts.output.sum(tokens);
            let trial = Trial {
                candidate: index as u32,
                reward,
                tokens: candidate.tokens,
                ..Trial::default()
            };
            trials.push(self.parts.controller.with_rows(trial, sum)?);
        }
        let rewards = trials.iter().map(|t| t.reward).filter(|r| r.is_finite());
        let count = rewards.clone().count();
        self.mean_reward = (count > 0).then(|| rewards.sum::<f64>() / count as f64);
        self.telemetry = self.parts.controller.update(trials);
        self.done += 1;
        Ok(())
    }

    /// The best candidate of all iterations, the open one included.
    pub(super) fn best(&self) -> Option<&Best> {
        self.best.as_ref()
    }

    /// Iterations done, mean reward of the last one, and what its update said.
    pub(super) fn telemetry(&self) -> (u32, Option<f64>, Telemetry) {
        (self.done, self.mean_reward, self.telemetry)
    }
}
