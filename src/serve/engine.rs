//! The thread that owns the generator: a queue in front of it, and the requests that share it.
//!
//! Requests are begun in the order in which they came, as many at a time as the batch has places.
//! Whose turn it is to write is the rollout's to say. A request whose client has left is taken out
//! before the next step.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::scorer::Scorer;
use super::status::Status;
use crate::align::{
    AlignOptions, Alignment, EventKind, Request, Rewards, RunId, RunRewards, Session, Told,
    check_parts,
};
use crate::error::{Error, Result};
use crate::reward::{FnReward, Reward};
use crate::stop::Stop;

/// Requests that wait beside those that are being answered.
pub(super) const QUEUE: usize = 64;

/// How long it sleeps where there is nothing but scores to wait for.
const PAUSE: Duration = Duration::from_millis(1);

/// What is told of a request.
pub(super) enum News {
    /// A plain answer goes on.
    Text(Delta),
    /// What the model thought.
    Reasoning(String),
    /// What happens in the search; not every step of it.
    Event(Box<EventKind>),
    /// Its end.
    Done(Box<Result<Alignment>>),
}

/// What a plain answer has more than it had.
pub(super) struct Delta {
    /// Which answer, from 0.
    pub(super) index: usize,
    pub(super) content: String,
    pub(super) reasoning: String,
    /// Tokens of the answer so far.
    pub(super) tokens: usize,
}

/// A request with what it takes to answer it.
pub(super) struct Work {
    pub(super) request: Request,
    /// Which rewards; none for a plain answer.
    pub(super) rewards: Option<usize>,
    /// Seconds that it may take from now on, the queue's included.
    pub(super) limit: Option<f64>,
    pub(super) asked: Instant,
    pub(super) out: UnboundedSender<News>,
    /// Whether nobody waits for the answer any more.
    pub(super) left: Arc<AtomicBool>,
}

/// A reward with one that watches.
#[derive(Clone)]
pub(super) struct RewardSet {
    pub(super) reward: Scorer,
    pub(super) held_out: Option<Scorer>,
}

impl RewardSet {
    pub(super) fn name(&self) -> String {
        self.reward.name()
    }

    /// Whether a search of these options can be for these rewards.
    pub(super) fn check(&self, options: &AlignOptions) -> Result<()> {
        if options.reward_scale {
            check_parts(&self.reward.parts(), options.rounds.samples)?;
        }
        if options.stop_on_divergence && self.held_out.is_none() {
            let reason = "there is no second reward to watch; start the server with `held-out`";
            return Err(Error::field("stop-on-divergence", reason));
        }
        Ok(())
    }

    pub(super) fn held_out_name(&self) -> Option<String> {
        self.held_out.as_ref().map(Reward::name)
    }
}

/// The rewards of the requests that are being answered.
struct OfRequests {
    sets: Vec<RewardSet>,
    none: Box<dyn Reward>,
    of: HashMap<RunId, Option<usize>>,
}

impl Rewards for OfRequests {
    fn of(&mut self, request: RunId) -> RunRewards<'_> {
        let set = self.of.get(&request).copied().flatten();
        match set.and_then(|set| self.sets.get_mut(set)) {
            Some(set) => RunRewards {
                reward: &mut set.reward,
                held_out: set
                    .held_out
                    .as_mut()
                    .map(|reward| reward as &mut dyn Reward),
            },
            None => RunRewards {
                reward: &mut self.none,
                held_out: None,
            },
        }
    }
}

/// Somebody who is being answered.
struct Client {
    out: UnboundedSender<News>,
    left: Arc<AtomicBool>,
    stop: Stop,
    plain: bool,
    prompt_tokens: usize,
}

struct Engine {
    session: Session,
    places: usize,
    rewards: OfRequests,
    waiting: VecDeque<Work>,
    clients: HashMap<RunId, Client>,
    status: Arc<Status>,
}

/// Starts the thread; it ends when nobody can send it anything any more.
pub(super) fn start(
    session: Session,
    sets: Vec<RewardSet>,
    status: Arc<Status>,
) -> (Sender<Work>, JoinHandle<()>) {
    let (sender, inbox) = channel();
    let mut engine = Engine {
        places: session.places().len(),
        session,
        rewards: OfRequests {
            sets,
            none: Box::new(FnReward::new("none", |_, _| 0.0)),
            of: HashMap::new(),
        },
        waiting: VecDeque::new(),
        clients: HashMap::new(),
        status,
    };
    let thread = thread::spawn(move || engine.run(&inbox));
    (sender, thread)
}

