//! Programs of others, where the environment says that they are there.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use aisp_llama::{EngineOptions, Prompt, default_threads};

use crate::common;
use crate::growth::median;
use crate::rows::{
    Bench, FEW, LENGTH, Measured, SMOLLM, STORY, TURNS, generation, in_turn, measured, rounds,
    smollm, to_the_end,
};

/// Tokens of the prompt that llama.cpp's program makes up, about as many as ours has.
const PROMPT: usize = 16;

/// What `variable` names, or the row without it.
fn named(variable: &str) -> Result<OsString, Measured> {
    std::env::var_os(variable).ok_or_else(|| Measured {
        ratios: Vec::new(),
        note: format!("not run, as `{variable}` named no program"),
    })
}

/// llama.cpp's `batched-bench`, as `BATCHED_BENCH`.
pub fn against_batched_bench() -> Measured {
    let program = match named("BATCHED_BENCH") {
        Ok(program) => program,
        Err(not_run) => return not_run,
    };
    let mut bench = to_the_end("aisp:steer=0", 16);
    let prompt = Prompt::Raw(STORY.into());
    measured(in_turn(
        TURNS,
        || generation(&mut bench, &prompt),
        || tokens_a_second(&program, 16),
    ))
}

/// Tokens a second of generation in so many sequences that it says.
fn tokens_a_second(program: &OsString, sequences: usize) -> f64 {
    let (length, threads) = (LENGTH.to_string(), default_threads().to_string());
    let context = ((PROMPT + LENGTH).next_multiple_of(256) * sequences).to_string();
    let mut command = Command::new(program);
    command
        .arg("-m")
        .arg(common::path(SMOLLM))
        .args(["-c", &context, "-b", "512", "-ub", "512", "-ngl", "0"])
        .args(["-t", &threads, "-tb", &threads, "--output-format", "jsonl"])
        .args(["-npp", &PROMPT.to_string(), "-ntg", &length])
        .args(["-npl", &sequences.to_string()]);
    let text = said(command);
    let line = text.lines().find(|l| l.starts_with('{')).unwrap();
    let said: serde_json::Value = serde_json::from_str(line).unwrap();
    said["speed_tg"].as_f64().unwrap()
}

/// `aisp_torch.py` by a Python that has torch, transformers and gguf, as `TORCH_PYTHON`: the paper's
/// update, as the first of ours; the others are the note's.
pub fn against_pytorch() -> Measured {
    const TOKENS: usize = 64;
    const OURS: [&str; 3] = ["aisp:preset=paper", "aisp", "search"];
    let python = match named("TORCH_PYTHON") {
        Ok(python) => python,
        Err(not_run) => return not_run,
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/performance/aisp_torch.py");
    let prompt = Prompt::Raw(STORY.into());
    let mut benches = OURS.map(|method| {
        let engine = EngineOptions::default();
        let mut bench = Bench::new(smollm(), method, rounds(16, 16, TOKENS), engine);
        bench.options.form.ignore_end = true;
        bench
    });
    let seconds = |bench: &mut Bench| {
        let timings = bench.run(&prompt).timings;
        timings.total_seconds - timings.reward_seconds
    };
    let theirs = || {
        let mut command = Command::new(&python);
        command.arg(&script).arg(common::path(SMOLLM)).arg(STORY);
        let numbers = [16, 16, TOKENS, default_threads()];
        command.args(numbers.map(|number| number.to_string()));
        let text = said(command);
        text.trim().parse::<f64>().unwrap()
    };
    let mut ratios = OURS.map(|_| Vec::new());
    for turn in 0..=FEW {
        let theirs = theirs();
        for (bench, ratios) in benches.iter_mut().zip(&mut ratios) {
            let ratio = theirs / seconds(bench);
            // The first turn warms up.
            if turn > 0 {
                ratios.push(ratio);
            }
        }
    }
    let [paper, aisp, search] = ratios;
    let (aisp, search) = (median(aisp), median(search));
    Measured {
        ratios: paper,
        note: format!("; `aisp` {aisp:.2}, the default search {search:.2}"),
    }
}

/// What a program prints whose threads wait as it has them wait by itself.
fn said(mut command: Command) -> String {
    command
        .env_remove("OMP_WAIT_POLICY")
        .env_remove("GOMP_SPINCOUNT");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
