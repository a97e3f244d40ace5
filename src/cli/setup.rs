//! What the commands share: the log, the default models, loading with clear errors.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use aisp_llama::llama::{ChatOptions, Model};
use aisp_llama::reward::{Reward, RewardLoader, RewardSpec};
use aisp_llama::{Error, Result, Stop};

#[cfg(unix)]
use nix::sys::signal::{SigSet, Signal};

use super::flags::{HeldOutArgs, LoadArgs, ModelArgs, RewardArgs};
use super::output::INTERRUPTED;

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

/// The folder that `make setup` fills.
fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(base.join("aisp-llama").join("models"))
}

/// The generator that the flags ask for.
pub fn model_path(args: &ModelArgs) -> Result<PathBuf> {
    match (args.hub.path()?, &args.model) {
        (Some(path), _) => Ok(path),
        (None, Some(path)) => Ok(path.clone()),
        (None, None) => default_path("model", DEFAULT_MODEL),
    }
}

/// The reward model where no reward is given.
pub fn default_reward_path() -> Result<PathBuf> {
    default_path("model-reward", DEFAULT_REWARD)
}

/// The default model `name`, where it has been set up.
fn default_path(field: &str, name: &str) -> Result<PathBuf> {
    let path = cache_folder()
        .ok_or_else(|| {
            let reason = "not given, and there is no cache folder (HOME is not set)";
            Error::field(field, reason)
        })?
        .join(name);
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
    let mut specs = args
        .model_reward
        .iter()
        .map(|text| RewardSpec::parse_file(text).map_err(blame("model-reward")))
        .collect::<Result<Vec<_>>>()?;
    specs.extend(args.reward.iter().cloned());
    if specs.is_empty() {
        specs.push(RewardSpec::file(default_reward_path()?));
    }
    let mut loader = RewardLoader::new(generator, load.options(), load.threads_batch());
    loader.attention = load.attention();
    loader.chat = chat.clone();
    loader.stop = STOP.clone();
    loader.text.clone_from(&args.reward_text);
    loader.too_long = args.reward_too_long;
    loader.load(&specs)
}

/// The held-out reward, where one is given.
pub fn load_held_out(
    args: &HeldOutArgs,
    load: &LoadArgs,
    chat: &ChatOptions,
    generator: &Arc<Model>,
) -> Result<Option<Box<dyn Reward>>> {
    let Some(spec) = &args.held_out else {
        return Ok(None);
    };
    let generator = Some(Arc::clone(generator));
    let mut loader = RewardLoader::new(generator, load.options(), load.threads_batch());
    loader.attention = load.attention();
    loader.chat = chat.clone();
    loader.stop = STOP.clone();
    let reward = loader.load(std::slice::from_ref(spec));
    reward.map(Some).map_err(blame("held-out-reward"))
}

/// For `map_err`: `field` is to blame where the library says `reward`, as it does of all rewards.
fn blame(field: &str) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Field { field: of, reason } if of == "reward" => Error::field(field, reason),
        other => other,
    }
}

/// What an interrupt asks, once there is something that can be asked.
static STOP: LazyLock<Stop> = LazyLock::new(Stop::new);
/// Whether there is.
static ASKED: AtomicBool = AtomicBool::new(false);

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
        if !ASKED.load(Ordering::Relaxed) || STOP.is_requested() {
            end();
        }
        STOP.request();
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
    ASKED.store(true, Ordering::Relaxed);
    STOP.clone()
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
