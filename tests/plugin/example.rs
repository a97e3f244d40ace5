//! The examples against the command line and each other.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::common::{REWARD, SMOLLM2, path};
use crate::host::{Llama, python};
use crate::misuse::model;
use crate::{repository, succeed};

const PROMPT: &str = "<|im_start|>user\nWrite one sentence reviewing a movie about a lost dog.\
                      <|im_end|>\n<|im_start|>assistant\n";

fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| Llama::pinned().compile("examples/plugin/align.c", "align", &[]))
}

/// Arguments that mean the same to both programs, for a model in SmolLM2's place.
fn arguments(command: &mut Command, model: &Path) {
    command.arg("-m").arg(model);
    command.arg("-mr").arg(path(REWARD));
    command.args(["-p", PROMPT, "-n", "12", "-s", "5"]);
    command.args(["--samples", "11", "--iterations", "3"]);
}

/// What the example prints, a line each.
fn align(flags: &[&str]) -> Vec<Value> {
    lines(Command::new(program()), &path(SMOLLM2), flags)
}

fn lines(mut command: Command, model: &Path, flags: &[&str]) -> Vec<Value> {
    arguments(&mut command, model);
    let output = succeed(command.args(flags)).stdout;
    let lines = String::from_utf8(output).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_c_program_does_what_the_command_line_does() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aisp-llama"));
    command.args(["run", "--no-chat", "--json", "--candidates", "33"]);
    // The plugin does not see what the model itself says of a token, which a price and a floor need.
    command.args(["--method", "aisp", "--update", "weights"]);
    command.args(["--price", "off", "--floor", "0"]);
    arguments(&mut command, &path(SMOLLM2));
    let output = succeed(&mut command).stdout;
    let expected: Value = serde_json::from_slice(&output).unwrap();
    let found = align(&["--tier", "exact", "--method", "aisp"]);

    let candidates = expected["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 33);
    for candidate in candidates {
        let same = |line: &&Value| {
            line["iteration"] == candidate["iteration"]
                && line["candidate"] == candidate["candidate"]
        };
        let line = found.iter().find(same).unwrap();
        assert_eq!(line["text"], candidate["text"]);
        close(&line["reward"], &candidate["reward"]);
    }
    let updates = found.iter().filter(|line| line.get("u_norm").is_some());
    let updates: Vec<&Value> = updates.collect();
    let iterations = expected["iterations"].as_array().unwrap();
    assert_eq!((updates.len(), iterations.len()), (3, 3));
    for (line, iteration) in updates.iter().zip(iterations) {
        close(&line["u_norm"], &iteration["u_norm"]);
        // That of the plugin is over all candidates, repeats included.
        let own = candidates
            .iter()
            .filter(|c| c["iteration"] == iteration["index"]);
        let rewards: Vec<f64> = own.map(|c| c["reward"].as_f64().unwrap()).collect();
        let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
        close(&line["mean_reward"], &mean.into());
    }
    assert!(updates[2]["u_norm"].as_f64().unwrap() > 0.1, "{updates:?}");
    let best = found.last().unwrap();
    assert_eq!(best["response"], expected["response"]);
    close(&best["best_reward"], &expected["reward"]);
}

/// Equal to the nine digits that the example prints.
#[track_caller]
fn close(found: &Value, expected: &Value) {
    let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
    let apart = (found - expected).abs();
    assert!(apart <= 1e-8 * (1.0 + expected.abs()), "{found} {expected}");
}

/// Same noise, another way into the logits: the rounding of the host's product with W decides
/// a near tie otherwise now and then, and what follows it.
#[test]
fn the_sampler_tier_says_nearly_the_same() {
    expect_nearly_the_same(&path(SMOLLM2));
}

/// Heads that llama.cpp scales; with the scale the wrong way round next to nothing is the same.
#[test]
fn the_sampler_tier_knows_scaled_heads() {
    let folder = tempfile::tempdir().unwrap();
    for (architecture, keys) in [
        ("granite", &["logit_scale=4"][..]),
        (
            "minicpm",
            &["logit_scale=4", "embedding_scale=1", "residual_scale=1"],
        ),
    ] {
        let model = folder.path().join(format!("{architecture}.gguf"));
        let mut rename = python("tests/plugin/rename_architecture.py");
        rename.arg(path(SMOLLM2)).arg(&model).arg(architecture);
        succeed(rename.args(keys));
        expect_nearly_the_same(&model);
    }
}

#[track_caller]
fn expect_nearly_the_same(model: &Path) {
    let first = |tier: &str| -> Vec<Vec<Value>> {
        let lines = lines(Command::new(program()), model, &["--tier", tier]);
        let own = lines.into_iter().filter(|line| line["iteration"] == 0);
        own.filter_map(|line| Some(line["tokens"].as_array()?.clone()))
            .collect()
    };
    let (exact, sampler) = (first("exact"), first("sampler"));
    assert_eq!((exact.len(), sampler.len()), (11, 11));
    let (mut same, mut all) = (0, 0);
    for (a, b) in exact.iter().zip(&sampler) {
        all += a.len();
        same += a.iter().zip(b).take_while(|(a, b)| a == b).count();
    }
    assert!(
        same * 4 > all * 3,
        "{same} of {all} tokens before the first difference"
    );
}

/// Two languages, one llama.cpp, which is not the pinned one.
#[test]
fn another_llama_cpp_and_python_run_it_too() {
    let program = Llama::packaged().compile("examples/plugin/align.c", "align-packaged", &[]);
    for tier in ["exact", "sampler"] {
        let c = lines(Command::new(&program), &path(SMOLLM2), &["--tier", tier]);
        let python = lines(
            python("examples/plugin/align.py"),
            &path(SMOLLM2),
            &["--tier", tier],
        );
        assert_eq!((c.len(), python.len()), (33 + 3 + 1, 33 + 3 + 1));
        for (c, python) in c.iter().zip(&python) {
            for (field, expected) in c.as_object().unwrap() {
                match expected {
                    Value::Number(_) => close(&python[field], expected),
                    _ => assert_eq!(&python[field], expected),
                }
            }
        }
        let last = &c[c.len() - 2];
        assert!(last["u_norm"].as_f64().unwrap() > 0.1, "{last}");
    }
}

/// Under the address sanitizer: freed twice, or never, is a failure.
#[test]
fn a_chain_owns_its_samplers() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["-fsanitize=address"];
    let program = Llama::pinned().compile("tests/plugin/samplers.c", "samplers", &options);
    succeed(Command::new(program).arg(model(folder.path())));
}

#[test]
fn a_chain_owns_its_samplers_in_python_as_well() {
    let folder = tempfile::tempdir().unwrap();
    succeed(python("tests/plugin/samplers.py").arg(model(folder.path())));
}

#[test]
fn the_glue_is_c_plus_plus_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("glue.cpp");
    std::fs::write(
        &source,
        "#include \"aisp_llama_glue.h\"\n\
         llama_sampler * make(aisp * run) { return aisp_sampler_init(run, 0); }\n\
         void set(llama_context_params & p, aisp ** run) {\n\
             p.cb_eval = aisp_eval_callback; p.cb_eval_user_data = run;\n\
         }\n\
         aisp_host host() { return aisp_glue_host(); }\n",
    )
    .unwrap();
    let mut compiler = Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".into()));
    compiler.args([
        "-std=c++11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsyntax-only",
        "-I",
    ]);
    compiler.arg(repository().join("include"));
    for folder in Llama::pinned().headers {
        compiler.arg("-isystem").arg(folder);
    }
    succeed(compiler.arg(source));
}
