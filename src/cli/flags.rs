//! Flags that several commands share, with llama.cpp's names and environment variables where it
//! has them.

use std::path::{Path, PathBuf};

use aisp_llama::compare::read_prompts;
use aisp_llama::gguf::Gguf;
use aisp_llama::llama::{ChatOptions, ChatTemplate, LogitsRoute, Message, Think};
use aisp_llama::method::{MethodSpec, Rounds};
use aisp_llama::reward::{RewardSpec, RewardText, TooLong, kinds};
use aisp_llama::{Error, Prompt, ReasoningOptions, Result, text};
use jiff::civil::DateTime;
use serde_json::Map;

pub use super::load_args::{LoadArgs, ModelArgs};
use super::settings_args::SettingsArgs;
use super::values;

#[derive(Clone, Debug, clap::Args)]
pub struct RewardArgs {
    /// A reward model, [WEIGHT*]FILE[;ngl=N][;dev=…]; may be given several times (-mr) [default: with the default model, the film-review reward of `make setup`]
    #[arg(
        long,
        value_name = "FILE.gguf",
        env = "AISP_LLAMA_MODEL_REWARD",
        help_heading = "Rewards"
    )]
    pub model_reward: Vec<String>,
    #[arg(long, help = reward_help(), value_name = "KIND:…", value_parser = values::reason(RewardSpec::parse), allow_hyphen_values = true, help_heading = "Rewards")]
    pub reward: Vec<RewardSpec>,
    /// Text that -mr rewards see: {response}, {prompt}\n{response}, or chat [default: what the file states]
    #[arg(long, value_name = "TEXT", value_parser = values::reason(RewardText::parse), help_heading = "Rewards")]
    pub reward_text: Option<RewardText>,
    /// What to do with texts too long for -mr rewards [default: refuse]
    #[arg(
        long,
        value_name = "WHAT",
        value_parser = values::one_of([("refuse", TooLong::Refuse), ("truncate", TooLong::Truncate)]),
        help_heading = "Rewards"
    )]
    pub reward_too_long: Option<TooLong>,
}

/// The help of `--reward`, from the table of kinds.
fn reward_help() -> String {
    let kinds = kinds().iter();
    let kinds: Vec<String> = kinds.map(|k| format!("{}, {}", k.form, k.about)).collect();
    format!(
        "A reward of any kind, [WEIGHT*]KIND:…; may be given several times. Kinds: {}. Their options: \
         aisp-llama help rewards",
        kinds.join("; ")
    )
}

#[derive(Debug, clap::Args)]
pub struct HeldOutArgs {
    /// A second reward that only watches, reported beside the first
    #[arg(long, value_name = "KIND:…", value_parser = values::reason(values::held_out), allow_hyphen_values = true, help_heading = "Rewards")]
    pub held_out: Option<RewardSpec>,
}

#[derive(Debug, clap::Args)]
pub struct ChatArgs {
    /// System prompt (-sys)
    #[arg(
        long,
        value_name = "TEXT",
        help_heading = "Prompt",
        allow_hyphen_values = true
    )]
    pub system_prompt: Option<String>,
    /// Take prompts as raw text to be continued
    #[arg(
        long,
        alias = "no-conversation",
        conflicts_with_all = ["system_prompt", "chat_template", "chat_template_file", "chat_template_kwargs"],
        help_heading = "Prompt"
    )]
    pub no_chat: bool,
    /// Jinja chat template instead of the one in the file
    #[arg(
        long,
        value_name = "JINJA",
        env = "LLAMA_ARG_CHAT_TEMPLATE",
        help_heading = "Prompt"
    )]
    pub chat_template: Option<String>,
    /// The same from a file
    #[arg(
        long,
        value_name = "FILE",
        env = "LLAMA_ARG_CHAT_TEMPLATE_FILE",
        conflicts_with = "chat_template",
        help_heading = "Prompt"
    )]
    pub chat_template_file: Option<PathBuf>,
    /// Variables of chat templates, such as {"enable_thinking": false}; judges and rewards see them too
    #[arg(
        long,
        value_name = "JSON",
        env = "LLAMA_ARG_CHAT_TEMPLATE_KWARGS",
        help_heading = "Prompt"
    )]
    pub chat_template_kwargs: Option<String>,
    /// Whether the model thinks before it answers; candidates are answers behind the same reasoning [default: off where its template has a switch for it, else auto, as the template has it]
    #[arg(
        long,
        visible_alias = "reasoning",
        value_name = "WHEN",
        env = "LLAMA_ARG_REASONING",
        value_parser = values::one_of([("off", Think::Off), ("on", Think::On), ("auto", Think::Auto)]),
        help_heading = "Prompt"
    )]
    pub think: Option<Think>,
    /// How much it thinks, in its template's words, such as low
    #[arg(
        long,
        value_name = "LEVEL",
        env = "LLAMA_ARG_REASONING_EFFORT",
        help_heading = "Prompt"
    )]
    pub reasoning_effort: Option<String>,
    /// Most tokens of reasoning before an answer; -1 for the default, 1024
    #[arg(
        long,
        value_name = "TOKENS",
        env = "LLAMA_ARG_THINK_BUDGET",
        help_heading = "Prompt",
        allow_negative_numbers = true
    )]
    pub reasoning_budget: Option<i32>,
    /// Reasonings to search behind; the best answer of all is the answer [default: 1]
    #[arg(long, value_name = "K", help_heading = "Prompt")]
    pub reasonings: Option<usize>,
    /// The date that chat templates tell, 2026-01-31 or 2026-01-31T12:00 [default: now]
    #[arg(long, value_name = "DATE", value_parser = values::date, help_heading = "Prompt")]
    pub date: Option<DateTime>,
}

