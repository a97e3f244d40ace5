//! The next token of each candidate.

use super::shifts::{self, Shifts};
use super::{AskFor, Live, Rollout};
use crate::error::{Error, Result};
use crate::llama::{Context, GrammarState, Model, Token};
use crate::math::{Softmax, largest, log_ratio};
use crate::rollout::sampling::Chooser;
use crate::rollout::{End, Steer, TokenChoice, TokenNats, Written};

/// Logits of the model itself for a candidate in `row` of the last step.
fn own<'a>(context: &'a Context, row: usize, live: &Live) -> Result<&'a [f32]> {
    match context.graph_logits(row) {
        Some(own) if live.plain => Ok(own),
        _ => context.own_logits(row),
    }
}

/// Puts the `own` logits of the model into `allowed`, with −∞ for tokens that the response may not go
/// on with; under a floor, for those below it too. False where there is none.
fn allow(
    grammar: Option<&mut GrammarState>,
    ends: &[Token],
    own: &[f32],
    floor: f32,
    allowed: &mut Vec<f32>,
) -> Result<bool> {
    let copy = |allowed: &mut Vec<f32>| {
        allowed.clear();
        allowed.extend_from_slice(own);
        ends.iter()
            .for_each(|&end| allowed[end as usize] = f32::NEG_INFINITY);
    };
    copy(allowed);
    let Some(grammar) = grammar else {
        return Ok(allowed.iter().any(|logit| logit.is_finite()));
    };
    if floor > 0.0 {
        // The floor is that of the most probable token that is allowed. Where that is the most
        // probable of all, few others need to be looked at.
        let largest = largest(allowed);
        let least = largest + floor.ln();
        let below = allowed.iter_mut().filter(|logit| **logit < least);
        below.for_each(|logit| *logit = f32::NEG_INFINITY);
        if grammar.mask(allowed)? && allowed.contains(&largest) {
            return Ok(true);
        }
        copy(allowed);
    }
    grammar.mask(allowed)
}

/// Puts the `logits` of those whose `own` logit is finite into `allowed`, and −∞ for the others.
fn only(own: &[f32], logits: &[f32], allowed: &mut Vec<f32>) {
    let both = own.iter().zip(logits);
    allowed.clear();
    allowed.extend(both.map(|(own, &logit)| {
        if own.is_finite() {
            logit
        } else {
            f32::NEG_INFINITY
        }
    }));
}

impl Live {
    /// The floor under its tokens; 0 where there is none.
    pub(super) fn floor(&self) -> f32 {
        let steer = self.job.steer.as_ref();
        steer.map_or(0.0, |steer| steer.floor().min(1.0))
    }

    /// Takes the perturbation of its next token, which is added to the logits that the floor allows.
    pub(super) fn shift_by(&mut self, steer: &dyn Steer, width: usize) -> Result<()> {
        self.shift.clear();
        self.shift.resize(width, 0.0);
        self.perturbed = steer.perturb(&self.tokens, &mut self.shift)?;
        if !self.perturbed {
            self.shift.clear();
        }
        Ok(())
    }
}

/// What a token is chosen from.
pub(super) struct Said<'a> {
    /// Logits of the model itself `[vocabulary]`, −∞ for what the response may not go on with; what is
    /// below the floor may be −∞ too.
    pub(super) own: &'a [f32],
    /// Those that are chosen from; the same where the candidate's [shift](Live::shift) moves them.
    pub(super) logits: &'a [f32],
    /// Of all that the model itself says.
    pub(super) softmax: Softmax,
    /// Whether there is anything that the response may not go on with.
    pub(super) bound: bool,
}

/// Chooses tokens and writes them down; keeps its buffers between calls.
pub(super) struct Pen {
    /// Logits under a floor; `None` where they all come from the graph, or are computed again.
    pub(super) shifts: Option<Shifts>,
    chooser: Chooser,
    allowed: Vec<f32>,
}

impl Pen {
    pub(super) fn new(shifts: Option<Shifts>) -> Self {
        Self {
            shifts,
            chooser: Chooser::default(),
            allowed: Vec::new(),
        }
    }

