//! A hub on this computer, of one repository.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use aisp_llama::compare::FileId;
use serde_json::json;

/// The repository.
pub const REPO: &str = "me/tiny";
/// Its commit.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub does with those who ask.
#[derive(Clone, Default)]
pub struct Manners {
    /// Who has no such token is sent away.
    pub token: Option<&'static str>,
    /// So many answers with a file end in the middle.
    pub cuts: usize,
    /// Files begin and do not go on.
    pub stalls: bool,
    /// The length of files is not told, so that nobody sees when they end too early.
    pub untold: bool,
}

/// A file of the repository.
struct File {
    bytes: Vec<u8>,
    sha256: String,
}

/// Answers as long as the test program runs.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// A hub of the files in a folder.
    pub fn start(folder: &Path, mut manners: Manners) -> Self {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let FileId { name, sha256 } = FileId::of(&path).unwrap();
            let bytes = fs::read(&path).unwrap();
            files.insert(name, File { bytes, sha256 });
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut stalled = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let head = read_head(&stream);
                record.lock().unwrap().push(head.clone());
                // A reader that has gone away is no failure.
                let _ = answer(&mut stream, &head, &files, &mut manners);
                if manners.stalls {
                    stalled.push(stream);
                }
            }
        });
        Self { url, asked }
    }

    /// Request lines and headers so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn read_head(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap() == 0 {
            break;
        }
    }
    head
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}

fn answer(
    stream: &mut TcpStream,
    head: &str,
    files: &BTreeMap<String, File>,
    manners: &mut Manners,
) -> std::io::Result<()> {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let token = header(head, "authorization").and_then(|v| v.strip_prefix("Bearer "));
    if manners.token.is_some() && token != manners.token {
        return say(stream, 401, "", b"{\"error\": \"who are you?\"}");
    }
    if path == format!("/api/models/{REPO}/revision/main?blobs=true") {
        let siblings = files.iter().map(|(name, file)| {
            json!({
                "rfilename": name,
                "size": file.bytes.len(),
                "blobId": COMMIT,
                "lfs": {"sha256": file.sha256, "size": file.bytes.len(), "pointerSize": 130},
            })
        });
        // A file that would go elsewhere.
        let outside = json!({"rfilename": "../../../outside-Q8_0.gguf", "size": 1});
        let siblings: Vec<_> = std::iter::once(outside).chain(siblings).collect();
        let listing = json!({"id": REPO, "sha": COMMIT, "siblings": siblings}).to_string();
        return say(stream, 200, "", listing.as_bytes());
    }
    let name = path.strip_prefix(&format!("/{REPO}/resolve/main/"));
    let Some(file) = name.and_then(|name| files.get(name)) else {
        return say(stream, 404, "", b"{\"error\": \"not found\"}");
    };
    let total = file.bytes.len();
    let range = header(head, "range").and_then(|v| v.strip_prefix("bytes="));
    let (from, to) = range.and_then(|v| v.split_once('-')).unwrap_or_default();
    let from: usize = from.parse().unwrap_or(0);
    let to = to.parse().map_or(total, |last: usize| total.min(last + 1));
    if from >= total {
        return say(stream, 416, "", b"");
    }
    let headers = format!(
        "ETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {from}-{}/{total}\r\n",
        file.sha256,
        to - 1
    );
    let body = &file.bytes[from..to];
    let is_whole = to == total;
    let cut = is_whole && (manners.stalls || manners.cuts > 0);
    let sent = if cut { &body[..body.len() / 2] } else { body };
    if cut {
        manners.cuts = manners.cuts.saturating_sub(1);
    }
    let length = match manners.untold && is_whole {
        true => String::new(),
        false => format!("Content-Length: {}\r\n", body.len()),
    };
    let start = format!("HTTP/1.1 206 Partial\r\n{headers}{length}Connection: close\r\n\r\n");
    stream.write_all(start.as_bytes())?;
    stream.write_all(sent)?;
    stream.flush()
}

fn say(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Whatever\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}
