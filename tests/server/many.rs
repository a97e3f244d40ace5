//! Many clients at once, and those that leave.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::Barrier;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::send;
use crate::{PROMPT, Server, conversation, endless, text};

const CHAT: &str = "/v1/chat/completions";

/// Eight requests of several kinds.
fn requests() -> Vec<Value> {
    let kinds = ["tiny", "tiny:aisp", "tiny:best-of-n", "tiny:args"];
    let body = |(seed, kind): (usize, &&str)| {
        let mut body = conversation(kind, json!({"seed": seed}));
        if seed % 3 == 1 {
            body["messages"][0]["content"] = format!("{PROMPT} {seed}").into();
            body["max_tokens"] = 40.into();
        }
        body
    };
    kinds.iter().cycle().take(8).enumerate().map(body).collect()
}

/// What is the same of an answer whatever else goes on.
fn bytes(body: &Value) -> Value {
    json!([
        text(body),
        body["aisp"]["reward"],
        body["aisp"]["price"],
        body["usage"]
    ])
}

#[test]
fn eight_at_once_get_the_bytes_of_eight_alone() {
    let server = Server::start(&[]);
    let alone: Vec<Value> = requests()
        .iter()
        .map(|r| bytes(&server.json(CHAT, r)))
        .collect();
    let barrier = Barrier::new(8);
    let together: Vec<Value> = std::thread::scope(|scope| {
        let ask = |request: Value| {
            let (server, barrier) = (&server, &barrier);
            scope.spawn(move || {
                barrier.wait();
                bytes(&server.json(CHAT, &request))
            })
        };
        let all: Vec<_> = requests().into_iter().map(ask).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
    server.until_idle(Duration::from_secs(1));
}

#[test]
fn a_short_request_does_not_wait_for_a_long_one() {
    let server = Server::start(&[]);
    let alone = server.chat("tiny:best-of-n", json!({}));
    let mut long = server.stream(CHAT, &endless());
    assert!(long.find(|data| data.contains("iteration_done")).is_some());
    for name in ["tiny", "tiny:best-of-n", "tiny:aisp"] {
        server.chat(name, json!({}));
    }
    assert_eq!(
        bytes(&server.chat("tiny:best-of-n", json!({}))),
        bytes(&alone)
    );
    assert!(server.busy() > 0, "the long one goes on");
}

#[test]
fn whoever_leaves_frees_the_slots_within_a_second() {
    let server = Server::start(&[]);
    for stream in [true, false] {
        let mut body = endless();
        body["stream"] = stream.into();
        let mut connection = server.connect();
        send(&mut connection, "POST", CHAT, &[], &body.to_string());
        while server.busy() == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(connection);
        server.until_idle(Duration::from_secs(1));
    }
    assert_eq!(server.chat("tiny", json!({}))["object"], "chat.completion");
}

#[test]
fn rubbish_does_not_keep_others_from_an_answer() {
    let server = Server::start(&[]);
    let mut kept = Vec::new();
    for (index, rubbish) in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{\"mess",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"",
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = server.connect();
        stream.write_all(rubbish).unwrap();
        // Some go at once, some never say more.
        if index % 2 == 0 {
            kept.push(stream);
        }
    }
    assert_eq!(server.get("/health").status, 200);
    server.chat("tiny:aisp", json!({}));
}

#[test]
fn what_was_begun_is_answered_before_a_server_ends() {
    let mut server = Server::start(&[]);
    let mut body = endless();
    body["aisp"]["time_limit"] = json!(1.5);
    let mut stream = server.stream(CHAT, &body);
    assert!(
        stream
            .find(|data| data.contains("iteration_done"))
            .is_some()
    );
    let pid = server.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let chunks = stream.chunks();
    assert_eq!(chunks.last().unwrap()["aisp"]["stop"], "time_limit");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let refused = std::net::TcpStream::connect(server.address);
    let gone = refused.map(|mut s| s.read(&mut [0; 1]).unwrap_or(0));
    assert!(gone.is_err() || gone.is_ok_and(|read| read == 0));
}
