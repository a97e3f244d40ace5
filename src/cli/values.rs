//! From the words of a command line to values.

use std::ffi::OsString;

use aisp_llama::llama::LogitsRoute;
use aisp_llama::reward::{RewardSpec, TooLong};

/// Multi-letter flags with a single dash, as llama.cpp writes them.
const SINGLE_DASH: [(&str, &str); 5] = [
    ("-ngl", "--n-gpu-layers"),
    ("-mr", "--model-reward"),
    ("-sys", "--system-prompt"),
    ("-np", "--parallel"),
    ("-no-cnv", "--no-chat"),
];

/// Turns llama.cpp's multi-letter single-dash flags into long ones.
pub fn normalise(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut literal = false;
    arguments
        .into_iter()
        .map(|argument| {
            literal |= argument == "--";
            let Some(text) = argument.to_str().filter(|_| !literal) else {
                return argument;
            };
            let (flag, value) = match text.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (text, None),
            };
            match (SINGLE_DASH.iter().find(|(short, _)| *short == flag), value) {
                (Some((_, long)), Some(value)) => format!("{long}={value}").into(),
                (Some((_, long)), None) => (*long).into(),
                (None, _) => argument,
            }
        })
        .collect()
}

/// `auto` or a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AutoOr {
    Auto,
    Number(f64),
}

impl std::str::FromStr for AutoOr {
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

/// `--logits`.
pub fn logits_route(text: &str) -> Result<LogitsRoute, String> {
    match text {
        "graph" => Ok(LogitsRoute::Graph),
        "recompute" => Ok(LogitsRoute::Recompute),
        _ => Err("neither graph nor recompute".into()),
    }
}

/// `--held-out`: a reward of any kind, or a reward GGUF by its path alone.
pub fn held_out(text: &str) -> Result<RewardSpec, aisp_llama::Error> {
    if text.ends_with(".gguf") && !text.contains(':') {
        return RewardSpec::parse_file(text);
    }
    RewardSpec::parse(text)
}

/// `--reward-too-long`.
pub fn too_long(text: &str) -> Result<TooLong, String> {
    match text {
        "refuse" => Ok(TooLong::Refuse),
        "truncate" => Ok(TooLong::Truncate),
        _ => Err("neither refuse nor truncate".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_after_a_double_dash_is_left_alone() {
        let words = ["x", "-mr", "--", "-mr"].map(OsString::from);
        let out = normalise(words);
        assert_eq!(out[1], "--model-reward");
        assert_eq!(out[3], "-mr");
    }
}
