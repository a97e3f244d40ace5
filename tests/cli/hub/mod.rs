//! Models of the Hugging Face Hub, from a server on this computer into a cache of their own.

mod import;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use aisp_llama::compare::FileId;
use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

use self::server::{COMMIT, Manners, REPO, Server};
use crate::testing::build;
use crate::tiny::recurrent::file;
use crate::{assert_refused, program, stderr, stdout};

const TOKEN: &str = "hf_0123456789012345678901234567890123456";

/// The files of the hub, and a cache with nothing in it.
struct Place {
    files: TempDir,
    cache: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            files: TempDir::new().unwrap(),
            cache: TempDir::new().unwrap(),
        };
        let files = place.files.path();
        file("lfm2").write(files, "tiny-Q8_0.gguf");
        file("qwen35").write(files, "tiny-Q4_K_M.gguf");
        fs::write(files.join("mmproj-Q8_0.gguf"), "no model").unwrap();
        place
    }

    fn serve(&self, manners: Manners) -> Server {
        Server::start(self.files.path(), manners)
    }

    /// A file of the hub.
    fn original(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Where llama.cpp has it.
    fn cached(&self, name: &str) -> PathBuf {
        let repo = self.cache.path().join("models--me--tiny");
        repo.join("snapshots").join(COMMIT).join(name)
    }

    /// The names in the folder of blobs.
    fn blobs(&self) -> Vec<String> {
        let folder = self.cache.path().join("models--me--tiny/blobs");
        let entries = fs::read_dir(folder).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(".lock")).collect();
        names.sort();
        names
    }

    /// The program with this hub and cache.
    fn program(&self, url: &str) -> Command {
        let mut command = program();
        for name in ["LLAMA_CACHE", "MODEL_ENDPOINT", "HF_TOKEN", "HF_HUB_CACHE"] {
            command.env_remove(name);
        }
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command
            .env("HF_ENDPOINT", url)
            .env("LLAMA_CACHE", self.cache.path());
        command
    }

    /// A short run with these flags.
    fn run(&self, url: &str, flags: &[&str]) -> Output {
        let mut command = self.program(url);
        command.arg("run").args(SHORT).args(flags);
        command.output().unwrap()
    }

    /// Its answer.
    fn answer(&self, url: &str, flags: &[&str]) -> String {
        let output = self.run(url, flags);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    }

    /// The answer of a file of the hub without a hub.
    fn own(&self, name: &str) -> String {
        let path = self.original(name).display().to_string();
        self.answer(NOWHERE, &["-m", &path])
    }
}

/// A run of a moment.
const SHORT: [&str; 14] = [
    "-p",
    "Sing.",
    "-t",
    "1",
    "-n",
    "12",
    "--no-chat",
    "--reward",
    "rule:words=2..4; contains=e",
    "--method",
    "best-of-n",
    "--samples",
    "4",
    "--iterations=1",
];

/// Where nobody listens.
const NOWHERE: &str = "http://127.0.0.1:9";

#[test]
fn a_model_of_the_hub_answers_as_its_file_does_and_stays() {
    let place = Place::new();
    let hub = place.serve(Manners::default());
    let (eight, four) = (place.own("tiny-Q8_0.gguf"), place.own("tiny-Q4_K_M.gguf"));
    assert_ne!(eight, four);
    assert_eq!(place.answer(&hub.url, &["-hf", "me/tiny:q8_0"]), eight);
    assert_eq!(place.answer(&hub.url, &["-hfr", "me/tiny"]), four);
    assert!(
        hub.asked()
            .iter()
            .all(|head| !head.contains("uthorization"))
    );
    // As llama.cpp and others lay it out.
    let repo = place.cache.path().join("models--me--tiny");
    let branch = fs::read_to_string(repo.join("refs/main")).unwrap();
    assert_eq!(branch, COMMIT);
    let hash = |name| FileId::of(&place.original(name)).unwrap().sha256;
    let mut hashes = [hash("tiny-Q8_0.gguf"), hash("tiny-Q4_K_M.gguf")];
    let target = fs::read_link(place.cached("tiny-Q8_0.gguf")).unwrap();
    assert_eq!(target, Path::new("../../blobs").join(&hashes[0]));
    hashes.sort();
    assert_eq!(place.blobs(), hashes);
    // Listed again, not fetched again.
    let before = hub.asked().len();
    assert_eq!(place.answer(&hub.url, &["-hf", "me/tiny:Q8_0"]), eight);
    assert_eq!(hub.asked().len(), before + 1);
    // Without a hub; and before another file, as in llama.cpp.
    let other = place.original("tiny-Q4_K_M.gguf").display().to_string();
    let output = place.run(NOWHERE, &["-m", &other, "-hf", "me/tiny:Q8_0"]);
    assert_eq!(stdout(&output), eight);
    assert!(stderr(&output).contains("me/tiny: the hub cannot be reached"));
    let file = ["-hf", "me/tiny:Q9", "-hff", "tiny-Q8_0.gguf"];
    assert_eq!(place.answer(NOWHERE, &file), eight);
}

