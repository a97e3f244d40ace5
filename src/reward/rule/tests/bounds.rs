use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Rules, score};
use crate::error::Error;
use crate::reward::rule::json::Schema;
use crate::reward::{Reward, Sample};

/// Many times what the work below takes, and a fraction of what it would take unbounded.
const PATIENCE: Duration = Duration::from_secs(20);

fn recursive() -> Value {
    json!({
        "$defs": {"a": {"anyOf": [
            {"type": "array", "items": {"$ref": "#/$defs/a"}},
            {"type": "array", "items": {"$ref": "#/$defs/a"}}
        ]}},
        "$ref": "#/$defs/a"
    })
}

fn nested(depth: usize, inner: &str) -> String {
    "[".repeat(depth) + inner + &"]".repeat(depth)
}

#[test]
fn an_empty_response_meets_no_rule() {
    for rule in [
        "json",
        "!json",
        "regex=.*",
        "!regex=a",
        "contains=a",
        "!contains=a",
        "contains-exact=a",
        "!contains-exact=a",
        "excludes=a",
        "!excludes=a",
        "words=..12",
        "words=0",
        "!words=3..",
        "sentences=..2",
        "language-tag=en",
        "!language-tag=en",
        "starts-with=a",
        "!starts-with=a",
        "ends-with=a",
        "!ends-with=a",
        "lowercase",
        "!lowercase",
        "uppercase",
        "!uppercase",
        "compiles=true",
        "!compiles=false",
    ] {
        for response in ["", " ", "\n\t \r\n", "\u{a0}\u{3000}", "\u{feff}\u{200b}"] {
            assert_eq!(score(rule, response), 0.0, "{rule}: {response:?}");
        }
    }
}

#[test]
fn a_recursive_schema_takes_bounded_work() {
    let started = Instant::now();
    let schema = Schema::new(recursive()).unwrap();
    assert_eq!(schema.score(&nested(100, "")), 1.0);
    // One error where it can be counted, and the least of what is JSON where it cannot.
    assert_eq!(schema.score(&nested(3, "1")), 0.75);
    for depth in [20, 60, 120] {
        assert_eq!(schema.score(&nested(depth, "1")), 0.5, "{depth}");
    }
    let both = Schema::new(json!({
        "allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}, {"type": "array"}]
    }));
    assert_eq!(both.unwrap().score(&nested(100, "1")), 0.5);
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

#[test]
fn counting_work_changes_no_schema() {
    let schema = |draft: &str| {
        Schema::new(json!({
            "$schema": draft,
            "definitions": {"n": {"type": "integer", "enum": [1, 2]}},
            "properties": {"properties": {"$ref": "#/definitions/n"}, "c": {"const": {"type": "x"}}},
            "required": ["properties"],
            "additionalProperties": false
        }))
        .unwrap()
    };
    for draft in [
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2020-12/schema",
    ] {
        let near = |response| schema(draft).score(response);
        assert_eq!(near("{\"properties\": 2, \"c\": {\"type\": \"x\"}}"), 1.0);
        assert_eq!(near("{\"properties\": 3}"), 0.75);
        assert_eq!(near("{\"aisp-llama-fuel\": 1, \"properties\": 1}"), 0.75);
        // An error more is a lower score.
        assert!(near("{\"properties\": 3, \"d\": 1}") < 0.75);
    }
    // Of several fences the best counts.
    let near = schema("http://json-schema.org/draft-07/schema#");
    assert_eq!(
        near.score("```json\n{}\n```\n```json\n{\"properties\": 1}\n```"),
        1.0
    );
}

#[test]
fn a_pattern_of_many_parts_is_compiled_once() {
    let started = Instant::now();
    let long = format!("regex={}", r"\w+ ".repeat(100));
    let rules = Rules::parse(&long).unwrap();
    let text = "word ".repeat(60);
    let near = rules.check(&text).unwrap()[0].score;
    // The last space is none of the value.
    assert!((near - 119.0 / 199.0).abs() < 1e-9, "{near}");
    let text = "word ".repeat(101);
    assert_eq!(rules.check(&text).unwrap()[0].score, 1.0);
    let many = format!("regex={}", "[a-z]{10}x".repeat(800));
    assert!(Rules::parse(&many).is_ok());
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

#[test]
fn a_pattern_that_is_too_large_is_refused() {
    let error = Rules::parse(r"regex=(\w{500}){500}")
        .unwrap_err()
        .to_string();
    assert!(error.contains("bytes when compiled"), "{error}");
}

#[test]
fn more_of_a_pattern_scores_more() {
    let cases = [
        (
            r"regex=^(?P<y>\d{4})-(\d\d)-\d\d$",
            &["x", "1999", "1999-", "1999-12", "1999-12-1", "1999-12-31"][..],
        ),
        (
            r"regex=\bcat\b.*\bdog\b",
            &["a cut", "a cat", "a cat and a dog"],
        ),
        (r"regex=a+ab|never", &["b", "aab"]),
        ("regex=é.ü", &["a", "é", "éa", "xéaü"]),
        (r"regex=(?i)ab\s(?:c|d)$", &["no", "AB", "ab D"]),
    ];
    for (rule, responses) in cases {
        let scores: Vec<f64> = responses.iter().map(|r| score(rule, r)).collect();
        assert!(scores.is_sorted(), "{rule}: {scores:?}");
        assert_eq!(scores.last(), Some(&1.0), "{rule}");
        assert!(scores[0] < 1.0, "{rule}: {scores:?}");
    }
}

#[test]
fn a_pattern_that_takes_minutes_is_given_up_when_the_run_is_to_stop() {
    let mut rules = Rules::parse("regex=(((a?){30}){30}){30}b").unwrap();
    let response = "a".repeat(1 << 20);
    let sample = Sample::new("", &response);
    rules.stop.request();
    let begun = Instant::now();
    assert!(matches!(rules.score(&[sample]), Err(Error::Reward(_))));
    assert!(begun.elapsed() < PATIENCE);
}
