//! Servers that have a share of this process's runs each ([`work`](super::work)).
//!
//! A thread for each of them hands in what the others told and brings back what it tells. Whatever
//! goes wrong with one of them ends the sharing, and not the run.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::work::{Errand, LONGEST, MOST};
use crate::align::{AlignOptions, Heard, Link, Part, Prompt, Share};
use crate::error::{Error, Result};
use crate::llama::Token;
use crate::reward::{HttpOptions, http};

/// How long a request may take; an answer without news comes earlier.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a server is told that it is still waited for.
const STILL_THERE: Duration = Duration::from_secs(15);
/// How often a server that is not ready, and says so, is asked again.
const PATIENCE: usize = 3;
/// Holds the key of the servers.
const KEY: &str = "LLAMA_API_KEY";

/// What texts and rewards depend on beside a request: program, processor, model, rewards. Two
/// processes share a run only where it is the same for both.
#[derive(Clone)]
pub struct Ground(Arc<Making>);

struct Making {
    make: Box<dyn Fn() -> Result<Value> + Send + Sync>,
    made: OnceLock<std::result::Result<Value, String>>,
    begun: AtomicBool,
}

impl Ground {
    /// An object that is made when it is first asked for: files are read to their end for it.
    pub fn new(make: impl Fn() -> Result<Value> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Making {
            make: Box::new(make),
            made: OnceLock::new(),
            begun: AtomicBool::new(false),
        }))
    }

    pub(super) fn value(&self) -> Result<&Value> {
        let made = self.0.made.get_or_init(|| {
            let made = (self.0.make)();
            made.map_err(|error| error.to_string())
        });
        made.as_ref().map_err(|reason| Error::Run(reason.clone()))
    }

    /// The same where it is made already; else it is begun, elsewhere.
    pub(super) fn poll(&self) -> Option<Result<&Value>> {
        if self.0.made.get().is_none() && !self.0.begun.swap(true, Ordering::Relaxed) {
            let making = self.clone();
            thread::spawn(move || drop(making.value().map(drop)));
        }
        self.0.made.get().map(|_| self.value())
    }
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ground").field(&self.0.made.get()).finish()
    }
}

/// Servers that take a share of every run.
#[derive(Clone, Debug)]
pub struct Workers {
    addresses: Vec<String>,
    ground: Ground,
}

impl Workers {
    /// Those of these addresses, `http://HOST:PORT` each. Their key is that of the environment variable
    /// `LLAMA_API_KEY`, where it is set.
    ///
    /// # Errors
    /// [`Error::Field`] for what is no address, or more of them than a run can have.
    pub fn new(addresses: Vec<String>, ground: Ground) -> Result<Self> {
        if addresses.len() >= MOST {
            let reason = format!("{}; at most {}", addresses.len(), MOST - 1);
            return Err(Error::field("workers", reason));
        }
        for address in &addresses {
            client(address, 0)?;
        }
        Ok(Self { addresses, ground })
    }

    /// Begins a run on all of them; what they leave is the answer.
    ///
    /// # Errors
    /// [`Error::Field`] for a server that is not there, or that cannot take its share; those of what
    /// the [`Ground`] is made of.
    pub fn share(
        &self,
        prompt: &Prompt,
        tokens: &[Token],
        options: &AlignOptions,
    ) -> Result<Share> {
        let asks = |name: &str| {
            let asked = &options.method.all()[name];
            !asked.is_null() && asked != "off"
        };
        if let Some(name) = ["early-rejection", "guided"]
            .into_iter()
            .find(|name| asks(name))
        {
            let reason = format!(
                "`{name}` asks for rewards while responses are written, each of which would be \
                 somewhere else; leave out one of the two"
            );
            return Err(Error::field("workers", reason));
        }
        let of = self.addresses.len() + 1;
        let mut all = Vec::with_capacity(self.addresses.len());
        for (rank, address) in (1..).zip(&self.addresses) {
            let errand = errand(self.ground.value()?, prompt, tokens, options, (rank, of))?;
            let begun = ask(&client(address, PATIENCE)?, &json!({"errand": errand}));
            let client = client(address, 0)?;
            let begun = begun.and_then(|reply| {
                let id = reply.id.map(|id| (client, id));
                id.ok_or_else(|| format!("{address}: began nothing"))
            });
            let (client, id) = begun.map_err(|reason| Error::field("workers", reason))?;
            all.push(Worker::start(client, id));
        }
        Share::new(
            0,
            of,
            Box::new(Star {
                workers: all,
                own: None,
            }),
        )
    }
}

fn client(address: &str, retries: usize) -> Result<http::Client> {
    let options = HttpOptions {
        url: address.trim_end_matches('/').to_owned(),
        key_env: Some(match std::env::var_os(KEY) {
            Some(key) if !key.is_empty() => KEY.into(),
            _ => "none".into(),
        }),
        timeout: TIMEOUT,
        retries,
        max_response_bytes: LONGEST,
        ..HttpOptions::default()
    };
    let client = http::Client::new(&options, "/v1/work");
    // The kind of the reward that the client else belongs to.
    let reason = |error: Error| error.reason().trim_start_matches("http: ").to_owned();
    client.map_err(|error| Error::field("workers", reason(error)))
}

