//! One run on several servers: the bytes of a run alone, whatever becomes of them.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;

/// What `run` prints for these flags, without what the clock decides; and what it says on stderr.
fn run(server: &Server, flags: &[&str]) -> (Value, String) {
    let output = program()
        .args([
            "run",
            "--json",
            "--candidates",
            "99",
            "-t",
            "1",
            "-p",
            "Tell me",
            "-m",
        ])
        .arg(&server.model)
        .args([
            "--reward",
            REWARD,
            "--samples",
            "6",
            "--iterations",
            "4",
            "-n",
            "12",
            "-s",
            "7",
        ])
        .args(flags)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{flags:?}: {said}");
    let mut run: Value = serde_json::from_slice(&output.stdout).unwrap();
    for part in ["timings", "load_seconds"] {
        run.as_object_mut().unwrap().remove(part);
    }
    for iteration in run["iterations"].as_array_mut().unwrap() {
        iteration.as_object_mut().unwrap().remove("seconds");
    }
    (run, said)
}

fn address(server: &Server) -> String {
    server.address.to_string()
}

#[test]
fn a_run_on_three_processes_has_the_bytes_of_one() {
    let servers = [Server::start(&[]), Server::start(&[])];
    let both = servers.each_ref().map(address).join(",");
    for flags in [
        &["--method", "search"][..],
        &["--method", "aisp"],
        &["--method", "aisp", "--preset", "paper"],
        &["--method", "best-of-n", "--samples", "5"],
        &["--method", "search", "--samples", "2"],
        &["--method", "search", "-r", "e", "--target-reward", "0.9"],
        &[
            "--json-schema",
            "{\"type\": \"array\", \"items\": {\"enum\": [1, 2]}}",
        ],
    ] {
        let (alone, _) = run(&servers[0], flags);
        let shared = [flags, &["--workers", &both]].concat();
        let (shared, said) = run(&servers[0], &shared);
        assert_eq!(alone, shared, "{flags:?}");
        assert!(!said.contains("without its workers"), "{said}");
    }
}

