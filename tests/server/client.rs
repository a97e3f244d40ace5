//! The smallest client: one request a connection, and streams line by line.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

/// An answer.
pub struct Reply {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Sends a request; `headers` in place of those that are always sent.
pub fn send(
    stream: &mut TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) {
    let host = stream.peer_addr().unwrap().to_string();
    let mut all = vec![
        ("Host", host.as_str()),
        ("Content-Type", "application/json"),
    ];
    all.retain(|(name, _)| headers.iter().all(|(other, _)| other != name));
    all.extend(headers);
    let lines: String = all.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\n{lines}Content-Length: {length}\r\n");
    let whole = format!("{head}Connection: close\r\n\r\n{body}");
    stream.write_all(whole.as_bytes()).unwrap();
}

/// Sends a request and reads all of its answer.
pub fn ask(
    mut stream: TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    send(&mut stream, method, path, headers, body);
    let (mut reply, mut body) = Body::of(stream);
    body.read_to_string(&mut reply.body).unwrap();
    reply
}

/// A body, out of its chunks where it comes in any.
struct Body {
    stream: BufReader<TcpStream>,
    chunked: bool,
    left: usize,
}

impl Body {
    fn of(stream: TcpStream) -> (Reply, Self) {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            match line.trim().split_once(": ") {
                Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
                None => break,
            };
        }
        let chunked = headers
            .get("transfer-encoding")
            .is_some_and(|v| v == "chunked");
        let reply = Reply {
            status: status.unwrap_or_else(|| panic!("no status: {line:?}")),
            headers,
            body: String::new(),
        };
        let left = if chunked { 0 } else { usize::MAX };
        (
            reply,
            Self {
                stream,
                chunked,
                left,
            },
        )
    }
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.chunked && self.left == 0 {
            let mut size = String::new();
            while size.trim().is_empty() {
                if self.stream.read_line(&mut size)? == 0 {
                    return Ok(0);
                }
            }
            self.left = usize::from_str_radix(size.trim(), 16).expect("a size");
            if self.left == 0 {
                return Ok(0);
            }
        }
        let most = out.len().min(self.left);
        let count = self.stream.read(&mut out[..most])?;
        self.left -= count;
        Ok(count)
    }
}

/// The data of events, one after the other, with the comments among them.
pub struct Stream {
    lines: BufReader<Body>,
}

impl Stream {
    pub fn ask(mut stream: TcpStream, path: &str, body: &Value) -> Self {
        send(&mut stream, "POST", path, &[], &body.to_string());
        let (mut reply, mut body) = Body::of(stream);
        if reply.status != 200 {
            body.read_to_string(&mut reply.body).unwrap();
            panic!("{}: {}", reply.status, reply.body);
        }
        assert_eq!(reply.header("content-type"), "text/event-stream");
        let lines = BufReader::with_capacity(1, body);
        Self { lines }
    }

    /// All chunks up to `[DONE]`, which is the last.
    pub fn chunks(self) -> Vec<Value> {
        let mut all: Vec<String> = self.collect();
        assert_eq!(all.pop().as_deref(), Some("[DONE]"), "{all:?}");
        all.iter()
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }
}

impl Iterator for Stream {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(data) = line.trim_end().strip_prefix("data: ") {
                return Some(data.to_owned());
            }
            let other = line.trim_end();
            assert!(other.is_empty() || other.starts_with(':'), "{other}");
        }
    }
}
