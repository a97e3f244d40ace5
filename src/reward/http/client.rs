//! One POST of JSON: where to, with which key, how long, how often, how much back.

use std::io::Read;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderValue, Response, Uri};
use ureq::{Agent, Proxy};

use super::{HttpApi, HttpOptions, KIND};
use crate::error::{Error, Result};

/// Pause before the first retry; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause, also where the server asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Holds the key of a server with an OpenAI-like API where none is named.
const OPENAI_KEY: &str = "OPENAI_API_KEY";
/// Bytes of a body in an error message.
const EXCERPT: usize = 200;

/// Why there is no answer. The messages name the URL, and never the key.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The server refuses whatever it is asked: asking again is of no use.
    #[error("{0}")]
    Refused(String),
    /// The server refuses what this request says, such as a text that is too long.
    #[error("{0}")]
    Unfit(String),
    /// This request failed; another one may not.
    #[error("{0}")]
    Request(String),
    /// The server is not there, or too busy: the next request would fare no better.
    #[error("{0}")]
    Down(String),
}

/// A connection to one URL.
pub struct Client {
    agent: Agent,
    url: String,
    /// The URL for messages: a query can hold a secret.
    shown: String,
    /// The same with the proxy in between, where there is one: what fails may be its fault.
    way: String,
    key: Option<String>,
    bearer: Option<HeaderValue>,
    retries: usize,
    max_response_bytes: usize,
}

impl Client {
    /// Nothing is sent yet. `default_path` is for a URL without a path.
    pub fn new(options: &HttpOptions, default_path: &str) -> Result<Self> {
        let uri = parse(&options.url).map_err(|e| KIND.refuse(format!("the URL {e}")))?;
        if options.timeout.is_zero() {
            return Err(KIND.refuse("the timeout must be above 0"));
        }
        // A proxy from the environment cannot reach this machine's own servers.
        let local = is_local(&uri);
        let proxy = Proxy::try_from_env().filter(|proxy| !local && !proxy.is_no_proxy(&uri));
        let through = proxy.as_ref().map_or(String::new(), |proxy| {
            format!(" through the proxy {}:{}", proxy.host(), proxy.port())
        });
        let config = Agent::config_builder()
            .timeout_global(Some(options.timeout))
            .max_redirects(0)
            .max_idle_connections_per_host(options.parallel)
            .http_status_as_error(false)
            .proxy(proxy);
        let private = local || uri.scheme_str() == Some("https");
        let key = match options.key_env.as_deref() {
            Some("none") => None,
            Some(variable) => Some(read_key(variable)?),
            None if options.api == HttpApi::Chat && private => read_key(OPENAI_KEY).ok(),
            None => None,
        };
        let bearer = key.as_ref().map(|key| {
            let mut value = HeaderValue::try_from(format!("Bearer {key}"))
                .map_err(|_| KIND.refuse("the key has characters that no HTTP header can hold"))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        });
        let scheme = uri.scheme_str().unwrap_or_default();
        let authority = uri.authority().map_or("", |a| a.as_str());
        let (path, query) = match (uri.path(), uri.query()) {
            ("" | "/", None) => (default_path, None),
            given => given,
        };
        let shown = format!("{scheme}://{authority}{path}");
        Ok(Self {
            agent: config.build().new_agent(),
            url: query.map_or_else(|| shown.clone(), |query| format!("{shown}?{query}")),
            way: format!("{shown}{through}"),
            shown,
            key,
            bearer: bearer.transpose()?,
            retries: options.retries,
            max_response_bytes: options.max_response_bytes,
        })
    }

