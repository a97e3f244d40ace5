//! Rewards by their description: `[WEIGHT*]KIND:MAIN[;OPTION=VALUE]…`, as a command line or a
//! configuration writes them. [`RewardLoader`](super::RewardLoader) makes rewards of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::terms::{self, Term};
use super::{
    ClassifierOptions, CommandOptions, FeaturesOptions, HeadOptions, HttpApi, HttpOptions,
    JudgeOptions, RewardText, Rules, TooLong, Verdict,
};
use crate::error::{Error, Result};

/// What a reward is made of.
#[derive(Clone, Debug)]
pub enum RewardSource {
    /// A GGUF whose kind its header tells: a classifier, or a head inside the file.
    File(PathBuf),
    /// `classifier:FILE[;text=…][;too-long=…]`
    Classifier(PathBuf, ClassifierOptions),
    /// `head:FILE[;head=FILE][;text=…][;pooling=…][;too-long=…]`
    Head(PathBuf, HeadOptions),
    /// `judge:FILE|self[;question=…][;yes=…;no=…][;scale=A..B]`; `None` is the generator.
    Judge(Option<PathBuf>, JudgeOptions),
    /// `rule:EXPRESSION`
    Rule(String),
    /// `command:COMMAND[;timeout=S][;restarts=N]`
    Command(CommandOptions),
    /// `http:URL[;api=…][;model=…][;key-env=…][;question=…][;timeout=S][;retries=N]`
    Http(HttpOptions),
}

/// A reward with its weight in the mix.
#[derive(Clone, Debug)]
pub struct RewardSpec {
    /// Factor of the reward.
    pub weight: f64,
    /// What it is.
    pub source: RewardSource,
}

const KINDS: &str = "classifier, head, judge, rule, command and http";

/// Options of one description, taken out one by one.
struct Options {
    kind: &'static str,
    terms: Vec<Term>,
}

impl Options {
    /// The main part and the options behind it.
    fn parse(kind: &'static str, text: &str) -> Result<(String, Self)> {
        let refuse = |reason: String| Error::field("reward", format!("{kind}: {reason}"));
        let mut terms = terms::parse(&format!("main={text}")).map_err(refuse)?;
        let main = terms.remove(0).value.unwrap_or_default();
        if main.is_empty() {
            return Err(refuse("nothing behind the colon".into()));
        }
        match terms.iter().find(|t| t.negated || t.weight != 1.0) {
            Some(term) => Err(refuse(format!(
                "{}: an option has no weight and no !",
                term.key
            ))),
            None => Ok((main, Self { kind, terms })),
        }
    }

    fn text(&mut self, key: &str) -> Option<String> {
        let index = self.terms.iter().position(|t| t.key == key)?;
        Some(self.terms.remove(index).value.unwrap_or_default())
    }

    fn take<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> std::result::Result<T, String>,
    ) -> Result<Option<T>> {
        let kind = self.kind;
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        parse(&text)
            .map(Some)
            .map_err(|e| Error::field("reward", format!("{kind}: {key}={text}: {e}")))
    }

    fn number<T: std::str::FromStr>(&mut self, key: &str) -> Result<Option<T>> {
        self.take(key, |text| text.parse().map_err(|_| "not a number".into()))
    }

    fn seconds(&mut self, key: &str) -> Result<Option<Duration>> {
        self.take(key, |text| {
            let seconds: Option<f64> = text.parse().ok();
            seconds
                .filter(|s| (0.001..=86_400.0).contains(s))
                .map(Duration::from_secs_f64)
                .ok_or_else(|| "must be seconds between 0.001 and 86400".into())
        })
    }

    fn reward_text(&mut self) -> Result<Option<RewardText>> {
        self.take("text", |text| {
            RewardText::parse(text).map_err(Error::reason)
        })
    }

    fn too_long(&mut self) -> Result<TooLong> {
        let value = self.take("too-long", |text| match text {
            "refuse" => Ok(TooLong::Refuse),
            "truncate" => Ok(TooLong::Truncate),
            _ => Err("neither refuse nor truncate".into()),
        })?;
        Ok(value.unwrap_or_default())
    }

    fn finish(self, known: &str) -> Result<()> {
        match self.terms.first() {
            None => Ok(()),
            Some(term) => Err(Error::field(
                "reward",
                format!(
                    "{}: there is no option {:?}, or it is given twice; there are {known} \
                     (a value with ; in it goes in double quotes)",
                    self.kind, term.key
                ),
            )),
        }
    }
}

impl RewardSpec {
    /// The model and head files that it names.
    #[must_use]
    pub fn files(&self) -> Vec<&Path> {
        let (model, head) = match &self.source {
            RewardSource::File(path) | RewardSource::Classifier(path, _) => (Some(path), None),
            RewardSource::Head(path, options) => (Some(path), options.head.as_ref()),
            RewardSource::Judge(path, _) => (path.as_ref(), None),
            RewardSource::Rule(_) | RewardSource::Command(_) | RewardSource::Http(_) => {
                (None, None)
            }
        };
        model
            .into_iter()
            .chain(head)
            .map(PathBuf::as_path)
            .collect()
    }