    /// Writes the next token of a candidate; answers why that was its last one.
    pub(super) fn write(
        &mut self,
        model: &Model,
        live: &mut Live,
        said: &Said<'_>,
        ask: &mut AskFor<'_>,
    ) -> Result<Option<End>> {
        let Said { own, bound, .. } = *said;
        let mut logits = said.logits;
        let floor = live.floor();
        let steer = live.job.steer.as_deref();
        if floor > 0.0 {
            shifts::above(floor, own, logits, &mut self.allowed);
            if let Some(shifts) = self.shifts.as_mut().filter(|_| !live.shift.is_empty()) {
                shifts.apply(&live.shift, &mut self.allowed)?;
            }
            logits = &self.allowed;
        } else if bound {
            only(own, logits, &mut self.allowed);
            logits = &self.allowed;
        }
        if let Err(error) = shifts::check(logits, live.tokens.len()) {
            return Err(match own.iter().any(|logit| logit.is_nan()) {
                true => model.computes("NaN"),
                false => error,
            });
        }
        let chosen = match steer {
            Some(steer) => {
                let mut ask = |texts: &[Vec<Token>]| ask(live.id, texts);
                steer.choose(&live.tokens, logits, &mut ask)?
            }
            None => None,
        };
        let position = live.tokens.len();
        let choice = steer.and_then(|steer| steer.choice(position));
        let choice = choice.unwrap_or(live.job.choice);
        let token = chosen.unwrap_or_else(|| {
            let uniform = steer.map_or(0.0, |steer| steer.uniform(position));
            self.chooser.choose(&choice, logits, uniform)
        });
        // Whoever chooses among the first few may take one of those that are not allowed.
        let token = match (bound || floor > 0.0)
            && logits.get(token as usize) == Some(&f32::NEG_INFINITY)
        {
            true => self.chooser.choose(&TokenChoice::Argmax, logits, 0.0),
            false => token,
        };
        let weighed = live.perturbed && chosen.is_none() && choice == TokenChoice::PLAIN;
        let log_ratio = match weighed {
            true => log_ratio(own, logits, token as usize),
            false => 0.0,
        };
        let logit = own
            .get(token as usize)
            .copied()
            .unwrap_or(f32::NEG_INFINITY);
        live.tokens.push(token);
        live.nats.push(TokenNats {
            surprise: said.softmax.surprise(logit) as f32,
            entropy: said.softmax.entropy as f32,
            log_ratio: log_ratio as f32,
        });
        if model.is_end(token) {
            return Ok(Some(End::EndOfTurn));
        }
        if let Some(grammar) = &mut live.grammar {
            grammar.accept(token)?;
        }
        if live.form.stops(model, &live.tokens) {
            return Ok(Some(End::StopText));
        }
        if live.tokens.len() == live.job.max_tokens {
            return Ok(Some(End::Length));
        }
        let mut ask = |texts: &[Vec<Token>]| ask(live.id, texts);
        let goes_on = match &live.job.steer {
            Some(steer) => steer.goes_on(&live.tokens, &mut ask)?,
            None => true,
        };
        Ok((!goes_on).then_some(End::GivenUp))
    }
}

impl Rollout {
    /// Writes the next token of the candidate in `slot`, whose logits are in `row` of the last
    /// step, and takes it out where that was its last one.
    pub(super) fn write(
        &mut self,
        slot: usize,
        row: usize,
        ask: &mut AskFor<'_>,
    ) -> Option<Written> {
        let mut live = self.slots[slot].take()?;
        if live.catches_up() {
            live.decoded += 1;
            self.work.again += 1;
            self.slots[slot] = Some(live);
            return None;
        }
        self.work.written += 1;
        let job = live.id;
        let chosen = match live.failed.take() {
            Some(error) => Err(error),
            None => self.choose(row, &mut live, ask),
        };
        let done = match chosen {
            Ok(Some(end)) => {
                self.settle(&live);
                Some(Ok(live.finish(self.context.model(), end)))
            }
            Ok(None) => {
                self.slots[slot] = Some(live);
                None
            }
            Err(error) => Some(Err(error)),
        };
        Some(Written { job, done })
    }

    /// What the model itself says as a whole in each row of the last step that writes the next token
    /// of a candidate, the first of which is in the slot `first`.
    pub(super) fn sum_up(&mut self, first: usize, rows: usize, alone: bool) -> Result<()> {
        let mut written = Vec::with_capacity(rows);
        let mut logits = Vec::with_capacity(rows);
        for row in 0..rows {
            if let Some(live) = &self.slots[first + row]
                && live.job.alone == alone
                && !live.catches_up()
            {
                written.push(row);
                logits.push(own(&self.context, row, live)?);
            }
        }
        let threads = self.context.options().threads;
        let all = written.into_iter().zip(Softmax::of_each(&logits, threads));
        self.softmaxes.clear();
        self.softmaxes.extend(all);
        Ok(())
    }

    /// Chooses the next token of a candidate from `row`; answers why that was its last one.
    fn choose(&mut self, row: usize, live: &mut Live, ask: &mut AskFor<'_>) -> Result<Option<End>> {
        let summed = self.softmaxes.iter().find(|(of, _)| *of == row);
        let softmax = summed.map(|(_, softmax)| *softmax);
        let softmax = softmax.ok_or_else(|| Error::Engine(format!("no sum for row {row}")))?;
        let floor = live.floor();
        let mut own = own(&self.context, row, live)?;
        let ends = match live.form.ignore_end {
            true => self.context.model().ends(),
            false => &[],
        };
        let bound = !ends.is_empty() || live.grammar.is_some();
        if bound {
            if !allow(
                live.grammar.as_mut(),
                ends,
                own,
                floor,
                &mut self.own_allowed,
            )? {
                return Ok(Some(End::Stuck));
            }
            own = &self.own_allowed;
        }
        let said = Said {
            own,
            logits: match live.shift.is_empty() {
                true => self.context.logits(row)?,
                false => own,
            },
            softmax,
            bound,
        };
        live.decoded += 1;
        if live.job.keep_pre_logits {
            let width = self.context.model().width();
            let z = &self.context.pre_logits()[row * width..(row + 1) * width];
            live.pre_logits.extend_from_slice(z);
        }
        let place = live.place.take();
        let end = self.pen.write(self.context.model(), live, &said, ask)?;
        if let (Some(place), Some(tree)) = (place, self.trees.get_mut(&live.job.prompt)) {
            if live.plain {
                tree.put(place, floor, own, softmax);
            }
            if end.is_none() {
                live.go_on(place, tree);
            }
        }
        Ok(end)
    }
}
