//! What a server tells of itself.

use serde_json::json;

use crate::{Server, program};

#[test]
fn health_models_and_props_are_told() {
    let server = Server::start(&["--alias", "tiny,small"]);
    for path in ["/health", "/v1/health"] {
        assert_eq!(server.get(path).json(), json!({"status": "ok"}));
    }
    let models = server.get("/v1/models").json();
    let ids = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["id"]);
    let ids: Vec<_> = ids.collect();
    assert_eq!(ids, ["tiny", "tiny:aisp", "tiny:best-of-n", "tiny:args"]);
    assert_eq!(models["data"][0]["aliases"], json!(["small"]));
    assert_eq!(models["data"][1]["aisp"]["samples"], 4);
    assert_eq!(server.get("/models").json(), models);
    let props = server.get("/props").json();
    assert_eq!(props["total_slots"], 16);
    assert_eq!(props["default_generation_settings"]["n_ctx"], 512);
    assert_eq!(props["default_generation_settings"]["params"]["seed"], -1);
    assert!(props["model_path"].as_str().unwrap().ends_with("tiny.gguf"));
    assert!(
        props["chat_template"]
            .as_str()
            .unwrap()
            .contains("messages")
    );
}

#[test]
fn slots_and_metrics_are_told_where_they_are_to_be() {
    let server = Server::start(&["--metrics", "--parallel", "8"]);
    let slots = server.get("/slots").json();
    assert_eq!(slots.as_array().unwrap().len(), 8);
    assert_eq!(slots[0]["n_ctx"], 512);
    assert_eq!(slots[0]["is_processing"], false);
    server.chat("tiny", json!({}));
    server.chat("tiny:aisp", json!({}));
    let metrics = server.get("/metrics");
    assert!(metrics.header("content-type").starts_with("text/plain"));
    for line in [
        "aisp_plain_total 1\n",
        "aisp_searches_total 1\n",
        "aisp_candidates_total 8\n",
    ] {
        assert!(metrics.body.contains(line), "{line}: {}", metrics.body);
    }
    let server = Server::start(&["--no-slots", "--no-ui"]);
    for (path, status) in [
        ("/slots", 501),
        ("/metrics", 501),
        ("/", 404),
        ("/nowhere", 404),
    ] {
        let reply = server.get(path);
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.json()["error"]["code"], status);
    }
}

#[test]
fn texts_become_tokens_and_come_back() {
    let server = Server::start(&[]);
    let text = "What is the capital of France ?";
    let tokens = server.json("/tokenize", &json!({"content": text}));
    let back = server.json("/detokenize", &json!({"tokens": tokens["tokens"]}));
    assert_eq!(back["content"], text);
    let pieces = server.json("/tokenize", &json!({"content": "the", "with_pieces": true}));
    assert_eq!(pieces["tokens"][0]["piece"], "th");
    let body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let prompt = server.json("/apply-template", &body);
    assert_eq!(prompt["prompt"], "[user] Hi\n[assistant] ");
    assert_eq!(
        server.post("/detokenize", &json!({"tokens": [-1]})).status,
        400
    );
}

#[test]
fn the_page_is_small_and_loads_nothing_from_elsewhere() {
    let server = Server::start(&[]);
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert!(page.body.len() < 60_000);
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; connect-src 'self'; script-src 'nonce-"));
    for word in [
        "http://",
        "https://",
        "innerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ] {
        let there = page.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!there.contains(word), "{word}");
    }
    let nonce = policy
        .split("nonce-")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap();
    assert_eq!(page.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(
        !server.get("/").body.contains(nonce),
        "a nonce is for one answer"
    );
}

#[test]
fn what_cannot_be_served_is_said_at_once() {
    for (flags, code, words) in [
        (&["--host", "0.0.0.0"][..], 2, "give an --api-key"),
        (&["--host", "nowhere"], 2, "want an address"),
        (&["--preset", "x"], 2, "want NAME=VALUE"),
        (&["--preset", "x=/nowhere.json"], 1, "no such file"),
        (&["-m", "/nowhere.gguf"], 3, "no such file"),
        (&["--samples", "0"], 2, "--samples: 0"),
    ] {
        let output = program().arg("serve").args(flags).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {said}");
        assert!(said.contains(words), "{flags:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}
