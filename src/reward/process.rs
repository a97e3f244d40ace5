//! Child processes that never outlive their use: each leads a process group of its own, and
//! the whole group is killed, so that what the command started ends with it, and with the program.
//!
//! Out of reach is only a process that leaves the group on purpose (`setsid`). Nothing here
//! waits for the end of a pipe without a time limit, because such a process can keep it open.

use std::collections::VecDeque;
use std::io::{Read, Result, Write};
use std::path::Path;
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(windows)]
use process_wrap::std::JobObject;
#[cfg(unix)]
use process_wrap::std::ProcessGroup;
use process_wrap::std::{ChildWrapper, CommandWrap};

#[cfg(unix)]
use super::keeper;
use crate::stop::Stop;

/// What is kept of the stderr of a command that is run once.
const STDERR_KEPT: usize = 64 << 10;
/// How long the last words of a killed process may take through the pipe.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Longest pause between two looks at a running process.
const LONGEST_NAP: Duration = Duration::from_millis(10);

/// The words of a shell command that name files, such as the program that it runs; what output is
/// sent to is none of them.
pub(super) fn files(command: &str) -> Vec<&Path> {
    let mut words = command.split_whitespace();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        let path = Path::new(word.trim_matches(['"', '\'', ';']));
        if word.ends_with('>') {
            words.next();
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

/// A shell command with all three pipes, leading its own process group (on Windows a job). Dropping
/// it kills the group and reaps the leader; so does the end of the program, however it comes.
pub(super) struct Group {
    pub child: Box<dyn ChildWrapper>,
    status: Option<ExitStatus>,
}

impl Group {
    /// Starts `command` with the system's shell.
    pub fn spawn(command: &str, stdout: Stdio) -> Result<Self> {
        let mut shell = shell(command);
        shell
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::piped());
        let mut shell = CommandWrap::from(shell);
        #[cfg(unix)]
        shell.wrap(ProcessGroup::leader());
        #[cfg(windows)]
        shell.wrap(JobObject);
        let group = Self {
            child: shell.spawn()?,
            status: None,
        };
        // Where nobody could end it with the program, it is not begun.
        #[cfg(unix)]
        keeper::keep(group.child.id())?;
        Ok(group)
    }

    /// Waits for the command to end by itself; `None` when `timeout` passed first, or a stop was asked
    /// for and what was begun then has had its time. Whatever an ended command left behind is killed.
    pub fn wait(&mut self, timeout: Duration, stop: &Stop) -> Result<Option<ExitStatus>> {
        let start = Instant::now();
        let mut nap = Duration::from_millis(1);
        loop {
            if self.status.is_none() {
                self.status = self.child.try_wait()?;
                if self.status.is_some() {
                    // The leader's id is free from here on, but the system gives out ids in
                    // turn: it cannot be another process's within this instant. Later it
                    // could, so an ended group is never killed again.
                    self.signal();
                }
            }
            let left = timeout.saturating_sub(start.elapsed());
            if self.status.is_some() || left.is_zero() || stop.is_overdue() {
                return Ok(self.status);
            }
            thread::sleep(nap.min(left));
            nap = (nap * 2).min(LONGEST_NAP);
        }
    }

    /// Kills the group, unless the command has ended and its group with it.
    pub fn kill(&mut self) {
        if self.status.is_none() {
            self.signal();
            self.status = self.child.wait().ok();
        }
    }

    /// Failures are ignored: they mean that nothing is left to be killed.
    fn signal(&mut self) {
        let _ = self.child.start_kill();
        #[cfg(unix)]
        keeper::forget(self.child.id());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(not(windows))]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command);
    shell
}

#[cfg(windows)]
fn shell(command: &str) -> Command {
    use std::os::windows::process::CommandExt;
    let mut shell = Command::new("cmd");
    // Raw: `cmd` does not undo the quoting that other programs expect.
    shell.arg("/C").raw_arg(command);
    shell
}

/// The last bytes a process wrote to stderr, kept up to date by a thread that drains it.
pub(super) struct Tail {
    kept: Arc<Mutex<VecDeque<u8>>>,
    end: Receiver<()>,
}

