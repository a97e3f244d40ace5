//! `serve`: the engine behind HTTP, with a page.

use std::net::IpAddr;
use std::path::PathBuf;

use aisp_llama::method::MethodSpec;
use aisp_llama::serve::{Preset, Profile, RewardPair, ServeOptions, check_host, serve};
use aisp_llama::{AlignOptions, Error, Result, Stop, text};

use super::flags::HeldOutArgs;
use super::output;
use super::search_args::{Loaded, SearchArgs, seed};
use super::{setup, values, workbench};

#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub search: SearchArgs<false>,
    /// A further search, asked for as MODEL:NAME: a JSON object of settings as in a request's `aisp`, and of `reward` and `held-out`; may be given several times
    #[arg(long, value_name = "NAME=FILE.json", value_parser = values::pair, help_heading = "Server")]
    pub preset: Vec<(String, String)>,
    /// Seed of requests that name none; -1 for random ones
    #[arg(
        short,
        long,
        default_value_t = -1,
        help_heading = "Generation",
        allow_negative_numbers = true
    )]
    pub seed: i64,

    /// Address to listen on; any but this machine's own wants --api-key
    #[arg(long, value_name = "ADDRESS", env = "LLAMA_ARG_HOST", default_value = "127.0.0.1", value_parser = values::address, help_heading = "Server")]
    pub host: IpAddr,
    /// Port to listen on; 0 for a free one
    #[arg(
        long,
        value_name = "PORT",
        env = "LLAMA_ARG_PORT",
        default_value_t = 8080,
        help_heading = "Server"
    )]
    pub port: u16,
    /// What the model is called, several names between commas [default: the file's name]
    #[arg(
        short,
        long,
        value_name = "NAME,…",
        env = "LLAMA_ARG_ALIAS",
        value_delimiter = ',',
        help_heading = "Server"
    )]
    pub alias: Vec<String>,
    /// Key that requests must send, several between commas
    #[arg(
        long,
        value_name = "KEY,…",
        env = "LLAMA_API_KEY",
        value_delimiter = ',',
        hide_env_values = true,
        help_heading = "Server"
    )]
    pub api_key: Vec<String>,
    /// The same from a file, one a line
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub api_key_file: Option<PathBuf>,
    /// Sites that may ask from a browser, such as https://chat.example, or * [default: those of this machine, or all where a key is needed]
    #[arg(
        long,
        value_name = "ORIGIN,…",
        value_delimiter = ',',
        help_heading = "Server"
    )]
    pub cors_origins: Vec<String>,
    /// Further names that this machine is asked by, as through a proxy
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        help_heading = "Server"
    )]
    pub allowed_hosts: Vec<String>,
    /// Tell at /slots who is where, as by default
    #[arg(long, env = "LLAMA_ARG_ENDPOINT_SLOTS", default_value_t = true, value_parser = values::truthy, help_heading = "Server")]
    pub slots: bool,
    /// Do not
    #[arg(long, help_heading = "Server")]
    pub no_slots: bool,
    /// Tell at /metrics what was done, for Prometheus
    #[arg(long, env = "LLAMA_ARG_ENDPOINT_METRICS", value_parser = values::truthy, help_heading = "Server")]
    pub metrics: bool,
    /// No page at /
    #[arg(long, visible_alias = "no-webui", help_heading = "Server")]
    pub no_ui: bool,
    /// Most candidates of one request
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4096,
        help_heading = "Server"
    )]
    pub max_candidates: usize,
    /// Seconds after which an answer that is not streamed is given as it is; clients wait 600
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 540.0,
        help_heading = "Server"
    )]
    pub time_limit: f64,
}

