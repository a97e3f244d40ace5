//! The trace: every event of a run, one JSON object a line.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::align::{Event, EventKind};
use crate::error::{Error, Result};

/// A JSONL file that events are appended to.
pub struct Trace {
    out: BufWriter<File>,
    path: PathBuf,
    failure: Option<std::io::Error>,
}

impl Trace {
    /// Creates `path`, replacing what was there.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(Error::io(path))?;
        Ok(Self {
            out: BufWriter::new(file),
            path: path.to_path_buf(),
            failure: None,
        })
    }

    /// Writes one event; progress within an iteration is left out. Whole iterations are on
    /// disk even when the program is killed later. A failure is kept for [`Self::finish`].
    pub fn write(&mut self, event: &Event) {
        if matches!(event.kind, EventKind::Progress { .. }) || self.failure.is_some() {
            return;
        }
        let written = serde_json::to_writer(&mut self.out, event)
            .map_err(std::io::Error::from)
            .and_then(|()| self.out.write_all(b"\n"))
            .and_then(|()| match event.kind {
                EventKind::CandidateScored(_) => Ok(()),
                _ => self.out.flush(),
            });
        self.failure = written.err();
    }

    /// Closes the file.
    ///
    /// # Errors
    /// [`Error::Io`] for the first failure of any write.
    pub fn finish(mut self) -> Result<()> {
        let flushed = self.out.flush();
        match self.failure.take().or(flushed.err()) {
            None => Ok(()),
            Some(cause) => Err(Error::io(&self.path)(cause)),
        }
    }
}
