//! Who writes where: jobs get slots, and go on from what is held already.

use super::{AskFor, Live, Rollout};
use crate::error::Result;
use crate::rollout::Written;

/// Tokens that a step writes without decoding, before it takes no further job.
const MOST_RECALLED: usize = 1024;

impl Rollout {
    /// Gives jobs to free slots, and writes those of their tokens that need no decoding; with no job
    /// left, moves the last candidates to the front so that fewer rows are decoded.
    pub(super) fn fill(&mut self, ask: &mut AskFor<'_>, all: &mut Vec<Written>) -> Result<()> {
        let mut next: Vec<(usize, Live)> = Vec::new();
        while all.len() < MOST_RECALLED
            && let Some((at, live)) = self.next()
        {
            let alone = live.job.alone;
            let free = |slot: &usize| {
                self.slots[*slot].is_none() && next.iter().all(|(taken, _)| taken != slot)
            };
            let others = |live: &Live| live.job.alone != alone;
            let mut writing = self.slots.iter().flatten();
            let waits = !self.context.cuts()
                && (writing.any(others) || next.iter().any(|(_, live)| others(live)));
            let mut slots = 0..self.slots.len();
            let slot = match alone {
                _ if waits => None,
                true => slots.rfind(free),
                false => slots.find(free),
            };
            let Some(slot) = slot else {
                self.waiting.insert(at, live);
                break;
            };
            let Some(live) = self.recall(live, ask, all) else {
                continue;
            };
            if let Some(served) = self.served.get_mut(&live.job.prompt) {
                *served += live.job.max_tokens - live.tokens.len();
            }
            next.push((slot, live));
        }
        // What is gone on from is parked before any slot holds something else.
        let found: Vec<Option<(usize, usize)>> =
            next.iter().map(|(_, live)| self.source(live)).collect();
        let mut sources: Vec<Option<usize>> = found.iter().map(|f| Some(f.as_ref()?.0)).collect();
        for job in 0..sources.len() {
            // Where somebody writes, nothing else is put.
            let written = |s: usize| self.slots.get(s).is_some_and(Option::is_some);
            if let Some(holder) = sources[job].filter(|holder| !written(*holder)) {
                let parked = self.park(holder, &sources)?;
                // For all that go on from there.
                let same = sources[job..].iter_mut().filter(|s| **s == Some(holder));
                same.for_each(|source| *source = parked);
            }
        }
        let from = sources.iter().zip(found);
        for ((slot, mut live), (source, found)) in next.into_iter().zip(from) {
            let last = live.prompt.len() - 1;
            self.keep(slot, &sources)?;
            match (source, found) {
                (Some(source), Some((_, held))) => {
                    self.context.share(*source, slot)?;
                    live.decoded = held - last;
                    self.context.rewind(slot, held)?;
                }
                _ => drop(self.context.hold(slot, &live.prompt[..last])?),
            }
            self.slots[slot] = Some(live);
        }
        let live = self.slots.iter().flatten();
        let count = live.filter(|live| !live.job.alone).count();
        for from in self.context.model().step_rows(count)..self.slots.len() {
            if self.slots[from]
                .as_ref()
                .is_some_and(|live| !live.job.alone)
                && let Some(to) = self.slots[..from].iter().position(Option::is_none)
            {
                self.keep(to, &[])?;
                self.context.share(from, to)?;
                self.slots.swap(from, to);
            }
        }
        Ok(())
    }

    /// Takes the job out of the queue that comes next, with its place there: the first on the prompt
    /// that was served least.
    fn next(&mut self) -> Option<(usize, Live)> {
        let served = |at: &usize| self.served.get(&self.waiting[*at].job.prompt).copied();
        let at = match self.served.len() {
            0 | 1 => 0,
            _ => (0..self.waiting.len()).min_by_key(served)?,
        };
        Some((at, self.waiting.remove(at)?))
    }

    /// Takes back what a job, which is over, was to write and has not written.
    pub(super) fn settle(&mut self, live: &Live) {
        if let Some(served) = self.served.get_mut(&live.job.prompt) {
            *served = served.saturating_sub(live.job.max_tokens - live.tokens.len());
        }
    }

    /// Parks what is written in a slot that is to hold something else: it may be gone on from.
    fn keep(&mut self, slot: usize, taken: &[Option<usize>]) -> Result<()> {
        if self.continued
            && let Some(holder) = self.context.holder_of_response(slot)
        {
            self.park(holder, taken)?;
        }
        Ok(())
    }

    /// The parked sequence that holds what `sequence` does, in place of what was used the longest time
    /// ago; `None` where all are `taken`, or waiting jobs go on from them.
    fn park(&mut self, sequence: usize, taken: &[Option<usize>]) -> Result<Option<usize>> {
        let mut parked = self.context.parked();
        if parked.contains(&sequence) {
            return Ok(Some(self.used(sequence)));
        }
        let place = match parked.find(|p| !self.uses.contains(p)) {
            Some(unused) => unused,
            None => {
                let wanted = self.wanted();
                let free = |p: &&usize| !taken.contains(&Some(**p)) && !wanted.contains(p);
                match self.uses.iter().find(free) {
                    Some(&oldest) => oldest,
                    None => return Ok(None),
                }
            }
        };
        self.context.share(sequence, place)?;
        Ok(Some(self.used(place)))
    }

    /// The sequences that waiting jobs go on from, with nothing to decode again.
    fn wanted(&self) -> Vec<usize> {
        let waiting = self.waiting.iter();
        let whole = |live: &Live| {
            let (sequence, held) = self.source(live)?;
            let known = live.prompt.len() - 1 + live.tokens.len();
            (held == known).then_some(sequence)
        };
        waiting.filter_map(whole).collect()
    }

    /// The sequence that a job goes on from, and how many tokens of it.
    fn source(&self, live: &Live) -> Option<(usize, usize)> {
        let prompt = live.prompt.len() - 1;
        self.context.holder(&live.before()?, prompt)
    }

    /// Puts a parked sequence last in the order of use.
    fn used(&mut self, parked: usize) -> usize {
        self.uses.retain(|p| *p != parked);
        self.uses.push(parked);
        parked
    }
}
