//! Where models go and how attention is computed: llama.cpp's flags for both, as far as they can
//! be tried without a GPU.

use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::common::{REWARD, SMOLLM2, path};
use crate::tiny::{Fill, Tiny};
use crate::{assert_refused, program, run, stderr, stdout};

/// A short run with these flags behind the usual ones.
fn short(extra: &[&str]) -> Output {
    let common = ["--samples", "8", "--iterations", "1", "-n", "12", "-t", "2"];
    run(&[
        &common[..],
        &["--method", "best-of-n", "--parallel", "8"],
        extra,
    ]
    .concat())
}

/// The answer of such a run.
fn answer(extra: &[&str]) -> String {
    let output = short(extra);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{extra:?}: {}",
        stderr(&output)
    );
    let answer = stdout(&output);
    assert!(!answer.trim().is_empty(), "{extra:?}");
    answer
}

#[test]
fn what_means_nothing_without_a_gpu_changes_no_text() {
    let usual = answer(&[]);
    for flags in [
        &["-ngl", "all", "-dev", "none", "-sm", "none", "-mg", "0"][..],
        &[
            "-ngl", "auto", "-sm", "row", "-ts", "3,1", "-cmoe", "-ncmoe", "2",
        ],
        &["--mlock", "-lm", "mmap", "-ot", "attn_q=CPU", "-tb", "2"],
        &["-fa", "auto", "-ctk", "f16", "-ctv", "f16"],
        &["--override-kv", "general.name=str:another"],
    ] {
        assert_eq!(answer(flags), usual, "{flags:?}");
    }
}

#[test]
fn caches_and_attention_of_another_kind_are_as_exact() {
    for flags in [
        &["-fa", "off"][..],
        &["-fa", "on", "-ctk", "q8_0", "-ctv", "q8_0"],
        &["-fa", "off", "-ctk", "q8_0", "-ctv", "bf16"],
        &["-ctk", "q5_1", "-ctv", "iq4_nl"],
    ] {
        let search = ["--method", "search", "--samples", "8", "--iterations", "2"];
        let one = answer(&[&search[..], flags].concat());
        let apart = ["--parallel", "3", "--no-share-prefixes"];
        assert_eq!(
            answer(&[&search[..], flags, &apart].concat()),
            one,
            "{flags:?}"
        );
    }
}

#[test]
fn the_plan_follows_the_types_of_the_cache() {
    let bytes = |flags: &[&str]| {
        let plan = ["--plan", "--json", "--no-share-prefixes"];
        let output = run(&[&plan[..], flags].concat());
        let plan: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        plan["keys_and_values"].as_u64().unwrap()
    };
    let usual = bytes(&[]);
    assert_eq!(bytes(&["-ctk", "f32", "-ctv", "f32"]), 2 * usual);
    // Of 32 numbers, 64 bytes are 34 and 18.
    assert_eq!(bytes(&["-ctk", "q8_0", "-ctv", "q4_0"]), usual / 128 * 52);
}

#[test]
fn metadata_is_overridden_for_all_who_read_it() {
    let output = short(&["--override-kv", "llama.context_length=int:16"]);
    assert_refused(
        &output,
        2,
        &["the 16 tokens that the model was trained for"],
    );
    let output = short(&["--override-kv", "llama.context_length=str:16"]);
    assert_refused(
        &output,
        2,
        &["--override-kv: llama.context_length: int in the file"],
    );
}

