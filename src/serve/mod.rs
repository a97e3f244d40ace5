//! The engine behind HTTP: OpenAI's API with the search inside, and a page that shows it.
//!
//! ```text
//! clients ──► net ──► guard ──► routes ──► asks ──► queue ──► engine ──► answers, stream ──► clients
//!                                                               │ ▲
//!                                                               ▼ │
//!                                                             scorers
//! ```
//!
//! Two threads of tokio read requests and write answers; one thread owns the generator
//! ([`Session`]), and each reward has one of its own. Whatever else goes on, an answer is, to the byte,
//! the one that `run` gives with the same seed and flags.
//!
//! A model has two names or more: its own is the plain model, one sampled answer; behind a colon stands
//! the search ([`Profile`]). Rewards are chosen by whoever starts the server, never by a request.

mod answers;
mod asks;
mod deltas;
mod engine;
mod failure;
mod fields;
mod guard;
mod logprobs;
mod net;
mod prompts;
mod rerank;
mod routes;
mod scorer;
mod settings;
mod status;
mod stream;
mod watch;
mod work;
mod workers;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::align::{AlignOptions, Aligner, EngineOptions, Request, Session};
use crate::error::{Error, Result};
use crate::llama::Model;
use crate::reward::Reward;
use crate::stop::Stop;
use asks::Ask;
use deltas::Deltas;
use engine::{News, RewardSet, Work};
use failure::Failure;
use scorer::Scorer;
pub use settings::{Preset, Profile};
use status::Status;
use stream::Leaving;
use watch::{Watch, Watched};
use work::Desks;
pub use workers::{Ground, Workers};

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The address to listen on. Any other than this machine's own wants a key.
    pub host: IpAddr,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// What the model is called, and other names for the same; its file's name where there is none.
    pub aliases: Vec<String>,
    /// Keys, one of which a request must send; nobody needs one where there is none.
    pub api_keys: Vec<String>,
    /// Sites that may ask, `*` for all; where there is none, those of this machine, or all with a key.
    pub cors_origins: Vec<String>,
    /// Further names that this machine is asked by, as by a proxy.
    pub allowed_hosts: Vec<String>,
    /// Whether `/slots` tells who is where.
    pub slots: bool,
    /// Whether `/metrics` tells what was done.
    pub metrics: bool,
    /// Whether there is a page.
    pub page: bool,
    /// Most candidates of one request.
    pub max_candidates: usize,
    /// Seconds after which an answer that is not streamed is given as it is, where the request does
    /// not say otherwise.
    pub time_limit: f64,
    /// Seed of requests that name none; random ones where there is none.
    pub seed: Option<u64>,
    /// What stands before conversations without a system prompt.
    pub system_prompt: Option<String>,
    /// The generator; its context is given.
    pub engine: EngineOptions,
    /// How a plain answer is drawn: [best-of-n](crate::method) of one sample.
    pub plain: AlignOptions,
    /// The searches.
    pub profiles: Vec<Profile>,
    /// What the answers for the first of the rewards depend on; without it the server takes no share of
    /// others' runs.
    pub ground: Option<Ground>,
}

/// Whether a server on this address is guarded well enough by these keys.
///
/// # Errors
/// [`Error::Field`] where others than this machine could ask without any.
pub fn check_host(host: IpAddr, keys: &[String]) -> Result<()> {
    if host.is_loopback() || !keys.is_empty() {
        return Ok(());
    }
    let reason = format!("{host} is not this machine alone; give an `api-key` as well");
    Err(Error::field("host", reason))
}

/// A reward with one that watches.
pub type RewardPair = (Box<dyn Reward>, Option<Box<dyn Reward>>);

/// What all requests share.
struct App {
    model: Arc<Model>,
    options: ServeOptions,
    /// Tokens of a prompt with its answer.
    context: usize,
    names: Vec<String>,
    rewards: Vec<RewardSet>,
    engine: Sender<Work>,
    status: Arc<Status>,
    /// The requests that are being answered, by their id.
    running: Mutex<HashMap<String, Stop>>,
    /// Shares of others' runs.
    desks: Desks,
    started: u64,
}

/// Serves until `stop` is requested, after which requests that were begun are still answered. `ready`
/// is told the address.
///
/// # Errors
/// [`Error::Field`] for an address that cannot be had, or options that cannot be; those of
/// [`Session::new`].
pub fn serve(
    model: Arc<Model>,
    rewards: Vec<RewardPair>,
    options: ServeOptions,
    stop: &Stop,
    ready: impl FnOnce(SocketAddr),
) -> Result<()> {
    check_host(options.host, &options.api_keys)?;
    for profile in &options.profiles {
        profile.options.validate()?;
        if profile.rewards >= rewards.len() {
            let reason = format!("{} has no reward", profile.name);
            return Err(Error::field("preset", reason));
        }
    }
    let context = options.engine.context.unwrap_or_default();
    let session = Session::new(Aligner::new(Arc::clone(&model), options.engine.clone())?)?;
    let status = Arc::new(Status::default());
    status.publish(session.places(), 0);
    let sets: Vec<RewardSet> = rewards
        .into_iter()
        .map(|(reward, held_out)| RewardSet {
            reward: Scorer::new(reward),
            held_out: held_out.map(Scorer::new),
        })
        .collect();
    let (engine, thread) = engine::start(session, sets.clone(), Arc::clone(&status));
    let names = match options.aliases.is_empty() {
        true => vec![stem(model.path())],
        false => options.aliases.clone(),
    };
    let app = Arc::new(App {
        model,
        context,
        names,
        rewards: sets,
        engine,
        status,
        running: Mutex::default(),
        desks: Desks::default(),
        started: asks::now(),
        options,
    });
    net::run(app, stop, ready)?;
    // With the last sender gone it has nothing left to wait for.
    thread
        .join()
        .map_err(|_| Error::Run("the engine has failed".into()))
}

