//! Who may ask.

use crate::client::{Reply, ask};
use crate::{Server, conversation};
use serde_json::json;

fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Reply {
    ask(server.connect(), "GET", path, headers, "")
}

fn chat(server: &Server, headers: &[(&str, &str)]) -> Reply {
    let body = conversation("tiny", json!({})).to_string();
    ask(
        server.connect(),
        "POST",
        "/v1/chat/completions",
        headers,
        &body,
    )
}

#[test]
fn without_the_key_only_what_is_public_is_told() {
    let server = Server::start(&["--api-key", "sesame,other"]);
    for path in ["/health", "/v1/health", "/models", "/v1/models", "/"] {
        assert_eq!(get(&server, path, &[]).status, 200, "{path}");
    }
    for path in ["/props", "/slots", "/metrics", "/nowhere"] {
        assert_eq!(get(&server, path, &[]).status, 401, "{path}");
    }
    for headers in [
        &[][..],
        &[("Authorization", "Bearer sesam")],
        &[("Authorization", "sesame")],
        &[("X-Api-Key", "sesame ,")],
        &[("X-Api-Key", "")],
    ] {
        let reply = chat(&server, headers);
        assert_eq!(reply.status, 401, "{headers:?}");
        assert_eq!(reply.json()["error"]["type"], "authentication_error");
    }
    for headers in [
        [("Authorization", "Bearer sesame")],
        [("X-Api-Key", "sesame")],
        [("X-Api-Key", "other")],
    ] {
        assert_eq!(chat(&server, &headers).status, 200, "{headers:?}");
    }
}

#[test]
fn with_a_key_every_origin_may_ask() {
    let server = Server::start(&["--api-key", "sesame"]);
    for origin in ["localhost", "web.mydomain.fr", "https://chat.example"] {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "Authorization"),
        ];
        let reply = ask(
            server.connect(),
            "OPTIONS",
            "/v1/chat/completions",
            &headers,
            "",
        );
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("access-control-allow-origin"), origin);
        assert_eq!(reply.header("access-control-allow-credentials"), "true");
        assert_eq!(reply.header("access-control-allow-methods"), "GET, POST");
        // An asterisk would not stand for it.
        assert_eq!(
            reply.header("access-control-allow-headers"),
            "Authorization"
        );
    }
}

#[test]
fn without_a_key_only_pages_of_this_machine_may_ask() {
    let server = Server::start(&[]);
    let own = format!("http://{}", server.address);
    for (origin, status) in [
        (own.as_str(), 200),
        ("http://localhost:3000", 200),
        ("https://evil.example", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("null", 403),
    ] {
        assert_eq!(
            chat(&server, &[("Origin", origin)]).status,
            status,
            "{origin}"
        );
    }
    let flags = ["--cors-origins", "https://chat.example"];
    let server = Server::start(&flags);
    for (origin, status) in [
        ("https://chat.example", 200),
        ("http://localhost:3000", 403),
    ] {
        assert_eq!(
            chat(&server, &[("Origin", origin)]).status,
            status,
            "{origin}"
        );
    }
}

#[test]
fn another_name_for_this_machine_is_not_answered() {
    let server = Server::start(&["--allowed-hosts", "models.internal"]);
    for (host, status) in [
        ("localhost:80", 200),
        ("[::1]:8080", 200),
        ("models.internal", 200),
        ("evil.example", 403),
        ("localhost.evil.example:8080", 403),
    ] {
        let reply = get(&server, "/v1/models", &[("Host", host)]);
        assert_eq!(reply.status, status, "{host}");
    }
}
