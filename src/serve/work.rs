//! A share of somebody else's run: `POST /v1/work`.
//!
//! ```text
//! {"errand": {…}}                 ──► {"id": "…"}                 the run begins here as well
//! {"id": "…", "parts": […]}       ──► {"part": …}, {}, {"end": …} what the others told; what this one tells
//! {"id": "…"}                     ──► the same                    without news
//! {"id": "…", "waits": true}      ──► {}                          whoever asks is still there
//! {"id": "…", "ends": true}       ──► {}                          the run is over
//! ```
//!
//! An answer comes after [`PATIENCE`] at the latest, and a run of which nobody has asked for [`SILENCE`]
//! is taken out.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, oneshot};

use super::asks::{MOST_STOPS, bounded};
use super::engine::{News, Work};
use super::failure::Failure;
use super::routes::{Answer, LONGEST_BODY, Server, aside, bytes};
use super::stream::Leaving;
use super::{App, Ground, answers};
use crate::align::{AlignOptions, Heard, Link, Opened, Part, Prompt, Request, Share};
use crate::error::{Error, Result as Outcome};
use crate::llama::{Grammar, Message, ReasoningMarkers, Token};
use crate::method::{MethodSpec, Rounds};
use crate::rollout::Form;
use crate::stop::Stop;

/// Bytes of a body, and of an answer: the candidates of an iteration.
pub(super) const LONGEST: usize = 64 << 20;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it looks whether files are read.
const LOOK: Duration = Duration::from_millis(20);
/// How long nobody may have asked.
const SILENCE: Duration = Duration::from_secs(60);
/// Most processes of a run.
pub(super) const MOST: usize = 64;

/// A run as whoever shares it describes it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Errand {
    /// What texts and rewards depend on beside all that follows.
    pub(super) ground: Value,
    /// The text that rewards see as the prompt, where it is no conversation.
    pub(super) text: Option<String>,
    pub(super) messages: Vec<Message>,
    /// The prompt as the model sees it, reasoning included.
    pub(super) tokens: Vec<Token>,
    pub(super) method: MethodSpec,
    pub(super) samples: usize,
    pub(super) iterations: usize,
    pub(super) seed: u64,
    pub(super) max_tokens: usize,
    pub(super) reward_scale: bool,
    pub(super) target_reward: Option<f64>,
    pub(super) patience: Option<usize>,
    pub(super) stop: Vec<String>,
    pub(super) ignore_end: bool,
    pub(super) schema: Option<Value>,
    /// What stands before and behind reasoning.
    pub(super) reasoning: Option<(String, String)>,
    pub(super) rank: usize,
    pub(super) of: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    errand: Option<Box<Errand>>,
    id: Option<String>,
    parts: Option<Vec<Part>>,
    #[serde(default)]
    waits: bool,
    #[serde(default)]
    ends: bool,
}

/// What one of these runs is told, and tells. The run ends with it.
pub(super) struct Desk {
    inbox: SyncSender<Vec<Part>>,
    outbox: Mutex<(UnboundedReceiver<Part>, UnboundedReceiver<News>)>,
    asked: std::sync::Mutex<Instant>,
    _gone: oneshot::Sender<()>,
}

/// All of them, by id.
pub(super) type Desks = std::sync::Mutex<HashMap<String, Arc<Desk>>>;

/// The way to the others: through whoever began the run.
struct Post {
    out: UnboundedSender<Part>,
    inbox: Receiver<Vec<Part>>,
}

impl Link for Post {
    fn give(&mut self, part: Part) {
        // Where nobody takes it, nobody answers either.
        let _ = self.out.send(part);
    }

    fn hear(&mut self) -> Outcome<Heard> {
        match self.inbox.try_recv() {
            Ok(parts) => Ok(Heard::Parts(parts)),
            Err(TryRecvError::Empty) => Ok(Heard::Nothing),
            Err(TryRecvError::Disconnected) => {
                Err(Error::Run("whoever began the run has left".into()))
            }
        }
    }
}