#[test]
fn a_run_goes_on_without_a_worker_that_dies() {
    let (stays, mut dies) = (Server::start(&[]), Server::start(&[]));
    let folder = TempDir::new().unwrap();
    let trace = folder.path().join("trace.jsonl");
    let long = ["--samples", "16", "--iterations", "40", "-n", "48"];
    let (alone, _) = run(&stays, &long);
    let both = [&stays, &dies].map(address).join(",");
    let more = ["--workers", &both, "--trace", trace.to_str().unwrap()];
    let (shared, said) = std::thread::scope(|scope| {
        let run = scope.spawn(|| run(&stays, &[&long[..], &more].concat()));
        let begun = Instant::now();
        let done = || {
            let told = std::fs::read_to_string(&trace).unwrap_or_default();
            told.matches("iteration_done").count()
        };
        while done() < 3 {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "no iteration is done"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        dies.child.kill().unwrap();
        run.join().unwrap()
    });
    assert_eq!(alone, shared);
    assert!(
        said.contains("goes on without its workers: http://"),
        "{said}"
    );
    // Nothing is left of it where the other one was.
    stays.until_idle(Duration::from_secs(30));
}

#[test]
fn a_worker_whose_run_has_left_is_free_again() {
    let worker = Server::start(&[]);
    let mut run = program()
        .args([
            "run", "-t", "1", "-p", PROMPT, "--reward", REWARD, "-n", "200", "-m",
        ])
        .arg(&worker.model)
        .args([
            "--samples",
            "64",
            "--iterations",
            "60",
            "--workers",
            &address(&worker),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while worker.busy() == 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it does not begin"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    worker.until_idle(Duration::from_secs(30));
}

#[test]
fn a_server_that_is_not_the_same_takes_no_share() {
    let other = Server::with(&["--reward", "rule:words=1..9"]);
    let fails = |workers: &str, more: &[&str]| {
        let output = program()
            .args([
                "run", "-t", "1", "-p", PROMPT, "--reward", REWARD, "-n", "8", "-m",
            ])
            .arg(&other.model)
            .args(["--workers", workers])
            .args(more)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{workers} {more:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = fails(&address(&other), &[]);
    assert!(
        said.contains("--workers: ") && said.contains("ground: rewards"),
        "{said}"
    );
    let said = fails("127.0.0.1:1", &[]);
    assert!(
        said.contains("--workers: http://127.0.0.1:1/v1/work"),
        "{said}"
    );
    let said = fails("ftp://127.0.0.1", &[]);
    assert!(
        said.contains("--workers: the URL must begin with http://"),
        "{said}"
    );
    let same = Server::start(&[]);
    for (flags, words) in [
        (&["--method", "greedy"][..], "nothing to share"),
        (&["--early-rejection", "auto"], "asks for rewards"),
        (
            &["--grammar", "root ::= \"a\""],
            "a grammar does not travel",
        ),
    ] {
        let said = fails(&address(&same), flags);
        assert!(
            said.contains("--workers: ") && said.contains(words),
            "{flags:?}: {said}"
        );
    }
}

/// A worker that takes a run in and says `parts` of it, one after the other; what it was sent.
fn strange(listener: TcpListener, parts: Vec<Value>) -> Vec<Value> {
    let begun = json!({"id": "work-1"});
    let parts = parts.into_iter().map(|part| json!({"part": part}));
    let mut heard = Vec::new();
    for reply in std::iter::once(begun).chain(parts) {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        let (mut line, mut length) = (String::new(), 0);
        while lines.read_line(&mut line).unwrap() > 2 {
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        lines.read_exact(&mut body).unwrap();
        heard.push(serde_json::from_slice(&body).unwrap());
        let reply = reply.to_string();
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
        write!(stream, "{head}: {}\r\n\r\n{reply}", reply.len()).unwrap();
    }
    heard
}

/// A run beside such a worker: what it prints and says, and what the worker was sent.
fn run_beside(server: &Server, parts: Vec<Value>) -> (Value, String, Vec<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let worker = std::thread::spawn(move || strange(listener, parts));
    let (run, said) = run(server, &["--workers", &address]);
    (run, said, worker.join().unwrap())
}

#[test]
fn a_worker_that_tells_what_cannot_be_ends_the_sharing_alone() {
    let server = Server::start(&[]);
    let (alone, _) = run(&server, &[]);
    let all = |tokens: &[i32], known: usize, bits: u32, end: &str| -> Value {
        let one = |number: usize| {
            let nats = vec![[0, bits, 0]; tokens.len()];
            json!({"number": number, "tokens": tokens, "known": known, "nats": nats, "end": end})
        };
        let all = [1, 3, 5].map(one);
        json!({"candidates": all})
    };
    let whole = [4; 12];
    let nan = f32::NAN.to_bits();
    for (part, words) in [
        (json!({"candidates": []}), "candidate 1 is missing"),
        (
            all(&[1 << 20], 0, 0, "length"),
            "candidate 1 is no response",
        ),
        (all(&[-1], 0, 0, "length"), "candidate 1 is no response"),
        (all(&[4; 13], 0, 0, "length"), "candidate 1 is no response"),
        (all(&[], 0, 0, "length"), "candidate 1 is no response"),
        (all(&whole, 1, 0, "length"), "candidate 1 does not begin"),
        (all(&whole, 0, 0, "end_of_turn"), "candidate 1 does not end"),
        (all(&whole, 0, 0, "given_up"), "candidate 1 does not end"),
        (all(&[4], 0, 0, "length"), "candidate 1 does not end"),
        (all(&whole, 0, nan, "length"), "numbers that are none"),
        (
            json!({"scores": {"Ok": []}}),
            "scores, where candidates were due",
        ),
        (json!({"nonsense": 1}), "unknown variant"),
        (json!(7), "/v1/work"),
    ] {
        let (beside, said, _) = run_beside(&server, vec![part.clone()]);
        assert_eq!(alone, beside, "{part}");
        assert!(
            said.contains("goes on without its workers") && said.contains(words),
            "{part}: {said}"
        );
    }
}

#[test]
fn whatever_is_sent_as_work_is_answered() {
    let server = Server::start(&[]);
    let (_, _, heard) = run_beside(&server, vec![json!(7)]);
    let errand = |field: &str, value: Value| {
        let mut errand = heard[0].clone();
        errand["errand"][field] = value;
        errand
    };
    for (body, status, words) in [
        (json!({}), 400, "either `errand` or `id`"),
        (json!([]), 400, "invalid length"),
        (json!({"id": "work-0"}), 404, "nothing is shared"),
        (
            json!({"id": "work-0", "parts": [{"candidates": [{}]}]}),
            400,
            "missing field",
        ),
        (json!({"errand": {}}), 400, "missing field"),
        (errand("extra", json!(1)), 400, "unknown field"),
        (errand("ground", json!({})), 400, "ground: build"),
        (errand("tokens", json!([])), 400, "tokens: must be"),
        (errand("tokens", json!([1 << 20])), 400, "tokens: must be"),
        (errand("tokens", json!([-1])), 400, "tokens: must be"),
        (errand("max_tokens", json!(1_u64 << 40)), 400, "the context"),
        (
            errand("samples", json!(1_u64 << 40)),
            400,
            "samples: more candidates",
        ),
        (errand("samples", json!(0)), 400, "samples: 0"),
        (errand("rank", json!(2)), 400, "number 2 of 2"),
        (errand("of", json!(1)), 400, "number 1 of 1"),
        (errand("of", json!(1_u64 << 40)), 400, "of: too many"),
        (errand("text", json!("x".repeat(2 << 20))), 413, "bytes"),
        (errand("stop", json!(vec!["x"; 100])), 400, "stop: too many"),
        (errand("schema", json!(7)), 400, "schema: no JSON schema"),
        (errand("stop", json!([""])), 400, "stop: an empty text"),
        (errand("schema", json!({"type": 7})), 400, "schema: "),
        (
            errand("reasoning", json!(["<a>", "<b>"])),
            400,
            "reasoning: not known",
        ),
        (
            errand(
                "method",
                json!({"name": "x", "method": "magic", "settings": {}}),
            ),
            400,
            "magic",
        ),
    ] {
        let reply = server.post("/v1/work", &body);
        assert_eq!(reply.status, status, "{body}: {}", reply.body);
        assert!(reply.body.contains(words), "{words}: {}", reply.body);
    }
    // What the others tell is looked at as well.
    let id = server.json("/v1/work", &heard[0])["id"].clone();
    let part = server.json("/v1/work", &json!({"id": id}));
    assert_eq!(part["part"]["candidates"].as_array().unwrap().len(), 3);
    let parts = json!({"id": id, "parts": [{"candidates": []}]});
    let end = server.json("/v1/work", &parts);
    assert!(
        end["end"]
            .as_str()
            .unwrap()
            .contains("candidate 0 is missing"),
        "{end}"
    );
    assert_eq!(
        server.json("/v1/work", &json!({"id": id, "ends": true})),
        json!({})
    );
    assert_eq!(server.post("/v1/work", &json!({"id": id})).status, 404);
    assert_eq!(server.chat("tiny", json!({}))["object"], "chat.completion");
}
