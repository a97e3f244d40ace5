//! One life of a program that scores: it is written to and read from by threads of its own,
//! so that nothing it does, or fails to do, can block the run.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::{Group, Tail, spawn_thread};
use super::{Answer, Sample, SampleError, Score};
use crate::stop::{Silence, Stop};

/// Longest line a program may print, in bytes.
const MAX_LINE: u64 = 1 << 20;
/// Lines read ahead; a program that prints more waits until they are looked at.
const LINES_AHEAD: usize = 64;
/// What is kept of stderr, for error messages.
const STDERR_KEPT: usize = 4 << 10;
/// Lines of stderr in an error message.
const STDERR_LINES: usize = 5;
/// Characters of an unusable line in an error message.
const LINE_SHOWN: usize = 80;
/// A shell that does not find its program ends within this time.
const EARLY_EXIT: Duration = Duration::from_millis(100);
/// How long a line too many is waited for after a batch.
const SETTLE: Duration = Duration::from_millis(20);
/// How long a program may take to end once its stdin, or stdout, is closed.
const GOODBYE: Duration = Duration::from_millis(200);
/// Exit codes of a shell for a program that cannot be executed, or is not there.
const NO_SUCH_PROGRAM: [i32; 2] = [126, 127];

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Another attempt may succeed.
    #[error("{0}")]
    Failed(String),
    /// As `Failed`, and the answers that were read are not to be trusted.
    #[error("wrong count: more lines than responses{0}")]
    TooMany(String),
    /// The program is not there: trying again is of no use.
    #[error("{0}")]
    NotFound(String),
    /// Nobody wants the answer any more.
    #[error("given up")]
    Stopped,
}

/// What the reading thread passes on; after anything but a line it ends.
enum Event {
    Line(String),
    TooLong,
    NotText,
}

/// One life of the program.
pub struct Session {
    group: Group,
    /// Text for the writing thread; closed to close the program's stdin.
    input: Option<Sender<String>>,
    lines: Receiver<Event>,
    stderr: Option<Tail>,
    stop: Stop,
}

impl Session {
    /// Starts `command`, which is waited for until a request on `stop`.
    pub fn start(command: &str, stop: &Stop) -> std::io::Result<Self> {
        let mut group = Group::spawn(command, Stdio::piped())?;
        let stderr = match group.child.stderr().take() {
            Some(stderr) => Some(Tail::new(stderr, STDERR_KEPT)?),
            None => None,
        };
        let (input, to_write) = channel::<String>();
        if let Some(mut stdin) = group.child.stdin().take() {
            // A thread, because the program may answer before it has read everything: both
            // pipes can be full at once. A broken pipe shows as the end of its output.
            spawn_thread("stdin", move || {
                for text in to_write {
                    if stdin.write_all(text.as_bytes()).is_err() {
                        break;
                    }
                }
            })?;
        }
        let (found, lines) = sync_channel(LINES_AHEAD);
        if let Some(stdout) = group.child.stdout().take() {
            spawn_thread("stdout", move || {
                let mut stdout = BufReader::new(stdout);
                while let Some(event) = next_line(&mut stdout) {
                    let last = !matches!(event, Event::Line(_));
                    if found.send(event).is_err() || last {
                        break;
                    }
                }
            })?;
        }
        Ok(Self {
            group,
            input: Some(input),
            lines,
            stderr,
            stop: stop.clone(),
        })
    }

    /// Whether the shell has ended already, not having found the program.
    pub fn missing_program(&mut self) -> Option<Fault> {
        let status = self.group.wait(EARLY_EXIT, &self.stop).ok()??;
        self.not_found(status)
    }