#[test]
fn what_llama_cpp_has_fetched_is_used() {
    let place = Place::new();
    let name = "tiny-Q8_0.gguf";
    let hash = FileId::of(&place.original(name)).unwrap().sha256;
    let repo = place.cache.path().join("models--me--tiny");
    fs::create_dir_all(repo.join("blobs")).unwrap();
    fs::copy(place.original(name), repo.join("blobs").join(&hash)).unwrap();
    let hub = place.serve(Manners::default());
    let answer = place.own(name);
    assert_eq!(place.answer(&hub.url, &["-hf", "me/tiny:Q8_0"]), answer);
    assert_eq!(hub.asked().len(), 1, "only the list");
    assert_eq!(place.answer(NOWHERE, &["-hf", "me/tiny:Q8_0"]), answer);
    // By the environment, in the folder that transformers uses.
    let mut command = place.program(NOWHERE);
    let home = TempDir::new().unwrap();
    fs::rename(place.cache.path(), home.path().join("hub")).unwrap();
    command
        .env_remove("LLAMA_CACHE")
        .env("HF_HOME", home.path());
    command.env("LLAMA_ARG_HF_REPO", REPO);
    command.env("LLAMA_ARG_HF_FILE", name);
    let output = command.arg("run").args(SHORT).output().unwrap();
    assert_eq!(stdout(&output), answer, "{}", stderr(&output));
    fs::create_dir(place.cache.path()).unwrap();
}

#[test]
fn of_a_split_model_all_parts_come() {
    let place = Place::new();
    let parts = [1, 2].map(|part| format!("split-F32-0000{part}-of-00002.gguf"));
    for (number, part) in parts.iter().enumerate() {
        let header = build().str("general.architecture", "llama");
        let header = header.u32("part", number as u32).header();
        fs::write(place.original(part), header).unwrap();
    }
    let hub = place.serve(Manners::default());
    // Headers without a model: it is read as far as they go, by the name of the first.
    let output = place.run(&hub.url, &["-hf", "me/tiny:F32"]);
    assert_refused(&output, 3, &[&parts[0]]);
    for part in &parts {
        let fetched = fs::read(place.cached(part)).unwrap();
        assert_eq!(fetched, fs::read(place.original(part)).unwrap());
    }
    fs::remove_file(place.cached(&parts[1])).unwrap();
    let output = place.run(NOWHERE, &["-hf", "me/tiny:F32"]);
    assert_refused(
        &output,
        3,
        &["me/tiny: the hub cannot be reached", &parts[0]],
    );
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let place = Place::new();
    let hub = place.serve(Manners::default());
    for (url, flags, code, words) in [
        (
            &*hub.url,
            &["-hf", "me/tiny:Q9"][..],
            3,
            "me/tiny: there is no quant Q9; there are Q4_K_M, Q8_0",
        ),
        (
            &*hub.url,
            &["-hf", "me/tiny", "-hff", "x.gguf"],
            3,
            "me/tiny: there is no file x.gguf; there are mmproj-Q8_0.gguf, tiny-Q4_K_M.gguf, ",
        ),
        (
            &*hub.url,
            &["-hf", "me/large"],
            3,
            "me/large: the hub has no such repository (404); check the name; nothing of it is cached in",
        ),
        (
            NOWHERE,
            &["-hf", "me/tiny"],
            3,
            "me/tiny: the hub cannot be reached (",
        ),
        (
            NOWHERE,
            &["-hff", "x.gguf"],
            2,
            "-hff: it only goes with -hf",
        ),
        (NOWHERE, &["-hf", "tiny"], 2, "is not OWNER/NAME or OWNER/"),
        (
            NOWHERE,
            &["-hf", "me/tiny", "-hft", "a b"],
            2,
            "--hf-token: no token",
        ),
    ] {
        let output = place.run(url, flags);
        assert_refused(&output, code, &[words]);
    }
    let output = place.run(NOWHERE, &["-hf", "me/tiny"]);
    let words = format!(
        "; nothing of it is cached in {}; ",
        place.cache.path().display()
    );
    assert_refused(&output, 3, &[&words]);
    assert!(!place.cache.path().join("models--me--tiny").exists());
}

