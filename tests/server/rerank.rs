//! The reward as a reranker.

use serde_json::{Value, json};

use crate::Server;

const TEXTS: [&str; 3] = ["one two three e", "x", "one two e"];

#[test]
fn documents_are_ranked_by_the_reward() {
    let server = Server::with(&["--reward", "rule:words=4"]);
    let body = json!({"query": "any", "documents": TEXTS});
    let said = server.json("/v1/rerank", &body);
    assert_eq!(said["object"], "list");
    let results = said["results"].as_array().unwrap();
    let order: Vec<&Value> = results.iter().map(|one| &one["index"]).collect();
    assert_eq!(order, [0, 2, 1]);
    assert_eq!(results[0]["relevance_score"], 1.0);
    assert_eq!(server.json("/rerank", &body), said);
    let mut top = body.clone();
    top["top_n"] = 2.into();
    assert_eq!(
        server.json("/rerank", &top)["results"].as_array().unwrap()[..],
        results[..2]
    );
    top["top_n"] = 9.into();
    assert_eq!(server.json("/rerank", &top), said);
}

#[test]
fn the_other_form_is_a_list_by_itself() {
    let server = Server::with(&["--reward", "rule:words=4"]);
    let said = server.json(
        "/rerank",
        &json!({"query": "any", "texts": TEXTS, "return_text": true}),
    );
    assert_eq!(said[0], json!({"index": 0, "score": 1.0, "text": TEXTS[0]}));
    assert_eq!(said.as_array().unwrap().len(), 3);
}

#[test]
fn what_is_no_list_of_texts_is_refused() {
    let server = Server::start(&[]);
    for documents in [json!([]), Value::Null, json!(123), json!([1, 2, 3])] {
        let reply = server.post("/rerank", &json!({"query": "any", "documents": documents}));
        assert_eq!(reply.status, 400, "{documents}");
    }
    assert_eq!(
        server.post("/rerank", &json!({"documents": TEXTS})).status,
        400
    );
}

#[test]
fn one_server_is_another_one_s_reward() {
    let reward = Server::with(&["--reward", "rule:words=4"]);
    let spec = format!("http:http://{}/v1/rerank;api=rerank", reward.address);
    let asked = Server::with(&["--reward", &spec]).chat("tiny:best-of-n", json!({}));
    let own = Server::with(&["--reward", "rule:words=4"]).chat("tiny:best-of-n", json!({}));
    assert_eq!(asked["aisp"]["response"], own["aisp"]["response"]);
    assert_eq!(asked["aisp"]["reward"], own["aisp"]["reward"]);
}
