//! Command lines and inputs that nobody would write: whatever they are, the program ends in order.
//!
//! A part of them by default, 10,000 and 2,000 (`make storm`) where `AISP_LLAMA_STORM` is set.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::SIGINT;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use aisp_llama::text::brief;

use super::{LONG, send};
use crate::tiny::llama;

/// What is still at work then is interrupted.
const PATIENCE: Duration = Duration::from_secs(4);
/// Memory of a process, in KB.
const MEMORY: u64 = 8 << 20;

/// Every command, each with arguments that it can work with.
const COMMANDS: [&str; 15] = [
    "run -m tiny.gguf -p Hi. --reward rule:words=1..5 -n 4 --samples 2 --iterations 2 -t 1",
    "run -m tiny.gguf --prompts prompts.jsonl --reward rule:json -n 4 --samples 2 --iterations 1 -o out",
    "compare -m tiny.gguf --prompts prompts.jsonl --reward rule:words=1 -n 4 --samples 2 --budget 2 \
     --seeds 1 -t 1 -o out",
    "tune -m tiny.gguf --prompts prompts.jsonl --reward rule:words=1 -n 4 --samples 2 --budget 2 -o out",
    "train-value -m tiny.gguf --prompts prompts.jsonl --reward rule:words=1 -n 4 --responses 2 \
     --epochs 2 -o value.safetensors",
    "score --reward rule:words=1..5",
    "reward train -m tiny.gguf --data prompts.jsonl -o head.safetensors",
    "reward probe --reward rule:words=1..5",
    "reward import tiny.gguf -o head.safetensors",
    "inspect tiny.gguf",
    "quantize tiny.gguf small.gguf Q8_0",
    "completions bash",
    "man out",
    "help rewards",
    "try-model",
];

const VALUES: &str = "0 1 2 3 -1 -0 0.5 -0.5 1e999 nan inf 0x10 4294967295 4294967296 18446744073709551616 \
    1,2 1..2 2.. .. auto on off none all = ; : * 2* a=b -- - % %s {} [] {\"a\": null \u{1b}[2J \u{202e}é \
    rule:words=1..5 rule:json; rule:regex=( rule:regex=(a|aa)+$ rule: rule:compiles=false nothing: \
    command:cat command:false command: http:http://127.0.0.1:9;timeout=0.1;retries=0 http:http:// \
    judge:tiny.gguf likelihood:tiny.gguf 0*rule:json -1e999*rule:json tiny.gguf noise.gguf prompts.jsonl \
    empty . out missing /dev/null /dev/zero /dev/full {response} chat search aisp misvo:step=0.1 \
    best-of-n:temp=1 greedy,search search:elites=x preset=paper paper {{ {{1}} {%for 2026-01-31 2026-99-99 \
    root::=\"a\" root::=root {\"type\":\"integer\"} {\"$ref\":\"#\"} llama.block_count=int:9 q8_0 f16 \
    a/b a/b:Q4_0 CPU CUDA0 .*=CPU tiny.gguf:0.5 head=tiny.gguf tiny.gguf;head=noise.gguf Q4_0";

/// How it was started, and what it was given.
struct Case {
    words: Vec<OsString>,
    stdin: Vec<u8>,
    prompts: Vec<u8>,
}

/// The flags that the help of a command shows.
fn flags(command: &str) -> Vec<String> {
    let words = command.split(' ').take_while(|word| !word.starts_with('-'));
    let words = words.filter(|word| !word.contains('.'));
    let help = crate::program().args(words).arg("--help").output().unwrap();
    let help = crate::stdout(&help);
    let lines = help
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| line.split([' ', ',']));
    words
        .filter(|word| word.starts_with('-'))
        .map(String::from)
        .collect()
}

fn one<'a, T>(from: &'a [T], random: &mut ChaCha8Rng) -> &'a T {
    &from[random.random_range(0..from.len())]
}