impl Tail {
    /// Drains `stderr`, keeping the last `keep` bytes.
    pub fn new(mut stderr: ChildStderr, keep: usize) -> Result<Self> {
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let shared = Arc::clone(&kept);
        let (ended, end) = sync_channel(1);
        spawn_thread("stderr", move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut chunk) {
                let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&chunk[..read]);
                let excess = kept.len().saturating_sub(keep);
                kept.drain(..excess);
            }
            // Nobody may be waiting for it any more.
            let _ = ended.send(());
        })?;
        Ok(Self { kept, end })
    }

    /// What was kept; call it when the process has ended.
    pub fn text(&self) -> String {
        // Whether it ended or not, what came up to now is all there is to tell.
        let _ = self.end.recv_timeout(LAST_WORDS);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// `std::thread::spawn` panics where the system has no more threads; this reports it.
pub(super) fn spawn_thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(format!("reward-{name}"))
        .spawn(body)
        .map(|_| ())
}

/// How a command ended.
pub(super) struct Finished {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The last 64 KiB it wrote to stderr.
    pub stderr: String,
}

/// Runs `command` once with `input` on its stdin; its stdout is dropped. `None` when it took
/// longer than `timeout`, or `stop` was asked for. Either way, nothing it started is running any more.
pub(super) fn run_once(
    command: &str,
    input: &[u8],
    timeout: Duration,
    stop: &Stop,
) -> Result<Option<Finished>> {
    let mut group = Group::spawn(command, Stdio::null())?;
    let tail = match group.child.stderr().take() {
        Some(stderr) => Some(Tail::new(stderr, STDERR_KEPT)?),
        None => None,
    };
    if let Some(mut stdin) = group.child.stdin().take() {
        let input = input.to_vec();
        // A command need not read its input: the broken pipe then is no failure.
        spawn_thread("stdin", move || drop(stdin.write_all(&input)))?;
    }
    Ok(group.wait(timeout, stop)?.map(|status| Finished {
        code: status.code(),
        stderr: tail.map(|tail| tail.text()).unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn run_once(command: &str, input: &[u8], timeout: Duration) -> Option<Finished> {
        super::run_once(command, input, timeout, &Stop::new()).unwrap()
    }

    #[test]
    fn the_files_of_a_command_are_those_that_are_there() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let name = file.path().display();
        let found = |command: &str| -> Vec<PathBuf> {
            let files = files(command).into_iter();
            files.map(Path::to_path_buf).collect()
        };
        assert_eq!(found(&format!("sh '{name}' --seed 1")), [file.path()]);
        assert!(found(&format!("cat > {name}")).is_empty());
        assert!(found("cat no-such-file").is_empty());
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn exit_code_and_stderr_are_reported() {
        let finished = run_once("cat >&2; exit 3", b"hello", LONG).unwrap();
        assert_eq!(finished.code, Some(3));
        assert_eq!(finished.stderr, "hello");
    }

    #[test]
    fn death_by_a_signal_has_no_exit_code() {
        let finished = run_once("kill -9 $$", b"", LONG).unwrap();
        assert_eq!(finished.code, None);
    }

    #[test]
    fn input_nobody_reads_does_not_block() {
        let finished = run_once("exit 0", &vec![b'x'; 1 << 20], LONG);
        assert_eq!(finished.unwrap().code, Some(0));
    }

    #[test]
    fn of_much_stderr_the_end_is_kept() {
        let command = "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo end >&2";
        let finished = run_once(command, b"", LONG).unwrap();
        assert!(finished.stderr.ends_with("xend\n"));
        assert_eq!(finished.stderr.len(), STDERR_KEPT);
    }

    #[test]
    fn a_hanging_command_is_given_up() {
        let start = Instant::now();
        let short = Duration::from_millis(100);
        assert!(run_once("sleep 1000 & wait", b"", short).is_none());
        assert!(start.elapsed() < LONG);
    }

    /// The grandchild holds the pipes open: without the kill, the end would never come.
    #[test]
    fn what_an_ended_command_left_running_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let command = format!("sleep 1000 & echo $! > '{}'", file.display());
        let finished = run_once(&command, b"", LONG).unwrap();
        assert_eq!(finished.code, Some(0));
        let pid = std::fs::read_to_string(file).unwrap();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        let start = Instant::now();
        while !gone() {
            assert!(start.elapsed() < LONG, "{pid} still runs");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
