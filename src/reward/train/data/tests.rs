use std::collections::BTreeSet;

use super::super::measure::{Measured, auc};
use super::super::split::split;
use super::Dataset;
use crate::reward::Sample;

#[test]
fn a_group_is_on_one_side_and_in_one_fold() {
    let names: Vec<String> = (0..300).map(|i| format!("g{}", i * 7 % 43)).collect();
    let groups: Vec<&str> = names.iter().map(String::as_str).collect();
    let parts = split(&groups, 0.25, 5, 9);
    let of = |indices: &[usize]| -> BTreeSet<&str> { indices.iter().map(|&i| groups[i]).collect() };
    let (training, held_out) = (of(&parts.training), of(&parts.held_out));
    assert!(training.is_disjoint(&held_out));
    assert_eq!((training.len(), held_out.len()), (32, 11));
    let mut folds = BTreeSet::new();
    folds.extend(
        parts
            .training
            .iter()
            .zip(&parts.folds)
            .map(|(&i, f)| (groups[i], f)),
    );
    assert_eq!(folds.len(), training.len());
    // The order of the data changes nothing, the seed does.
    let reversed: Vec<&str> = groups.iter().rev().copied().collect();
    let other = split(&reversed, 0.25, 5, 9);
    let others: BTreeSet<&str> = other.held_out.iter().map(|&i| reversed[i]).collect();
    assert_eq!(others, held_out);
    assert_ne!(of(&split(&groups, 0.25, 5, 10).held_out), held_out);
}

#[test]
fn a_figure_takes_the_group_as_the_unit() {
    let right = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
    let measured = Measured::share(&right);
    let alone = measured.estimate(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    let grouped = measured.estimate(&["a", "a", "a", "a", "b", "b", "b", "b"]);
    assert_eq!((alone.value, grouped.value), (0.5, 0.5));
    assert!((alone.standard_error - (8.0 * 0.25 / 64.0 * 8.0 / 7.0f64).sqrt()).abs() < 1e-12);
    assert!((grouped.standard_error - 0.5).abs() < 1e-12);
    assert_eq!(
        measured.above(&measured).estimate(&["a"; 8]).standard_error,
        0.0
    );
    let pairs = Measured::pairs_in_order(&[1.0, 2.0, 2.0, 0.0], &[1.0, 2.0, 3.0, 3.0]);
    assert_eq!(pairs.value, 2.5 / 5.0);
    assert_eq!(auc(&[0.1, 0.4, 0.4, 0.8], &[0.0, 0.0, 1.0, 1.0]), 3.5 / 4.0);
}

#[test]
fn data_are_read_with_their_groups() {
    let text = r#"{"prompt": "p", "response": "a", "score": 1}
{"response": "b", "score": 2.5, "group": "g"}

{"response": "c", "score": 0}
{"prompt": null, "response": "b", "score": 3, "group": "h"}"#;
    let data = Dataset::parse(text, "f").unwrap();
    assert_eq!(data.groups(), ["p", "g", "c", "g"]);
    let texts = [("p", "a"), ("", "b"), ("", "c"), ("", "b")];
    assert_eq!(data.texts(), texts.map(|(p, r)| Sample::new(p, r)));

    let text = r#"{"prompt": "", "chosen": "a", "rejected": "b", "group": "1"}
{"prompt": "", "chosen": "c", "rejected": "d", "group": "2"}
{"prompt": "", "chosen": "e", "rejected": "f", "group": "3"}
{"prompt": "", "chosen": "d", "rejected": "b"}"#;
    let data = Dataset::parse(text, "f").unwrap();
    assert_eq!(data.groups(), ["1", "1", "3", "1"]);
    assert_eq!(data.texts()[2..4], ["c", "d"].map(|r| Sample::new("", r)));
}

#[test]
fn public_preference_sets_are_read_as_they_are() {
    let system = r#"{"role": "system", "content": "s"}"#;
    let user = r#"{"role": "user", "content": "p"}"#;
    let said = |text: &str| format!(r#"{{"role": "assistant", "content": "{text}"}}"#);
    let (a, b) = (said("a"), said("b"));
    let lines = [
        // UltraFeedback, with fields of its own.
        format!(
            r#"{{"prompt": "p", "prompt_id": "7", "score_chosen": 8.5, "messages": [{user}, {a}],
                "chosen": [{user}, {a}], "rejected": [{user}, {b}]}}"#
        ),
        // Conversations whose prompt is apart.
        format!(r#"{{"prompt": [{user}], "chosen": [{a}], "rejected": [{b}]}}"#),
        // Whole conversations, a system prompt in them.
        format!(r#"{{"chosen": [{system}, {user}, {a}], "rejected": [{system}, {user}, {b}]}}"#),
    ];
    let text: String = lines.map(|line| line.replace('\n', " ") + "\n").concat();
    let data = Dataset::parse(&text, "f").unwrap();
    let texts = data.texts();
    assert_eq!(
        texts[..4],
        ["a", "b", "a", "b"].map(|r| Sample::new("p", r))
    );
    assert_eq!((texts[5].prompt, texts[5].response), ("p", "b"));
    assert_eq!(texts[5].messages.len(), 2);
}

#[test]
fn an_error_in_the_data_names_file_and_line() {
    let good = r#"{"response": "a", "score": 1}"#;
    let preference = r#"{"prompt": "", "chosen": "a", "rejected": "b"}"#;
    for (line, expected) in [
        ("{", "EOF while parsing"),
        ("[1]", "invalid type"),
        (r#"{"response": "a"}"#, "missing field `score`"),
        (r#"{"response": "a", "score": "1"}"#, "invalid type: string"),
        (
            r#"{"prompt": "p", "score": 1, "film": 2}"#,
            "the response is missing",
        ),
        (
            r#"{"chosen": "a", "rejected": "b"}"#,
            "ratings and preferences",
        ),
    ] {
        let error = Dataset::parse(&format!("{good}\n\n{line}\n"), "x.jsonl").unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("data: x.jsonl, line 3: "), "{error}");
        assert!(
            error.contains(expected) && !error.contains("at line"),
            "{error}"
        );
    }
    let mixed = Dataset::parse(&format!("{preference}\n{good}"), "x").unwrap_err();
    assert!(
        mixed
            .to_string()
            .contains("line 2: ratings and preferences")
    );
    let two = r#"{"chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}],
        "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}"#;
    let two = Dataset::parse(&two.replace('\n', " "), "x").unwrap_err();
    assert!(two.to_string().contains("two different conversations"));
    assert!(
        Dataset::parse("\n", "x")
            .unwrap_err()
            .to_string()
            .contains("x is empty")
    );
}