    /// Reads `[WEIGHT*]KIND:MAIN[;OPTION=VALUE]…`.
    ///
    /// # Errors
    /// [`Error::Field`] with what is wrong and what there is.
    pub fn parse(text: &str) -> Result<Self> {
        let (weight, rest) = weight(text)?;
        let (kind, main) = rest.split_once(':').ok_or_else(|| {
            Error::field(
                "reward",
                format!(
                    "{text:?} is not KIND:…; kinds are {KINDS}; a GGUF alone is classifier:FILE \
                     or head:FILE"
                ),
            )
        })?;
        let source = match kind {
            "classifier" => classifier(main)?,
            "head" => head(main)?,
            "judge" => judge(main)?,
            "rule" => {
                // What is wrong with it is said now, not when the models are loaded.
                Rules::parse(main)?;
                RewardSource::Rule(main.to_owned())
            }
            "command" => command(main)?,
            "http" => http(main)?,
            _ => {
                return Err(Error::field(
                    "reward",
                    format!("there is no kind {kind:?}; kinds are {KINDS}"),
                ));
            }
        };
        Ok(Self { weight, source })
    }

    /// Reads `[WEIGHT*]FILE`, where the file tells what it is.
    ///
    /// # Errors
    /// [`Error::Field`] for a weight that is none.
    pub fn parse_file(text: &str) -> Result<Self> {
        let (weight, path) = weight(text)?;
        Ok(Self {
            weight,
            source: RewardSource::File(path.into()),
        })
    }
}

fn weight(text: &str) -> Result<(f64, &str)> {
    let (weight, rest) = terms::split_weight(text).map_err(|e| Error::field("reward", e))?;
    match weight {
        Some(0.0) => Err(Error::field("reward", format!("{text:?}: a weight of 0"))),
        weight => Ok((weight.unwrap_or(1.0), rest)),
    }
}

fn classifier(main: &str) -> Result<RewardSource> {
    let (path, mut options) = Options::parse("classifier", main)?;
    let parsed = ClassifierOptions {
        text: options.reward_text()?,
        too_long: options.too_long()?,
        ..ClassifierOptions::default()
    };
    options.finish("text and too-long")?;
    Ok(RewardSource::Classifier(path.into(), parsed))
}

fn head(main: &str) -> Result<RewardSource> {
    let (path, mut options) = Options::parse("head", main)?;
    let parsed = HeadOptions {
        head: options.text("head").map(PathBuf::from),
        features: FeaturesOptions {
            threads: 0,
            text: options.reward_text()?,
            pooling: options.take("pooling", str::parse)?,
            too_long: options.too_long()?,
        },
    };
    options.finish("head, text, pooling and too-long")?;
    Ok(RewardSource::Head(path.into(), parsed))
}

fn judge(main: &str) -> Result<RewardSource> {
    let (path, mut options) = Options::parse("judge", main)?;
    let scale = options.take("scale", |text| {
        let (low, high) = text.split_once("..").unwrap_or_default();
        match (low.parse(), high.parse()) {
            (Ok(low), Ok(high)) if low < high && high <= 10 => Ok(Verdict::Scale { low, high }),
            _ => Err("must be A..B with 0 <= A < B <= 10".into()),
        }
    })?;
    let words = (options.text("yes"), options.text("no"));
    let verdict = match (scale, words) {
        (Some(scale), (None, None)) => scale,
        (None, (None, None)) => Verdict::default(),
        (None, (Some(yes), Some(no))) => Verdict::YesNo { yes, no },
        _ => {
            return Err(Error::field(
                "reward",
                "judge: give yes=… and no=… together, or scale=A..B alone",
            ));
        }
    };
    let parsed = JudgeOptions {
        question: options.text("question").map(|q| q.replace("\\n", "\n")),
        verdict,
        threads: 0,
    };
    options.finish("question, yes, no and scale")?;
    let model = (path != "self").then(|| path.into());
    Ok(RewardSource::Judge(model, parsed))
}

fn command(main: &str) -> Result<RewardSource> {
    let (command, mut options) = Options::parse("command", main)?;
    let defaults = CommandOptions::default();
    let parsed = CommandOptions {
        command,
        timeout: options.seconds("timeout")?.unwrap_or(defaults.timeout),
        restarts: options.number("restarts")?.unwrap_or(defaults.restarts),
    };
    options.finish("timeout and restarts")?;
    Ok(RewardSource::Command(parsed))
}

fn http(main: &str) -> Result<RewardSource> {
    let (url, mut options) = Options::parse("http", main)?;
    let defaults = HttpOptions::default();
    let api = options.take("api", |text| match text {
        "rerank" => Ok(HttpApi::Rerank),
        "chat" => Ok(HttpApi::Chat),
        _ => Err("neither rerank nor chat".into()),
    })?;
    let parsed = HttpOptions {
        url,
        api: api.unwrap_or(defaults.api),
        model: options.text("model"),
        key_env: options.text("key-env"),
        question: options.text("question").map(|q| q.replace("\\n", "\n")),
        timeout: options.seconds("timeout")?.unwrap_or(defaults.timeout),
        retries: options.number("retries")?.unwrap_or(defaults.retries),
        ..defaults
    };
    options.finish("api, model, key-env, question, timeout and retries")?;
    Ok(RewardSource::Http(parsed))
}
