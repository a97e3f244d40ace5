//! How a server is asked, and how that is described.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::HttpReward;
use crate::error::Result;
use crate::reward::options::Options;
use crate::reward::{Reward, RewardKind, RewardLoader, RewardOption, RewardSource, RewardText};

/// Its place among the kinds.
pub(in crate::reward) const KIND: RewardKind = RewardKind {
    name: "http",
    form: "http:URL",
    about: "a server: a reranker or classifier, or a chat model that is asked for a number",
    terms: &[],
    options: &[
        RewardOption::new(
            "api",
            "rerank|tei|classify|pooling|chat",
            "what the server understands [default: rerank]",
        ),
        RewardOption::new("model", "NAME", "the model, for a server that has several"),
        RewardOption::new(
            "key-env",
            "NAME|none",
            "the environment variable with the bearer token [default: OPENAI_API_KEY for a chat server \
             on this machine or by https, if it is set]",
        ),
        RewardOption::new("parallel", "N", "requests at once [default: 1]"),
        RewardOption::new(
            "text",
            "TEXT",
            "what a classifier or pooler is given: {response}, {prompt}\\n{response}, or chat for a \
             conversation [default: chat]",
        ),
        RewardOption::new(
            "class",
            "N",
            "which of several numbers is the reward, from 0 [default: there is one]",
        ),
        RewardOption::new(
            "question",
            "TEXT",
            "what a chat model is asked, with {response} and, if wanted, {prompt} [default: a whole \
             number on the scale]",
        ),
        RewardOption::new(
            "scale",
            "A..B",
            "the numbers that answer, 0 to 10 at most [default: 1..10 without a question, else any]",
        ),
        RewardOption::new(
            "logprobs",
            "N",
            "likeliest tokens that a chat server is asked for, for an expected number on a scale; 0 \
             for none [default: 20]",
        ),
        RewardOption::new(
            "max-tokens",
            "N",
            "most tokens of a chat model's reply, reasoning included [default: 8]",
        ),
        RewardOption::new(
            "timeout",
            "SECONDS",
            "most time for one attempt [default: 30]",
        ),
        RewardOption::new(
            "retries",
            "N",
            "further attempts after a failed connection, a timeout, 429 and 5xx [default: 2]",
        ),
    ],
    parse,
};

fn parse(text: &str) -> Result<Arc<dyn RewardSource>> {
    let (url, mut options) = Options::parse(&KIND, text)?;
    let defaults = HttpOptions::default();
    let api = options.take("api", |text| {
        let api = HttpApi::ALL.iter().find(|api| api.name() == text);
        api.copied().ok_or_else(|| {
            let names: Vec<&str> = HttpApi::ALL.iter().map(HttpApi::name).collect();
            format!("none of {}", names.join(", "))
        })
    })?;
    let parsed = HttpOptions {
        url,
        api: api.unwrap_or(defaults.api),
        model: options.text("model"),
        key_env: options.text("key-env"),
        parallel: options.number("parallel")?.unwrap_or(defaults.parallel),
        text: options.reward_text()?.unwrap_or(defaults.text),
        class: options.number("class")?,
        question: options.line_breaks("question"),
        scale: options.scale()?,
        logprobs: options.number("logprobs")?.unwrap_or(defaults.logprobs),
        timeout: options.seconds("timeout")?.unwrap_or(defaults.timeout),
        retries: options.number("retries")?.unwrap_or(defaults.retries),
        max_tokens: options.number("max-tokens")?.unwrap_or(defaults.max_tokens),
        ..defaults
    };
    options.finish()?;
    Ok(Arc::new(parsed))
}

impl RewardSource for HttpOptions {
    fn load(&self, loader: &mut RewardLoader) -> Result<Box<dyn Reward>> {
        let reward = HttpReward::stopping(self.clone(), loader.stop.clone())?;
        Ok(Box::new(reward))
    }
}

/// What the server understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpApi {
    /// Scores documents against a query; `/rerank` where the URL has no path.
    Rerank,
    /// The same of Hugging Face's text-embeddings-inference; `/rerank`.
    Tei,
    /// Gives numbers to a text or a conversation; `/classify`.
    Classify,
    /// Gives what a pooler makes of a text or a conversation; `/pooling`.
    Pooling,
    /// Answers a question in words; `/v1/chat/completions`.
    Chat,
}

impl HttpApi {
    const ALL: [Self; 5] = [
        Self::Rerank,
        Self::Tei,
        Self::Classify,
        Self::Pooling,
        Self::Chat,
    ];

    fn name(&self) -> &'static str {
        match self {
            Self::Rerank => "rerank",
            Self::Tei => "tei",
            Self::Classify => "classify",
            Self::Pooling => "pooling",
            Self::Chat => "chat",
        }
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Rerank | Self::Tei => "/rerank",
            Self::Classify => "/classify",
            Self::Pooling => "/pooling",
            Self::Chat => "/v1/chat/completions",
        }
    }
}

/// How a server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// `http://` or `https://`, host, port, and path; see [`HttpApi`] for the default path. A
    /// server on another machine is asked through the proxy that `HTTPS_PROXY`, `HTTP_PROXY` or
    /// `ALL_PROXY` names, unless `NO_PROXY` does; messages about failures say so.
    pub url: String,
    /// What the server understands; [`HttpApi::Rerank`].
    pub api: HttpApi,
    /// The model, for a server that has several.
    pub model: Option<String>,
    /// Name of the environment variable that holds the bearer token, or `none`. Where none is named,
    /// a [chat](HttpApi::Chat) server on this machine, or by `https://`, gets that of
    /// `OPENAI_API_KEY`, if it is set.
    pub key_env: Option<String>,
    /// Requests at once; 1. The scores do not depend on it.
    pub parallel: usize,
    /// What [`HttpApi::Classify`] and [`HttpApi::Pooling`] are given: a text, or a conversation, which
    /// the server puts into the model's template ([`RewardText::Chat`], the default).
    pub text: RewardText,
    /// Which of several numbers is the reward, from 0; without it there may be one alone.
    pub class: Option<usize>,
    /// The question for a chat model, with `{response}` and, if wanted, `{prompt}`, both of
    /// which are put between lines of `=` signs; `None` asks for a whole number on the scale.
    pub question: Option<String>,
    /// The numbers that answer the question, from 0 to at most 10; `None` is 1 to 10 without a
    /// question of one's own, and any number with one.
    pub scale: Option<RangeInclusive<u32>>,
    /// How many of the likeliest tokens a chat server is asked for at each place (`top_logprobs`), to
    /// make an expectation of a number on a scale; 20, and 0 is none. A server that does not know them,
    /// or refuses them in its first answer, is asked for the number alone.
    pub logprobs: usize,
    /// Most time for one attempt at a request, from the connection to the last byte; 30 s.
    pub timeout: Duration,
    /// Further attempts after a failed connection, a timeout, or one of the HTTP statuses
    /// 429 and 5xx; 2. The pauses grow from 250 ms up, or are as long as the server says
    /// (`Retry-After`), at most 10 s.
    pub retries: usize,
    /// Most tokens of a chat model's reply, its reasoning included; 8. What is longer is no answer.
    pub max_tokens: usize,
    /// Longest answer that is read; 1 MiB.
    pub max_response_bytes: usize,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            url: String::new(),
            api: HttpApi::Rerank,
            model: None,
            key_env: None,
            parallel: 1,
            text: RewardText::Chat,
            class: None,
            question: None,
            scale: None,
            logprobs: 20,
            timeout: Duration::from_secs(30),
            retries: 2,
            max_tokens: 8,
            max_response_bytes: 1 << 20,
        }
    }
}