    /// Gives the samples without an answer to the program, and waits for their answers.
    pub fn ask(
        &mut self,
        samples: &[Sample<'_>],
        answers: &mut [Option<Answer>],
        deadline: Option<Instant>,
    ) -> Result<(), Fault> {
        let mut batch = String::new();
        let mut open = 0;
        for (id, sample) in samples.iter().enumerate() {
            if answers[id].is_none() {
                let (prompt, response) = (sample.prompt, sample.response);
                let mut line = json!({"id": id, "prompt": prompt, "response": response});
                if !sample.messages.is_empty() {
                    line["messages"] = json!(sample.messages);
                }
                batch += &line.to_string();
                batch.push('\n');
                open += 1;
            }
        }
        if let Some(input) = &self.input {
            // The writer ends before the program only if that has closed its stdin, which
            // shows below, as a timeout or as the end of its output.
            let _ = input.send(batch);
        }
        for read in 0..open {
            let reason = match self.stop.receive(&self.lines, deadline) {
                Ok(Event::Line(line)) => match take_answer(&line, answers) {
                    Ok(()) => continue,
                    Err(reason) => reason,
                },
                Ok(Event::TooLong) => format!("a line of more than {MAX_LINE} bytes"),
                Ok(Event::NotText) => "a line that is not UTF-8".into(),
                Err(Silence::TimedOut) => format!(
                    "timed out with {read} lines for {open} responses (it must print and flush \
                     a line for each, without waiting for the end of its input)"
                ),
                Err(Silence::Ended) => return Err(self.ended(read, open)),
                Err(Silence::Stopped) => return Err(Fault::Stopped),
            };
            return Err(Fault::Failed(reason + &self.last_words()));
        }
        self.nothing_left_over(SETTLE)
    }

    /// A fault if the program prints more than it was asked, within `wait` at the latest.
    pub fn nothing_left_over(&mut self, wait: Duration) -> Result<(), Fault> {
        match self.lines.recv_timeout(wait) {
            Ok(_) => Err(Fault::TooMany(self.last_words())),
            Err(_) => Ok(()),
        }
    }

    /// Why the output came to an end.
    fn ended(&mut self, read: usize, open: usize) -> Fault {
        let how = match self.group.wait(GOODBYE, &self.stop) {
            Ok(Some(status)) => match self.not_found(status) {
                Some(fault) if read == 0 => return fault,
                _ => format!("ended ({status})"),
            },
            _ => "closed its output".into(),
        };
        let words = self.last_words();
        Fault::Failed(format!(
            "{how} after {read} lines for {open} responses{words}"
        ))
    }

    fn not_found(&mut self, status: ExitStatus) -> Option<Fault> {
        let code = status
            .code()
            .filter(|code| NO_SUCH_PROGRAM.contains(code))?;
        let what = match code {
            126 => "cannot be executed",
            _ => "not found",
        };
        let words = self.last_words();
        Some(Fault::NotFound(format!("{what} (exit code {code}){words}")))
    }

    /// Kills the program; the end of its stderr as one line, for a message.
    fn last_words(&mut self) -> String {
        self.group.kill();
        let text = self.stderr.as_ref().map(Tail::text).unwrap_or_default();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        if lines.is_empty() {
            return String::new();
        }
        let last = lines[lines.len().saturating_sub(STDERR_LINES)..].join(" | ");
        // Control characters would reach the user's terminal.
        let last = last.replace(char::is_control, " ");
        format!("; its stderr ends: {}", last.trim())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.input = None;
        // A killed program is not waited for again; one that stays is killed by the group.
        let _ = self.group.wait(GOODBYE, &self.stop);
    }
}

/// The next line; `None` at the end.
fn next_line(stdout: &mut impl BufRead) -> Option<Event> {
    let mut line = Vec::new();
    match stdout.take(MAX_LINE + 1).read_until(b'\n', &mut line) {
        Ok(0) | Err(_) => None,
        Ok(read) if read as u64 > MAX_LINE => Some(Event::TooLong),
        Ok(_) => Some(String::from_utf8(line).map_or(Event::NotText, Event::Line)),
    }
}

/// Puts the answer that a line gives in its place.
fn take_answer(line: &str, answers: &mut [Option<Answer>]) -> Result<(), String> {
    let line = line.trim();
    let (id, answer) = match line.parse() {
        Ok(reward) => (None, Ok(score(reward))),
        Err(_) => parse_object(line).ok_or_else(|| {
            let start: String = line.chars().take(LINE_SHOWN).collect();
            format!("a line that is no answer: {start:?}")
        })?,
    };
    let id = match id {
        Some(id) => usize::try_from(id).unwrap_or(usize::MAX),
        None => answers
            .iter()
            .position(Option::is_none)
            .unwrap_or(usize::MAX),
    };
    match answers.get_mut(id) {
        Some(place @ None) => *place = Some(answer),
        Some(_) => return Err(format!("a second answer for id {id}")),
        None => return Err(format!("an answer for id {id}, which was not asked")),
    }
    Ok(())
}

fn parse_object(line: &str) -> Option<(Option<u64>, Answer)> {
    let object: Value = serde_json::from_str(line)
        // Python's `json.dumps` writes these, though JSON does not know them.
        .or_else(|_| {
            let plain = line
                .replace("-Infinity", "null")
                .replace("Infinity", "null");
            serde_json::from_str(&plain.replace("NaN", "null"))
        })
        .ok()?;
    let id = match object.get("id") {
        None | Some(Value::Null) => None,
        Some(id) => Some(id.as_u64()?),
    };
    let answer = match (object.get("error"), object.get("reward")) {
        (Some(Value::String(error)), _) => Err(SampleError::Other(error.clone())),
        (_, Some(Value::Null)) => Ok(score(f64::NAN)),
        (_, reward) => Ok(score(reward?.as_f64()?)),
    };
    Some((id, answer))
}

fn score(reward: f64) -> Score {
    Score {
        reward,
        ..Score::default()
    }
}