/// Runs the command; the answer is the exit code.
pub fn run(args: &ServeArgs) -> anyhow::Result<u8> {
    let search = args.search.search()?;
    let plain = args.search.plain()?;
    let mut profiles = profiles(args, &search)?;
    let presets = presets(args)?;
    for (i, (name, _)) in presets.iter().enumerate() {
        let taken = profiles.iter().any(|profile| profile.name == *name);
        if taken || presets[..i].iter().any(|(other, _)| other == name) {
            let reason = format!("{name}: there is one of this name; give it another");
            return Err(Error::field("preset", reason).into());
        }
    }
    if args.time_limit.is_nan() || args.time_limit <= 0.0 {
        let reason = format!("{}; give a number above 0", args.time_limit);
        return Err(Error::field("time-limit", reason).into());
    }
    let api_keys = api_keys(args)?;
    check_host(args.host, &api_keys)?;
    let Loaded {
        model,
        reward,
        held_out,
    } = args.search.load()?;
    let mut rewards: Vec<RewardPair> = vec![(reward, held_out)];
    let engine = args.search.engine(&model)?;
    for (name, preset) in presets {
        let mut of = 0;
        if !preset.rewards.is_empty() || preset.held_out.is_some() {
            let loader = || args.search.loader(&model);
            let reward = match preset.rewards.is_empty() {
                true => setup::reward_by(loader()?, &args.search.reward),
                false => loader()?.load(&preset.rewards),
            };
            let held_out = HeldOutArgs {
                held_out: preset.held_out.clone(),
            };
            of = rewards.len();
            rewards.push((reward?, setup::held_out_by(loader()?, &held_out)?));
        }
        profiles.push(Profile {
            options: preset.options(&search)?,
            rewards: of,
            name,
        });
    }
    let path = setup::model_path(&args.search.model)?;
    let options = ServeOptions {
        host: args.host,
        port: args.port,
        aliases: args.alias.clone(),
        api_keys,
        cors_origins: args.cors_origins.clone(),
        allowed_hosts: args.allowed_hosts.clone(),
        slots: args.slots && !args.no_slots,
        metrics: args.metrics,
        page: !args.no_ui,
        max_candidates: args.max_candidates,
        time_limit: args.time_limit,
        seed: seed(args.seed),
        system_prompt: args.search.chat.system_prompt.clone(),
        plain,
        profiles,
        ground: Some(workbench::ground(
            &args.search.model,
            &args.search.reward,
            &engine.chat,
            &path,
            args.search.route.logits,
        )),
        engine,
    };
    let stop = Stop::new();
    setup::ask_on_interrupt(Some(stop.clone()));
    serve(model, rewards, options, &stop, |address| {
        output::note(&format!("listening on http://{address}"));
    })?;
    Ok(0)
}

/// The searches that every model has: that of the flags, and the two that others are held against.
fn profiles(args: &ServeArgs, search: &AlignOptions) -> Result<Vec<Profile>> {
    let named = |name: &str, options: AlignOptions| Profile {
        name: name.into(),
        options,
        rewards: 0,
    };
    let mut profiles = vec![named("aisp", search.clone())];
    for name in ["best-of-n", "args"] {
        let mut options = search.clone();
        options.method = args
            .search
            .method
            .settings
            .heard_by(&MethodSpec::named(name)?)?;
        profiles.push(named(name, options));
    }
    Ok(profiles)
}

/// The presets of the files.
fn presets(args: &ServeArgs) -> Result<Vec<(String, Preset)>> {
    let read = |(name, file): &(String, String)| {
        let wrong = |error: Error| Error::field("preset", format!("{file}: {}", error.reason()));
        let path = PathBuf::from(file);
        let text = text::read(&path).map_err(Error::io(&path))?;
        let preset = Preset::read(&text).map_err(wrong)?;
        Ok((name.clone(), preset))
    };
    args.preset.iter().map(read).collect()
}

fn api_keys(args: &ServeArgs) -> Result<Vec<String>> {
    let mut keys = args.api_key.clone();
    if let Some(path) = &args.api_key_file {
        let text = text::read(path).map_err(Error::io(path))?;
        keys.extend(text.lines().map(|line| line.trim().to_owned()));
    }
    keys.retain(|key| !key.is_empty());
    if keys.is_empty() && (args.api_key_file.is_some() || !args.api_key.is_empty()) {
        return Err(Error::field("api-key", "empty; give a key"));
    }
    Ok(keys)
}
