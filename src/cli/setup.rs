//! What the commands share: the log, the default models, loading with clear errors.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use aisp_llama::llama::{ChatOptions, Model};
use aisp_llama::method::Rounds;
use aisp_llama::reward::{Reward, RewardLoader, RewardSpec};
use aisp_llama::{Error, Result, Stop};

#[cfg(unix)]
use nix::sys::signal::{SigSet, Signal};

use super::flags::{HeldOutArgs, LoadArgs, ModelArgs, RewardArgs};
use super::output::{self, INTERRUPTED};

/// The default generator, by its name in the cache folder.
const DEFAULT_MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// The default reward model, by its name in the cache folder.
const DEFAULT_REWARD: &str = "film-review-reward.gguf";

/// Shows warnings, or with `verbose` all that llama.cpp logs, on stderr.
pub fn log(verbose: bool) {
    let level = if verbose {
        tracing::Level::DEBUG
    } else {
        tracing::Level::ERROR
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        // It would panic where stderr is closed.
        .log_internal_errors(false)
        .init();
}

/// The folder for what is kept between runs, and what `make setup` fetches.
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(base.join("aisp-llama"))
}

/// Where `make setup` puts the model `name`.
fn cached(name: &str) -> Option<PathBuf> {
    Some(cache_folder()?.join("models").join(name))
}

/// The generator that the flags ask for.
pub fn model_path(args: &ModelArgs) -> Result<PathBuf> {
    match (args.hub.path()?, &args.model) {
        (Some(path), _) => Ok(path),
        (None, Some(path)) => Ok(path.clone()),
        (None, None) => default_path("model", DEFAULT_MODEL),
    }
}

/// The rewards that the flags ask for, of which nothing is loaded yet; `generator` is the file of
/// the model that they steer, where there is one. The default reward is for the default model alone:
/// it knows nothing but film reviews.
pub fn reward_specs(args: &RewardArgs, generator: Option<&Path>) -> Result<Vec<RewardSpec>> {
    let mut specs = args
        .model_reward
        .iter()
        .map(|text| RewardSpec::parse_file(text).map_err(blame("model-reward")))
        .collect::<Result<Vec<_>>>()?;
    if specs.is_empty() && args.reward.is_empty() {
        if generator.is_some_and(|path| !is_default_model(path)) {
            return Err(Error::field("reward", NO_REWARD));
        }
        let path = default_path("model-reward", DEFAULT_REWARD)?;
        specs.push(RewardSpec::file(path));
    }
    if specs.is_empty() {
        let given = [
            ("reward-text", args.reward_text.is_some()),
            ("reward-too-long", args.reward_too_long.is_some()),
        ];
        if let Some((field, _)) = given.into_iter().find(|(_, given)| *given) {
            let reason = "it is for `model-reward` alone, which is not given; an option of a \
                          `reward` stands in its description, KIND:FILE;text=…;too-long=…";
            return Err(Error::field(field, reason));
        }
    }
    specs.extend(args.reward.iter().cloned());
    Ok(specs)
}

/// What is said where no reward is given to another model.
const NO_REWARD: &str = "none is given, and the film-review reward goes with the default model only; \
                         give a reward model (`model-reward` FILE.gguf), let the model judge itself \
                         (`reward` = judge:self), or say what is wanted as a rule (`reward` = \
                         rule:words=20..60)";

fn is_default_model(path: &Path) -> bool {
    let same = |default: PathBuf| Some(default.canonicalize().ok()? == path.canonicalize().ok()?);
    cached(DEFAULT_MODEL).and_then(same).unwrap_or(false)
}

/// The default model `name`, where it has been set up.
fn default_path(field: &str, name: &str) -> Result<PathBuf> {
    let path = cached(name).ok_or_else(|| {
        let reason = "not given, and there is no cache folder (HOME is not set)";
        Error::field(field, reason)
    })?;
    if path.exists() {
        return Ok(path);
    }
    Err(Error::field(
        field,
        format!(
            "not given, and the default model {} is not there; run `make setup`, or give a GGUF \
             file",
            path.display()
        ),
    ))
}

/// The reward that the flags ask for; `generator` is what `judge:self` and
/// `likelihood:self` ask.
pub fn load_reward(
    args: &RewardArgs,
    load: &LoadArgs,
    chat: &ChatOptions,
    generator: Option<Arc<Model>>,
) -> Result<Box<dyn Reward>> {
    reward_by(loader(load, chat, generator), args)
}

/// The same by a loader.
pub fn reward_by(mut loader: RewardLoader, args: &RewardArgs) -> Result<Box<dyn Reward>> {
    let generator = loader.generator.as_ref().map(|model| model.path());
    let specs = reward_specs(args, generator)?;
    loader.text.clone_from(&args.reward_text);
    loader.too_long = args.reward_too_long.unwrap_or_default();
    loader.load(&specs)
}

