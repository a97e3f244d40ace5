//! A model's file is tried in another process first: what ends that one ends no other.
//!
//! [`Gguf::fault`] refuses what is known to make llama.cpp abort. What no header tells is found by
//! doing it: [`try_model`] loads the file, reads a text of every kind with its vocabulary, and decodes
//! one batch. `aisp-llama try-model` is the process around it. A file that came through is remembered
//! by what it is (its header, size and time) and how it was loaded, so that it is tried once.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::model::no_numbers;
use super::{
    Attention, Context, ContextOptions, Encoder, Model, ModelOptions, Pooling, Row, Token,
    classifier_obstacle, is_encoder, llama_version, parts,
};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::text::brief;

/// The command that tries a model.
const COMMAND: &str = "try-model";

/// The exit code behind which the reason stands on stdout.
const UNUSABLE: i32 = 3;

/// The last of the exit codes that the program has.
const LAST_CODE: i32 = 4;

/// Most characters of the last words of a process.
const LAST_WORDS: usize = 300;

/// A text with letters, numbers, white space, and characters that few vocabularies have whole.
const TEXT: &str =
    "What is 6 * 7?\n\n\tIt is 42, naïve “reader” — 漢字, ภาษา, \u{1f642}\u{0}\u{7f}.";

/// Where models are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// The program `aisp-llama`.
    pub program: PathBuf,
    /// The folder where files that came through are remembered; without one each is tried each time.
    pub memory: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Request {
    path: PathBuf,
    options: ModelOptions,
}

impl Isolation {
    /// Tries the file at `path`, whose header is `gguf`, where it is not remembered.
    ///
    /// # Errors
    /// [`Error::Model`] where that ends the process, with its last words, or finds the file unusable;
    /// [`Error::Field`] where there is no process. What is an error there for another reason will be
    /// one here.
    pub(super) fn check(&self, path: &Path, options: &ModelOptions, gguf: &Gguf) -> Result<()> {
        let request = Request {
            path: path.to_owned(),
            options: options.clone(),
        };
        let request = serde_json::to_vec(&request)
            .map_err(|_| Error::model(path, "its path is not UTF-8; give it another"))?;
        let mark = self.memory.as_ref().and_then(|folder| {
            let name = fingerprint(path, options, gguf, &request)?;
            Some(folder.join(name))
        });
        if mark.as_ref().is_some_and(|mark| mark.exists()) {
            return Ok(());
        }
        let cannot = |error| {
            let program = self.program.display();
            Error::field(
                "isolate",
                format!("cannot try a model with {program}: {error}"),
            )
        };
        let mut child = Command::new(&self.program)
            .arg(COMMAND)
            .env("GGML_NO_BACKTRACE", "1")
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(cannot)?;
        // One that ends before it has read it is seen by how it ends.
        let _ = child
            .stdin
            .take()
            .map(|mut stdin| stdin.write_all(&request));
        let output = child.wait_with_output().map_err(cannot)?;
        match output.status.code() {
            Some(0) => {
                if let Some(mark) = mark {
                    // Without it the file is tried again.
                    let folder = mark.parent().map_or(Ok(()), fs::create_dir_all);
                    let _ = folder.and_then(|()| fs::write(&mark, ""));
                }
                Ok(())
            }
            Some(UNUSABLE) if !output.stdout.is_empty() => {
                let reason = String::from_utf8_lossy(&output.stdout);
                Err(Error::model(path, brief(reason.trim(), LAST_WORDS)))
            }
            Some(1..=LAST_CODE) => Ok(()),
            _ if was_asked_to_end(output.status) => Ok(()),
            _ => Err(Error::model(
                path,
                format!(
                    "a process that only loads this model and decodes a batch of it dies ({}: {}); \
                     the file is damaged, or for another llama.cpp: download it again, or convert \
                     the model again with a current one",
                    output.status,
                    last_words(&output.stderr)
                ),
            )),
        }
    }
}

/// Whether somebody interrupted the process, which says nothing about the file.
fn was_asked_to_end(status: ExitStatus) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;

        use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGTERM};
        let signals = [SIGHUP, SIGINT, SIGTERM].map(|signal| signal as i32);
        status
            .signal()
            .is_some_and(|signal| signals.contains(&signal))
    }
    #[cfg(not(unix))]
    {
        let _ = status;
        false
    }
}

