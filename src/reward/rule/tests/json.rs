use super::score;

/// Asserts that these are JSON, or are none.
fn assert_json(responses: &[&str], right: bool) {
    for response in responses {
        let is = score("json", response);
        assert_eq!(is == 1.0, right, "{is} for {response:?}");
    }
}

#[test]
fn a_json_string_may_hold_a_fence() {
    assert_json(
        &[
            "{\"code\": \"```py f()```\",\n \"n\": 2}",
            "{\"code\": \"```\"}",
            "[\"~~~\",\n\"```json\"]",
            "```json\n{\"code\": \"```py f()```\"}\n```",
            "```json\n{\"code\": \"```\",\n \"n\": 2}\n```",
            "Here it is:\n\n````json\n{\"a\": \"\\n```\\n\"}\n````\nDone.",
        ],
        true,
    );
}

#[test]
fn a_fence_may_begin_and_end_on_one_line() {
    assert_json(
        &[
            "```json {\"a\": 1} ```",
            "```json{\"a\": 1}```",
            "```{\"a\": 1}```",
            "``` [1, 2] ```",
            "Here you go:\n```json {\"a\": 1} ```\nBye!",
            "~~~json {\"a\": 1} ~~~",
            "````json {\"a\": \"```\"} ````",
        ],
        true,
    );
}

#[test]
fn the_json_fence_counts_wherever_it_is() {
    assert_json(
        &[
            "```py\nx = 1\n```\nthen\n```json\n{\"a\": 1}\n```",
            "```json\n{\"a\": 1}\n```\nthen\n```py\nx = 1\n```",
            "```json\n{\"a\": oops}\n```\nOr rather:\n```json\n{\"a\": 1}\n```",
            "```\nls -l\n```\n```\n{\"a\": 1}\n```",
            "~~~\nx = 1\n~~~\n```json {\"a\": 1} ```",
            "```py\nx = 1\n```\n~~~JSON\n{}\n~~~",
        ],
        true,
    );
}

#[test]
fn fences_are_those_of_commonmark() {
    assert_json(
        &[
            "```json\n{\"a\": 1}\n```",
            "```json title=\"a\"\n{\"a\": 1}\n```",
            "~~~json\n{\"a\": 1}\n~~~",
            "`````json\n{\"a\": 1}\n`````",
            "   ```json\n   {\"a\": 1}\n   ```",
            "- The answer:\n\n  ```json\n  {\"a\": 1}\n  ```",
            "1. The answer:\n   ```json\n   {\"a\": 1}\n   ```\n2. More.",
            "> ```json\n> {\"a\": 1}\n> ```",
            "Text before\r\n```json\r\n{\"a\":\r\n 1}\r\n```\r\nand after.",
        ],
        true,
    );
    assert_json(
        &[
            "Text.\n\n    ```json\n    {\"a\": 1}\n    ```",
            "```json\n{\"a\": 1\n```",
            "```py\n1\n```",
            "no JSON",
            "Here: {\"a\": 1}",
        ],
        false,
    );
}

#[test]
fn fences_that_models_write_carelessly_are_read() {
    assert_json(
        &[
            // Cut off, closed behind the content, opened before it, within tags.
            "```json\n{\"a\": 1}",
            "```json\n{\"a\": 1}```",
            "```json\n{\"a\": 1}```\nThat is all.\n```py\nx\n```",
            "```json {\"a\": 1}\n```",
            "```json {\n  \"a\": 1\n}\n```",
            "<answer>\n```json\n{\"a\": \"<b>\"}\n```\n</answer>",
            "\u{feff}{\"a\": 1}",
        ],
        true,
    );
}

#[test]
fn json_nearer_its_end_scores_more_in_a_fence_too() {
    let at = |response| score("json", response);
    let (early, late) = (at("{\"a\": x, \"b\": 1}"), at("{\"a\": 1, \"b\": x}"));
    assert!(0.0 < early && early < late && late < 0.5, "{early} {late}");
    let fenced = at("So:\n```json\n{\"a\": 1, \"b\": x}\n```");
    assert!(0.0 < fenced && fenced < 0.5, "{fenced}");
}

#[test]
fn the_first_code_block_is_what_compiles() {
    assert_eq!(
        score(
            "compiles=grep -qx x",
            "So `a`:\n~~~py\nx\n~~~\nand\n```\ny\n```"
        ),
        1.0
    );
    assert_eq!(
        score("compiles=grep -qx x", "<code>\n```py\ny\n```\n```\nx\n```"),
        0.25
    );
}