/// What loads rewards, which an interrupt gives up soon where they are silent.
pub fn loader(load: &LoadArgs, chat: &ChatOptions, generator: Option<Arc<Model>>) -> RewardLoader {
    let mut loader = RewardLoader::new(generator, load.options(), load.threads_batch());
    loader.attention = load.attention();
    loader.chat = chat.clone();
    loader.stop = STOP.clone();
    loader
}

/// Says in one line what a run does: model, reward and what it sees, method, budget.
pub fn announce(model: &Model, reward: &dyn Reward, method: &str, budget: &str) {
    let model = model.path().file_name().unwrap_or_default();
    output::note(&format!(
        "{} · {} · {method}, {budget}",
        model.to_string_lossy(),
        told(reward)
    ));
}

/// The reward and what it sees.
pub fn told(reward: &dyn Reward) -> String {
    format!("reward {}, sees {}", short(&reward.name()), reward.sees())
}

/// The budget of a run of these rounds.
pub fn budget(rounds: &Rounds) -> String {
    let length = match rounds.max_tokens {
        Rounds::TO_THE_END => "as many tokens as there is room for".into(),
        tokens => format!("{tokens} tokens"),
    };
    let (samples, iterations) = (rounds.samples, rounds.iterations);
    format!("{samples} samples × {iterations} of at most {length}")
}

/// A reward's name with its files without their folders.
pub fn short(name: &str) -> String {
    let word = |word: &str| match word.rsplit_once('/') {
        Some((folder, file)) if file.ends_with(".gguf") => {
            let weight = folder.split_once('*').map_or("", |(weight, _)| weight);
            let star = if weight.is_empty() { "" } else { "*" };
            format!("{weight}{star}{file}")
        }
        _ => word.to_owned(),
    };
    name.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The held-out reward, where one is given.
pub fn load_held_out(
    args: &HeldOutArgs,
    load: &LoadArgs,
    chat: &ChatOptions,
    generator: &Arc<Model>,
) -> Result<Option<Box<dyn Reward>>> {
    held_out_by(loader(load, chat, Some(Arc::clone(generator))), args)
}

/// The same by a loader.
pub fn held_out_by(
    mut loader: RewardLoader,
    args: &HeldOutArgs,
) -> Result<Option<Box<dyn Reward>>> {
    let specs = args.held_out.as_ref().map(std::slice::from_ref);
    let reward = specs.map(|spec| loader.load(spec)).transpose();
    reward.map_err(blame("held-out-reward"))
}

/// For `map_err`: `field` is to blame where the library says `reward`, as it does of all rewards.
fn blame(field: &str) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Field { field: of, reason } if of == "reward" => Error::field(field, reason),
        other => other,
    }
}

/// What an interrupt asks of a command that has one answer.
static STOP: LazyLock<Stop> = LazyLock::new(Stop::new);
/// What it asks at present, while there is anything.
static ASKED: Mutex<Option<Stop>> = Mutex::new(None);

/// The signals that ask the program to end.
#[cfg(unix)]
pub fn endings() -> SigSet {
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]
        .into_iter()
        .collect()
}

/// From here on an interrupt ends the program, and with it what rewards have started; a file that has
/// grown as large as files may here is a failed write. Comes first, so that no command is without it.
pub fn handle_signals() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        let asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match asked.filter(|stop| !stop.is_requested()) {
            Some(stop) => stop.request(),
            None => end(),
        }
    })?;
    #[cfg(unix)]
    {
        signal_hook::flag::register(Signal::SIGXFSZ as i32, Arc::default())?;
        endings().thread_unblock()?;
    }
    Ok(())
}

/// From here on an interrupt asks for the best answer so far; a second one ends the program.
pub fn stop_on_interrupt() -> Stop {
    ask_on_interrupt(Some(STOP.clone()));
    STOP.clone()
}

/// From here on an interrupt asks this; where it has, or there is nothing, one ends the program.
pub fn ask_on_interrupt(stop: Option<Stop>) {
    *ASKED.lock().unwrap_or_else(PoisonError::into_inner) = stop;
}

/// Whether an interrupt has asked for the best answer so far.
pub fn is_interrupted() -> bool {
    STOP.is_requested()
}

/// Ends the program at once: what other threads are about goes on to the very end.
fn end() -> ! {
    #[cfg(unix)]
    signal_hook::low_level::exit(INTERRUPTED.into());
    #[cfg(not(unix))]
    std::process::exit(INTERRUPTED.into());
}