impl ChatArgs {
    /// The date that the prompts of the model with this header tell, where they tell one.
    pub fn date_told(&self, chat: &ChatOptions, model: &Gguf) -> Option<String> {
        let own = || model.chat_template();
        let source = chat.template.as_deref().or_else(own);
        let source = source.filter(|_| !self.no_chat)?;
        let date = ChatTemplate::of(source, "", "", chat).date()?;
        Some(date.to_string())
    }

    /// How conversations are rendered.
    pub fn options(&self) -> Result<ChatOptions> {
        let template = match (&self.chat_template, &self.chat_template_file) {
            (Some(text), _) => Some(text.clone()),
            (None, Some(path)) => Some(text::read(path).map_err(Error::io(path))?),
            (None, None) => None,
        };
        let mut variables = match &self.chat_template_kwargs {
            Some(text) => serde_json::from_str(text).map_err(|e| {
                Error::field(
                    "chat-template-kwargs",
                    format!("{text:?} is no JSON object: {e}"),
                )
            })?,
            None => Map::new(),
        };
        if let Some(effort) = &self.reasoning_effort {
            variables.insert("reasoning_effort".into(), effort.as_str().into());
        }
        Ok(ChatOptions {
            template,
            variables,
            think: self.think,
            date: self.date,
        })
    }

    /// Reasoning before answers.
    pub fn reasoning(&self) -> Result<ReasoningOptions> {
        let defaults = ReasoningOptions::default();
        let budget = match self.reasoning_budget {
            None | Some(-1) => defaults.budget,
            Some(tokens) => usize::try_from(tokens).map_err(|_| {
                Error::field(
                    "reasoning-budget",
                    format!("{tokens}; give a number of tokens"),
                )
            })?,
        };
        Ok(ReasoningOptions {
            budget,
            count: self.reasonings.unwrap_or(defaults.count),
        })
    }

    /// The conversation in the text of a file, behind the system prompt where one is given.
    pub fn conversation(&self, path: &Path, text: &str) -> Result<Prompt> {
        let wrong = |reason: String| {
            let path = path.display();
            let shape = r#"[{"role": "user", "content": "…"}, …]"#;
            Error::field("messages", format!("{path}: {reason}; want {shape}"))
        };
        let mut messages: Vec<Message> =
            serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        if messages.is_empty() {
            return Err(wrong("no messages".into()));
        }
        if let Some(system) = &self.system_prompt {
            messages.insert(0, Message::new("system", system));
        }
        Ok(Prompt::Chat(messages))
    }

    /// The prompt that a text is.
    pub fn prompt(&self, text: String) -> Prompt {
        match self.no_chat {
            true => Prompt::Raw(text),
            false => Prompt::user(self.system_prompt.as_deref(), text),
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct PromptsArgs {
    /// Prompts, {"prompt": "…"} a line
    #[arg(long, value_name = "FILE.jsonl", help_heading = "Prompt")]
    pub prompts: PathBuf,
    #[command(flatten)]
    pub chat: ChatArgs,
}

impl PromptsArgs {
    /// The prompts of the file.
    pub fn read(&self) -> Result<Vec<String>> {
        read_prompts(&self.prompts)
    }
}

#[derive(Debug, clap::Args)]
pub struct SamplesArgs {
    /// Candidates of one iteration
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        help_heading = "Method",
        allow_negative_numbers = true
    )]
    pub samples: usize,
}

/// How answers are searched for; with `PRESET` the flag that names a preset.
#[derive(Debug, clap::Args)]
pub struct MethodArgs<const PRESET: bool> {
    #[arg(
        long,
        help = values::method_help(),
        default_value = "search",
        value_parser = values::method(),
        hide_possible_values = true,
        help_heading = "Method"
    )]
    pub method: MethodSpec,
    #[command(flatten)]
    pub samples: SamplesArgs,
    /// Iterations
    #[arg(
        long,
        value_name = "K",
        default_value_t = 8,
        help_heading = "Method",
        allow_negative_numbers = true
    )]
    pub iterations: usize,
    #[command(flatten)]
    pub settings: SettingsArgs<true, PRESET>,
}

impl<const PRESET: bool> MethodArgs<PRESET> {
    /// The method with its settings.
    pub fn spec(&self) -> Result<MethodSpec> {
        self.settings.spec(&self.method)
    }
}

#[derive(Debug, clap::Args)]
pub struct LengthArgs {
    /// Most tokens of a response; -1 for as many as the context has room for
    #[arg(
        short = 'n',
        long,
        visible_alias = "n-predict",
        value_name = "TOKENS",
        default_value_t = 128,
        env = "LLAMA_ARG_N_PREDICT",
        help_heading = "Generation",
        allow_negative_numbers = true
    )]
    pub predict: i64,
}

impl LengthArgs {
    pub fn max_tokens(&self) -> Result<usize> {
        match self.predict {
            -1 => Ok(Rounds::TO_THE_END),
            tokens => usize::try_from(tokens).map_err(|_| {
                Error::field("max-tokens", format!("{tokens}; give at least 1, or -1"))
            }),
        }
    }
}

/// How the generator gets to the logits.
#[derive(Debug, clap::Args)]
pub struct RouteArgs {
    /// Where the perturbation is added: to the logits of the tokens above the floor, inside the
    /// model's graph, or outside, where the logits are computed again
    #[arg(
        long,
        value_name = "ROUTE",
        default_value = "rows",
        value_parser = values::one_of([("rows", LogitsRoute::Rows), ("graph", LogitsRoute::Graph), ("recompute", LogitsRoute::Recompute)]),
        help_heading = "Generation"
    )]
    pub logits: LogitsRoute,
    /// Decode again what candidates have in common with earlier ones: slower, the same tokens
    #[arg(long, help_heading = "Generation")]
    pub no_share_prefixes: bool,
}
