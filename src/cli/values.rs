//! From the words of a command line to values.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};

use aisp_llama::Error;
use aisp_llama::method::{METHODS, MethodSpec};
use aisp_llama::reward::RewardSpec;
use clap::builder::{PossibleValue, PossibleValuesParser, StringValueParser, TypedValueParser};
use clap::{Arg, Command};

use super::names::Names;

/// One of a few words, which help and completions list.
pub fn one_of<T, const N: usize>(words: [(&'static str, T); N]) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
{
    let names = words.each_ref().map(|(name, _)| *name);
    PossibleValuesParser::new(names).try_map(move |text| {
        let found = words.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| value.clone()).ok_or("no such word")
    })
}

/// `on`, `off` or `auto`, and llama.cpp's other words for them.
pub fn switch<T>(on: T, off: T, auto: T) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
{
    let words = [
        PossibleValue::new("on").aliases(["enabled", "true", "1"]),
        PossibleValue::new("off").aliases(["disabled", "false", "0"]),
        PossibleValue::new("auto").alias("-1"),
    ];
    PossibleValuesParser::new(words.clone()).map(move |text| {
        let is = |word: &PossibleValue| word.matches(&text, false);
        match words.each_ref().map(is) {
            [true, ..] => on.clone(),
            [_, true, _] => off.clone(),
            _ => auto.clone(),
        }
    })
}

/// Any text; completions list the words of a name such as `X|auto`, in which capitals stand for
/// other values.
pub fn words_of(name: &'static str) -> Suggested {
    let words = name.split('|');
    Suggested(
        words
            .filter(|word| word.starts_with(|c: char| c.is_lowercase()))
            .collect(),
    )
}

/// See [`words_of`].
#[derive(Clone)]
pub struct Suggested(Vec<&'static str>);

impl TypedValueParser for Suggested {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let words = self.0.iter().map(|&word| PossibleValue::new(word));
        (!self.0.is_empty()).then(|| Box::new(words) as Box<_>)
    }
}

/// A switch's environment variable, which llama.cpp takes for set only with these words.
pub fn truthy(text: &str) -> Result<bool, Infallible> {
    Ok(matches!(text, "on" | "enabled" | "true" | "1"))
}

/// The help of `--method`, from the table of methods.
pub fn method_help() -> String {
    let methods = METHODS.iter();
    let methods: Vec<String> = methods
        .map(|e| format!("{}, {}", e.name, e.about))
        .collect();
    format!("How candidates are made: {}", methods.join("; "))
}

/// A method by its name.
pub fn method() -> impl TypedValueParser<Value = MethodSpec> {
    let names = METHODS.iter().map(|entry| entry.name);
    PossibleValuesParser::new(names).try_map(|name| MethodSpec::named(&name))
}

/// `--methods`: a method with its settings, of which a wrong one is named.
pub fn method_with_settings(text: &str) -> aisp_llama::Result<MethodSpec> {
    text.parse().map_err(|error| match error {
        Error::Field { field, reason } if field != "method" => {
            Error::field("methods", format!("{field}: {reason}"))
        }
        other => other,
    })
}

/// A parser of the library's; of its errors the reason alone, as clap names the flag itself.
pub fn reason<F>(parse: F) -> Reason<F> {
    Reason(parse)
}

/// See [`reason`].
#[derive(Clone)]
pub struct Reason<F>(F);

impl<F, T> TypedValueParser for Reason<F>
where
    F: Fn(&str) -> aisp_llama::Result<T> + Clone + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let text = StringValueParser::new().parse_ref(command, argument, value)?;
        (self.0)(&text).or_else(|error| {
            let reason = Names::of(command).reason(&error);
            let refuse = move |_: &str| Err(reason.clone());
            refuse.parse_ref(command, argument, value)
        })
    }
}

/// `--held-out`: a reward of any kind, or a reward GGUF by its path alone.
pub fn held_out(text: &str) -> aisp_llama::Result<RewardSpec> {
    let file = text.split(';').next().unwrap_or_default();
    if file.ends_with(".gguf") && !file.contains(':') {
        return RewardSpec::parse_file(text);
    }
    RewardSpec::parse(text)
}

/// A date, with a time of day where one is given.
pub fn date(text: &str) -> Result<jiff::civil::DateTime, String> {
    text.parse().map_err(|e: jiff::Error| e.to_string())
}

/// `NAME=VALUE`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("want NAME=VALUE".into()),
    }
}

/// An address of the network, or localhost.
pub fn address(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
        other => other
            .parse()
            .map_err(|_| "want an address such as 127.0.0.1".into()),
    }
}
