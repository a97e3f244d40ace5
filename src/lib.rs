#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

#[cfg(feature = "engine")]
mod align;
#[cfg(feature = "engine")]
pub mod compare;
pub mod control;
mod error;
#[cfg(feature = "engine")]
mod events;
pub mod gguf;
#[cfg(feature = "engine")]
pub mod llama;
#[cfg(feature = "engine")]
pub mod method;
pub mod output;
#[cfg(feature = "plugin")]
pub mod plugin;
#[cfg(feature = "engine")]
pub mod report;
#[cfg(feature = "engine")]
pub mod reward;
#[cfg(feature = "engine")]
pub mod rollout;

#[cfg(feature = "engine")]
pub use align::{AlignOptions, Aligner, AlignerOptions, Budget, Prompt, Stop, default_threads};
pub use error::{Error, Result};
#[cfg(feature = "engine")]
pub use events::{
    Alignment, Event, IterationStats, ModelNames, ScoredCandidate, StopReason, Timings, Usage,
};
/// The arrays of the public functions.
pub use ndarray;