#[test]
fn heads_are_trained_on_models_of_the_hub_too() {
    let place = Place::new();
    let hub = place.serve(Manners::default());
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("ratings.jsonl");
    let line = |i: usize| format!("{{\"response\": \"{}\", \"score\": {i}}}\n", "x".repeat(i));
    fs::write(&data, (1..9).map(line).collect::<String>()).unwrap();
    let train = |model: &[&str]| {
        let mut command = place.program(&hub.url);
        command.args(["reward", "train", "--data"]).arg(&data);
        command
            .arg("-o")
            .arg(folder.path().join("head.safetensors"));
        command.args(model).output().unwrap()
    };
    let output = train(&["-hf", "me/tiny:Q9"]);
    assert_refused(&output, 3, &["me/tiny: there is no quant Q9; there are"]);
    let output = train(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--model <FILE.gguf>"));
}

#[test]
fn a_token_opens_what_is_closed() {
    let place = Place::new();
    let hub = place.serve(Manners {
        token: Some(TOKEN),
        ..Manners::default()
    });
    let wanted = ["-hf", "me/tiny:Q8_0"];
    let output = place.run(&hub.url, &wanted);
    let words = [
        "me/tiny: the hub refuses it (401)",
        "--hf-token",
        "HF_TOKEN",
    ];
    assert_refused(&output, 3, &words);
    let mut by_variable = place.program(&hub.url);
    by_variable.env("HF_TOKEN", "hf_wrong");
    let output = by_variable.arg("run").args(SHORT).args(wanted).output();
    assert_refused(&output.unwrap(), 3, &words[..1]);
    let with_token = [&wanted[..], &["-hft", TOKEN]].concat();
    let answer = place.answer(&hub.url, &with_token);
    assert_eq!(answer, place.own("tiny-Q8_0.gguf"));
    // Help says what comes from the environment, and no secret.
    let mut help = place.program(&hub.url);
    help.env("HF_TOKEN", TOKEN).args(["run", "--help"]);
    let help = stdout(&help.output().unwrap());
    assert!(help.contains("HF_TOKEN") && !help.contains(TOKEN));
}

#[test]
fn a_broken_connection_is_taken_up_where_it_ended() {
    let place = Place::new();
    let wanted = ["-hf", "me/tiny:Q8_0"];
    let broken = place.serve(Manners {
        cuts: usize::MAX,
        ..Manners::default()
    });
    let output = place.run(&broken.url, &wanted);
    let words = ["me/tiny: tiny-Q8_0.gguf: ", "run it again"];
    assert_refused(&output, 3, &words);
    assert!(!place.cached("tiny-Q8_0.gguf").exists());
    let [part] = &place.blobs()[..] else {
        panic!("{:?}", place.blobs());
    };
    assert!(part.ends_with(".part"));
    let hub = place.serve(Manners {
        cuts: 1,
        ..Manners::default()
    });
    let answer = place.answer(&hub.url, &wanted);
    assert_eq!(answer, place.own("tiny-Q8_0.gguf"));
    let anew = |head: &String| head.to_lowercase().contains("range: bytes=0-\r\n");
    assert!(!hub.asked().iter().any(anew), "{:?}", hub.asked());
}

#[test]
fn an_end_that_nobody_announced_is_found() {
    let place = Place::new();
    let wanted = ["-hf", "me/tiny:Q8_0"];
    let hub = place.serve(Manners {
        cuts: 1,
        untold: true,
        ..Manners::default()
    });
    let output = place.run(&hub.url, &wanted);
    assert_refused(
        &output,
        3,
        &["me/tiny: tiny-Q8_0.gguf: ", "bytes came instead of"],
    );
    assert_eq!(place.blobs(), [""; 0]);
    let answer = place.answer(&hub.url, &wanted);
    assert_eq!(answer, place.own("tiny-Q8_0.gguf"));
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_no_broken_file() {
    let place = Place::new();
    let wanted = ["-hf", "me/tiny:Q8_0"];
    let slow = place.serve(Manners {
        stalls: true,
        ..Manners::default()
    });
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("aisp-llama"));
    command.arg("run").args(SHORT).args(wanted);
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "MODEL_ENDPOINT",
    ] {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", &slow.url);
    command.env("LLAMA_CACHE", place.cache.path());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    let is_part = |name: &String| name.ends_with(".part");
    while !place.blobs().iter().any(is_part) {
        assert!(start.elapsed() < Duration::from_secs(120), "nothing comes");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(place.blobs().iter().all(is_part), "{:?}", place.blobs());
    assert!(!place.cached("tiny-Q8_0.gguf").exists());
    let hub = place.serve(Manners::default());
    let answer = place.answer(&hub.url, &wanted);
    assert_eq!(answer, place.own("tiny-Q8_0.gguf"));
}

#[test]
fn a_comparison_is_of_the_file() {
    let place = Place::new();
    let hub = place.serve(Manners::default());
    let prompts = place.cache.path().join("prompts.jsonl");
    fs::write(&prompts, "{\"prompt\": \"Sing.\"}\n").unwrap();
    let results = TempDir::new().unwrap();
    let compare = |url: &str, model: [&str; 2]| {
        let mut command = place.program(url);
        command.args(["compare", "--methods", "greedy,best-of-n", "--budget", "4"]);
        command.args(["-t", "1", "-n", "8", "--samples", "4", "--seeds", "1"]);
        command.args(["--no-chat", "--reward", "rule:words=2..4; contains=e"]);
        command.arg("--prompts").arg(&prompts);
        command.arg("-o").arg(results.path()).args(model);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    let tables = compare(&hub.url, ["-hf", "me/tiny:Q8_0"]);
    let settings = fs::read(results.path().join("settings.json")).unwrap();
    let settings: Value = serde_json::from_slice(&settings).unwrap();
    let model = FileId::of(&place.original("tiny-Q8_0.gguf")).unwrap();
    assert_eq!(settings["model"], serde_json::to_value(model).unwrap());
    // The same comparison, by the file.
    let path = place.original("tiny-Q8_0.gguf").display().to_string();
    assert_eq!(compare(NOWHERE, ["-m", &path]), tables);
}