pub(super) async fn work(State(app): Server, body: Body) -> Answer {
    let body = bytes(body, LONGEST).await?;
    let said = aside(move || {
        let said = serde_json::from_slice::<Said>(&body);
        said.map_err(|e| Failure::invalid(format!("the body: {e}")))
    });
    let said = said.await?;
    let reply = match (said.errand, said.id) {
        (Some(errand), None) => {
            // Its files are short, or whoever asks comes again.
            let until = Instant::now() + PATIENCE;
            while ground(&app)?.poll().is_none() && Instant::now() < until {
                tokio::time::sleep(LOOK).await;
            }
            let reader = Arc::clone(&app);
            let work = aside(move || begin(&reader, *errand)).await?;
            json!({"id": start(&app, work)?})
        }
        (None, Some(id)) => {
            let desk = app.desks().get(&id).cloned();
            let missing = || Failure::not_found(format!("id: nothing is shared as {id:?}"));
            let desk = desk.ok_or_else(missing)?;
            *desk.asked() = Instant::now();
            if said.ends {
                app.desks().remove(&id);
            }
            match said.ends || said.waits {
                true => json!({}),
                false => exchange(&app, &id, &desk, said.parts).await?,
            }
        }
        _ => return Err(Failure::invalid("want either `errand` or `id`")),
    };
    Ok(Json(reply).into_response())
}

/// Hands in what others told, and waits for what is told here.
async fn exchange(
    app: &Arc<App>,
    id: &str,
    desk: &Desk,
    parts: Option<Vec<Part>>,
) -> Result<Value, Failure> {
    if let Some(parts) = parts {
        // Where the run is over, that is its news.
        if let Err(TrySendError::Full(_)) = desk.inbox.try_send(parts) {
            return Err(Failure::field(
                "parts",
                "those before them are not read yet",
            ));
        }
    }
    // Whoever breaks off has left.
    let mut leaves = Leaves {
        app,
        id,
        whole: false,
    };
    let mut outbox = desk.outbox.lock().await;
    let (told, news) = &mut *outbox;
    let over = async {
        loop {
            match news.recv().await {
                Some(News::Done(result)) => return *result,
                Some(_) => {}
                None => return Err(Error::Run("the engine has ended".into())),
            }
        }
    };
    let reply = tokio::select! {
        biased;
        Some(part) = told.recv() => json!({"part": part}),
        result = over => match result {
            Ok(_) => json!({"end": Value::Null}),
            Err(error) => json!({"end": error.to_string()}),
        },
        () = tokio::time::sleep(PATIENCE) => json!({}),
    };
    leaves.whole = true;
    *desk.asked() = Instant::now();
    Ok(reply)
}

/// Takes a run out where its answer did not come to its end.
struct Leaves<'a> {
    app: &'a Arc<App>,
    id: &'a str,
    whole: bool,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        if !self.whole {
            self.app.desks().remove(self.id);
        }
    }
}