/// A command line by its number.
fn line(number: u64, flags: &BTreeMap<&str, Vec<String>>) -> Case {
    let random = &mut ChaCha8Rng::seed_from_u64(number);
    let values: Vec<&str> = VALUES.split(' ').collect();
    let command = *one(&COMMANDS, random);
    let all: Vec<&str> = command.split_whitespace().collect();
    // As it can be worked with, as its name alone, or with something left out.
    let mut words: Vec<OsString> = match random.random_range(0..4) {
        0 => vec![all[0].into()],
        1 => all
            .iter()
            .filter(|_| random.random_range(0..8) > 0)
            .map(|word| (*word).into())
            .collect(),
        _ => all.iter().map(|word| (*word).into()).collect(),
    };
    for _ in 0..random.random_range(0..5) {
        // Most flags are the command's own.
        let of = match random.random_range(0..10) {
            0 => *one(&COMMANDS, random),
            _ => command,
        };
        if !flags[of].is_empty() {
            words.push(one(&flags[of], random).into());
        }
        let value: OsString = match random.random_range(0..40) {
            0 => "a".repeat(100_000).into(),
            1 => OsString::new(),
            2 => OsString::from_vec(b"a\xff".into()),
            _ => one(&values, random).into(),
        };
        match (random.random_range(0..6), words.last_mut()) {
            (0, _) => {}
            (1, Some(flag)) => {
                flag.push("=");
                flag.push(value);
            }
            _ => words.push(value),
        }
    }
    if random.random_range(0..50) == 0 && !words.is_empty() {
        let (a, b) = (
            random.random_range(0..words.len()),
            random.random_range(0..words.len()),
        );
        words.swap(a, b);
    }
    Case {
        words,
        stdin: b"{\"prompt\": \"a\", \"response\": \"b c\"}\n".repeat(3),
        prompts: b"{\"prompt\": \"a\", \"response\": \"b\", \"score\": 1}\n".repeat(3),
    }
}

/// Lines of JSON by their number, for one of the commands that read some.
fn lines(number: u64) -> Case {
    const PAIR: &str = r#"{"prompt": "Say hi.", "response": "Hi."}"#;
    const READERS: [(&str, &str); 8] = [
        ("score --reward rule:words=1..5 --json", PAIR),
        ("score --reward rule:json;sentences=1;language-tag=en", PAIR),
        ("score --reward rule:words=1 --show", PAIR),
        (
            "run --prompts prompts.jsonl -m tiny.gguf --reward rule:words=1 -n 2 --samples 1 --iterations 1 \
             -t 1 -o out",
            PAIR,
        ),
        (
            "run --messages prompts.jsonl -m tiny.gguf --reward rule:words=1 -n 2 --samples 1 --iterations 1 \
             -t 1",
            r#"[{"role": "user", "content": "Hi."}]"#,
        ),
        (
            "compare --prompts prompts.jsonl -m tiny.gguf --reward rule:words=1 -n 2 --samples 1 --budget 1 \
             --seeds 1 --methods greedy -t 1 -o out",
            PAIR,
        ),
        (
            "reward train --data prompts.jsonl -m tiny.gguf -t 1 -o head.safetensors",
            r#"{"prompt": "a", "response": "b", "score": -1.5e3}"#,
        ),
        (
            "reward probe --pairs prompts.jsonl --reward rule:words=1",
            r#"{"aspect": "x", "prompt": "a", "better": "b", "worse": "c d"}"#,
        ),
    ];
    const OTHERS: [&str; 6] = [
        r#"{"prompt": "é\ud83d\ude00", "response": "", "id": [1, null]}"#,
        r#"{"messages": [{"role": "user", "content": "a"}], "response": "b"}"#,
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
        r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#,
        r#"{"prompt": "a", "prompt": "b"}"#,
        "",
    ];
    const PIECES: [&[u8]; 22] = [
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\n",
        b"\"",
        b"\\",
        b"\\ud800",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b"null",
        b"1e999",
        b"-",
        b"18446744073709551616",
        b"\x1b[2J",
        b"\xe2\x80\xae",
        b"NaN",
        b"true",
    ];
    let random = &mut ChaCha8Rng::seed_from_u64(number);
    let mut text = Vec::new();
    let (command, sound) = *one(&READERS, random);
    for _ in 0..random.random_range(0..6) {
        let line = match random.random_range(0..8) {
            0 => *one(&OTHERS, random),
            _ => sound,
        };
        text.extend(line.as_bytes());
        text.push(b'\n');
    }
    for _ in 0..random.random_range(0..4) {
        let place = random.random_range(0..=text.len());
        match random.random_range(0..6) {
            0 => text.truncate(place),
            1 => drop(text.splice(place..place, b"[".repeat(random.random_range(1..100_000)))),
            2 => drop(text.splice(place..place, b"x".repeat(random.random_range(1..100_000)))),
            3 => drop(text.splice(place..text.len().min(place + 1), [random.random()])),
            _ => drop(text.splice(place..place, one(&PIECES, random).iter().copied())),
        }
    }
    Case {
        words: command.split_whitespace().map(OsString::from).collect(),
        stdin: text.clone(),
        prompts: text,
    }
}

