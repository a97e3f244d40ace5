//! The error type of the library: what was wrong, where, and what to do about it.
//!
//! What is wrong with a value names its *field* ([`Error::Field`]), as a configuration would: a
//! face turns it into its flag, its JSON key or its status code. Reasons name other fields
//! between backticks (``give a smaller `max-tokens` ``), so that a face can do the same with
//! those.

use std::io;
use std::path::{Path, PathBuf};

use crate::gguf::GgufError;

/// Result of this library's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can end an alignment run.
///
/// A message says its reason once: what the system or a reader said is part of it, hence no
/// [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field has a value that cannot be used.
    #[error("{field}: {reason}")]
    Field {
        /// Name of the field, in kebab case (`max-tokens`).
        field: String,
        /// What is wrong with its value, and which values are allowed.
        reason: String,
    },
    /// A GGUF file cannot be read.
    #[error("{}: {cause}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: GgufError,
    },
    /// A model file is sound, but cannot do what it was asked to do.
    #[error("{}: {reason}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What it lacks, and what to do.
        reason: String,
    },
    /// The reward failed as a whole (a single unusable response is no error).
    #[error("reward: {0}")]
    Reward(String),
    /// The reward has an answer to none of a run's responses, each for a reason of its own.
    #[error("reward: {0}")]
    Unscored(String),
    /// llama.cpp reported a failure while running.
    #[error("llama.cpp: {0}")]
    Engine(String),
    /// The run came to an end without an answer.
    #[error("{0}")]
    Run(String),
    /// A file could not be read or written.
    #[error("{}: {}", path.display(), io_reason(.cause))]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
}

/// What the system said, with a remedy where there is one.
pub(crate) fn io_reason(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::NotFound => "no such file or folder; check the path and its spelling".into(),
        io::ErrorKind::PermissionDenied => "this user may not; change its permissions".into(),
        io::ErrorKind::IsADirectory => "a directory, not a file; name the file".into(),
        _ => cause.to_string(),
    }
}

impl Error {
    /// What is wrong with the value of a field.
    pub fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Field {
            field: field.into(),
            reason: reason.into(),
        }
    }

    /// What is wrong, for a message that says where in its own words: of a field without its
    /// name, of anything else the whole message.
    #[must_use]
    pub fn reason(self) -> String {
        match self {
            Self::Field { reason, .. } => reason,
            other => other.to_string(),
        }
    }

    /// For `map_err`: the system's error at a file.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io {
            path: path.to_path_buf(),
            cause,
        }
    }

    /// For `map_err`: what is wrong with a GGUF file.
    pub fn gguf(path: &Path) -> impl FnOnce(GgufError) -> Self {
        move |cause| Self::Gguf {
            path: path.to_path_buf(),
            cause,
        }
    }

    pub(crate) fn model(path: &Path, reason: impl Into<String>) -> Self {
        Self::Model {
            path: path.to_path_buf(),
            reason: reason.into(),
        }
    }

    /// What is wrong with a prompt, seen from a list of them, of which it is number `index`, from 0.
    #[cfg(feature = "engine")]
    pub(crate) fn in_prompts(self, index: usize) -> Self {
        match self {
            Self::Field { field, reason } if field == "prompt" => {
                Self::field("prompts", format!("prompt {}: {reason}", index + 1))
            }
            other => other,
        }
    }

    /// A failure of the engine, seen from a reward that runs on it.
    #[cfg(feature = "engine")]
    pub(crate) fn in_reward(self) -> Self {
        match self {
            Self::Engine(reason) => Self::Reward(reason),
            other => other,
        }
    }
}