impl Desk {
    fn asked(&self) -> MutexGuard<'_, Instant> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App {
    fn desks(&self) -> MutexGuard<'_, HashMap<String, Arc<Desk>>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that can begin: the way in, and the way out.
type Ready = (Request, SyncSender<Vec<Part>>, UnboundedReceiver<Part>);

fn ground(app: &App) -> Result<&Ground, Failure> {
    let none = || Failure::not_supported("this server has no ground that work could be shared on");
    app.options.ground.as_ref().ok_or_else(none)
}

/// The request that an errand is.
fn begin(app: &App, errand: Errand) -> Result<Ready, Failure> {
    let reading = || Failure::unavailable("the server still reads its files for this");
    let own = ground(app)?.poll().ok_or_else(reading)??;
    if let Some(difference) = difference(own, &errand.ground) {
        return Err(Failure::field("ground", difference));
    }
    let wrong = |name: &str, reason: &str| Err(Failure::field(name, reason));
    let vocabulary = app.model.vocabulary();
    let is_token = |&token: &Token| usize::try_from(token).is_ok_and(|token| token < vocabulary);
    if errand.tokens.is_empty() || !errand.tokens.iter().all(is_token) {
        return wrong("tokens", "must be tokens of the vocabulary");
    }
    if errand.of > MOST {
        return wrong("of", "too many processes for one run");
    }
    let texts = errand
        .messages
        .iter()
        .map(|m| m.role.len() + m.content.len());
    let schema = errand
        .schema
        .as_ref()
        .map_or(0, |schema| schema.to_string().len());
    let text = errand.text.as_ref().map_or(0, String::len);
    if texts.sum::<usize>() + schema + text > LONGEST_BODY {
        return Err(Failure::too_large(LONGEST_BODY));
    }
    if errand.stop.len() > MOST_STOPS {
        return wrong("stop", "too many texts");
    }
    if errand
        .schema
        .as_ref()
        .is_some_and(|schema| !schema.is_object())
    {
        return wrong("schema", "no JSON schema");
    }
    if !errand.method.settings().files().is_empty() {
        return wrong("method", "it reads a file, which no request may name");
    }
    if errand.stop.iter().any(String::is_empty) {
        return wrong("stop", "an empty text; it is everywhere");
    }
    let room = app.context.saturating_sub(errand.tokens.len());
    if errand.max_tokens > room {
        return Err(Failure::too_long(
            errand.tokens.len() + errand.max_tokens,
            app.context,
        ));
    }
    let rounds = Rounds {
        samples: errand.samples,
        iterations: errand.iterations,
        seed: errand.seed,
        max_tokens: errand.max_tokens,
    };
    if rounds.candidates() > app.options.max_candidates {
        return wrong("samples", "more candidates than this server writes");
    }
    let known = |(open, close): (String, String)| {
        let mut all = ReasoningMarkers::known().iter();
        all.find(|known| known.open == open && known.close == close)
            .copied()
            .ok_or_else(|| Failure::field("reasoning", "not known here"))
    };
    let grammar = |schema: Value| {
        let grammar = Grammar::json_schema(Arc::clone(&app.model), &schema);
        grammar.map_err(|error| Failure::field("schema", error.reason()))
    };
    let options = AlignOptions {
        method: errand.method,
        rounds,
        reward_scale: errand.reward_scale,
        target_reward: errand.target_reward,
        patience: errand.patience,
        form: Form {
            stop: errand.stop,
            ignore_end: errand.ignore_end,
            grammar: errand.schema.map(grammar).transpose()?.map(Arc::new),
            reasoning: errand.reasoning.map(known).transpose()?,
            specials: false,
        },
        ..AlignOptions::default()
    };
    options.validate()?;
    bounded(app, &options)?;
    if let Some(rewards) = app.rewards.first() {
        rewards.check(&options)?;
    }
    let (out, told) = unbounded_channel();
    let (inbox, heard) = sync_channel(1);
    let post = Post { out, inbox: heard };
    let share = Share::new(errand.rank, errand.of, Box::new(post))?;
    let request = Request {
        prompt: match errand.text {
            Some(text) => Prompt::Raw(text),
            None => Prompt::Chat(errand.messages),
        },
        opened: Opened {
            tokens: errand.tokens,
            turn: None,
        },
        options,
        reasonings: 1,
        wrap: None,
        stop: Stop::new(),
        share: Some(share),
    };
    Ok((request, inbox, told))
}

/// Begins a run, and answers with its id.
fn start(app: &Arc<App>, (request, inbox, told): Ready) -> Result<String, Failure> {
    // Nobody waits in the queue for what waits for others.
    if app.status.free() == 0 {
        return Err(Failure::unavailable("no slot is free"));
    }
    app.check_queue(1)?;
    let (out, news) = unbounded_channel();
    let (gone, ended) = oneshot::channel();
    let left = Arc::new(AtomicBool::new(false));
    let leaving = Leaving {
        app: Arc::clone(app),
        id: format!("work-{:032x}", rand::random::<u128>()),
        left: Arc::clone(&left),
        stop: request.stop.clone(),
    };
    let work = Work {
        request,
        rewards: Some(0),
        limit: None,
        asked: Instant::now(),
        out,
        left,
    };
    app.engine.send(work).map_err(|_| answers::gone())?;
    let id = leaving.id.clone();
    let desk = Arc::new(Desk {
        inbox,
        outbox: Mutex::new((told, news)),
        asked: std::sync::Mutex::new(Instant::now()),
        _gone: gone,
    });
    tokio::spawn(watch(Arc::downgrade(&desk), ended, leaving));
    app.desks().insert(id.clone(), desk);
    Ok(id)
}

/// Ends a run once its desk is gone, or nobody has asked there for long.
async fn watch(desk: Weak<Desk>, mut ended: oneshot::Receiver<()>, leaving: Leaving) {
    loop {
        tokio::select! {
            _ = &mut ended => return,
            () = tokio::time::sleep(SILENCE / 4) => {}
        }
        if desk
            .upgrade()
            .is_none_or(|desk| desk.asked().elapsed() > SILENCE)
        {
            leaving.app.desks().remove(&leaving.id);
            return;
        }
    }
}

/// Where two grounds differ.
fn difference(own: &Value, other: &Value) -> Option<String> {
    let fields = own.as_object()?.iter();
    fields
        .filter(|(name, value)| other[name.as_str()] != **value)
        .map(|(name, value)| format!("{name}: {} there, {value} here", other[name.as_str()]))
        .next()
}
