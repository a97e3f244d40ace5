//! The share of a run that is written and scored elsewhere.

use super::Run;
use crate::align::events::EventKind;
use crate::align::open::Seat;
use crate::align::share::{Heard, Part, Share};
use crate::error::{Error, Result};
use crate::llama::Model;
use crate::method::Proposal;

impl Run {
    /// Has only a share of it written here.
    pub(in crate::align) fn share(&mut self, share: Share) {
        self.share = Some(share);
    }

    /// Whether the method can be shared at all.
    pub(super) fn check_share(&self) -> Result<()> {
        if self.share.is_none() {
            return Ok(());
        }
        let refuse = |reason| Err(Error::field("workers", reason));
        if self.method.shape().0 < 2 {
            return refuse("there is one candidate at a time, and nothing to share; leave it out");
        }
        if self.method.keeps_pre_logits() {
            return refuse("this `method` needs the pre-logits, which do not travel; leave it out");
        }
        let budget = &self.options.budget;
        if budget.generated_tokens.is_some() || budget.reward_tokens.is_some() {
            return refuse(
                "a budget of tokens depends on who writes and reads; leave out one of them",
            );
        }
        Ok(())
    }

    /// Sets aside what others write.
    pub(super) fn own(&mut self, proposals: Vec<(Seat, Proposal)>) -> Vec<(Seat, Proposal)> {
        let Some(share) = &self.share else {
            return proposals;
        };
        let (own, away) = proposals
            .into_iter()
            .partition(|(seat, _)| share.has(seat.number()));
        self.away = away;
        own
    }

    /// Whether all that is missing of the open iteration is written elsewhere.
    pub(in crate::align) fn listens(&self) -> bool {
        !self.away.is_empty() && self.open.missing() == self.away.len()
    }

    /// Takes what others have written, once its own share is; answers with what has to be written here
    /// after all.
    pub(in crate::align) fn hear(
        &mut self,
        model: &Model,
        tell: &mut dyn FnMut(EventKind),
    ) -> Result<Vec<(Seat, Proposal)>> {
        let listens = self.listens();
        let Some(share) = self.share.as_mut().filter(|_| listens) else {
            return Ok(Vec::new());
        };
        let open = &self.open;
        let mut heard = share.round(|| Part::Candidates(open.sent()))?;
        if let Heard::Parts(parts) = heard {
            match self.take_parts(parts, model) {
                Ok(()) => return Ok(Vec::new()),
                Err(reason) => heard = self.refused(reason)?,
            }
        }
        match heard {
            Heard::Alone(reason) => {
                self.go_alone(reason, tell);
                Ok(std::mem::take(&mut self.away))
            }
            Heard::Nothing | Heard::Parts(_) => Ok(Vec::new()),
        }
    }

    fn take_parts(&mut self, parts: Vec<Part>, model: &Model) -> std::result::Result<(), String> {
        let (form, longest) = (&self.options.form, self.options.rounds.max_tokens);
        let mut sent = Vec::new();
        for part in parts {
            match part {
                Part::Candidates(candidates) => sent.extend(candidates),
                Part::Scores(_) => return Err("scores, where candidates were due".into()),
            }
        }
        // All of them, before any is taken.
        let mut taken = Vec::with_capacity(self.away.len());
        for (seat, proposal) in &self.away {
            let number = seat.number();
            let place = sent.iter().position(|candidate| candidate.number == number);
            let missing = || format!("candidate {number} is missing");
            let candidate = sent.swap_remove(place.ok_or_else(missing)?);
            taken.push((
                *seat,
                candidate.read(model, form, longest, &proposal.beginning)?,
            ));
        }
        for (seat, candidate) in taken {
            self.tokens += candidate.tokens.len() - candidate.known;
            self.open.put(seat, candidate);
        }
        self.away.clear();
        Ok(())
    }

    /// What becomes of the run when another process tells what cannot be.
    pub(super) fn refused(&self, reason: String) -> Result<Heard> {
        let reason = format!("a worker is not one of this run: {reason}");
        match &self.share {
            Some(share) => share.refuse(reason),
            None => Ok(Heard::Alone(reason)),
        }
    }

    pub(super) fn go_alone(&mut self, reason: String, tell: &mut dyn FnMut(EventKind)) {
        self.share = None;
        tell(EventKind::WorkersLost { reason });
    }

    /// Waits for nobody any more: the run is over.
    pub(in crate::align) fn stop_listening(&mut self) {
        self.share = None;
        for (seat, _) in std::mem::take(&mut self.away) {
            self.open.take_cancelled(seat, None);
        }
    }
}
