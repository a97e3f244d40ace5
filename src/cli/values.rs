//! From the words of a command line to values.

use std::ffi::OsStr;
use std::str::FromStr;

use aisp_llama::reward::RewardSpec;
use clap::builder::{PossibleValuesParser, StringValueParser, TypedValueParser};
use clap::{Arg, Command};

use super::names::Names;

/// `auto` or a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AutoOr {
    Auto,
    Number(f64),
}

impl FromStr for AutoOr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse()
            .map(Self::Number)
            .map_err(|_| "neither a number nor auto".into())
    }
}

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
    if text.ends_with(".gguf") && !text.contains(':') {
        return RewardSpec::parse_file(text);
    }
    RewardSpec::parse(text)
}
