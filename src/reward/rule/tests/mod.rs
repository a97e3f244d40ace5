mod bounds;
mod json;
mod sentences;
mod wording;

use proptest::prelude::*;

use super::*;

fn score(expression: &str, response: &str) -> f64 {
    let mut rules = Rules::parse(expression).unwrap();
    let sample = Sample::new("", response);
    rules.score(&[sample]).unwrap()[0].as_ref().unwrap().reward
}

#[test]
fn every_rule_has_met_unmet_and_partial_responses() {
    let folder = tempfile::TempDir::new().unwrap();
    let schema = folder.path().join("schema.json");
    std::fs::write(
        &schema,
        r#"{"type": "object", "required": ["a", "b"], "properties": {"a": {"type": "integer"}}}"#,
    )
    .unwrap();
    let schema = format!("json-schema={}", schema.display());
    let python =
        r#"compiles="python3 -c 'import sys; compile(sys.stdin.read(), \"x\", \"exec\")'""#;
    // (rule, met, not met at all, partly met)
    let cases = [
        (
            "json",
            "```json\n[1, {\"a\": null}]\n```",
            "no",
            "{\"a\": 1, \"b\": oops}",
        ),
        (
            &schema,
            "{\"a\": 1, \"b\": 2}",
            "a",
            "{\"a\": \"x\", \"b\": 2}",
        ),
        ("regex=^[A-Z]\\w+ \\d{4}$", " May 1999 ", "1999", "May 19x"),
        ("contains=Lost Dog", "the lost dog", "a cat", "a lost cat"),
        (
            "contains-exact=Lost Dog",
            "Lost Dog",
            "lost dog",
            "Lost dog",
        ),
        ("excludes=very", "good", "", "very good"),
        ("words=3..5", "one two three", "", "one two"),
        ("words=..2", "one two", "", "one two three"),
        ("sentences=2", "One. Two!", "", "One."),
        (
            "language-tag=fr",
            "Bonjour, je voudrais une baguette et du fromage, s'il vous plaît.",
            "Dies ist ein deutscher Satz über das Wetter und die Berge im Süden des Landes.",
            "Me gusta comer",
        ),
        (
            "starts-with=Once upon",
            "Once upon a time",
            "A time",
            "Once a",
        ),
        ("ends-with=end.", "The end. \n", "The start", "All bad."),
        ("lowercase", "all small", "BIG", "Half"),
        ("uppercase", "ALL BIG!", "small", "Half"),
        (
            python,
            "```python\nprint(1)\n```",
            "print(",
            "```\nprint(\n```",
        ),
    ];
    for (rule, met, unmet, partly) in cases {
        assert_eq!(score(rule, met), 1.0, "{rule}: {met:?}");
        assert!(Rules::parse(rule).unwrap().check(met).unwrap()[0].met);
        let no = score(rule, unmet);
        let some = score(rule, partly);
        assert!(some > 0.0 && some < 1.0, "{rule}: {partly:?} {some}");
        // Nothing can exclude a text worse than naming it again and again, and a count is
        // never infinitely far.
        match rule.split('=').next() {
            Some("excludes") => assert!(score(rule, "very very very") < some),
            Some("words" | "sentences") if rule != "words=..2" => assert!(no < some, "{rule}"),
            Some("words") => assert!(score(rule, "1 2 3 4 5 6 7") < some),
            Some("language-tag") => assert!(no < 0.5 && some < 0.5, "{no} {some}"),
            _ => assert!(no < some, "{rule}: {unmet:?} {no} against {some}"),
        }
    }
}

#[test]
fn partial_scores_are_what_the_documentation_says() {
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
    near(score("excludes=a", "a b a"), 1.0 / 3.0);
    near(score("words=4..", "one two"), (-0.5_f64).exp());
    near(score("contains=red green blue", "green light"), 0.5 / 3.0);
    near(score("starts-with=abcd", "abxd"), 0.5);
    near(score("lowercase", "aB"), 0.5);
    near(score("lowercase", "123"), 0.0);
    near(score("compiles=false", "x"), 0.0);
    near(score("compiles=false", "```\nx\n```"), 0.25);
    near(score("compiles=grep -q x", "x"), 1.0);
}

#[test]
fn terms_combine_with_weights_and_negation() {
    let rules = "3*words=2; lowercase; !contains=no";
    assert!((score(rules, "a b") - 1.0).abs() < 1e-12);
    assert!((score(rules, "A B") - 0.8).abs() < 1e-12);
    assert!((score(rules, "a no") - 0.8).abs() < 1e-12);
    let results = Rules::parse(rules).unwrap().check("a no").unwrap();
    let met: Vec<bool> = results.iter().map(|r| r.met).collect();
    assert_eq!(met, [true, true, false]);
    assert_eq!(results[2].rule, "!contains=no");
}

#[test]
fn a_wrong_term_is_named_with_the_remedy() {
    for (expression, words) in [
        ("jsn", ["jsn", "rules are json"]),
        ("words=5..2", ["words=5..2", "A..B"]),
        ("words", ["words", "needs a value"]),
        ("json=1", ["json=1", "takes no value"]),
        ("regex=(", ["regex=(", "unclosed group, at character 1"]),
        ("json-schema=no/such.json", ["no/such.json", "no such file"]),
        ("language-tag=xx", ["language-tag=xx", "en, es"]),
        ("0*json", ["weight 0", "above 0"]),
        ("contains=\"a", ["contains", "not closed"]),
    ] {
        let error = Rules::parse(expression).unwrap_err();
        assert!(matches!(error, crate::Error::Field { .. }), "{expression}");
        for word in words {
            assert!(error.to_string().contains(word), "{expression}: {error}");
        }
    }
}

#[test]
fn a_compiler_that_is_not_there_fails_the_sample() {
    let error = Rules::parse("compiles=no-such-compiler-here")
        .unwrap()
        .check("x");
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("no-such-compiler-here")
    );
}

proptest! {
    #[test]
    fn any_text_scores_between_0_and_1(response in "\\PC{0,80}") {
        let rules = Rules::parse(
            "json; regex=a.c$; contains=é b; excludes=a; words=2..4; sentences=1; \
             language-tag=de; starts-with=Ab; ends-with=z.; !lowercase; uppercase",
        )
        .unwrap();
        for result in rules.check(&response).unwrap() {
            prop_assert!((0.0..=1.0).contains(&result.score), "{result:?}");
        }
    }
}
