//! `compare` when something fails, and where a folder is another's.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::compare::{compare, folder, rows};
use crate::{assert_refused, program, stderr, stdout};

/// A reward that does `book` for "Praise a book.", and says 1 to others.
fn reward(folder: &Path, book: &str) -> String {
    let path = folder.join("reward.sh");
    let script = format!(
        "while read -r line; do case \"$line\" in *Praise*) {book};; *) echo 1;; esac; done\n"
    );
    fs::write(&path, script).unwrap();
    format!("command:sh {}", path.display())
}

#[test]
fn a_folder_of_another_build_or_cpu_is_refused_and_says_which() {
    let folder = folder();
    let few = ["--budget", "8", "--samples", "8", "--seeds", "1", "-n", "4"];
    assert_eq!(compare(folder.path(), &few).status.code(), Some(0));
    let path = folder.path().join("out/settings.json");
    let text = fs::read_to_string(&path).unwrap();
    let settings: Value = serde_json::from_str(&text).unwrap();
    let version = program().arg("--version").output().unwrap();
    for field in ["build", "cpu"] {
        let entries = settings[field].as_array().unwrap();
        for entry in entries {
            assert!(
                stdout(&version).contains(entry.as_str().unwrap()),
                "{entry}"
            );
        }
        let last = entries.last().unwrap().as_str().unwrap();
        fs::write(&path, text.replace(last, "another")).unwrap();
        let words = ["-o", field, "\"another\"", last];
        assert_refused(&compare(folder.path(), &few), 2, &words);
    }
    fs::write(&path, text).unwrap();
    assert_eq!(compare(folder.path(), &few).status.code(), Some(0));
}

#[test]
fn a_reward_of_another_program_or_schema_is_other_settings() {
    let folder = folder();
    let command = reward(folder.path(), "echo 2");
    let schema = folder.path().join("schema.json");
    let held_out = format!("rule:json-schema={}", schema.display());
    let few = ["--budget", "8", "--samples", "8", "--seeds", "1", "-n", "4"];
    let rewards = ["--reward", &command, "--held-out", &held_out];
    let flags = [&few[..], &rewards].concat();
    fs::write(&schema, "{}").unwrap();
    assert_eq!(compare(folder.path(), &flags).status.code(), Some(0));
    fs::write(&schema, "{\"type\": \"object\"}").unwrap();
    assert_refused(
        &compare(folder.path(), &flags),
        2,
        &["files", "schema.json"],
    );
    fs::write(&schema, "{}").unwrap();
    reward(folder.path(), "echo 3");
    assert_refused(&compare(folder.path(), &flags), 2, &["files", "reward.sh"]);
    reward(folder.path(), "echo 2");
    assert_eq!(compare(folder.path(), &flags).status.code(), Some(0));
}

#[test]
fn a_run_without_an_answer_is_a_row_with_its_error_and_the_others_go_on() {
    let folder = folder();
    let reward = reward(folder.path(), "echo NaN");
    let few = ["--budget", "8", "--samples", "8", "--seeds", "1", "-n", "4"];
    let flags = [&few[..], &["--reward", &reward]].concat();
    let output = compare(folder.path(), &flags);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found = rows(folder.path());
    assert_eq!(found.len(), 6);
    for row in &found {
        let error = row["error"].as_str().unwrap_or_default();
        let failed = error.contains("no response could be scored");
        assert_eq!(failed, row["prompt"] == 1, "{row}");
        assert_eq!(row["reward"].is_null(), failed, "{row}");
    }
    for words in [
        "prompt 2, seed 0, best-of-n",
        "prompt 2, seed 0, search",
        "failed: 2 of 6",
    ] {
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    let summary = fs::read_to_string(folder.path().join("out/summary.md")).unwrap();
    assert_eq!(stdout(&output), summary);
    for words in [
        "`best-of-n` 1 of 3, `search` 1 of 3",
        "| search | 1.000 | +0.00, ",
    ] {
        assert!(summary.contains(words), "{summary}");
    }
    // What failed is not run again, and is said again.
    let again = compare(folder.path(), &flags);
    assert_eq!(again.status.code(), Some(0));
    assert!(
        stderr(&again).contains("failed: 2 of 6"),
        "{}",
        stderr(&again)
    );
    assert_eq!(rows(folder.path()), found);
}

#[test]
fn a_method_without_any_row_ends_with_what_it_failed_of() {
    let folder = folder();
    let few = ["--budget", "8", "--samples", "8", "--seeds", "1", "-n", "4"];
    let strong = [
        &few[..],
        &["--methods", "best-of-n,aisp:noise=gaussian:sigma=1e38"],
    ]
    .concat();
    for _ in 0..2 {
        let output = compare(folder.path(), &strong);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let words = "error: prompt 1, seed 0, aisp:noise=gaussian:sigma=1e38: the logits of token 0 are NaN";
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
        assert!(stdout(&output).contains("`aisp:noise=gaussian:sigma=1e38` 3 of 3"));
    }
    let found = rows(folder.path());
    let failed = found.iter().filter(|row| !row["error"].is_null());
    assert_eq!((found.len(), failed.count()), (6, 3));

    let folder = self::folder();
    fs::write(
        folder.path().join("prompts.jsonl"),
        "{\"prompt\": \"Praise a book.\"}\n",
    )
    .unwrap();
    let reward = reward(folder.path(), "echo NaN");
    let unscored = [&few[..], &["--reward", &reward]].concat();
    let output = compare(folder.path(), &unscored);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert_eq!(rows(folder.path()).len(), 2);
}

#[test]
fn a_reward_that_fails_as_a_whole_ends_the_comparison_and_is_no_failure_of_its_runs() {
    let folder = folder();
    let dead = folder.path().join("dead");
    fs::write(&dead, "").unwrap();
    let mark = dead.display();
    let reward = reward(folder.path(), &format!("test -e {mark} && exit 1; echo 1"));
    let few = ["--budget", "8", "--samples", "8", "--seeds", "2", "-n", "4"];
    let flags = [&few[..], &["--reward", &reward]].concat();
    let output = compare(folder.path(), &flags);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    // Two batches failed response by response before the program was given up.
    let found = rows(folder.path());
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.iter().all(|row| row["error"].is_null()), "{found:?}");
    let summary = fs::read_to_string(folder.path().join("out/summary.md")).unwrap();
    assert!(
        summary.contains("2 runs of each method are counted"),
        "{summary}"
    );
    fs::remove_file(&dead).unwrap();
    let output = compare(folder.path(), &flags);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found = rows(folder.path());
    assert_eq!(found.len(), 12);
    assert!(found.iter().all(|row| row["error"].is_null()), "{found:?}");
}
