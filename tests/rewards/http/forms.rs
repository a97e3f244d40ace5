//! What servers of each kind are asked and say.

use std::process::Command;

use aisp_llama::reward::{HttpApi, HttpOptions, HttpReward, Reward, RewardText};
use serde_json::{Value, json};

use super::server::{Reply, Server, ok};
use super::{reason, rewards, samples};

/// The path of each request, and its body.
fn asked(server: &Server) -> Vec<(String, Value)> {
    let path = |head: &str| head.split(' ').nth(1).unwrap().to_owned();
    let asked = server.asked().into_iter();
    asked.map(|asked| (path(&asked.head), asked.body)).collect()
}

#[test]
fn tei_is_asked_for_raw_scores_of_texts() {
    let server = Server::start([
        ok(r#"[{"index":1,"score":-3.5},{"index":0,"score":2.25},{"index":2,"score":0}]"#),
        ok(r#"[{"index":0,"score":1}]"#),
    ]);
    let answers = server.reward(HttpApi::Tei).score(&samples()).unwrap();
    assert_eq!(rewards(&answers), [2.25, 1.0, -3.5, 0.0]);
    let (path, body) = &asked(&server)[0];
    assert_eq!(path, "/rerank");
    assert_eq!(
        *body,
        json!({"query": "a", "texts": ["one", "three", "four"], "raw_scores": true})
    );
}

#[test]
fn a_classifier_is_given_conversations_or_a_text_of_one_s_own() {
    let vllm = |number: f64| {
        let item = json!({"index": 0, "label": "LABEL_0", "probs": [number], "num_classes": 1});
        ok(json!({"data": [item], "usage": {"prompt_tokens": 12}}).to_string())
    };
    let server = Server::start([vllm(1.5), vllm(-2.0), vllm(0.0), vllm(8.0)]);
    let answers = server.reward(HttpApi::Classify).score(&samples()).unwrap();
    assert_eq!(rewards(&answers), [1.5, -2.0, 0.0, 8.0]);
    assert_eq!(answers[0].as_ref().unwrap().tokens, 12);
    let (path, body) = &asked(&server)[1];
    assert_eq!(path, "/classify");
    assert_eq!(
        body["messages"],
        json!([{"role": "user", "content": "b"}, {"role": "assistant", "content": "two"}])
    );
    assert_eq!(body["use_activation"], false);

    // What SGLang says: no places, and a number by another name.
    let sglang = json!([{"embedding": [1]}, {"embedding": [2]}, {"embedding": [3]},
                        {"embedding": [4]}]);
    let server = Server::start([ok(sglang.to_string())]);
    let mut reward = HttpReward::new(HttpOptions {
        text: RewardText::parse("<{prompt}>{response}").unwrap(),
        ..server.options(HttpApi::Classify)
    })
    .unwrap();
    let answers = reward.score(&samples()).unwrap();
    assert_eq!(rewards(&answers), [1.0, 2.0, 3.0, 4.0]);
    let (_, body) = &asked(&server)[0];
    let texts = json!(["<a>one", "<b>two", "<a>three", "<a>four"]);
    assert_eq!((&body["input"], &body["text"]), (&texts, &texts));
}

#[test]
fn a_pooler_s_last_row_is_the_reward() {
    let said = |data: Value| ok(json!({"data": [{"index": 0, "data": data}]}).to_string());
    let server = Server::start([
        said(json!([0.5])),
        said(json!([[0.1], [0.2], [-4.5]])),
        said(json!([[0.1, 0.9], [0.75, 0.25]])),
        said(json!([])),
    ]);
    let answers = server.reward(HttpApi::Pooling).score(&samples()).unwrap();
    assert_eq!(rewards(&answers[..2]), [0.5, -4.5]);
    assert!(
        reason(&answers[2]).contains("class=…"),
        "{}",
        reason(&answers[2])
    );
    assert!(reason(&answers[3]).contains("no score"));
    let (path, body) = &asked(&server)[0];
    assert_eq!(path, "/pooling");
    assert_eq!(body["messages"][1]["content"], "one");
}

#[test]
fn one_of_several_classes_is_named() {
    let two = json!({"data": [{"index": 0, "probs": [0.25, 0.75]}]});
    let server = Server::start([ok(two.to_string())]);
    let of = |class| {
        let options = HttpOptions {
            class,
            ..server.options(HttpApi::Classify)
        };
        let mut reward = HttpReward::new(options).unwrap();
        reward.score(&samples()[..1]).unwrap().remove(0)
    };
    assert_eq!(of(Some(1)).unwrap().reward, 0.75);
    assert!(reason(&of(None)).contains("2 numbers"));
    assert!(reason(&of(Some(2))).contains("class=2"));
}

/// A chat reply of these tokens, each with the chances of all that might have stood there.
fn likely(tokens: &[(&str, &[(&str, f64)])]) -> Reply {
    let content: Vec<Value> = tokens
        .iter()
        .map(|(token, others)| {
            let top: Vec<Value> = others
                .iter()
                .map(|(token, p)| json!({"token": token, "logprob": p.ln()}))
                .collect();
            json!({"token": token, "logprob": -0.1, "top_logprobs": top})
        })
        .collect();
    let text: String = tokens.iter().map(|(token, _)| *token).collect();
    let choice = json!({"message": {"content": text}, "logprobs": {"content": content}});
    ok(json!({"choices": [choice]}).to_string())
}

fn close(answer: f64, wanted: f64) {
    assert!((answer - wanted).abs() < 1e-9, "{answer} {wanted}");
}

#[test]
fn a_number_is_an_expectation_where_the_server_tells_its_chances() {
    let words: &[(&str, f64)] = &[("Rating", 0.9), ("9", 0.1)];
    let server = Server::start([
        likely(&[("7", &[("7", 0.5), ("8", 0.25), (" 8", 0.05), ("no", 0.2)])]),
        likely(&[
            ("Rating", words),
            (":", &[]),
            (" 4", &[(" 4", 0.75), (" 2", 0.25)]),
        ]),
        // No chances at the place where the number stands.
        likely(&[("6", &[])]),
        // A 1 that a 0 follows is a 10.
        likely(&[
            ("1", &[("1", 0.5), ("9", 0.5)]),
            ("0", &[("0", 0.8), (".", 0.2)]),
        ]),
        // What would have followed a 1 that was not said: beside a 9 it begins a 10, beside a 2 not.
        likely(&[("9", &[("9", 0.5), ("1", 0.5)])]),
        likely(&[("2", &[("2", 0.5), ("1", 0.5)])]),
        // Where 10 is one token, a 1 is a 1.
        likely(&[("9", &[("9", 0.5), ("1", 0.25), ("10", 0.25)])]),
        // A part of a longer number is none of its own.
        likely(&[("8", &[("8", 0.5), ("2", 0.5)]), (".5", &[])]),
    ]);
    let four = samples();
    let answers = server
        .reward(HttpApi::Chat)
        .score(&[four, four].concat())
        .unwrap();
    let found = rewards(&answers);
    let eight = (0.5 * 7.0 + 0.3 * 8.0) / 0.8;
    let ten = 0.5 * 9.0 + 0.4 * 10.0 + 0.1 * 1.0;
    let wanted = [eight, 3.5, 6.0, ten, 9.5, 1.5, 7.25, 8.5];
    found.into_iter().zip(wanted).for_each(|(f, w)| close(f, w));
    let (_, body) = &asked(&server)[0];
    assert_eq!(
        (&body["logprobs"], &body["top_logprobs"]),
        (&json!(true), &json!(20))
    );
}

#[test]
fn a_scale_of_one_s_own_is_asked_for_and_counts() {
    let server = Server::start([likely(&[("3", &[("3", 0.5), ("1", 0.25), ("9", 0.25)])])]);
    let mut reward = HttpReward::new(HttpOptions {
        scale: Some(0..=5),
        ..server.options(HttpApi::Chat)
    })
    .unwrap();
    let answers = reward.score(&samples()[..1]).unwrap();
    close(rewards(&answers)[0], (0.5 * 3.0 + 0.25) / 0.75);
    let (_, body) = &asked(&server)[0];
    let question = body["messages"][0]["content"].as_str().unwrap();
    assert!(question.contains("from 0 (useless) to 5"), "{question}");
}

#[test]
fn a_server_that_refuses_logprobs_is_asked_without() {
    let server = Server::answering(|asked| match asked.body.get("logprobs") {
        Some(_) => Reply::Status(400, "", "logprobs are not supported".into()),
        None => super::said("7"),
    });
    let mut reward = server.reward(HttpApi::Chat);
    assert_eq!(rewards(&reward.score(&samples()).unwrap()), [7.0; 4]);
    assert_eq!(server.asked().len(), 5, "once with them");

    let mut reward = HttpReward::new(HttpOptions {
        logprobs: 0,
        ..server.options(HttpApi::Chat)
    })
    .unwrap();
    reward.score(&samples()).unwrap();
    assert_eq!(server.asked().len(), 9, "never with them");
}

/// `score` on a reward of this description, with these variables; the answer is its stderr.
fn score(reward: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aisp-llama"));
    for name in [
        "OPENAI_API_KEY",
        "HTTP_PROXY",
        "http_proxy",
        "NO_PROXY",
        "no_proxy",
        "ALL_PROXY",
    ] {
        command.env_remove(name);
    }
    let mut child = command
        .args(["score", "--reward", reward])
        .envs(variables.iter().copied())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let line = b"{\"prompt\": \"p\", \"response\": \"r\"}\n";
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), line).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_key_of_openai_goes_to_chat_servers_alone_that_have_no_other() {
    let with_key = |api: &str, more: &str| {
        let server = Server::start([ok(r#"[{"index":0,"score":1}]"#)]);
        let variables = [("OPENAI_API_KEY", "sk-1"), ("OTHER_KEY", "sk-2")];
        score(&format!("http:{};api={api}{more}", server.url), &variables);
        let head = server.asked()[0].head.to_lowercase();
        let key = head
            .lines()
            .find_map(|l| l.strip_prefix("authorization: bearer "));
        key.map(str::to_owned)
    };
    assert_eq!(with_key("chat", "").as_deref(), Some("sk-1"));
    assert_eq!(
        with_key("chat", ";key-env=OTHER_KEY").as_deref(),
        Some("sk-2")
    );
    assert_eq!(with_key("chat", ";key-env=none"), None);
    assert_eq!(with_key("rerank", ""), None);
}

#[test]
fn a_proxy_is_said_and_keeps_off_this_machine() {
    let proxy = Server::start([Reply::Status(502, "", "no way".into())]);
    let variables = [("HTTP_PROXY", proxy.url.as_str())];
    let reward = "http:http://far.invalid/rerank;retries=0";
    let message = score(reward, &variables);
    let place = proxy.url.strip_prefix("http://").unwrap();
    assert!(
        message.contains(&format!("through the proxy {place}")),
        "{message}"
    );

    let server = Server::start([ok(r#"[{"index":0,"score":1}]"#)]);
    let port = server.url.rsplit(':').next().unwrap();
    for host in ["localhost", "LOCALHOST", "127.0.0.1"] {
        let message = score(&format!("http:http://{host}:{port};retries=0"), &variables);
        assert!(!message.contains("proxy"), "{host}: {message}");
    }
    assert_eq!(server.asked().len(), 3);
}
