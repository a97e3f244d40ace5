//! What takes too long for every change: `make soak`.
#![cfg(target_os = "linux")]

#[path = "../src/gguf/testing.rs"]
mod testing;
#[path = "common/tiny/mod.rs"]
mod tiny;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

// For `testing`.
#[allow(unused_imports)]
use aisp_llama::gguf::{Gguf, GgufError, TensorType};
use aisp_llama::llama::{Model, ModelOptions};
use aisp_llama::method::Rounds;
use aisp_llama::reward::{CommandOptions, CommandReward};
use aisp_llama::{AlignOptions, Aligner, EngineOptions, Prompt, Stop};
use serde_json::Value;

const KILLS: u32 = 20;

/// All rows and answers in the folder, by file, without what depends on the clock.
fn rows(folder: &Path) -> Vec<Vec<Value>> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    let mut found = Vec::new();
    for path in files {
        if path.is_dir() {
            found.extend(rows(&path));
        } else if path.extension().is_some_and(|e| e == "jsonl") {
            let text = fs::read_to_string(path).unwrap();
            let mut lines: Vec<Value> = text.lines().map(|l| timeless(l)).collect();
            // Answers come as they are done.
            lines.sort_by_key(|line| line["index"].as_u64());
            found.push(lines);
        }
    }
    found
}

fn timeless(line: &str) -> Value {
    fn forget(value: &mut Value) {
        match value {
            Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| {
                match name.contains("second") || name == "timings" {
                    true => *value = Value::Null,
                    false => forget(value),
                }
            }),
            Value::Array(items) => items.iter_mut().for_each(forget),
            _ => {}
        }
    }
    let mut value = serde_json::from_str(line).unwrap();
    forget(&mut value);
    value
}

#[test]
fn killed_twenty_times_it_ends_with_the_rows_of_an_undisturbed_run() {
    let common = "-m tiny.gguf -t 1 -n 16 --no-chat --prompts prompts.jsonl --samples 8 \
                  --reward rule:words=2..4;contains-exact=e";
    for command in [
        "compare --budget 32 --seeds 2 --methods best-of-n,search,misvo",
        "tune --budget 32",
        "run --iterations 4",
    ] {
        let folder = tempfile::tempdir().unwrap();
        tiny::recurrent::file("lfm2").write(folder.path(), "tiny.gguf");
        let prompts: String = (0..24)
            .map(|i| format!("{{\"prompt\": \"Describe {i}.\"}}\n"))
            .collect();
        fs::write(folder.path().join("prompts.jsonl"), prompts).unwrap();
        let start = |output: &str| {
            let mut program = Command::new(env!("CARGO_BIN_EXE_aisp-llama"));
            program
                .args(command.split(' '))
                .args(common.split_whitespace());
            program.args(["-o", output]).current_dir(folder.path());
            program
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let begun = Instant::now();
        assert!(start("whole").wait().unwrap().success(), "{command}");
        let whole = begun.elapsed();
        let mut kills = 0;
        let mut done = 0;
        while kills < KILLS {
            let mut child = start("killed");
            // Later and later, so that some of them have whole rows.
            std::thread::sleep(whole * (kills % 10 + 1) / 12);
            match child.try_wait().unwrap() {
                Some(status) => {
                    assert!(status.success(), "{command}");
                    done += 1;
                    fs::remove_dir_all(folder.path().join("killed")).unwrap();
                    assert!(done < KILLS, "{command}: it is too fast to be killed");
                }
                None => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    kills += 1;
                }
            }
        }
        assert!(start("killed").wait().unwrap().success(), "{command}");
        let expected = rows(&folder.path().join("whole"));
        assert!(expected.iter().flatten().count() > 20, "{command}");
        assert_eq!(rows(&folder.path().join("killed")), expected, "{command}");
    }
}

/// Bytes of memory, and open files.
fn held() -> (u64, usize) {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    (pages * 4096, fs::read_dir("/proc/self/fd").unwrap().count())
}

#[test]
fn neither_memory_nor_open_files_grow_over_many_runs() {
    let minutes = std::env::var("SOAK_MINUTES").map_or(20.0, |m| m.parse().unwrap());
    let end = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    let folder = tempfile::tempdir().unwrap();
    let path = tiny::recurrent::file("lfm2").write(folder.path(), "tiny.gguf");
    let model = Arc::new(Model::load(&path, &ModelOptions::default()).unwrap());
    let mut aligner = Aligner::new(model, EngineOptions::default()).unwrap();
    // It dies now and then.
    let mut reward = CommandReward::new(CommandOptions {
        command: "n=0; while read -r l; do n=$((n + 1)); [ $n -gt 50 ] && exit 1; echo $n; done"
            .into(),
        ..CommandOptions::default()
    })
    .unwrap();
    let (mut runs, mut warm) = (0, None);
    while Instant::now() < end || runs < 60 {
        let rounds = Rounds {
            samples: 8,
            iterations: 3,
            seed: runs,
            max_tokens: 16,
        };
        let options = AlignOptions {
            rounds,
            ..AlignOptions::default()
        };
        let prompt = Prompt::Raw(format!("Describe {runs}."));
        aligner
            .align(&prompt, &mut reward, &options, &Stop::new(), &mut |_| {})
            .unwrap();
        runs += 1;
        if runs == 30 {
            warm = Some(held());
        }
    }
    let ((before, files), (after, files_after)) = (warm.unwrap(), held());
    println!("{runs} runs: {before} bytes, {files} files; then {after} bytes, {files_after} files");
    assert!(after < before + (16 << 20), "{before} {after}");
    assert!(files_after <= files + 1, "{files} {files_after}");
}
