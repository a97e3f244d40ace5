//! The C example, linked with the llama.cpp of this build, against the command line.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::common::{REWARD, SMOLLM2, path};
use crate::misuse::model;
use crate::{compiler, link, repository, succeed, target};

const PROMPT: &str = "<|im_start|>user\nWrite one sentence reviewing a movie about a lost dog.\
                      <|im_end|>\n<|im_start|>assistant\n";

/// Source of the pinned llama.cpp.
fn llama_source() -> PathBuf {
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--offline", "--format-version", "1"]);
    metadata.args(["--filter-platform", env!("AISP_LLAMA_TARGET")]);
    let output = succeed(metadata.current_dir(repository())).stdout;
    let metadata: Value = serde_json::from_slice(&output).unwrap();
    let package = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|package| package["name"] == "llama-cpp-sys-2")
        .expect("the lock file has llama-cpp-sys-2");
    let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
    manifest.parent().unwrap().join("llama.cpp")
}

/// Its libraries, as this build made them.
fn llama_libraries() -> PathBuf {
    let builds = std::fs::read_dir(target().join("release/build")).unwrap();
    let newest = builds
        .map(|entry| entry.unwrap().path().join("out/lib"))
        .filter(|folder| folder.join("libllama.a").exists())
        .max_by_key(|folder| {
            folder
                .join("libllama.a")
                .metadata()
                .unwrap()
                .modified()
                .unwrap()
        });
    newest.expect("llama-cpp-sys-2 built libllama.a")
}

fn with_llama(compiler: &mut Command) {
    let source = llama_source();
    for folder in ["include", "ggml/include"] {
        compiler.arg("-isystem").arg(source.join(folder));
    }
}

/// Compiles a C file of this repository against plugin and llama.cpp.
fn compile(source: &str, name: &str) -> PathBuf {
    let program = target().join("plugin").join(name);
    let mut compiler = compiler("cc");
    compiler.arg("-std=c11");
    with_llama(&mut compiler);
    compiler
        .arg(repository().join(source))
        .arg("-o")
        .arg(&program);
    link(&mut compiler);
    compiler.arg(format!("-L{}", llama_libraries().display()));
    compiler.args([
        "-Wl,--start-group",
        "-lllama",
        "-lggml",
        "-lggml-cpu",
        "-lggml-base",
    ]);
    compiler.args([
        "-Wl,--end-group",
        "-lstdc++",
        "-lgomp",
        "-ldl",
        "-lpthread",
        "-lm",
    ]);
    succeed(&mut compiler);
    program
}

fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compile("examples/plugin/align.c", "align"))
}

/// Arguments that mean the same to both programs.
fn arguments(command: &mut Command) {
    command.arg("-m").arg(path(SMOLLM2));
    command.arg("-mr").arg(path(REWARD));
    command.args(["-p", PROMPT, "-n", "12", "-s", "5"]);
    command.args(["--samples", "11", "--iterations", "3"]);
}

/// What the example printed, a line each.
fn align(tier: &str) -> Vec<Value> {
    let mut command = Command::new(program());
    arguments(&mut command);
    let output = succeed(command.args(["--tier", tier])).stdout;
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
    arguments(&mut command);
    let output = succeed(&mut command).stdout;
    let expected: Value = serde_json::from_slice(&output).unwrap();
    let found = align("exact");

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
        close(&line["mean_reward"], &iteration["mean_reward"]);
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
    let first = |lines: Vec<Value>| -> Vec<Vec<Value>> {
        let own = lines.into_iter().filter(|line| line["iteration"] == 0);
        own.filter_map(|line| Some(line["tokens"].as_array()?.clone()))
            .collect()
    };
    let (exact, sampler) = (first(align("exact")), first(align("sampler")));
    assert_eq!((exact.len(), sampler.len()), (11, 11));
    let (mut same, mut all) = (0, 0);
    for (a, b) in exact.iter().zip(&sampler) {
        all += a.len();
        same += a.iter().zip(b).take_while(|(a, b)| a == b).count();
    }
    assert!(
        same * 2 > all,
        "{same} of {all} tokens before the first difference"
    );
}

#[test]
fn a_chain_owns_its_samplers() {
    let folder = tempfile::tempdir().unwrap();
    let program = compile("tests/plugin/samplers.c", "samplers");
    succeed(Command::new(program).arg(model(folder.path())));
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
    with_llama(&mut compiler);
    succeed(compiler.arg(source));
}