fn errand(
    ground: &Value,
    prompt: &Prompt,
    tokens: &[Token],
    options: &AlignOptions,
    (rank, of): (usize, usize),
) -> Result<Errand> {
    let form = &options.form;
    let schema = match &form.grammar {
        None => None,
        Some(grammar) => Some(grammar.schema().ok_or_else(|| {
            let reason = "a grammar does not travel; give a `json-schema`, or leave it out";
            Error::field("workers", reason)
        })?),
    };
    Ok(Errand {
        ground: ground.clone(),
        text: match prompt {
            Prompt::Raw(text) => Some(text.clone()),
            Prompt::Chat(_) => None,
        },
        messages: match prompt {
            Prompt::Raw(_) => Vec::new(),
            Prompt::Chat(messages) => messages.clone(),
        },
        tokens: tokens.to_vec(),
        method: options.method.clone(),
        samples: options.rounds.samples,
        iterations: options.rounds.iterations,
        seed: options.rounds.seed,
        max_tokens: options.rounds.max_tokens,
        reward_scale: options.reward_scale,
        target_reward: options.target_reward,
        patience: options.patience,
        stop: form.stop.clone(),
        ignore_end: form.ignore_end,
        schema,
        reasoning: form
            .reasoning
            .map(|markers| (markers.open.to_owned(), markers.close.to_owned())),
        rank,
        of,
    })
}

#[derive(Deserialize)]
struct Reply {
    id: Option<String>,
    part: Option<Part>,
    /// There once the run is over there: why it failed, or nothing.
    #[serde(default, deserialize_with = "there")]
    end: Option<Option<String>>,
}

/// A field that is there, whatever it says.
fn there<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> std::result::Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

fn ask(client: &http::Client, body: &Value) -> std::result::Result<Reply, String> {
    let answer = client.post(body).map_err(|failure| failure.to_string())?;
    let reply = serde_json::from_slice(&answer);
    reply.map_err(|error| format!("{}: {error}", client.shown()))
}

/// One server with its thread.
struct Worker {
    to: Sender<Vec<Part>>,
    from: Receiver<std::result::Result<Part, String>>,
    part: Option<Part>,
}

impl Worker {
    fn start(client: http::Client, id: String) -> Self {
        let (to, news) = channel();
        let (tell, from) = channel();
        // It ends with the run, or with the process: nobody waits for it.
        thread::spawn(move || {
            if let Err(reason) = accompany(&client, &id, &news, &tell) {
                let _ = tell.send(Err(reason));
            }
        });
        Self {
            to,
            from,
            part: None,
        }
    }
}

/// Carries parts to a server and back until the run is over here.
fn accompany(
    client: &http::Client,
    id: &str,
    news: &Receiver<Vec<Part>>,
    tell: &Sender<std::result::Result<Part, String>>,
) -> std::result::Result<(), String> {
    let mut parts: Option<Vec<Part>> = None;
    loop {
        // Its part of the round.
        loop {
            let body = match parts.take() {
                Some(parts) => json!({"id": id, "parts": parts}),
                None => json!({"id": id}),
            };
            let reply = ask(client, &body)?;
            if let Some(part) = reply.part {
                // Where nobody listens any more, that is found out below.
                let _ = tell.send(Ok(part));
                break;
            }
            if let Some(reason) = reply.end {
                let reason = reason.unwrap_or_else(|| "it ended by itself".into());
                return Err(format!("{}: {reason}", client.shown()));
            }
            if matches!(news.try_recv(), Err(TryRecvError::Disconnected)) {
                return ends(client, id);
            }
        }
        // Those of the others.
        parts = loop {
            match news.recv_timeout(STILL_THERE) {
                Ok(parts) => break Some(parts),
                Err(RecvTimeoutError::Timeout) => {
                    ask(client, &json!({"id": id, "waits": true}))?;
                }
                Err(RecvTimeoutError::Disconnected) => return ends(client, id),
            }
        };
    }
}

fn ends(client: &http::Client, id: &str) -> std::result::Result<(), String> {
    ask(client, &json!({"id": id, "ends": true})).map(drop)
}

/// All of them, with this process in the middle.
struct Star {
    workers: Vec<Worker>,
    own: Option<Part>,
}

impl Link for Star {
    fn give(&mut self, part: Part) {
        self.own = Some(part);
    }

    fn hear(&mut self) -> Result<Heard> {
        for worker in self
            .workers
            .iter_mut()
            .filter(|worker| worker.part.is_none())
        {
            match worker.from.try_recv() {
                Ok(Ok(part)) => worker.part = Some(part),
                Ok(Err(reason)) => return Ok(Heard::Alone(reason)),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    return Ok(Heard::Alone("a worker has ended".into()));
                }
            }
        }
        if self.workers.iter().any(|worker| worker.part.is_none()) {
            return Ok(Heard::Nothing);
        }
        let parts: Vec<Part> = self
            .workers
            .iter_mut()
            .filter_map(|w| w.part.take())
            .collect();
        for (number, worker) in self.workers.iter().enumerate() {
            let others = parts
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != number);
            let others = others.map(|(_, part)| part.clone());
            // Who is gone is found out in the next round.
            let _ = worker
                .to
                .send(self.own.iter().cloned().chain(others).collect());
        }
        self.own = None;
        Ok(Heard::Parts(parts))
    }
}
