//! A folder that keeps lines of JSON as they are made, and says in `settings.json` what made them.
//!
//! A line is written once, whole, so that whoever writes may be killed at any moment and goes on
//! where it stood.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::save::{check_output, save};

/// A folder, which nobody else writes to meanwhile.
pub struct Folder {
    file: File,
    path: PathBuf,
}

/// A line that a folder holds already.
pub struct Line {
    /// Its number in the file, from 1.
    pub number: usize,
    /// What it says.
    pub value: Value,
}

impl Folder {
    /// Makes the folder where there is none, and checks that files can be written there: before the
    /// work whose outcome it is to hold.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot.
    pub fn check(folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        check_output(&folder.join("settings.json"))
    }

    /// Opens `folder`, making it where there is none, for lines in its file `name` that are made
    /// with `settings`, an object. The lines that are there stay, and are the second part of the
    /// answer; one that was cut off in the middle is dropped.
    ///
    /// # Errors
    /// [`Error::Field`] when the folder holds lines of other settings, naming what differs, or when
    /// another process writes to it; [`Error::Io`] when it cannot be read or written.
    pub fn open(folder: &Path, name: &str, settings: &Value) -> Result<(Self, Vec<Line>)> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let path = folder.join(name);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let reason = format!("{}: another process is at work there", folder.display());
                return Err(Error::field("output", reason));
            }
            Err(TryLockError::Error(source)) => return Err(Error::io(&path)(source)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::io(&path))?;
        let made_with = folder.join("settings.json");
        match std::fs::read_to_string(&made_with) {
            Ok(text) => same_settings(&text, settings, &made_with)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if !bytes.is_empty() {
                    let reason = format!(
                        "{}: rows without the settings.json that says how they were made; give \
                         another folder",
                        path.display()
                    );
                    return Err(Error::field("output", reason));
                }
                save(&made_with, format!("{settings:#}\n"))?;
            }
            Err(source) => return Err(Error::io(&made_with)(source)),
        }
        // In bytes: a line may have been cut off in the middle of a character.
        let end = bytes.iter().rposition(|&b| b == b'\n');
        let whole = end.map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(Error::io(&path))?;
        file.seek(SeekFrom::End(0)).map_err(Error::io(&path))?;
        let opened = Self { file, path };
        let numbered = (1..).zip(bytes[..whole].split(|&b| b == b'\n'));
        let lines = numbered.filter(|(_, line)| !line.is_empty());
        let lines: Result<Vec<Line>> = lines
            .map(|(number, line)| {
                let value = serde_json::from_slice(line);
                let value = value.map_err(|e| opened.refuse(number, &e.to_string()))?;
                Ok(Line { number, value })
            })
            .collect();
        Ok((opened, lines?))
    }

    /// What a line that was there already says.
    ///
    /// # Errors
    /// [`Error::Field`] naming the line that says nothing of the kind.
    pub fn read<T: DeserializeOwned>(&self, line: Line) -> Result<T> {
        let parsed = serde_json::from_value(line.value);
        parsed.map_err(|e| self.refuse(line.number, &e.to_string()))
    }

    /// What is wrong with a line that was there already, by its number from 1.
    pub fn refuse(&self, number: usize, reason: &str) -> Error {
        let place = format!("{}: line {number}: {reason}", self.path.display());
        Error::field(
            "output",
            format!("{place}; delete the line or give another folder"),
        )
    }

    /// Adds a line in one piece.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_string(line).map_err(|e| Error::Run(e.to_string()))?;
        line.push('\n');
        let written = self.file.write_all(line.as_bytes());
        written.map_err(Error::io(&self.path))
    }
}

fn same_settings(found: &str, wanted: &Value, path: &Path) -> Result<()> {
    let refuse = |what: String| {
        let reason = format!("{}: {what}; give another folder", path.display());
        Err(Error::field("output", reason))
    };
    let Ok(found) = serde_json::from_str::<Value>(found) else {
        return refuse("no settings of this program".into());
    };
    let fields = wanted.as_object().into_iter().flatten();
    for (field, wanted) in fields {
        let had = &found[field];
        if had != wanted {
            let (had, wanted) = first_difference(had, wanted);
            return refuse(format!("made with {field} {had}, not {wanted}"));
        }
    }
    Ok(())
}

/// Two different values, shortened to where they differ.
fn first_difference(a: &Value, b: &Value) -> (String, String) {
    if let (Some(a), Some(b)) = (a.as_array(), b.as_array()) {
        match a.iter().zip(b).find(|(a, b)| a != b) {
            Some((a, b)) => return first_difference(a, b),
            None => return (format!("of {}", a.len()), format!("of {}", b.len())),
        }
    }
    let short = |v: &Value| {
        let text = v.to_string();
        let cut: String = text.chars().take(200).collect();
        if cut.len() < text.len() {
            cut + "…"
        } else {
            cut
        }
    };
    (short(a), short(b))
}
