//! What a search is told by rewards that come in several forms, and the bytes of `run` for all of them.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{PROMPT, Server, common, conversation, text};

const CHAT: &str = "/v1/chat/completions";
/// A template of a model that thinks before it answers, unless it is told not to.
const THINKS: &str = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}\
                      {% if add_generation_prompt %}[assistant] {% if enable_thinking is defined and \
                      not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}";

/// What must be the same of a run, however it was asked for.
fn assert_same(run: &Value, alone: &Value) {
    for field in [
        "prompt",
        "response",
        "reasoning",
        "reward",
        "parts",
        "price",
        "held_out",
        "method",
        "seed",
        "reward_parts",
        "stop",
        "usage",
    ] {
        assert_eq!(run[field], alone[field], "{field}");
    }
}

#[test]
fn every_reward_gives_the_run_that_run_gives() {
    let judge = format!("pairwise:{}", common::path(common::SMOLLM2).display());
    for (rewards, flags) in [
        // Parts, each divided by its deviation.
        (
            &[
                "--reward",
                "rule:words=2..4",
                "--reward",
                "100*rule:contains-exact=e;contains-exact=a",
                "--reward-scale",
            ][..],
            &[][..],
        ),
        // Comparisons with the best so far, for the reward and for the one that watches.
        (
            &["--reward", &judge, "--held-out", &judge],
            &["--method", "search"],
        ),
        // A reward that reads the model, asked while a response is written.
        (
            &["--reward", "likelihood:self"],
            &["--method", "args", "--samples", "2", "--iterations", "1"],
        ),
        (
            &["--reward", "rule:words=2..4"],
            &["--method", "vote", "--votes", "reward"],
        ),
    ] {
        let server = Server::with(&[rewards, flags].concat());
        let alone = server.run_for(rewards, &[flags, &["-n", "16", "-s", "5"]].concat());
        let said = server.chat("tiny:aisp", json!({}));
        assert_eq!(text(&said), alone["response"], "{rewards:?}");
        assert_same(&said["aisp"], &alone);
    }
}

#[test]
fn a_request_names_methods_and_evens_out_parts() {
    let rewards = [
        "--reward",
        "rule:words=2..4",
        "--reward",
        "100*rule:contains-exact=e",
    ];
    let server = Server::with(&rewards);
    for (aisp, flags) in [
        (json!({"method": "vote"}), &["--method", "vote"][..]),
        (
            json!({"method": "misvo", "reward_scale": true}),
            &["--method", "misvo", "--reward-scale"],
        ),
    ] {
        let alone = server.run_for(&rewards, &[flags, &["-n", "16", "-s", "5"]].concat());
        let said = server.chat("tiny:aisp", json!({"aisp": aisp}));
        assert_same(&said["aisp"], &alone);
    }
    // It is told which of them decides.
    let body = conversation("tiny:aisp", json!({"stream": true}));
    let told = server.stream(CHAT, &body).chunks();
    let told: Vec<&Value> = told
        .iter()
        .filter(|chunk| chunk["aisp"]["event"] == "reward_parts")
        .collect();
    assert!(told[0]["aisp"]["decisive"].is_number(), "{told:?}");
}

#[test]
fn rewards_see_the_whole_conversation() {
    let rewards = ["--reward", "likelihood:self"];
    let server = Server::with(&rewards);
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "Nobody."},
        {"role": "user", "content": PROMPT},
    ]);
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("messages.json");
    fs::write(&file, messages.to_string()).unwrap();
    let alone = server.run_of(
        &["--messages", file.to_str().unwrap()],
        &rewards,
        &["-n", "16", "-s", "5"],
    );
    let said = server.chat("tiny:aisp", json!({"messages": messages}));
    assert_same(&said["aisp"], &alone);
}

#[test]
fn what_a_model_thinks_is_apart_from_its_answer() {
    let flags = [
        "--chat-template",
        THINKS,
        "--think",
        "on",
        "--reasoning-budget",
        "8",
    ];
    let server = Server::start(&flags);
    let alone = server.run(&[&flags[..], &["-n", "16", "-s", "5"]].concat());
    assert!(!alone["reasoning"].as_str().unwrap().is_empty(), "{alone}");
    for model in ["tiny", "tiny:aisp"] {
        let said = server.chat(model, json!({}));
        let message = &said["choices"][0]["message"];
        assert!(!message["reasoning_content"].as_str().unwrap().is_empty());
        assert!(!text(&said).contains("think>"), "{said}");
        let chunks = server.stream(CHAT, &conversation(model, json!({"stream": true})));
        let chunks = chunks.chunks();
        let of = |field: &str| -> String {
            let pieces = chunks.iter().map(|c| &c["choices"][0]["delta"][field]);
            pieces.filter_map(Value::as_str).collect()
        };
        assert_eq!(of("content"), text(&said), "{model}");
        let thought = message["reasoning_content"].as_str().unwrap();
        assert!(of("reasoning_content").starts_with(thought), "{model}");
        if model == "tiny:aisp" {
            assert_same(&said["aisp"], &alone);
        }
    }
    for quick in [
        json!({"chat_template_kwargs": {"enable_thinking": false}}),
        json!({"reasoning_effort": "none"}),
    ] {
        let said = server.chat("tiny:aisp", quick);
        let thought = &said["choices"][0]["message"]["reasoning_content"];
        assert!(thought.is_null(), "{said}");
    }
}

/// A reward by a shell script of this text, with the folder that it is in.
fn scripted(script: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("reward.sh");
    fs::write(&path, script).unwrap();
    let reward = format!("command:sh {};timeout=60", path.display());
    (folder, reward)
}

#[test]
fn a_reward_that_dies_late_leaves_the_best_answer() {
    let (_folder, reward) = scripted(
        "cd \"${0%/*}\"; n=0; [ -e dead ] && exit 1\nwhile read -r line; do n=$((n + 1))\n\
         [ $n -gt 6 ] && { touch dead; exit 1; }\necho $n; done",
    );
    let server = Server::with(&["--reward", &reward]);
    let said = server.chat("tiny:best-of-n", json!({"aisp": {"iterations": 50}}));
    let run = &said["aisp"];
    assert_eq!(run["stop"], "reward_failed");
    assert!(run["reward"].as_f64().unwrap() >= 1.0, "{run}");
    assert!(
        run["failure"].as_str().unwrap().contains("command"),
        "{run}"
    );
    assert_eq!(text(&said), run["response"]);
    // From its beginning on it is no answer.
    let reply = server.post(CHAT, &conversation("tiny:best-of-n", json!({})));
    assert_eq!(reply.status, 422, "{}", reply.body);
}

#[test]
fn whoever_wants_the_answer_now_does_not_wait_for_a_silent_reward() {
    let (_folder, reward) = scripted(
        "n=0; while read -r line; do n=$((n + 1)); [ $n -gt 4 ] && sleep 60; echo $n; done",
    );
    let server = Server::with(&["--reward", &reward]);
    let body = conversation("tiny:best-of-n", json!({"stream": true}));
    let mut stream = server.stream(CHAT, &body);
    let first: Value = serde_json::from_str(&stream.next().unwrap()).unwrap();
    assert!(
        stream
            .find(|data| data.contains("iteration_done"))
            .is_some()
    );
    // Others are written meanwhile.
    server.chat("tiny", json!({}));
    let begun = Instant::now();
    let control = json!({"id": first["id"], "action": "reasoning_end"});
    server.json("/v1/chat/completions/control", &control);
    let chunks = stream.chunks();
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(chunks.last().unwrap()["aisp"]["stop"], "interrupted");
}
