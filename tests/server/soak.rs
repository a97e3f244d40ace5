//! Clients that connect, stream, leave and send rubbish for a long time; a short while by default,
//! `SOAK_MINUTES` of it by `make soak`.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::json;

use crate::client::send;
use crate::{Server, conversation, endless, text};

const CHAT: &str = "/v1/chat/completions";
const CLIENTS: u64 = 4;
/// What memory may grow by while nothing is kept.
const GROWTH: u64 = 16 << 20;

/// Bytes of memory, open files and threads of a process.
#[derive(Clone, Copy)]
struct Held {
    bytes: u64,
    files: usize,
    threads: usize,
}

impl Held {
    fn of(server: &Server) -> Self {
        let folder = format!("/proc/{}", server.child.id());
        let count = |name: &str| fs::read_dir(format!("{folder}/{name}")).unwrap().count();
        let pages = fs::read_to_string(format!("{folder}/statm")).unwrap();
        let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            bytes: pages * 4096,
            files: count("fd"),
            threads: count("task"),
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{mib:.1} MiB, {} files, {} threads",
            self.files, self.threads
        )
    }
}

/// One visit of a client, well behaved or not.
fn visit(server: &Server, random: &mut StdRng) {
    let kinds = [
        "tiny",
        "tiny:aisp",
        "tiny:best-of-n",
        "tiny:args",
        "tiny:none",
    ];
    let kind = kinds[random.random_range(0..kinds.len())];
    let stream = random.random_bool(0.5);
    let seed = random.random_range(0..1000);
    let body = conversation(
        kind,
        json!({"stream": stream, "seed": seed, "max_tokens": 8}),
    );
    let mut connection = server.connect();
    let _ = connection.set_read_timeout(Some(Duration::from_secs(60)));
    match random.random_range(0..8) {
        // All of an answer.
        0..=2 => {
            send(&mut connection, "POST", CHAT, &[], &body.to_string());
            let mut said = Vec::new();
            let _ = connection.read_to_end(&mut said);
        }
        // The beginning of one that takes minutes.
        3 => {
            let mut body = endless();
            body["stream"] = stream.into();
            send(&mut connection, "POST", CHAT, &[], &body.to_string());
            if stream {
                let mut said = vec![0; random.random_range(1..2000)];
                let _ = connection.read_exact(&mut said);
            } else {
                std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
            }
        }
        // A request with some of its bytes changed, or without its end.
        4 => {
            let mut bytes = body.to_string().into_bytes();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            let said = bytes.len() + random.random_range(0..2);
            let head =
                format!("POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {said}\r\n");
            let _ = connection.write_all(head.as_bytes());
            let _ = connection.write_all(b"Connection: close\r\n\r\n");
            let _ = connection.write_all(&bytes);
            let _ = connection.read(&mut [0; 64]);
        }
        // What is no request at all.
        5 => {
            let mut bytes = vec![0; random.random_range(0..4096)];
            random.fill_bytes(&mut bytes);
            let _ = connection.write_all(&bytes);
        }
        // Other paths, with whatever.
        6 => {
            let paths = [
                "/tokenize",
                "/rerank",
                "/completion",
                "/detokenize",
                "/nowhere",
            ];
            let path = paths[random.random_range(0..paths.len())];
            let body = json!({"content": "é".repeat(random.random_range(0..5000)), "prompt": [1, "x"],
                              "query": "q", "documents": ["a b c", ""], "tokens": [1, 2], "n_predict": 4});
            send(&mut connection, "POST", path, &[], &body.to_string());
            let _ = connection.read_to_end(&mut Vec::new());
        }
        // Nothing, for a while.
        _ => std::thread::sleep(Duration::from_millis(random.random_range(0..300))),
    }
}

#[test]
fn clients_that_come_go_and_send_rubbish_leave_nothing_behind() {
    let minutes = std::env::var("SOAK_MINUTES").map_or(0.1, |m| m.parse().unwrap());
    let whole = Duration::from_secs_f64(60.0 * minutes);
    let mut server = Server::start(&["--metrics"]);
    let said = |server: &Server| text(&server.chat("tiny:aisp", json!({})));
    let first = said(&server);
    let (over, visits) = (AtomicBool::new(false), AtomicUsize::new(0));
    let warm = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, over, visits) = (&server, &over, &visits);
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(client);
                while !over.load(Ordering::Relaxed) {
                    visit(server, &mut random);
                    visits.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let begun = Instant::now();
        let mut warm = None;
        for tenth in 1..=10 {
            std::thread::sleep((whole * tenth / 10).saturating_sub(begun.elapsed()));
            let held = Held::of(&server);
            println!(
                "{:5.0} s  {} visits  {held}",
                begun.elapsed().as_secs_f64(),
                visits.load(Ordering::Relaxed)
            );
            // What is kept for good is there by then.
            if tenth == 3 {
                warm = Some(held);
            }
        }
        over.store(true, Ordering::Relaxed);
        warm.unwrap()
    });
    let idle = server.until_idle(Duration::from_secs(5));
    // Connections that were closed are seen to be.
    let begun = Instant::now();
    let mut after = Held::of(&server);
    while after.files > warm.files && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(50));
        after = Held::of(&server);
    }
    println!(
        "idle after {idle:?}: {after}\n{}",
        server.get("/metrics").body
    );
    assert!(after.bytes < warm.bytes + GROWTH, "{warm}; {after}");
    assert!(after.files <= warm.files, "{warm}; {after}");
    assert_eq!(said(&server), first);
    let pid = server.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(!server.said().contains("panicked"), "{}", server.said());
}
