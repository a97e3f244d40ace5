//! Options that cannot be: exit code 2, naming the flag and the value, before any model is
//! loaded where that is possible.

use std::fs;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::{assert_refused, program, run, stderr};

/// The flags that the error names, in its order.
fn flags(output: &Output) -> Vec<String> {
    let error = stderr(output);
    // The second paragraph of the parser names --help.
    let message = error.split("\n\n").next().unwrap_or_default();
    message
        .split(|c: char| !c.is_alphanumeric() && c != '-')
        .filter(|word| word.starts_with('-') && !word.trim_matches('-').is_empty())
        .map(Into::into)
        .collect()
}

/// Runs a command on a file of prompts, with its output beside it.
fn on_prompts(folder: &Path, command: &str, prompts: &[&str], extra: &[&str]) -> Output {
    let lines = prompts
        .iter()
        .map(|text| serde_json::json!({ "prompt": text }).to_string() + "\n");
    let file = folder.join("prompts.jsonl");
    fs::write(&file, lines.collect::<String>()).unwrap();
    program()
        .args([Path::new(command), Path::new("--prompts"), &file])
        .args([Path::new("-o"), &folder.join(command)])
        .args(extra)
        .output()
        .unwrap()
}

#[test]
fn values_out_of_range_name_their_flag() {
    let cases: [(&[&str], &str); 20] = [
        (&["--samples", "0"], "--samples"),
        (&["--iterations", "0"], "--iterations"),
        (&["--horizon", "0"], "--horizon"),
        (&["-n", "0"], "-n"),
        (&["--sigma", "-1"], "--sigma"),
        (&["--sigma", "nan"], "--sigma"),
        (&["--sigma", "inf"], "--sigma"),
        (&["--lambda", "0"], "--lambda"),
        (&["--lambda", "-0.5"], "--lambda"),
        (&["--lambda", "NaN"], "--lambda"),
        (&["--ess", "0"], "--ess"),
        (&["--alpha", "1.5"], "--alpha"),
        (&["--alpha", "nan"], "--alpha"),
        (&["--temp", "-1"], "--temp"),
        (&["--top-p", "2"], "--top-p"),
        (&["--min-p", "nan"], "--min-p"),
        (&["--time-limit", "0"], "--time-limit"),
        (&["--target-reward", "nan"], "--target-reward"),
        (&["--patience", "0"], "--patience"),
        (&["--parallel", "257"], "--parallel"),
    ];
    for (flags, name) in cases {
        assert_refused(&run(flags), 2, &[name]);
    }
}

#[test]
fn numbers_that_are_too_large_are_told_how_large_they_may_be() {
    for flag in ["--samples", "--iterations", "--horizon"] {
        assert_refused(
            &run(&[flag, "1000000000000"]),
            2,
            &[flag, "at most 4294967295"],
        );
    }
}

#[test]
fn a_context_larger_than_the_memory_is_refused_before_it_is_made() {
    assert_refused(&run(&["-c", "10000000"]), 2, &["-c", "of memory are free"]);
}

#[test]
fn values_of_the_wrong_kind_are_refused_by_the_parser() {
    for given in [
        ["--sigma", "much"],
        ["--method", "luck"],
        ["--logits", "guess"],
        ["--samples", "-3"],
        ["--reward-text", "{prompt}"],
        ["--reward-too-long", "cut"],
    ] {
        let output = run(&given);
        assert_eq!(output.status.code(), Some(2), "{given:?}");
        assert!(stderr(&output).contains(given[0]), "{given:?}");
    }
}

#[test]
fn flags_of_a_few_words_list_them() {
    let words = |output: &Output, words: &str| {
        assert_eq!(output.status.code(), Some(2));
        let error = stderr(output);
        assert!(error.contains(words), "{words}: {error}");
    };
    words(&run(&["--logits", "guess"]), "graph, recompute");
    words(&run(&["--method", "luck"]), "best-of-n, greedy");
    words(&run(&["--reward-too-long", "cut"]), "refuse, truncate");
    let train = |extra: [&str; 2]| {
        let files = ["-m", "m.gguf", "--data", "d.jsonl", "-o", "h.safetensors"];
        let mut train = program();
        train.args(["reward", "train"]).args(files).args(extra);
        train.output().unwrap()
    };
    let objectives = "auto, ridge, logistic, bradley-terry";
    words(&train(["--objective", "best"]), objectives);
    words(&train(["--pooling", "max"]), "last, mean");
    let folder = TempDir::new().unwrap();
    let by_words = on_prompts(folder.path(), "compare", &["Sing."], &["--by", "words"]);
    words(&by_words, "candidates, tokens, seconds");
}

