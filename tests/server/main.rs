//! The server as its clients meet it: what llama-server's own tests ask of one, and what a search
//! adds to that. The models are tiny files; where bytes are compared, any weights will do.

#[path = "../common/mod.rs"]
mod common;
#[allow(unused_imports)]
#[path = "../../src/gguf/testing.rs"]
mod testing;
#[path = "../common/tiny/mod.rs"]
mod tiny;

mod chat;
mod client;
mod completion;
mod many;
mod refusals;
mod rerank;
mod searches;
mod security;
mod soak;
mod talk;
mod told;
mod workers;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

// For `testing`.
#[allow(unused_imports)]
use aisp_llama::gguf::{Gguf, GgufError, TensorType};
use client::{Reply, Stream};
use serde_json::{Value, json};
use tempfile::TempDir;
use tiny::{Fill, Tiny, VOCABULARY};

/// What responses are rewarded for.
const REWARD: &str = "rule:words=2..4; contains-exact=e";
/// Tokens of the context.
const CONTEXT: usize = 512;

/// A tiny generator with a chat template.
fn model() -> Tiny {
    const WIDTH: u64 = 64;
    let (norm, weights) = (Fill::Same(1.0), Fill::Random(0.15));
    let mut tiny = Tiny::new("llama")
        .number("block_count", 2)
        .number("context_length", CONTEXT as u64)
        .number("embedding_length", WIDTH)
        .number("feed_forward_length", 128)
        .number("attention.head_count", 4)
        .number("rope.dimension_count", 16)
        .fraction("attention.layer_norm_rms_epsilon", 1e-5)
        .text(
            "tokenizer.chat_template",
            "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}\
             {% if add_generation_prompt %}[assistant] {% endif %}",
        )
        .tensor("token_embd.weight", &[WIDTH, VOCABULARY], Fill::Random(1.0))
        .tensor("output_norm.weight", &[WIDTH], norm)
        .tensor("output.weight", &[WIDTH, VOCABULARY], Fill::Random(0.3));
    for layer in 0..2 {
        for (name, dims, fill) in [
            ("attn_norm", vec![WIDTH], norm),
            ("attn_q", vec![WIDTH, WIDTH], weights),
            ("attn_k", vec![WIDTH, WIDTH], weights),
            ("attn_v", vec![WIDTH, WIDTH], weights),
            ("attn_output", vec![WIDTH, WIDTH], weights),
            ("ffn_norm", vec![WIDTH], norm),
            ("ffn_gate", vec![WIDTH, 128], weights),
            ("ffn_up", vec![WIDTH, 128], weights),
            ("ffn_down", vec![128, WIDTH], weights),
        ] {
            tiny = tiny.tensor(&format!("blk.{layer}.{name}.weight"), &dims, fill);
        }
    }
    tiny
}

/// The program, on the CPU, with no model or setting from the environment.
fn program() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("aisp-llama"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LLAMA_") {
            command.env_remove(name);
        }
    }
    command
}

/// A server that runs until it is dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    model: PathBuf,
    /// What it says on stderr.
    said: Arc<Mutex<String>>,
    _folder: TempDir,
}

impl Server {
    /// One with searches of 2 × 4 candidates for [`REWARD`].
    fn start(flags: &[&str]) -> Self {
        Self::with(&[&["--reward", REWARD], flags].concat())
    }

    /// The same for other rewards.
    fn with(flags: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let model = model().write(folder.path(), "tiny.gguf");
        let mut child = program()
            .args(["serve", "--port", "0", "-t", "1", "-m"])
            .arg(&model)
            .args(budget(flags))
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let from = said.len();
            let read = lines.read_line(&mut said).unwrap();
            assert!(read > 0, "the server ended: {said}");
            if let Some(address) = said[from..].trim().strip_prefix("listening on http://") {
                break address.parse().unwrap();
            }
        };
        let said = Arc::new(Mutex::new(said));
        // Nobody is to wait for this end of the pipe.
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                eprintln!("{line}");
                *heard.lock().unwrap() += &(line + "\n");
            }
        });
        Self {
            child,
            address,
            model,
            said,
            _folder: folder,
        }
    }

    /// What it has said on stderr so far.
    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).expect("the server listens")
    }

    fn get(&self, path: &str) -> Reply {
        client::ask(self.connect(), "GET", path, &[], "")
    }

    fn post(&self, path: &str, body: &Value) -> Reply {
        client::ask(self.connect(), "POST", path, &[], &body.to_string())
    }

    fn stream(&self, path: &str, body: &Value) -> Stream {
        Stream::ask(self.connect(), path, body)
    }

    /// The JSON of a POST that succeeds.
    fn json(&self, path: &str, body: &Value) -> Value {
        let reply = self.post(path, body);
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()
    }

    /// A conversation with `model`.
    fn chat(&self, model: &str, more: Value) -> Value {
        self.json("/v1/chat/completions", &conversation(model, more))
    }

    /// Slots that write.
    fn busy(&self) -> usize {
        let slots = self.get("/slots").json();
        let slots = slots.as_array().unwrap().iter();
        slots.filter(|slot| slot["is_processing"] == true).count()
    }

    /// Waits until no more slots write, and how long that took.
    fn until_idle(&self, most: Duration) -> Duration {
        let begun = Instant::now();
        while self.busy() > 0 {
            assert!(begun.elapsed() < most, "slots are still busy");
            std::thread::sleep(Duration::from_millis(20));
        }
        begun.elapsed()
    }

    /// What `run` says with these flags to the same prompt.
    fn run(&self, flags: &[&str]) -> Value {
        self.run_for(&["--reward", REWARD], flags)
    }

    /// The same for other rewards.
    fn run_for(&self, rewards: &[&str], flags: &[&str]) -> Value {
        self.run_of(&["-p", PROMPT], rewards, flags)
    }

    /// The same to another prompt.
    fn run_of(&self, prompt: &[&str], rewards: &[&str], flags: &[&str]) -> Value {
        let mut command = program();
        command.args(["run", "--json", "-t", "1", "-c", "512", "-m"]);
        command.arg(&self.model).args(prompt).args(rewards);
        let output = command.args(budget(flags)).args(flags).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PROMPT: &str = "Say hello.";

/// 2 × 4 candidates, where `flags` do not say otherwise.
fn budget(flags: &[&str]) -> Vec<&'static str> {
    let own = [["--samples", "4"], ["--iterations", "2"]].into_iter();
    own.filter(|[flag, _]| !flags.contains(flag))
        .flatten()
        .collect()
}

/// A request with one message.
fn conversation(model: &str, more: Value) -> Value {
    let mut body = json!({
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 16,
        "seed": 5,
    });
    let fields = more.as_object().cloned().unwrap_or_default();
    body.as_object_mut().unwrap().extend(fields);
    body
}

/// A search that takes minutes.
fn endless() -> Value {
    let budget = json!({"samples": 32, "iterations": 100});
    conversation(
        "tiny:best-of-n",
        json!({"max_tokens": 200, "stream": true, "aisp": budget}),
    )
}

/// The text of the first choice.
fn text(body: &Value) -> String {
    let choice = &body["choices"][0];
    let text = choice["message"]["content"]
        .as_str()
        .or(choice["text"].as_str());
    text.unwrap_or_else(|| panic!("no text: {body}")).to_owned()
}
