//! The kinds of rewards that a description can name.
//!
//! A kind is a file with its reward, a [`RewardSource`] that loads it, and a `KIND` that says
//! how it is described; here is its line in [`KINDS`].

use std::sync::Arc;

use super::{RewardKind, RewardSource};
use crate::error::{Error, Result};

/// All of them, in the order in which a help text shows them.
const KINDS: &[&RewardKind] = &[
    &super::classifier::KIND,
    &super::head::KIND,
    &super::judge::KIND,
    &super::rubric::KIND,
    &super::pairwise::KIND,
    &super::likelihood::KIND,
    &super::steps::KIND,
    &super::rule::KIND,
    &super::command::KIND,
    &super::http::KIND,
];

/// The kinds of rewards that [`RewardSpec::parse`](super::RewardSpec::parse) knows.
#[must_use]
pub fn kinds() -> &'static [&'static RewardKind] {
    KINDS
}

/// Every kind with every option, in lines: what `aisp-llama help rewards` prints.
#[must_use]
pub fn reward_help() -> String {
    let mut help = format!("-mr {}", super::file::KIND.help());
    for kind in KINDS {
        help += "\n--reward ";
        help += &kind.help();
    }
    help
}

/// Reads `KIND:…`.
pub(super) fn parse(text: &str) -> Result<Arc<dyn RewardSource>> {
    let refuse = |what: String| {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        let reason = format!("{what}; kinds are {}", names.join(", "));
        Err(Error::field("reward", reason))
    };
    let Some((name, rest)) = text.split_once(':') else {
        return refuse(format!(
            "{text:?} is not KIND:… (a reward GGUF is classifier:FILE or head:FILE)"
        ));
    };
    match KINDS.iter().find(|kind| kind.name == name) {
        Some(kind) => (kind.parse)(rest),
        None => refuse(format!("there is no kind {name:?}")),
    }
}