#[test]
fn what_cannot_be_is_refused_with_what_there_is() {
    for (flags, words) in [
        (&["-dev", "GPU7"][..], "--device: \"GPU7\": "),
        (
            &["-ot", "exps=GPU7"],
            "--override-tensor: exps=GPU7: buffers are CPU",
        ),
        (
            &["-fa", "off", "-ctv", "q8_0"],
            "leave out --flash-attn off",
        ),
        (
            &["-mr", "x.gguf;text=chat"],
            "write FILE[;ngl=N][;dev=NAME,…]",
        ),
        (
            &["--reward", "judge:self;ngl=0"],
            "leave out ngl=… and dev=…",
        ),
        (&["--lora", "no-such.gguf"], "no-such.gguf: no such file"),
    ] {
        let output = short(flags);
        let code = if flags[0] == "--lora" { 3 } else { 2 };
        assert_refused(&output, code, &[words]);
    }
    let output = short(&["-ot", "attn(=CPU"]);
    let words = "is every pattern of --override-tensor a regular expression?";
    assert_refused(&output, 3, &[words]);
    let judge = format!("judge:{};dev=GPU7", path(SMOLLM2).display());
    assert_refused(
        &short(&["--reward", &judge]),
        2,
        &["--reward: dev=\"GPU7\": "],
    );
    for (flags, words) in [
        (&["-fa", "perhaps"][..], "on, off, auto"),
        (&["-sm", "tensor"], "none, layer, row"),
        (&["-ctk", "q2_K"], "f16, bf16, q8_0"),
        (&["-ngl", "some"], "neither a number nor all nor auto"),
        (&["-ts", "1,x"], "proportions such as 3,1"),
        (&["--override-kv", "a=3"], "must be KEY=TYPE:VALUE"),
        (&["--lora-scaled", "a"], "is not FILE:SCALE"),
    ] {
        let output = short(flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}

#[test]
fn flags_of_llama_cpp_that_are_not_here_are_named() {
    for (flags, words) in [
        (
            &["-mu", "a/b"][..],
            "there is no -mu here (llama.cpp's --model-url): a model is",
        ),
        (
            &["-nkvo"],
            "there is no -nkvo here (llama.cpp's --no-kv-offload); `--help` lists",
        ),
        (
            &["-ub", "64"],
            "there is no -ub here (llama.cpp's --ubatch-size): steps and",
        ),
        (
            &["--batch-size", "64"],
            "there is no --batch-size here: steps and prompts are",
        ),
        (&["-mfile.gguf"], "there is no -mfile.gguf here; "),
    ] {
        let output = run(flags);
        assert_refused(&output, 2, &[words]);
        assert_eq!(stderr(&output).lines().count(), 1);
    }
}

#[test]
fn variables_of_the_environment_are_read_as_llama_cpp_reads_them() {
    let planned = |name: &str, value: &str| {
        let mut command = program();
        command.args(["run", "-p", "hi", "--plan"]).env(name, value);
        command.output().unwrap()
    };
    for (name, value) in [
        ("LLAMA_ARG_N_GPU_LAYERS", "all"),
        ("LLAMA_ARG_N_GPU_LAYERS", "auto"),
        ("LLAMA_ARG_N_GPU_LAYERS", "-1"),
        ("LLAMA_ARG_FLASH_ATTN", "enabled"),
        ("LLAMA_ARG_CPU_MOE", "on"),
        ("LLAMA_ARG_CPU_MOE", "0"),
        ("LLAMA_ARG_LOAD_MODE", "none"),
    ] {
        let output = planned(name, value);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
    }
    let output = planned("LLAMA_ARG_DEVICE", "GPU7");
    assert_refused(&output, 2, &["--device: \"GPU7\": "]);
}

#[test]
fn a_reward_model_may_go_elsewhere() {
    let film = format!("{};ngl=0;dev=none", path(REWARD).display());
    assert_eq!(answer(&["-mr", &film]), answer(&[]));
    let model = path(SMOLLM2);
    let own = |options: &str| format!("judge:{}{options}", model.display());
    let judged = answer(&["--reward", &own("")]);
    assert_eq!(answer(&["--reward", &own(";ngl=all;dev=none")]), judged);
}

/// A LoRA adapter for the first layer's queries of the default generator.
fn adapter(folder: &Path, architecture: &str) -> String {
    let tiny = Tiny::new(architecture)
        .text("general.type", "adapter")
        .text("adapter.type", "lora")
        .tensor("blk.0.attn_q.weight.lora_a", &[576, 4], Fill::Random(1.0))
        .tensor("blk.0.attn_q.weight.lora_b", &[4, 576], Fill::Random(1.0));
    let path = tiny.write(folder, &format!("{architecture}.gguf"));
    path.display().to_string()
}

#[test]
fn adapters_change_the_generator_by_their_scale() {
    let folder = TempDir::new().unwrap();
    let file = adapter(folder.path(), "llama");
    let usual = answer(&[]);
    assert_ne!(answer(&["--lora", &file]), usual);
    assert_eq!(answer(&["--lora-scaled", &format!("{file}:0")]), usual);
    let other = adapter(folder.path(), "gemma3");
    let output = short(&["--lora", &other]);
    assert_refused(&output, 3, &["another architecture than the model's"]);
    let output = short(&["--lora", &path(SMOLLM2).display().to_string()]);
    assert_refused(&output, 3, &["no LoRA adapter"]);
}
