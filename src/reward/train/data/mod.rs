//! Training data: rated responses or preferences between two, one JSON object a line.
//!
//! Examples of a group (a film, an author, a prompt) resemble one another, so a group is either
//! trained on or measured on. The same text can carry several labels; it always stays in one
//! group.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::llama::Message;
use crate::reward::{OwnedSample, Sample, TextOrMessages};
use crate::text;

/// A rated response.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The prompt; of a conversation, the last user message. May be empty.
    pub prompt: String,
    /// The conversation up to the response, where the prompt is not all of it.
    pub messages: Vec<Message>,
    /// The response.
    pub response: String,
    /// Its score, in any unit, higher is better; finite.
    pub score: f64,
    /// What it belongs to: examples of a group are never split.
    pub group: String,
}

/// Two responses to a prompt, one better than the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Preference {
    /// The prompt; of a conversation, the last user message. May be empty.
    pub prompt: String,
    /// The conversation up to the response, where the prompt is not all of it.
    pub messages: Vec<Message>,
    /// The better response.
    pub chosen: String,
    /// The other one.
    pub rejected: String,
    /// What it belongs to: preferences of a group are never split.
    pub group: String,
}

/// What a head is trained on.
#[derive(Clone, Debug, PartialEq)]
pub enum Dataset {
    /// Responses, each with a score.
    Ratings(Vec<Example>),
    /// Pairs of a better and a worse response.
    Preferences(Vec<Preference>),
}

/// What data sets say beside that is ignored.
#[derive(Deserialize)]
struct RatingLine {
    prompt: Option<TextOrMessages>,
    messages: Option<TextOrMessages>,
    response: Option<TextOrMessages>,
    score: f64,
    group: Option<String>,
}

#[derive(Deserialize)]
struct PreferenceLine {
    prompt: Option<TextOrMessages>,
    messages: Option<TextOrMessages>,
    chosen: TextOrMessages,
    rejected: TextOrMessages,
    group: Option<String>,
}

impl Dataset {
    /// Reads a JSONL file: ratings `{prompt?, response, score, group?}` or preferences
    /// `{prompt?, chosen, rejected, group?}`, not both; blank lines are skipped, and so are fields
    /// with other names. The prompt may be `messages`, and a response a conversation that ends
    /// with it ([`OwnedSample::new`]).
    ///
    /// A group that is missing is the prompt, or the (chosen) response where that is empty.
    /// A text that comes again belongs to the group where it came first; preferences that
    /// tie two groups together make them one.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Field`] that names the line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = text::read(path).map_err(Error::io(path))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// As [`Dataset::read`]; `name` stands for the file in errors.
    pub(super) fn parse(text: &str, name: &str) -> Result<Self> {
        let (mut ratings, mut preferences) = (Vec::new(), Vec::new());
        for (i, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            parse_line(line, &mut ratings, &mut preferences).map_err(|reason| {
                Error::field("data", format!("{name}, line {}: {reason}", i + 1))
            })?;
        }
        match (ratings.is_empty(), preferences.is_empty()) {
            (false, _) => {
                keep_texts_together(&mut ratings);
                Ok(Self::Ratings(ratings))
            }
            (true, false) => {
                merge_tied_groups(&mut preferences);
                Ok(Self::Preferences(preferences))
            }
            (true, true) => Err(Error::field(
                "data",
                format!("{name} is empty; it must have ratings or preferences, one a line"),
            )),
        }
    }

    /// Number of ratings or preferences.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Ratings(ratings) => ratings.len(),
            Self::Preferences(preferences) => preferences.len(),
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The texts whose features [`train`](super::train) takes, in its order:
    /// one for each rating; chosen, then rejected for each preference.
    #[must_use]
    pub fn texts(&self) -> Vec<Sample<'_>> {
        match self {
            Self::Ratings(ratings) => ratings
                .iter()
                .map(|e| Sample {
                    prompt: &e.prompt,
                    response: &e.response,
                    messages: &e.messages,
                })
                .collect(),
            Self::Preferences(preferences) => preferences
                .iter()
                .flat_map(|p| {
                    [&p.chosen, &p.rejected].map(|response| Sample {
                        prompt: &p.prompt,
                        response,
                        messages: &p.messages,
                    })
                })
                .collect(),
        }
    }

    /// The group of each rating or preference.
    pub(super) fn groups(&self) -> Vec<&str> {
        match self {
            Self::Ratings(ratings) => ratings.iter().map(|e| e.group.as_str()).collect(),
            Self::Preferences(preferences) => {
                preferences.iter().map(|p| p.group.as_str()).collect()
            }
        }
    }
}