impl Engine {
    fn run(&mut self, inbox: &Receiver<Work>) {
        loop {
            if self.session.is_empty() && self.waiting.is_empty() {
                self.publish();
                match inbox.recv() {
                    Ok(work) => self.waiting.push_back(work),
                    Err(_) => return,
                }
            }
            while let Ok(work) = inbox.try_recv() {
                self.waiting.push_back(work);
            }
            self.leave();
            self.begin();
            self.publish();
            self.turn();
            if self.session.waits() {
                thread::sleep(PAUSE);
            }
        }
    }

    /// Forgets those who have left.
    fn leave(&mut self) {
        let left = |left: &AtomicBool| left.load(Ordering::Relaxed);
        let before = self.waiting.len();
        self.waiting.retain(|work| !left(&work.left));
        self.status.left_queue(before - self.waiting.len());
        let gone: Vec<RunId> = self
            .clients
            .iter()
            .filter(|(_, client)| left(&client.left))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.session.cancel(id);
            self.forget(id);
            self.status.count(|counters| counters.cancelled += 1);
        }
    }

    fn forget(&mut self, id: RunId) -> Option<Client> {
        self.rewards.of.remove(&id);
        self.clients.remove(&id)
    }

    fn begin(&mut self) {
        while self.session.len() < self.places {
            let Some(work) = self.waiting.pop_front() else {
                return;
            };
            self.status.left_queue(1);
            let mut request = work.request;
            if let Some(limit) = work.limit {
                let left = (limit - work.asked.elapsed().as_secs_f64()).max(f64::MIN_POSITIVE);
                let seconds = &mut request.options.budget.seconds;
                *seconds = Some(seconds.map_or(left, |asked| asked.min(left)));
            }
            let client = Client {
                prompt_tokens: request.opened.tokens.len(),
                stop: request.stop.clone(),
                plain: work.rewards.is_none(),
                out: work.out,
                left: work.left,
            };
            match self.session.begin(request) {
                Ok(id) => {
                    self.rewards.of.insert(id, work.rewards);
                    self.clients.insert(id, client);
                }
                Err(error) => tell(&client, News::Done(Box::new(Err(error)))),
            }
        }
    }

    fn turn(&mut self) {
        let Self {
            session,
            rewards,
            clients,
            ..
        } = self;
        let ended = session.turn(rewards, &mut |id, told| {
            let Some(client) = clients.get(&id) else {
                return;
            };
            match told {
                Told::Reasoning(text) => tell(client, News::Reasoning(text.to_owned())),
                Told::Event(kind) if is_news(kind, client.plain) => {
                    tell(client, News::Event(Box::new(kind.clone())));
                }
                Told::Event(_) => {}
            }
        });
        for (id, result) in ended {
            let Some(client) = self.forget(id) else {
                continue;
            };
            if let Err(Error::Engine(_)) = &result {
                client.stop.request();
            }
            self.status.count(|counters| {
                counters.finish(client.plain, client.prompt_tokens, result.as_ref().ok());
            });
            tell(&client, News::Done(Box::new(result)));
        }
    }

    fn publish(&self) {
        self.status
            .publish(self.session.places(), self.session.len());
    }
}

impl Drop for Engine {
    /// Whatever ends it: nothing more is begun, and whoever asks for the server's health is told.
    fn drop(&mut self) {
        self.status.drain();
    }
}

/// Whether an event is told on: of a search what makes its story, of a plain answer its answers.
fn is_news(kind: &EventKind, plain: bool) -> bool {
    match kind {
        EventKind::CandidateScored(_) => plain,
        EventKind::RunStarted { .. }
        | EventKind::IterationDone(_)
        | EventKind::RewardParts { .. }
        | EventKind::HeldOutFailed { .. } => !plain,
        EventKind::Progress { .. }
        | EventKind::WorkersLost { .. }
        | EventKind::RunFinished { .. } => false,
    }
}

fn tell(client: &Client, news: News) {
    if client.out.send(news).is_err() {
        // Nobody listens: as good as gone.
        client.left.store(true, Ordering::Relaxed);
    }
}
