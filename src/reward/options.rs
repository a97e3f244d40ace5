//! The options of one description, `MAIN[;OPTION=VALUE]…`, taken out one by one.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::terms::{self, Term};
use super::{RewardKind, RewardOption, RewardText, TooLong};
use crate::error::{Error, Result};
use crate::llama::{Placement, placement};

/// Layers on the GPU.
pub(super) const NGL: RewardOption = RewardOption::new(
    "ngl",
    "N",
    "layers on the GPU: a number, all or auto [default: as for the generator]",
);
/// Devices.
pub(super) const DEV: RewardOption = RewardOption::new(
    "dev",
    "NAME,…",
    "devices for the layers, or none [default: as for the generator]",
);
/// What a reward model sees.
pub(super) const TEXT: RewardOption = RewardOption::new(
    "text",
    "TEXT",
    "what it sees: {response}, {prompt}\\n{response}, or chat for its chat template [default: what \
     fits the model; a run says it in its first line]",
);
/// What happens to texts that are too long for it.
pub(super) const TOO_LONG: RewardOption = RewardOption::new(
    "too-long",
    "refuse|truncate",
    "whether a text that is too long has no reward or is cut at its end [default: refuse]",
);

/// What is left of them.
pub(super) struct Options {
    kind: &'static RewardKind,
    terms: Vec<Term>,
}

impl Options {
    /// The main part of what stands behind `kind` and its colon, and the options behind it.
    pub fn parse(kind: &'static RewardKind, text: &str) -> Result<(String, Self)> {
        let parsed = terms::parse(&format!("main={text}"));
        let mut terms = parsed.map_err(|reason| kind.refuse(reason))?;
        let main = terms.remove(0).value.unwrap_or_default();
        if main.is_empty() {
            return Err(kind.refuse("nothing behind the colon"));
        }
        let known = |term: &Term| kind.options.iter().any(|option| option.name == term.key);
        if let Some(term) = terms.iter().find(|term| !known(term)) {
            return Err(no_option(kind, term));
        }
        match terms.iter().find(|t| t.negated || t.weight != 1.0) {
            Some(term) => {
                Err(kind.refuse(format!("{}: an option has no weight and no !", term.key)))
            }
            None => Ok((main, Self { kind, terms })),
        }
    }

    /// The value of an option, where it is given.
    pub fn text(&mut self, key: &str) -> Option<String> {
        let index = self.terms.iter().position(|t| t.key == key)?;
        Some(self.terms.remove(index).value.unwrap_or_default())
    }

    /// The same, read by `parse`.
    pub fn take<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> std::result::Result<T, String>,
    ) -> Result<Option<T>> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        let refuse = |e| self.kind.refuse(format!("{key}={text}: {e}"));
        parse(&text).map(Some).map_err(refuse)
    }

    /// A number.
    pub fn number<T: FromStr>(&mut self, key: &str) -> Result<Option<T>> {
        self.take(key, |text| text.parse().map_err(|_| "not a number".into()))
    }

    /// A time, in seconds.
    pub fn seconds(&mut self, key: &str) -> Result<Option<Duration>> {
        self.take(key, |text| {
            let seconds: Option<f64> = text.parse().ok();
            seconds
                .filter(|s| (0.001..=86_400.0).contains(s))
                .map(Duration::from_secs_f64)
                .ok_or_else(|| "must be seconds between 0.001 and 86400".into())
        })
    }

    /// A scale of whole numbers, `A..B` with 0 ≤ A < B ≤ 10.
    pub fn scale(&mut self) -> Result<Option<RangeInclusive<u32>>> {
        self.take("scale", |text| {
            let (low, high) = text.split_once("..").unwrap_or_default();
            match (low.parse(), high.parse()) {
                (Ok(low), Ok(high)) if low < high && high <= 10 => Ok(low..=high),
                _ => Err("must be A..B with 0 <= A < B <= 10".into()),
            }
        })
    }

    /// A text in which `\n` is a line break.
    pub fn line_breaks(&mut self, key: &str) -> Option<String> {
        self.text(key).map(|text| text.replace("\\n", "\n"))
    }

    /// What a reward model sees.
    pub fn reward_text(&mut self) -> Result<Option<RewardText>> {
        self.take("text", |text| {
            RewardText::parse(text).map_err(Error::reason)
        })
    }

    /// What happens to texts that are too long for it.
    pub fn too_long(&mut self) -> Result<TooLong> {
        let value = self.take("too-long", |text| match text {
            "refuse" => Ok(TooLong::Refuse),
            "truncate" => Ok(TooLong::Truncate),
            _ => Err("neither refuse nor truncate".into()),
        })?;
        Ok(value.unwrap_or_default())
    }

    /// Where the model goes.
    pub fn placement(&mut self) -> Result<Placement> {
        Ok(Placement {
            gpu_layers: self.take("ngl", |text| {
                placement::gpu_layers(text).map_err(Error::reason)
            })?,
            devices: self.take("dev", |text| {
                placement::devices(text).map_err(Error::reason)
            })?,
        })
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<()> {
        match self.terms.first() {
            None => Ok(()),
            Some(term) => Err(no_option(self.kind, term)),
        }
    }
}

fn no_option(kind: &RewardKind, term: &Term) -> Error {
    kind.refuse(format!(
        "there is no option {:?}, or it is given twice; write {} (a value with ; in it goes in double \
         quotes)",
        term.key,
        kind.usage()
    ))
}
