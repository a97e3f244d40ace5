//! The error type of the library: what was wrong, where, and what to do about it.

use std::path::{Path, PathBuf};

use crate::control::ControlError;
use crate::gguf::GgufError;

/// Result of this library's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can end an alignment run.
///
/// The variants follow the exit codes of the command line: see [`Error::exit_code`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option has a value that cannot be used. `option` is the flag or the field.
    #[error("{option}: {reason}")]
    Usage {
        /// The flag or field, as the user wrote it (`--sigma`).
        option: String,
        /// What is wrong with its value, and which values are allowed.
        reason: String,
    },
    /// A GGUF file cannot be read.
    #[error("{}: {source}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: GgufError,
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
    /// llama.cpp reported a failure while running.
    #[error("llama.cpp: {0}")]
    Engine(String),
    /// The run came to an end without an answer.
    #[error("{0}")]
    Run(String),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn usage(option: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Usage {
            option: option.into(),
            reason: reason.into(),
        }
    }

    pub(crate) fn model(path: &Path, reason: impl Into<String>) -> Self {
        Self::Model {
            path: path.to_path_buf(),
            reason: reason.into(),
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

    /// The exit code a program reports for this error: 1 run failed, 2 usage,
    /// 3 model file unusable, 4 reward failed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Engine(_) | Self::Run(_) | Self::Io { .. } => 1,
            Self::Usage { .. } => 2,
            Self::Gguf { .. } | Self::Model { .. } => 3,
            Self::Reward(_) => 4,
        }
    }
}

impl From<ControlError> for Error {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Option {
                field,
                value,
                expected,
            } => Self::usage(format!("--{field}"), format!("{value}; must be {expected}")),
            other => Self::Run(other.to_string()),
        }
    }
}
