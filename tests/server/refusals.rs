//! What cannot be answered, with the status that keeps clients from sending it again.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Reply, ask, send};
use crate::{Server, conversation, endless};

const CHAT: &str = "/v1/chat/completions";

fn assert_refused(reply: &Reply, status: u16, words: &str) {
    assert_eq!(reply.status, status, "{}", reply.body);
    let error = &reply.json()["error"];
    assert_eq!(error["code"], status);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(words), "{words:?} is not in: {message}");
}

#[test]
fn conversations_that_are_none_are_refused() {
    let server = Server::start(&[]);
    for messages in [
        Value::Null,
        json!("string"),
        json!([123]),
        json!([{}]),
        json!([{"role": 123}]),
        json!([{"role": "system", "content": 123}]),
        json!([{"role": "system", "content": "test"}, {}]),
        json!([
            {"role": "user", "content": "test"},
            {"role": "assistant", "content": "test"},
            {"role": "assistant", "content": "test"},
        ]),
        json!([]),
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
    ] {
        let body = conversation("tiny", json!({"messages": messages}));
        assert_refused(&server.post(CHAT, &body), 400, "messages");
    }
    for body in ["", "{", "[]", "7", "{\"messages\": \"\u{0}\"}"] {
        let reply = ask(server.connect(), "POST", CHAT, &[], body);
        assert_eq!(reply.status, 400, "{body}: {}", reply.body);
    }
}

#[test]
fn formats_that_there_are_not_are_refused() {
    let server = Server::start(&[]);
    for format in [
        json!({"type": "sound"}),
        json!({"type": "json_object", "schema": 123}),
        json!({"type": "json_object", "schema": {"type": 123}}),
        json!({"type": "json_object", "schema": {"type": "hiccup"}}),
        json!({"type": "json_schema"}),
        json!("json"),
    ] {
        let body = conversation("tiny", json!({"response_format": format}));
        assert_refused(&server.post(CHAT, &body), 400, "response_format");
    }
}

#[test]
fn fields_of_the_wrong_kind_are_refused_by_their_name() {
    let server = Server::start(&["--max-candidates", "64"]);
    for (model, more, status, words) in [
        ("nobody", json!({}), 404, "there are tiny, tiny:aisp"),
        ("tiny:none", json!({}), 404, "there are tiny, tiny:aisp"),
        ("tiny", json!({"max_tokens": 0}), 400, "max_tokens: 0"),
        (
            "tiny",
            json!({"max_tokens": "many"}),
            400,
            "max_tokens: must be",
        ),
        ("tiny", json!({"n": 0}), 400, "n: 0"),
        ("tiny", json!({"n": 65}), 400, "at most 64"),
        ("tiny", json!({"stop": [""]}), 400, "stop: an empty text"),
        ("tiny", json!({"temperature": -1}), 400, "temp: -1"),
        ("tiny", json!({"stream": "yes"}), 400, "stream: must be"),
        (
            "tiny",
            json!({"logit_bias": {"999999": 1}}),
            400,
            "logit_bias",
        ),
        (
            "tiny",
            json!({"top_logprobs": 1000, "logprobs": true}),
            400,
            "at most 100",
        ),
        (
            "tiny",
            json!({"grammar": "root ::= \"x\""}),
            400,
            "grammars are not taken",
        ),
        (
            "tiny",
            json!({"aisp": {"samples": 4}}),
            400,
            "ask tiny:aisp",
        ),
        (
            "tiny:aisp",
            json!({"n": 1_000_000_000_000_u64, "stream": true}),
            400,
            "n: 1000000000000",
        ),
        (
            "tiny:aisp",
            json!({"aisp": {"method": "args", "guided": 100_000}}),
            400,
            "guided: 100000; at most 256",
        ),
        (
            "tiny:aisp",
            json!({"aisp": {"stop_on_divergence": true}}),
            400,
            "stop_on_divergence",
        ),
        (
            "tiny",
            json!({"stop": vec!["x"; 65]}),
            400,
            "stop: 65 of them",
        ),
        (
            "tiny",
            json!({"n": 64, "logprobs": true, "top_logprobs": 100}),
            400,
            "logprobs: 64 answers",
        ),
        (
            "tiny:aisp",
            json!({"aisp": {"samples": 0}}),
            400,
            "samples: 0",
        ),
        (
            "tiny:aisp",
            json!({"aisp": {"samples": 1e9 as u64}}),
            400,
            "at most 64",
        ),
        (
            "tiny:aisp",
            json!({"aisp": {"depth": 1}}),
            400,
            "depth: no setting",
        ),
        (
            "tiny:aisp",
            json!({"aisp": {"reward": "command:id"}}),
            400,
            "never by a request",
        ),
        (
            "tiny:aisp",
            json!({"aisp": {"held-out": "http:x"}}),
            400,
            "never by a request",
        ),
        (
            "tiny:aisp",
            json!({"aisp": {"preset": "/etc/passwd"}}),
            400,
            "no preset of",
        ),
        (
            "tiny:aisp",
            json!({"aisp": {"method": "re-control", "value": "/etc/passwd"}}),
            400,
            "only the server's flags",
        ),
        (
            "tiny:aisp",
            json!({"aisp": {"time_limit": 0}}),
            400,
            "time_limit: 0",
        ),
        (
            "tiny:aisp",
            json!({"aisp": 7}),
            400,
            "aisp: must be an object",
        ),
        (
            "tiny:aisp",
            json!({"logit_bias": {"5": 1}}),
            400,
            "plain model alone",
        ),
    ] {
        let body = conversation(model, more);
        assert_refused(&server.post(CHAT, &body), status, words);
    }
    let reply = ask(server.connect(), "GET", CHAT, &[], "");
    assert_eq!(reply.status, 405);
}

