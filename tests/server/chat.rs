//! Conversations, plain and searched.

use serde_json::{Value, json};

use crate::{PROMPT, Server, conversation, endless, text};

const CHAT: &str = "/v1/chat/completions";

/// What the chunks of a stream add up to, and the last reason to end.
fn joined(chunks: &[Value], field: &str) -> (String, Value) {
    let mut all = String::new();
    let mut reason = Value::Null;
    for chunk in chunks {
        let Some(choice) = chunk["choices"].get(0) else {
            continue;
        };
        all += choice["delta"][field].as_str().unwrap_or_default();
        if !choice["finish_reason"].is_null() {
            reason = choice["finish_reason"].clone();
        }
    }
    (all, reason)
}

#[test]
fn a_plain_answer_is_that_of_one_sample_of_run() {
    let server = Server::start(&[]);
    for seed in ["5", "6"] {
        let flags = [
            "--method",
            "best-of-n",
            "--samples",
            "1",
            "--iterations",
            "1",
        ];
        let alone = server.run(&[&flags[..], &["-n", "16", "-s", seed]].concat());
        let more = json!({"seed": seed.parse::<u64>().unwrap()});
        let said = server.chat("tiny", more);
        assert_eq!(text(&said), alone["response"]);
        assert_eq!(said["object"], "chat.completion");
        assert_eq!(said["choices"][0]["message"]["role"], "assistant");
        let usage = &said["usage"];
        assert_eq!(
            usage["completion_tokens"],
            alone["usage"]["generated_tokens"]
        );
        assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 0);
        assert!(said.get("aisp").is_none());
        assert!(said["timings"]["predicted_per_second"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_searched_answer_is_that_of_run() {
    let server = Server::start(&[]);
    for (name, method) in [
        ("aisp", "search"),
        ("best-of-n", "best-of-n"),
        ("args", "args"),
    ] {
        let alone = server.run(&["--method", method, "-n", "16", "-s", "5"]);
        let said = server.chat(&format!("tiny:{name}"), json!({}));
        let run = &said["aisp"];
        assert_eq!(text(&said), alone["response"], "{name}");
        for field in ["reward", "method", "seed", "samples", "price"] {
            assert_eq!(run[field], alone[field], "{name} {field}");
        }
        let usage = &said["usage"];
        let generated = alone["usage"]["generated_tokens"].as_u64().unwrap();
        assert_eq!(usage["completion_tokens"], generated);
        assert!(
            usage["completion_tokens_details"]["reasoning_tokens"]
                .as_u64()
                .unwrap()
                < generated
        );
    }
}

#[test]
fn a_stream_says_what_comes_in_one_piece() {
    let server = Server::start(&[]);
    for model in ["tiny", "tiny:aisp"] {
        let whole = server.chat(model, json!({}));
        let chunks = server
            .stream(CHAT, &conversation(model, json!({"stream": true})))
            .chunks();
        let (said, reason) = joined(&chunks, "content");
        assert_eq!(said, text(&whole), "{model}");
        assert_eq!(reason, whole["choices"][0]["finish_reason"]);
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        for chunk in &chunks {
            assert_eq!(chunk["object"], "chat.completion.chunk");
            assert_eq!(chunk["id"], chunks[0]["id"]);
            assert_eq!(
                chunk["choices"].as_array().unwrap().len(),
                1,
                "no usage unasked"
            );
            assert!(chunk.get("event").is_none());
        }
    }
}

#[test]
fn the_search_is_shown_as_reasoning_an_iteration_a_line() {
    let server = Server::start(&["--held-out", "rule:words=3.."]);
    let body = json!({"stream": true, "stream_options": {"include_usage": true}, "aisp": {"candidates": 3}});
    let chunks = server
        .stream(CHAT, &conversation("tiny:best-of-n", body))
        .chunks();
    let (thought, _) = joined(&chunks, "reasoning_content");
    let lines: Vec<&str> = thought.lines().collect();
    assert_eq!(lines.len(), 2, "{thought}");
    assert!(
        lines[0].starts_with("1/2  best ") && lines[0].contains("  held-out "),
        "{thought}"
    );
    assert!(
        lines[1].starts_with("2/2  best ") && lines[1].contains("  +"),
        "{thought}"
    );
    let events = chunks
        .iter()
        .filter(|chunk| chunk["aisp"]["event"] == "iteration_done");
    assert_eq!(events.count(), 2);
    let usage = chunks.last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert!(usage["usage"]["total_tokens"].as_u64() > usage["usage"]["completion_tokens"].as_u64());
    assert!(usage["timings"]["predicted_n"].is_number());
    let last = &chunks[chunks.len() - 2];
    assert_eq!(last["aisp"]["candidates"].as_array().unwrap().len(), 3);
    assert!(last["aisp"]["held_out"].is_number());
}

#[test]
fn n_answers_are_the_best_that_differ() {
    let server = Server::start(&[]);
    let said = server.chat(
        "tiny:best-of-n",
        json!({"n": 3, "aisp": {"samples": 8, "candidates": 99}}),
    );
    let choices = said["choices"].as_array().unwrap();
    let rewards: Vec<f64> = choices
        .iter()
        .map(|c| c["aisp"]["reward"].as_f64().unwrap())
        .collect();
    assert_eq!(rewards.len(), 3);
    assert!(rewards.is_sorted_by(|a, b| a >= b), "{rewards:?}");
    assert_eq!(rewards[0], said["aisp"]["reward"]);
    let mut texts: Vec<_> = choices
        .iter()
        .map(|c| c["message"]["content"].to_string())
        .collect();
    texts.dedup();
    assert_eq!(texts.len(), 3);
    assert_eq!(said["aisp"]["candidates"].as_array().unwrap().len(), 16);
    let plain = server.chat("tiny", json!({"n": 3}));
    assert_eq!(plain["choices"].as_array().unwrap().len(), 3);
    let chunks = server
        .stream(CHAT, &conversation("tiny", json!({"n": 3, "stream": true})))
        .chunks();
    for (index, choice) in plain["choices"].as_array().unwrap().iter().enumerate() {
        let of = |chunk: &&Value| chunk["choices"][0]["index"] == index;
        let own: Vec<Value> = chunks.iter().filter(of).cloned().collect();
        assert_eq!(joined(&own, "content").0, choice["message"]["content"]);
    }
}

#[test]
fn fields_that_are_not_known_are_ignored_and_lengths_are_cut_to_the_context() {
    let server = Server::start(&[]);
    let more =
        json!({"service_tier": "flex", "user": "me", "extra_body": {}, "max_tokens": 100_000});
    let said = server.chat("tiny", more);
    let total = said["usage"]["total_tokens"].as_u64().unwrap();
    assert!(total <= 512, "{total}");
    // As clients send conversations.
    let messages = json!([
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": []},
        {"role": "user", "content": "Say hello.", "name": "me"},
    ]);
    server.chat("tiny", json!({"messages": messages}));
    let begun = json!([
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": "Once upon"},
    ]);
    let begun = server.chat("tiny", json!({"messages": begun}));
    let raw = json!({"prompt": format!("[user] {PROMPT}\n[assistant] Once upon"), "seed": 5, "n_predict": 16});
    assert_eq!(text(&begun), server.json("/completion", &raw)["content"]);
}

#[test]
fn answers_are_of_the_format_that_is_asked_for() {
    let server = Server::start(&[]);
    let schema = json!({"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": false});
    for model in ["tiny", "tiny:aisp"] {
        for format in [
            json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}),
            json!({"type": "json_object", "schema": schema}),
        ] {
            let said = server.chat(model, json!({"response_format": format, "max_tokens": 64}));
            let said: Value = serde_json::from_str(&text(&said)).unwrap();
            assert!(said["a"] == 1 || said["a"] == 2, "{said}");
        }
    }
}

#[test]
fn tokens_are_told_with_their_probabilities() {
    let server = Server::start(&[]);
    let more = json!({"logprobs": true, "top_logprobs": 3});
    let whole = server.chat("tiny", more.clone());
    assert_eq!(text(&whole), text(&server.chat("tiny", json!({}))));
    let entries = whole["choices"][0]["logprobs"]["content"].clone();
    let count = entries.as_array().unwrap().len() as u64;
    assert_eq!(count, whole["usage"]["completion_tokens"].as_u64().unwrap());
    let mut body = conversation("tiny", more);
    body["stream"] = true.into();
    let chunks = server.stream(CHAT, &body).chunks();
    let of = |chunk: &Value| {
        chunk["choices"][0]["logprobs"]["content"]
            .as_array()
            .cloned()
    };
    let streamed: Vec<Value> = chunks.iter().filter_map(of).flatten().collect();
    assert_eq!(Value::from(streamed), entries);
    let searched = server.chat("tiny:aisp", json!({"logprobs": true}));
    let entries = searched["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap()
        .clone();
    let surprise: f64 = entries
        .iter()
        .map(|e| -e["logprob"].as_f64().unwrap())
        .sum();
    let price = searched["aisp"]["price"]["surprise"].as_f64().unwrap();
    assert!(
        (surprise / entries.len() as f64 - price).abs() < 1e-3,
        "{surprise} {price}"
    );
}

#[test]
fn whoever_asks_for_the_answer_now_gets_the_best_so_far() {
    let server = Server::start(&[]);
    let mut stream = server.stream(CHAT, &endless());
    let first: Value = serde_json::from_str(&stream.next().unwrap()).unwrap();
    let seen = stream.by_ref().find(|data| data.contains("iteration_done"));
    assert!(seen.is_some());
    let control = |id: &Value| {
        server.post(
            "/v1/chat/completions/control",
            &json!({"id": id, "action": "reasoning_end"}),
        )
    };
    assert_eq!(control(&json!("nobody")).status, 404);
    assert_eq!(control(&first["id"]).status, 200);
    let chunks = stream.chunks();
    let last = chunks.last().unwrap();
    assert_eq!(last["aisp"]["stop"], "interrupted");
    assert!(!last["aisp"]["response"].as_str().unwrap().is_empty());
    assert_eq!(joined(&chunks, "content").0, last["aisp"]["response"]);
}

#[test]
fn a_search_that_is_not_streamed_ends_in_time() {
    let server = Server::start(&["--time-limit", "1"]);
    let mut body = endless();
    body["stream"] = false.into();
    let said = server.json(CHAT, &body);
    assert_eq!(said["aisp"]["stop"], "time_limit");
}

#[test]
fn a_preset_is_another_name() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("short.json");
    let preset = json!({"method": "best-of-n", "samples": 3, "iterations": 1, "temp": 0.5, "reward": "rule:words=1"});
    std::fs::write(&file, preset.to_string()).unwrap();
    let flag = format!("short={}", file.display());
    let server = Server::start(&["--preset", &flag]);
    let said = server.chat("tiny:short", json!({}));
    assert_eq!(said["aisp"]["method"], "best-of-n");
    assert_eq!(said["aisp"]["samples"], 3);
    assert_eq!(said["aisp"]["reward_model"], "rule:words=1");
    let alone = server.run(&[
        "--method",
        "best-of-n",
        "--samples",
        "3",
        "--iterations",
        "1",
        "--temp",
        "0.5",
        "-n",
        "16",
        "-s",
        "5",
    ]);
    assert_eq!(
        said["aisp"]["usage"]["generated_tokens"],
        alone["usage"]["generated_tokens"]
    );
}
