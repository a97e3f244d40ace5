//! The next token of each candidate.

use super::{AskFor, Live, Rollout, shifts};
use crate::error::Result;
use crate::llama::Token;
use crate::math::{log_ratio, surprise_and_entropy};
use crate::rollout::{End, TokenChoice, TokenNats, Written};

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
        let done = match self.choose(row, &mut live, ask) {
            Ok(Some(end)) => Some(Ok(live.finish(self.context.model(), end))),
            Ok(None) => {
                self.slots[slot] = Some(live);
                None
            }
            Err(error) => Some(Err(error)),
        };
        Some(Written { job, done })
    }

    /// Chooses the next token of a candidate from `row`; answers why that was its last one.
    fn choose(&mut self, row: usize, live: &mut Live, ask: &mut AskFor<'_>) -> Result<Option<End>> {
        let steer = live.job.steer.as_deref();
        let floor = steer.map_or(0.0, |steer| steer.floor());
        let shifted = !live.shift.is_empty();
        // What the graph has of a row that is shifted behind it is the model's own.
        let (own, mut logits) = match self.context.graph_logits(row).filter(|_| shifted) {
            Some(own) => (own, own),
            None => (self.context.own_logits(row)?, self.context.logits(row)?),
        };
        if floor > 0.0 {
            shifts::above(floor, own, logits, &mut self.allowed);
            if let Some(shifts) = self.shifts.as_mut().filter(|_| shifted) {
                shifts.apply(&live.shift, &mut self.allowed)?;
            }
            logits = &self.allowed;
        }
        shifts::check(logits, live.tokens.len())?;
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
        let weighed = live.perturbed && chosen.is_none() && choice == TokenChoice::PLAIN;
        let log_ratio = match weighed {
            true => log_ratio(own, logits, token as usize),
            false => 0.0,
        };
        let (surprise, entropy) = surprise_and_entropy(own, token as usize);
        live.tokens.push(token);
        live.decoded += 1;
        live.nats.push(TokenNats {
            surprise: surprise as f32,
            entropy: entropy as f32,
            log_ratio: log_ratio as f32,
        });
        if live.job.keep_pre_logits {
            let width = self.context.model().width();
            let z = &self.context.pre_logits()[row * width..(row + 1) * width];
            live.pre_logits.extend_from_slice(z);
        }
        if self.context.model().is_end(token) {
            return Ok(Some(End::EndOfTurn));
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