/// A file's name without its ending.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

/// A place in the queue, given back when it is dropped.
struct Place(Arc<App>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.status.left_queue(1);
    }
}

/// What becomes of a request: its news, and what was noted of its tokens.
type Submitted = (Arc<Watch>, UnboundedReceiver<News>, Leaving);

impl App {
    /// What the model is called.
    fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// The search that a name stands for; `None` for the plain model.
    fn profile(&self, asked: &str) -> std::result::Result<Option<&Profile>, Failure> {
        let own = |name: &&String| asked == name.as_str();
        if self.names.iter().any(|name| own(&name)) {
            return Ok(None);
        }
        let of = |profile: &&Profile| {
            let base = asked.strip_suffix(&profile.name);
            let base = base.and_then(|base| base.strip_suffix(':'));
            base.is_some_and(|base| self.names.iter().any(|name| name == base))
        };
        let found = self.options.profiles.iter().find(of);
        found.map(Some).ok_or_else(|| {
            let all = self.all_names();
            Failure::not_found(format!("model: no {asked:?}; there are {}", all.join(", ")))
        })
    }

    /// Every name of the list of models.
    fn all_names(&self) -> Vec<String> {
        let name = self.name();
        let profiles = self.options.profiles.iter();
        let profiles = profiles.map(|profile| format!("{name}:{}", profile.name));
        std::iter::once(name.to_owned()).chain(profiles).collect()
    }

    /// Queues requests: all of them, or none.
    fn submit(self: &Arc<Self>, asks: &[Ask]) -> std::result::Result<Vec<Submitted>, Failure> {
        self.check_queue(asks.len())?;
        asks.iter().map(|ask| self.send(ask)).collect()
    }

    fn check_queue(&self, count: usize) -> std::result::Result<(), Failure> {
        if self.status.is_draining() {
            return Err(Failure::unavailable("the server is shutting down"));
        }
        match self.status.enter_queue(count) {
            true => Ok(()),
            false => Err(Failure::unavailable("the queue is full")),
        }
    }

    /// A place in the queue for what the engine is not asked.
    fn enter(self: &Arc<Self>) -> std::result::Result<Place, Failure> {
        self.check_queue(1)?;
        Ok(Place(Arc::clone(self)))
    }

    /// Sends the engine a request that has its place in the queue.
    fn send(self: &Arc<Self>, ask: &Ask) -> std::result::Result<Submitted, Failure> {
        let (out, news) = unbounded_channel();
        let deltas = Deltas::new(Arc::clone(&self.model), ask.form());
        let deltas = Mutex::new(deltas);
        // The news end with the engine's own way to tell them.
        let told = out.downgrade();
        let tell = move |step: watch::Step<'_>| {
            let mut deltas = deltas.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some(delta), Some(told)) =
                (deltas.next(step.candidate, step.tokens), told.upgrade())
            {
                // Who has left is taken out by the engine.
                let _ = told.send(News::Text(delta));
            }
        };
        let live = ask.stream && ask.is_plain();
        let watch = Arc::new(Watch {
            bias: ask.bias.clone(),
            logprobs: ask.logprobs.filter(|_| ask.is_plain()),
            keeps: ask.logprobs.is_some(),
            tell: live.then(|| Box::new(tell) as Box<watch::Tell>),
            ..Watch::default()
        });
        let left = Arc::new(AtomicBool::new(false));
        let stop = Stop::new();
        let watched = Arc::clone(&watch);
        let work = Work {
            request: Request {
                prompt: ask.prompt.seen.clone(),
                opened: ask.prompt.opened.clone(),
                options: ask.options.clone(),
                reasonings: match ask.is_plain() {
                    true => 1,
                    false => self.options.engine.reasoning.count,
                },
                wrap: Some(Box::new(move |method| {
                    Box::new(Watched::new(method, Arc::clone(&watched)))
                })),
                stop: stop.clone(),
                share: None,
            },
            rewards: ask.rewards,
            limit: (!ask.stream && ask.options.budget.seconds.is_none())
                .then_some(self.options.time_limit),
            asked: Instant::now(),
            out,
            left: Arc::clone(&left),
        };
        let gone = |_| answers::gone();
        self.engine.send(work).map_err(gone)?;
        self.running().insert(ask.id.clone(), stop.clone());
        let leaving = Leaving {
            app: Arc::clone(self),
            id: ask.id.clone(),
            left,
            stop,
        };
        Ok((watch, news, leaving))
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, Stop>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