/// What failed, as the process said it: an assertion, or its last line.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with("note: run with"));
    let line = match lines.clone().find(|line| line.contains("GGML_ASSERT")) {
        Some(assertion) => assertion,
        None => lines.next_back().unwrap_or("without a word"),
    };
    // Not where it was built.
    let line = line
        .rsplit_once("/llama.cpp/")
        .map_or(line, |(_, place)| place);
    brief(line, LAST_WORDS)
}

/// What is remembered of a file that came through, as it was loaded.
fn fingerprint(path: &Path, options: &ModelOptions, gguf: &Gguf, request: &[u8]) -> Option<String> {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(llama_version());
    hash.update(request);
    let header = gguf.tensors().iter().map(|tensor| tensor.offset).min();
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(header?).read_to_end(&mut bytes).ok()?;
    hash.update(&bytes);
    let others = parts::others(path, gguf).ok()?;
    let adapters = options.lora.iter().map(|(path, _)| path.as_path());
    let others = others.iter().map(PathBuf::as_path).chain(adapters);
    for file in std::iter::once(path).chain(others) {
        let found = fs::metadata(file).ok()?;
        let modified = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        hash.update(fs::canonicalize(file).ok()?.as_os_str().as_encoded_bytes());
        hash.update(found.len().to_le_bytes());
        hash.update(modified.as_nanos().to_le_bytes());
    }
    let digest = hash.finalize();
    Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Loads the model that `request` names, as [`Isolation`] writes it, reads a text with its vocabulary
/// and decodes one batch. The answer is what makes the file unusable though it loads, if anything.
///
/// # Errors
/// Those of [`Model::load`] and of decoding; [`Error::Field`] for what is no such request.
pub fn try_model(request: impl Read) -> Result<Option<String>> {
    let request: Request = serde_json::from_reader(request)
        .map_err(|error| Error::field("request", error.to_string()))?;
    let model = Arc::new(Model::load(&request.path, &request.options)?);
    let tokens = read_text(&model);
    let reads = is_encoder(model.gguf()) || classifier_obstacle(model.gguf()).is_none();
    let numbers = match reads {
        true => encode(&model, &tokens)?,
        false => decode(&model, &tokens)?,
    };
    // Below everything is a way to rule a token out.
    let bad = |number: &&f32| number.is_nan() || **number == f32::INFINITY;
    Ok(numbers.iter().find(bad).map(no_numbers))
}

/// Tokens of a text, behind everything that is asked of a vocabulary.
fn read_text(model: &Model) -> Vec<Token> {
    let _ = (model.specials(), model.ends(), model.bos_eos_text());
    let mut tokens = model.tokenize(TEXT, true, true);
    tokens.extend(model.tokenize(TEXT, false, false));
    let vocabulary = model.vocabulary();
    tokens.retain(|&token| usize::try_from(token).is_ok_and(|token| token < vocabulary));
    tokens.truncate(model.trained_context().saturating_sub(1).clamp(1, 64));
    let _ = model.text(&tokens);
    if tokens.is_empty() {
        tokens.push(0);
    }
    tokens
}

fn encode(model: &Arc<Model>, tokens: &[Token]) -> Result<Vec<f32>> {
    let pooling = match classifier_obstacle(model.gguf()) {
        None => Pooling::Rank,
        Some(_) => Pooling::Mean,
    };
    let flash = Attention::default().flash;
    Encoder::new(Arc::clone(model), pooling, 1, flash)?.encode(tokens)
}

fn decode(model: &Arc<Model>, tokens: &[Token]) -> Result<Vec<f32>> {
    let options = ContextOptions {
        context: tokens.len() + 1,
        ..ContextOptions::default()
    };
    let mut context = Context::new(Arc::clone(model), &options)?;
    context.hold(0, tokens)?;
    for sequence in 1..options.sequences {
        context.share(0, sequence)?;
    }
    let row = Row {
        token: tokens[0],
        position: tokens.len(),
    };
    context.step(&vec![row; options.sequences], None, true)?;
    context.logits(0).map(<[f32]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn the_last_words_are_an_assertion_or_the_last_line() {
        for (stderr, words) in [
            (
                "some log\n/home/x/llama.cpp/src/a.cpp:3: GGML_ASSERT(a) failed\nand more\n",
                "src/a.cpp:3: GGML_ASSERT(a) failed",
            ),
            ("one\n\u{1b}two\nnote: run with x\n\n", "\\u{1b}two"),
            ("", "without a word"),
        ] {
            assert_eq!(last_words(stderr.as_bytes()), words);
        }
    }
}
