//! What is told about runs while they go on.

use serde::Serialize;

use super::parts::ScaledPart;
use super::record::{IterationStats, ScoredCandidate, StopReason, Timings, Usage};

/// A run of a [`Batch`](super::Batch): the number it has there, in the order in which they were
/// added, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RunId(pub u64);

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// In which run.
    pub run: RunId,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What may happen in a run.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The run begins.
    RunStarted {
        /// The prompt as the reward sees it.
        prompt: String,
        /// The method's name.
        method: &'static str,
        /// Seed of all randomness.
        seed: u64,
        /// Candidates of one iteration.
        samples: usize,
        /// Iterations.
        iterations: usize,
    },
    /// A decoding step is done.
    Progress {
        /// The iteration, from 0.
        iteration: usize,
        /// Tokens generated since the one before it was done, those of later ones included.
        tokens: usize,
        /// Candidates finished so far in it.
        finished: usize,
        /// Seconds spent on generating them.
        seconds: f64,
    },
    /// A candidate has its reward, or has none for a reason.
    CandidateScored(ScoredCandidate),
    /// An iteration is done.
    IterationDone(IterationStats),
    /// The first iteration is scored by a reward that is a sum.
    RewardParts {
        /// What of, in the order of [`ScoredCandidate::parts`].
        parts: Vec<ScaledPart>,
        /// Which of them decides everything: it moves the reward at least four times as much as all
        /// others together, by deviation × weight.
        #[serde(skip_serializing_if = "Option::is_none")]
        decisive: Option<usize>,
    },
    /// The held-out reward failed as a whole; the run goes on without it.
    HeldOutFailed {
        /// Why.
        reason: String,
    },
    /// A worker that had a share of the run is gone; the run goes on without any.
    WorkersLost {
        /// Why.
        reason: String,
    },
    /// The run is over.
    RunFinished {
        /// Tokens that a stop by target, patience or divergence has saved, about.
        #[serde(skip_serializing_if = "Option::is_none")]
        tokens_saved: Option<usize>,
        /// Why.
        stop: StopReason,
        /// The best reward.
        reward: Option<f64>,
        /// What it cost.
        usage: Usage,
        /// How long it took.
        timings: Timings,
    },
}