/// How the program ends in `folder`, or what is wrong with that.
fn end(case: &Case, model: &[u8], folder: &Path) -> Result<i32, String> {
    let file = |name: &str| folder.join(name);
    fs::write(file("tiny.gguf"), model).unwrap();
    fs::write(file("noise.gguf"), &model[..model.len() / 2]).unwrap();
    fs::write(file("empty"), "").unwrap();
    fs::write(file("stdin"), &case.stdin).unwrap();
    fs::write(file("prompts.jsonl"), &case.prompts).unwrap();
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\""));
    command
        .arg(assert_cmd::cargo::cargo_bin("aisp-llama"))
        .args(&case.words);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LLAMA_ARG_") {
            command.env_remove(name);
        }
    }
    // Nothing is asked for elsewhere, and no model is taken that is not named.
    command
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env("HF_HOME", file("hub"));
    command.env("XDG_CACHE_HOME", folder.parent().unwrap().join("cache"));
    command
        .current_dir(folder)
        .stdin(File::open(file("stdin")).unwrap());
    command.stdout(File::create(file("stdout")).unwrap());
    let mut child = command
        .stderr(File::create(file("stderr")).unwrap())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let mut interrupted = false;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        thread::sleep(Duration::from_millis(1) + begun.elapsed() / 20);
        if begun.elapsed() > PATIENCE && !interrupted {
            send(&child, SIGINT);
            interrupted = true;
        }
        if begun.elapsed() > LONG {
            child.kill().unwrap();
            child.wait().unwrap();
            return Err("does not end".into());
        }
    };
    let error = String::from_utf8_lossy(&fs::read(file("stderr")).unwrap()).into_owned();
    let wrong = |what: &str| Err(format!("{what} ({status}): {}", brief(&error, 2000)));
    let errors = error
        .lines()
        .filter(|line| line.starts_with("error:"))
        .count();
    match status.code() {
        _ if error.contains("panicked") => wrong("a panic"),
        _ if error
            .chars()
            .any(|c| c.is_control() && c != '\n' && c != '\t') =>
        {
            wrong("acts on a terminal")
        }
        Some(130) if interrupted => Ok(130),
        Some(0) => Ok(0),
        Some(code @ 1..=4) if errors == 1 => Ok(code),
        // Of many prompts, each has its error, and their number is told.
        Some(1) if error.lines().any(|line| line.starts_with("failed: ")) => Ok(1),
        // A command of several says how they are called.
        Some(2) if error.contains("Usage:") => Ok(2),
        Some(1..=4) => wrong("not one error"),
        _ => wrong("an end that is not documented"),
    }
}

/// Runs the cases of these numbers, on as many cores as there are.
fn all(count: u64, make: impl Fn(u64) -> Case + Sync) {
    let every = std::env::var_os("AISP_LLAMA_STORM").map_or(50, |_| 1);
    let folder = TempDir::new().unwrap();
    let model = fs::read(llama::file().write(folder.path(), "model.gguf")).unwrap();
    let next = AtomicU64::new(0);
    let (ends, wrong) = (
        Mutex::new(BTreeMap::<i32, u64>::new()),
        Mutex::new(Vec::new()),
    );
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let number = next.fetch_add(every, Ordering::Relaxed)
                    && number < count
                {
                    let case = make(number);
                    let place = TempDir::new_in(folder.path()).unwrap();
                    match end(&case, &model, place.path()) {
                        Ok(code) => *ends.lock().unwrap().entry(code).or_default() += 1,
                        Err(what) => {
                            let words: Vec<String> = case
                                .words
                                .iter()
                                .map(|word| brief(&word.to_string_lossy(), 200))
                                .collect();
                            wrong
                                .lock()
                                .unwrap()
                                .push(format!("{number}: {words:?}: {what}"));
                        }
                    }
                }
            });
        }
    });
    println!(
        "{} cases, by exit code: {:?}",
        count.div_ceil(every),
        ends.lock().unwrap()
    );
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} of them:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn whatever_the_command_line_is_the_program_ends_in_order() {
    let flags: BTreeMap<&str, Vec<String>> = COMMANDS
        .iter()
        .map(|command| (*command, flags(command)))
        .collect();
    assert!(flags[COMMANDS[0]].len() > 80, "{flags:?}");
    all(10_000, |number| line(number, &flags));
}

#[test]
fn whatever_lines_of_json_there_are_the_program_ends_in_order() {
    all(2_000, lines);
}
