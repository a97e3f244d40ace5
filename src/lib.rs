#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod align;
pub mod compare;
pub mod control;
mod error;
mod events;
pub mod gguf;
pub mod llama;
pub mod method;
pub mod report;
pub mod reward;
pub mod rollout;

pub use align::{AlignOptions, Aligner, AlignerOptions, Budget, Prompt, Stop, default_threads};
pub use error::{Error, Result};
pub use events::{
    Alignment, Event, IterationStats, ModelNames, ScoredCandidate, StopReason, Timings, Usage,
};
/// The arrays of the public functions.
pub use ndarray;
