//! Options that cannot be: exit code 2, naming the flag and the value, before any model is
//! loaded where that is possible.

use crate::{assert_refused, program, run};

#[test]
fn values_out_of_range_name_their_flag() {
    let cases: [(&[&str], &str); 19] = [
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
        (&["--parallel", "257"], "--parallel"),
    ];
    for (flags, name) in cases {
        assert_refused(&run(flags), 2, &[name]);
    }
}

#[test]
fn values_of_the_wrong_kind_are_refused_by_the_parser() {
    for flags in [
        ["--sigma", "much"],
        ["--method", "luck"],
        ["--logits", "guess"],
        ["--samples", "-3"],
        ["--reward-text", "{prompt}"],
    ] {
        let output = run(&flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(crate::stderr(&output).contains(flags[0]), "{flags:?}");
    }
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
    let folder = tempfile::TempDir::new().unwrap();
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
    assert_refused(&output, 2, &["chat template"]);
    let output = run(&["--chat-template", "chatml"]);
    assert_refused(&output, 2, &["--chat-template", "chatml"]);
}