#[test]
fn a_prompt_beyond_the_context_is_told_with_both_lengths() {
    let server = Server::start(&[]);
    for stream in [false, true] {
        for (path, body) in [
            (
                CHAT,
                conversation(
                    "tiny:aisp",
                    json!({"messages": [{"role": "user", "content": "word ".repeat(200)}]}),
                ),
            ),
            ("/completion", json!({"prompt": "word ".repeat(200)})),
        ] {
            let mut body = body;
            body["stream"] = stream.into();
            let reply = server.post(path, &body);
            assert_refused(&reply, 400, "send a shorter one");
            let error = &reply.json()["error"];
            assert_eq!(error["type"], "exceed_context_size_error");
            assert_eq!(error["n_ctx"], 512);
            assert!(error["n_prompt_tokens"].as_u64().unwrap() > 512);
        }
    }
}

#[test]
fn a_reward_that_fails_is_no_reason_to_ask_again() {
    let server = Server::with(&["--reward", "command:false"]);
    let reply = server.post(CHAT, &conversation("tiny:aisp", json!({})));
    assert_refused(&reply, 422, "reward");
    let body = conversation("tiny:aisp", json!({"stream": true}));
    let all: Vec<String> = server.stream(CHAT, &body).collect();
    let last: Value = serde_json::from_str(all.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], 422, "{all:?}");
    // The plain model does not ask it.
    server.chat("tiny", json!({}));
}

#[test]
fn bodies_and_heads_have_a_limit() {
    let server = Server::start(&[]);
    let long = conversation("tiny", json!({"user": "x".repeat(2 << 20)})).to_string();
    let mut stream = server.connect();
    // The server may have heard enough before all is sent.
    let length = long.len();
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(long.as_bytes()));
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 413"),
        "{said}"
    );
    let mut stream = server.connect();
    let head = format!(
        "GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 17)
    );
    let _ = stream.write_all(head.as_bytes());
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 431"),
        "{said}"
    );
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_full_queue_sends_away_before_any_work() {
    let server = Server::start(&["--parallel", "8"]);
    let mut open = Vec::new();
    let mut refused = None;
    // Eight are begun, and 64 wait.
    for _ in 0..80 {
        let mut stream = server.connect();
        send(&mut stream, "POST", CHAT, &[], &endless().to_string());
        let mut first = [0; 15];
        stream.read_exact(&mut first).unwrap();
        if first.starts_with(b"HTTP/1.1 503") {
            let mut rest = String::new();
            stream.read_to_string(&mut rest).unwrap();
            refused = Some(rest);
            break;
        }
        open.push(stream);
    }
    let rest = refused.expect("one too many is sent away");
    assert!(open.len() >= 64, "{}", open.len());
    assert!(rest.to_lowercase().contains("retry-after: "), "{rest}");
    drop(open);
    server.until_idle(Duration::from_secs(5));
    server.chat("tiny", json!({}));
}

#[test]
fn many_prompts_are_refused_before_any_is_begun() {
    let server = Server::start(&["--max-candidates", "32"]);
    for (count, words) in [
        (65, "prompt: 65 of them"),
        (40, "40 prompts are 40 candidates"),
    ] {
        let body = json!({"prompt": vec!["a"; count], "n_predict": 1, "max_tokens": 1});
        for path in ["/completion", "/v1/completions"] {
            assert_refused(&server.post(path, &body), 400, words);
        }
    }
}

#[test]
fn what_a_reward_is_called_is_told_to_those_with_a_key() {
    let server = Server::start(&["--api-key", "secret"]);
    let told = |headers: &[(&str, &str)]| {
        let reply = ask(server.connect(), "GET", "/v1/models", headers, "");
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()["data"][1]["aisp"]["reward"].clone()
    };
    assert_eq!(told(&[]), Value::Null);
    assert!(told(&[("Authorization", "Bearer secret")]).is_string());
}
