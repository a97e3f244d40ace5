//! Reasoning: how models mark what they think before they answer, and how they are told whether to.
//!
//! Source: the chat templates of the models, and llama.cpp's `common/chat.cpp`.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Whether a model is to think before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Think {
    /// No: the template is told so, and reasoning that it opens all the same is closed at once.
    Off,
    /// Yes: the template is told so, and reasoning that it does not open is opened.
    On,
    /// As the template has it when it is told nothing.
    Auto,
}

/// The texts around reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasoningMarkers {
    /// Before it.
    pub open: &'static str,
    /// Behind it; the answer follows.
    pub close: &'static str,
    /// What models write between [`open`](Self::open) and reasoning, and before `close`.
    pub(super) inside: &'static str,
    /// What they write between [`close`](Self::close) and the answer.
    pub(crate) behind: &'static str,
    /// What begins an answer without reasoning, where the model says of each which it is.
    pub(super) direct: Option<&'static str>,
}

/// Where reasoning stands in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its bytes.
    pub reasoning: Range<usize>,
    /// Where the answer begins; `None` where reasoning has no end.
    pub answer: Option<usize>,
}

const fn lines(open: &'static str, close: &'static str) -> ReasoningMarkers {
    ReasoningMarkers {
        open,
        close,
        inside: "\n",
        behind: "\n\n",
        direct: None,
    }
}

const fn bare(open: &'static str, close: &'static str) -> ReasoningMarkers {
    ReasoningMarkers {
        open,
        close,
        inside: "",
        behind: "",
        direct: None,
    }
}

const fn said(open: &'static str, close: &'static str, direct: &'static str) -> ReasoningMarkers {
    ReasoningMarkers {
        direct: Some(direct),
        ..bare(open, close)
    }
}

/// All that are known. A template has those whose `close` it mentions, or, where it only opens
/// reasoning, `open`; the first of several.
const KNOWN: [ReasoningMarkers; 11] = [
    // gpt-oss: channels, of which the last one is the answer.
    said(
        "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>",
        "<|channel|>final<|message|>",
    ),
    // Solar.
    said(
        "<|think|>",
        "<|end|><|begin|>assistant<|content|>",
        "<|content|>",
    ),
    // Kimi K3.
    bare(
        "<|open|>think<|sep|>",
        "<|close|>think<|sep|><|open|>response<|sep|>",
    ),
    // Gemma 4.
    bare("<|channel>thought\n", "<channel|>"),
    bare("<|START_THINKING|>", "<|END_THINKING|>"),
    bare("[THINK]", "[/THINK]"),
    lines("<seed:think>", "</seed:think>"),
    bare("<mm:think>", "</mm:think>"),
    lines("◁think▷", "◁/think▷"),
    lines("<thinking>", "</thinking>"),
    lines("<think>", "</think>"),
];

/// Variables by which templates are told to think, and what they are told; of those that a template
/// does not know it sees nothing.
pub(super) fn told(think: Think) -> Map<String, Value> {
    let (yes, mode) = match think {
        Think::Auto => return Map::new(),
        Think::On => (true, "enabled"),
        Think::Off => (false, "disabled"),
    };
    let mut told = Map::new();
    told.insert("enable_thinking".into(), yes.into());
    told.insert("thinking".into(), yes.into());
    told.insert("thinking_mode".into(), mode.into());
    if !yes {
        told.insert("thinking_budget".into(), 0.into());
    }
    told
}

/// What a caller's own variables tell of it.
pub(super) fn told_by(variables: &Map<String, Value>) -> Option<Think> {
    let told = ["enable_thinking", "thinking"]
        .iter()
        .find_map(|name| variables.get(*name)?.as_bool());
    told.map(|yes| if yes { Think::On } else { Think::Off })
}

impl ReasoningMarkers {
    /// All that are known.
    pub(crate) fn known() -> &'static [Self] {
        &KNOWN
    }

    /// Those of a template.
    #[must_use]
    pub fn of(source: &str) -> Option<Self> {
        let with = |part: fn(&Self) -> &'static str| {
            KNOWN
                .iter()
                .find(|markers| source.contains(part(markers)))
                .copied()
        };
        with(|markers| markers.close).or_else(|| with(|markers| markers.open))
    }

    /// Those that a prompt ends with.
    pub(super) fn opening(prompt: &str) -> Option<Self> {
        KNOWN
            .iter()
            .find(|markers| markers.opened_by(prompt))
            .copied()
    }

    /// Whether a prompt ends with open reasoning.
    pub(super) fn opened_by(&self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(self.open.trim_end())
    }

    /// What ends it.
    pub(crate) fn ending(&self) -> String {
        format!("{}{}{}", self.inside, self.close, self.behind)
    }

    /// What begins it.
    pub(crate) fn beginning(&self) -> String {
        format!("{}{}", self.open, self.inside)
    }

    /// Where reasoning stands in a response; `None` where it does not begin with any. The end alone
    /// is enough: the prompt may have the beginning.
    #[must_use]
    pub fn find(&self, response: &[u8]) -> Option<Found> {
        let blank = response
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        let opened = response[blank..].starts_with(self.open.trim_end().as_bytes());
        let begin = if opened {
            blank + self.open.trim_end().len()
        } else {
            0
        };
        let close = self.close.as_bytes();
        let mut windows = response[begin..].windows(close.len());
        let end = windows
            .position(|window| window == close)
            .map(|at| begin + at);
        match end {
            Some(end) => Some(Found {
                reasoning: begin..end,
                answer: Some(end + close.len()),
            }),
            None => opened.then_some(Found {
                reasoning: begin..response.len(),
                answer: None,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasoning_is_found_where_a_response_begins_with_it() {
        let markers = ReasoningMarkers::of("… </think> …").unwrap();
        let find = |text: &str| {
            let found = markers.find(text.as_bytes())?;
            let answer = found.answer.map(|at| text[at..].to_owned());
            Some((text[found.reasoning].to_owned(), answer))
        };
        let pair = |reasoning: &str, answer: Option<&str>| {
            Some((reasoning.to_owned(), answer.map(str::to_owned)))
        };
        assert_eq!(
            find("\n<think>\nso</think>\n\n8"),
            pair("\nso", Some("\n\n8"))
        );
        assert_eq!(find("so</think>8"), pair("so", Some("8")));
        assert_eq!(find("<think>so"), pair("so", None));
        assert_eq!(find("8, I <think>"), None);
        assert_eq!(find(""), None);
        let harmony = ReasoningMarkers::of("<|channel|>analysis<|message|>").unwrap();
        assert_eq!(harmony.close, "<|channel|>final<|message|>");
    }
}
