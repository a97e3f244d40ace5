//! The iterations of a run that are being written: the one that is scored next, and behind it
//! those that were begun ahead, where the method does not wait for outcomes.

use std::collections::VecDeque;

use super::record::Usage;
use super::share::SentCandidate;
use crate::error::{Error, Result};
use crate::rollout::{Candidate, End, Written};

/// Which candidate of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    iteration: usize,
    candidate: usize,
}

impl Seat {
    /// Its number in its iteration.
    pub(super) fn number(&self) -> usize {
        self.candidate
    }
}

/// One iteration.
pub(super) struct Iteration {
    /// By number; `None` for one that is still being written, or that a stop kept from it.
    pub(super) candidates: Vec<Option<Candidate>>,
    /// Why it cannot be scored.
    pub(super) failed: Option<Error>,
    /// Candidates that are still being written.
    open: usize,
    /// Tokens of each so far.
    written: Vec<usize>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Open {
    /// Number of the first.
    first: usize,
    iterations: VecDeque<Iteration>,
}

impl Open {
    /// Opens the next iteration: the seats of its candidates.
    pub(super) fn push(&mut self, count: usize) -> impl Iterator<Item = Seat> + use<> {
        let iteration = self.first + self.iterations.len();
        self.iterations.push_back(Iteration {
            candidates: (0..count).map(|_| None).collect(),
            failed: None,
            open: count,
            written: vec![0; count],
        });
        (0..count).map(move |candidate| Seat {
            iteration,
            candidate,
        })
    }

    /// Takes the first iteration out.
    pub(super) fn pop(&mut self) -> Option<Iteration> {
        self.first += 1;
        self.iterations.pop_front()
    }

    fn of(&mut self, seat: Seat) -> Option<&mut Iteration> {
        self.iterations.get_mut(seat.iteration - self.first)
    }

    /// Takes what a step has written; whether that was the candidate's end. What fails in an
    /// iteration that was begun ahead counts when its turn comes.
    pub(super) fn take(&mut self, seat: Seat, written: Written) -> Result<bool> {
        let ahead = seat.iteration > self.first;
        let Some(iteration) = self.of(seat) else {
            return Ok(true);
        };
        iteration.written[seat.candidate] += 1;
        let Some(candidate) = written.done else {
            return Ok(false);
        };
        iteration.open -= 1;
        match candidate {
            Ok(candidate) => iteration.candidates[seat.candidate] = Some(candidate),
            Err(error) if ahead => iteration.failed = iteration.failed.take().or(Some(error)),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Takes a candidate that a stop has cut short, or kept from being written.
    pub(super) fn take_cancelled(&mut self, seat: Seat, candidate: Option<Candidate>) {
        if let Some(iteration) = self.of(seat) {
            iteration.candidates[seat.candidate] = candidate;
            iteration.open -= 1;
        }
    }

    /// Takes a candidate that was written elsewhere.
    pub(super) fn put(&mut self, seat: Seat, candidate: Candidate) {
        if let Some(iteration) = self.of(seat) {
            iteration.written[seat.candidate] = candidate.tokens.len();
        }
        self.take_cancelled(seat, Some(candidate));
    }

    /// Candidates of the first iteration that are not there yet.
    pub(super) fn missing(&self) -> usize {
        self.iterations.front().map_or(0, |first| first.open)
    }

    /// Those of the first iteration that are there, as they travel.
    pub(super) fn sent(&self) -> Vec<SentCandidate> {
        let first = self.iterations.front();
        let candidates = first.into_iter().flat_map(|first| first.candidates.iter());
        let there = candidates.enumerate();
        there
            .filter_map(|(i, candidate)| Some(SentCandidate::of(i, candidate.as_ref()?)))
            .collect()
    }

    /// How many candidates of the first iteration are finished; `None` when nothing is open.
    pub(super) fn finished(&self) -> Option<usize> {
        let first = self.iterations.front()?;
        Some(first.candidates.len() - first.open)
    }

    /// Whether all candidates of the first iteration are there.
    pub(super) fn is_written(&self) -> bool {
        self.iterations.front().is_some_and(|first| first.open == 0)
    }

    /// Whether a candidate that no stop has cut short is there.
    pub(super) fn has_whole(&self) -> bool {
        let mut candidates = self.iterations.iter().flat_map(|i| &i.candidates).flatten();
        candidates.any(|candidate| candidate.end != End::Stopped)
    }

    /// Of every candidate of the first iteration in its order: whether it is finished, and its
    /// tokens so far.
    pub(super) fn written(&self) -> impl Iterator<Item = (bool, usize)> {
        self.iterations.front().into_iter().flat_map(|first| {
            let finished = first.candidates.iter().map(Option::is_some);
            finished.zip(first.written.iter().copied())
        })
    }

    /// Candidates and reward calls that will have been spent, at most, once the open iterations
    /// are scored.
    pub(super) fn usage(&self, mut so_far: Usage) -> Usage {
        for iteration in &self.iterations {
            so_far.candidates += iteration.candidates.len();
            so_far.reward_calls += iteration.candidates.len();
        }
        so_far
    }
}
