//! ```no_run
//! use std::{path::Path, sync::Arc};
//! use aisp_llama::llama::{Model, ModelOptions};
//! use aisp_llama::reward::FnReward;
//! use aisp_llama::{AlignOptions, Aligner, EngineOptions, Prompt, Stop};
//!
//! # fn main() -> aisp_llama::Result<()> {
//! let model = Arc::new(Model::load(Path::new("base.gguf"), &ModelOptions::default())?);
//! let mut aligner = Aligner::new(model, EngineOptions::default())?;
//! let mut reward = FnReward::new("brevity", |_prompt, response| -(response.len() as f64));
//! let (prompt, options) = (Prompt::user(None, "Describe the sea."), AlignOptions::default());
//! let answer = aligner.align(&prompt, &mut reward, &options, &Stop::new(), &mut |_| {})?;
//! println!("{} ({})", answer.response, answer.reward);
//! # Ok(())
//! # }
//! ```
//!
//! Test-time alignment of local GGUF models: while a model answers, it is steered towards what a
//! reward likes, without training and without a change of its weights.
//!
//! ```text
//! prompt ──► method ──► rollout ──► candidates ──► reward ──► method ──► next proposals ─┐
//!              ▲                                                                          │
//!              └──────────────────────────── iterations ──────────────────────────────────┘
//! ```
//!
//! - [`Aligner`] answers one prompt after the other; a [`Batch`] turns many runs on one rollout.
//! - [`method`]: search, aisp, best-of-n and the others, each a file with its settings, in one table.
//! - [`rollout`]: candidates by the batch, which is kept full.
//! - [`reward`]: classifiers, heads, judges, likelihoods, rules, programs, servers, and functions
//!   of your own.
//! - [`control`]: the mathematics (arXiv 2510.26219), which touches no model.
//! - [`llama`]: the engine, all that touches llama.cpp.
//! - [`output`]: the output matrix; [`gguf`]: the header reader, which never panics.
//! - [`compare`], [`train`], [`report`]: methods side by side, value networks, plots and traces.
//!
//! The house is described in `docs/architecture.md`, with how to add a method or a reward; the
//! command line and what was measured in the README and docs/. Errors name fields: see [`Error`].
#![warn(missing_docs)]

#[cfg(feature = "engine")]
mod align;
#[cfg(feature = "engine")]
pub mod compare;
pub mod control;
mod error;
pub mod gguf;
#[cfg(feature = "engine")]
pub mod llama;
mod math;
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
mod save;
#[cfg(feature = "server")]
pub mod serve;
#[cfg(feature = "engine")]
mod stop;
#[cfg(feature = "engine")]
pub mod text;
#[cfg(feature = "engine")]
pub mod train;

#[cfg(feature = "engine")]
pub use align::{
    AlignOptions, Aligner, Alignment, Batch, Budget, Ended, EngineOptions, Event, EventKind, Heard,
    IterationStats, Link, ModelNames, Opened, Part, Prompt, ReasoningOptions, Recruit, Request,
    Rewards, RunId, RunRewards, ScaledPart, ScoredCandidate, SentAnswer, SentCandidate, Session,
    Share, StopReason, Timings, Told, Usage, Wrap, default_threads,
};
pub use error::{Error, Result};
/// The arrays of the public functions.
pub use ndarray;
#[cfg(feature = "engine")]
pub use save::{check_output, save};
#[cfg(feature = "engine")]
pub use stop::Stop;

/// Keeps the Rust of docs/library.md compiling.
#[cfg(all(doctest, feature = "engine"))]
#[doc = include_str!("../docs/library.md")]
struct LibraryPage;