fn parse_line(
    line: &str,
    ratings: &mut Vec<Example>,
    preferences: &mut Vec<Preference>,
) -> std::result::Result<(), String> {
    // Its "line 1" would be taken for a line of the file.
    let explain = |e: serde_json::Error| {
        let text = e.to_string();
        let reason = text.rsplit_once(" at line ").map_or(&*text, |(r, _)| r);
        format!("{reason} (column {})", e.column())
    };
    let fields: Map<String, Value> = serde_json::from_str(line).map_err(explain)?;
    let mixed = "ratings and preferences in one file; put them in two";
    if fields.contains_key("chosen") || fields.contains_key("rejected") {
        if !ratings.is_empty() {
            return Err(mixed.into());
        }
        let line: PreferenceLine = serde_json::from_str(line).map_err(explain)?;
        let prompt = line.messages.or(line.prompt);
        let chosen = OwnedSample::new(prompt.clone(), Some(line.chosen))?;
        let rejected = OwnedSample::new(prompt, Some(line.rejected))?;
        if (&chosen.prompt, &chosen.messages) != (&rejected.prompt, &rejected.messages) {
            return Err("chosen and rejected answer two different conversations".into());
        }
        preferences.push(Preference {
            group: group(line.group, &chosen.prompt, &chosen.response),
            prompt: chosen.prompt,
            messages: chosen.messages,
            chosen: chosen.response,
            rejected: rejected.response,
        });
    } else {
        if !preferences.is_empty() {
            return Err(mixed.into());
        }
        let line: RatingLine = serde_json::from_str(line).map_err(explain)?;
        let sample = OwnedSample::new(line.messages.or(line.prompt), line.response)?;
        ratings.push(Example {
            group: group(line.group, &sample.prompt, &sample.response),
            prompt: sample.prompt,
            messages: sample.messages,
            response: sample.response,
            score: line.score,
        });
    }
    Ok(())
}

fn group(given: Option<String>, prompt: &str, response: &str) -> String {
    let default = if prompt.is_empty() { response } else { prompt };
    given.unwrap_or_else(|| default.to_owned())
}

/// Puts every text into the group of its first appearance.
fn keep_texts_together(ratings: &mut [Example]) {
    let mut first: HashMap<(String, String), String> = HashMap::new();
    for example in ratings {
        let text = (example.prompt.clone(), example.response.clone());
        let group = first.entry(text).or_insert_with(|| example.group.clone());
        example.group.clone_from(group);
    }
}

/// Makes one group of those that have a text in common: a preference has two texts, and moving
/// it to the group of one would leave the other in two groups.
fn merge_tied_groups(preferences: &mut [Preference]) {
    // `into[g]` is an earlier group that g is part of, or g itself.
    let mut into: Vec<usize> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut first: HashMap<(String, String), usize> = HashMap::new();
    let root = |into: &[usize], mut g: usize| {
        while into[g] != g {
            g = into[g];
        }
        g
    };
    for p in preferences.iter() {
        let number = *numbers.entry(p.group.clone()).or_insert_with(|| {
            names.push(p.group.clone());
            into.push(into.len());
            names.len() - 1
        });
        for text in [&p.chosen, &p.rejected] {
            let other = *first
                .entry((p.prompt.clone(), text.clone()))
                .or_insert(number);
            let (a, b) = (root(&into, number), root(&into, other));
            into[a.max(b)] = a.min(b);
        }
    }
    for p in preferences {
        if let Some(&number) = numbers.get(&p.group) {
            p.group.clone_from(&names[root(&into, number)]);
        }
    }
}

#[cfg(test)]
mod tests;