#[test]
fn a_flag_of_the_command_is_named_and_named_once() {
    let folder = TempDir::new().unwrap();
    let on = |command: &str, prompts: &[&str], extra: &[&str]| {
        on_prompts(folder.path(), command, prompts, extra)
    };
    let none = on("train-value", &["Sing."; 5], &["--responses", "0"]);
    assert_refused(&none, 2, &["--responses: 0"]);
    assert_eq!(flags(&none), ["--responses"]);
    let none = on("compare", &["Sing."], &["-n", "0"]);
    assert_refused(&none, 2, &["-n: 0"]);
    assert_eq!(flags(&none), ["-n"]);
    for (command, prompts) in [("compare", 1), ("tune", 2), ("train-value", 5)] {
        let long = "word ".repeat(9000);
        let output = on(command, &vec![long.as_str(); prompts], &["-n", "8"]);
        assert_refused(&output, 2, &["--prompts: prompt 1: ", "8192"]);
        // It may name the flag that shortens the response.
        let others: Vec<String> = flags(&output).into_iter().filter(|f| f != "-n").collect();
        assert_eq!(others, ["--prompts"], "{command}");
    }
    let prompt = folder.path().join("prompt.txt");
    fs::write(&prompt, "word ".repeat(9000)).unwrap();
    let output = program()
        .args([Path::new("run"), Path::new("-f"), &prompt])
        .output()
        .unwrap();
    assert_refused(&output, 2, &["-f: ", "8192"]);
}

#[test]
fn what_a_parser_refuses_names_its_flag_once() {
    let output = run(&["--held-out", "rule:nonsense=3"]);
    assert_refused(&output, 2, &["nonsense=3"]);
    assert_eq!(flags(&output), ["--held-out"]);
    let output = run(&["--reward", "rule:nonsense=3"]);
    assert_eq!(flags(&output), ["--reward"]);
    let folder = TempDir::new().unwrap();
    for methods in ["aisp:elites=x", "luck", "aisp:luck=1"] {
        let output = on_prompts(folder.path(), "compare", &["Hi."], &["--methods", methods]);
        assert_refused(&output, 2, &[methods]);
        assert_eq!(flags(&output), ["--methods"], "{methods}");
    }
    // A weight is read later, and still by the flag that it was given to.
    let output = run(&["-mr", "0*x.gguf"]);
    assert_refused(&output, 2, &["-mr: "]);
    assert_eq!(flags(&output), ["-mr"]);
}

#[test]
fn a_prompt_longer_than_the_context_says_by_how_much() {
    let prompt = "word ".repeat(200);
    let output = program()
        .args(["run", "-p", &prompt, "-c", "64", "-n", "8"])
        .output()
        .unwrap();
    assert_refused(&output, 2, &["-c", "64", "tokens", "larger"]);
    let output = program()
        .args(["run", "-p", &prompt, "-n", "9000"])
        .output()
        .unwrap();
    assert_refused(&output, 2, &["8192", "-n"]);
}

#[test]
fn a_prompt_is_needed_and_must_not_be_empty() {
    let output = program().arg("run").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = program().args(["run", "-p", ""]).output().unwrap();
    assert_refused(&output, 2, &["-p", "empty"]);
    let output = program()
        .args(["run", "-f", "no-such-prompt.txt"])
        .output()
        .unwrap();
    assert_refused(&output, 1, &["no-such-prompt.txt"]);
}

#[test]
fn without_models_the_set_up_is_named() {
    let folder = TempDir::new().unwrap();
    let output = program()
        .env("XDG_CACHE_HOME", folder.path())
        .args(["run", "-p", "hi"])
        .output()
        .unwrap();
    assert_refused(&output, 2, &["-m", "make setup"]);
}

#[test]
fn a_template_that_cannot_be_rendered_is_quoted() {
    let output = run(&["--chat-template", "{{ raise_exception('no such role') }}"]);
    assert_refused(&output, 2, &["no such role", "--chat-template"]);
    let output = run(&["--chat-template", "{% if %}"]);
    assert_refused(&output, 2, &["--chat-template: ", "syntax error"]);
    let output = run(&["--chat-template", "chat-ml"]);
    assert_refused(&output, 2, &["--chat-template", "chat-ml", "chatml, "]);
}
