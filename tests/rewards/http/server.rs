//! A server of a few lines, which says what it was told to say.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aisp_llama::reward::{HttpApi, HttpOptions, HttpReward};

/// What the server was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Request line and headers.
    pub head: String,
    pub body: serde_json::Value,
}

/// What the server says to one request.
pub enum Reply {
    Status(u16, &'static str, String),
    /// Nothing at all, with the connection left open.
    Silence,
}

pub fn ok(body: impl Into<String>) -> Reply {
    Reply::Status(200, "", body.into())
}

/// Gives the replies in order, and records what it was asked. The last one is repeated.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&asked);
        let mut replies: VecDeque<Reply> = replies.into_iter().collect();
        // The thread ends with the test program.
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                record.lock().unwrap().push(read_request(&mut stream));
                match &replies[0] {
                    // An oversized reply is not read to its end.
                    Reply::Status(..) => drop(answer(&mut stream, &replies[0])),
                    Reply::Silence => silent.push(stream),
                }
                if replies.len() > 1 {
                    replies.pop_front();
                }
            }
        });
        Self { url, asked }
    }

    /// Gives every request, each in a thread of its own, the reply that `reply` has for it.
    pub fn answering(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (record, reply) = (Arc::clone(&asked), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (record, reply) = (Arc::clone(&record), Arc::clone(&reply));
                std::thread::spawn(move || {
                    let request = read_request(&mut stream);
                    record.lock().unwrap().push(request.clone());
                    let _ = answer(&mut stream, &reply(&request));
                });
            }
        });
        Self { url, asked }
    }

    pub fn options(&self, api: HttpApi) -> HttpOptions {
        HttpOptions {
            url: self.url.clone(),
            api,
            timeout: Duration::from_secs(60),
            ..HttpOptions::default()
        }
    }

    pub fn reward(&self, api: HttpApi) -> HttpReward {
        HttpReward::new(self.options(api)).unwrap()
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn read_request(stream: &mut TcpStream) -> Asked {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).unwrap();
    }
    let length = head.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length:")?
            .trim()
            .parse()
            .ok()
    });
    // A proxy is asked for a way, without a body.
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    Asked {
        head,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    }
}

fn answer(stream: &mut TcpStream, reply: &Reply) -> std::io::Result<()> {
    let Reply::Status(status, headers, body) = reply else {
        return Ok(());
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} Whatever\r\n{headers}Content-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}
