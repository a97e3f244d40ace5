//! What is lost when something breaks: nothing that was there, and nothing that was found.

mod files;
mod interrupts;
mod orphans;
mod rewards;
mod storm;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::tiny::recurrent::file;

/// How long anything may take on a busy computer.
const LONG: Duration = Duration::from_secs(300);

/// A folder with a tiny model in it, and six prompts.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        file("lfm2").write(folder.path(), "tiny.gguf");
        let prompts = (0..6).map(|i| format!("{{\"prompt\": \"Describe {i}.\"}}\n"));
        let prompts: String = prompts.collect();
        fs::write(folder.path().join("prompts.jsonl"), prompts).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A pipe with a name: opening it waits for the other end.
    fn pipe(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        path
    }

    /// A shell script, and the reward that it is.
    fn reward(&self, script: &str, timeout: f64) -> String {
        let path = self.path("reward.sh");
        fs::write(&path, script).unwrap();
        format!("command:sh {};timeout={timeout}", path.display())
    }

    /// A command in the folder, with the model where it needs one.
    fn command(&self, words: &[&str]) -> Command {
        self.limited("", words)
    }

    /// The same behind a line of the shell, for limits that it sets.
    fn limited(&self, limit: &str, words: &[&str]) -> Command {
        let program = assert_cmd::cargo::cargo_bin("aisp-llama");
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("{limit}\nexec \"$0\" \"$@\""));
        command.arg(program).args(words).current_dir(self.0.path());
        command.env_remove("LLAMA_ARG_MODEL");
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `run` of a few short candidates.
    fn run(&self, words: &[&str]) -> Vec<String> {
        let flags = ["run", "-m", "tiny.gguf", "-t", "1", "-n", "6", "--no-chat"];
        let flags = [&flags[..], &["-p", "Hi.", "--samples", "4"], words];
        flags.concat().into_iter().map(String::from).collect()
    }
}

/// The words as a command takes them.
fn refs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Waits for `done`, as long as anything may take.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

/// Waits until the program knows what to do about an interrupt: the shell before it, and the dynamic
/// linker, do not.
fn until_it_listens(child: &Child) {
    let path = |name: &str| format!("/proc/{}/{name}", child.id());
    let bit = 1_u64 << (Signal::SIGINT as u32 - 1);
    until("it does not listen", || {
        let name = fs::read_to_string(path("comm")).unwrap();
        let status = fs::read_to_string(path("status")).unwrap();
        let set = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            u64::from_str_radix(line.unwrap().trim(), 16).unwrap() & bit != 0
        };
        name == "aisp-llama\n" && (set("SigBlk:") || set("SigCgt:"))
    });
}

/// The number that a script has written there.
fn pid_in(path: &Path) -> u32 {
    let mut found = None;
    until("no number comes", || {
        let text = fs::read_to_string(path).unwrap_or_default();
        found = text.strip_suffix('\n').and_then(|text| text.parse().ok());
        found.is_some()
    });
    found.unwrap()
}

/// Panics unless the process ends; a killed one may wait to be reaped by the system's first process.
fn assert_gone(pid: u32) {
    until(&format!("process {pid} still runs"), || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
    });
}

#[test]
fn every_attack_names_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for entry in fs::read_dir(root.join("attacks")).unwrap() {
        let page = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in page.lines().filter_map(|line| line.strip_prefix("- `")) {
            let test = line.split('`').next().unwrap();
            let (file, name) = test.split_once(": ").unwrap_or((test, ""));
            let text = fs::read_to_string(root.join(file)).unwrap();
            assert!(
                text.contains(&format!(" {name}(")) || name.is_empty(),
                "{test}"
            );
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
}