    /// The URL, without what could be secret.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Posts `body` until there is an answer or no retry is left.
    pub fn post(&self, body: &Value) -> std::result::Result<Vec<u8>, Failure> {
        let body = body.to_string();
        let mut pause = FIRST_PAUSE;
        for _ in 0..self.retries {
            match self.try_once(&body) {
                Ok(answer) => return Ok(answer),
                Err((failure, None)) => return Err(failure),
                Err((_, Some(retry))) => thread::sleep(retry.wish.unwrap_or(pause)),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.try_once(&body).map_err(|(failure, _)| failure)
    }

    fn try_once(&self, body: &str) -> std::result::Result<Vec<u8>, (Failure, Option<Retry>)> {
        let way = &self.way;
        let unreachable = |error: ureq::Error| {
            let retry = is_passing(&error).then_some(Retry { wish: None });
            (Failure::Down(format!("{way}: {error}")), retry)
        };
        let mut request = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header("Authorization", bearer);
        }
        let mut response = request.send(body).map_err(unreachable)?;
        let status = response.status();
        let wish = retry_after(&response);

        let limit = self.max_response_bytes;
        let mut answer = Vec::new();
        response
            .body_mut()
            .as_reader()
            .take((limit as u64).saturating_add(1))
            .read_to_end(&mut answer)
            .map_err(|error| unreachable(error.into()))?;
        if !status.is_success() {
            let message = format!("{way}: HTTP status {status}: {}", self.excerpt(&answer));
            return Err(match status.as_u16() {
                429 | 501.. => (Failure::Down(message), Some(Retry { wish })),
                // Often the fault of one text, such as one that is too long.
                500 => (Failure::Request(message), Some(Retry { wish })),
                400 | 408 | 413 | 422 => (Failure::Unfit(message), None),
                _ => (Failure::Refused(message), None),
            });
        }
        if answer.len() > limit {
            let message = format!("{way}: the answer has more than {limit} bytes");
            return Err((Failure::Request(message), None));
        }
        Ok(answer)
    }

    /// The beginning of what a server sent, for a message.
    pub fn excerpt(&self, text: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(text).replace(char::is_control, " ");
        if let Some(key) = &self.key {
            // Some servers repeat the key they do not accept.
            text = text.replace(key, "***");
        }
        let mut end = EXCERPT.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.trim().to_owned()
    }
}

/// A failure that may pass.
struct Retry {
    /// How long the server wants to be left alone.
    wish: Option<Duration>,
}

fn is_passing(error: &ureq::Error) -> bool {
    use ureq::Error::{ConnectionFailed, HostNotFound, Io, Protocol, Timeout};
    matches!(
        error,
        Io(_) | Timeout(_) | HostNotFound | ConnectionFailed | Protocol(_)
    )
}

/// The header in seconds; its other form, a date, counts as absent.
fn retry_after<T>(response: &Response<T>) -> Option<Duration> {
    let value = response.headers().get("Retry-After")?.to_str().ok()?;
    let wish = Duration::from_secs(value.trim().parse().ok()?);
    Some(wish.min(LONGEST_PAUSE))
}

/// `Err` completes the sentence "the URL …"; it does not repeat the URL, which may hold a key.
fn parse(url: &str) -> std::result::Result<Uri, String> {
    let uri: Uri = url
        .trim()
        .parse()
        .map_err(|e| format!("cannot be read: {e}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("must begin with http:// or https://".into());
    }
    let Some(authority) = uri.authority().filter(|a| !a.host().is_empty()) else {
        return Err("names no host".into());
    };
    if authority.as_str().contains('@') {
        return Err("may not hold a password; name the variable that holds the key".into());
    }
    if authority.as_str() != authority.host() && authority.port_u16().is_none() {
        return Err("has no usable port".into());
    }
    Ok(uri)
}

/// Whether a server is on this machine.
fn is_local(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let host = host.trim_end_matches('.');
    matches!(host, "localhost" | "[::1]" | "0.0.0.0") || host.starts_with("127.")
}

fn read_key(variable: &str) -> Result<String> {
    match std::env::var(variable) {
        Ok(key) if !key.trim().is_empty() => Ok(key.trim().to_owned()),
        _ => Err(KIND.refuse(format!(
            "the environment variable {variable:?} holds no key"
        ))),
    }
}
