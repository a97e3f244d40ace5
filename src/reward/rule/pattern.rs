//! A pattern, and how much of it a text has.
//!
//! A part of a pattern is a factor of its concatenation: `a+`, `b`, `\d` in `a+b\d`. The share
//! of its parts, from the left, that still match somewhere is what all threads of Thompson's
//! simulation get to. It runs on the one automaton of the whole pattern, in time that is linear
//! in the text: an empty group behind every part marks the place.

use regex_automata::nfa::thompson::{Compiler, NFA, State};
use regex_automata::util::primitives::StateID;
use regex_syntax::ast::Span;
use regex_syntax::hir::{Capture, Hir, HirKind};

use crate::stop::Stop;

/// What the automaton of a pattern may take, in bytes.
const SIZE: usize = 10 << 20;

#[derive(Debug)]
pub(super) struct Pattern {
    automaton: NFA,
    /// The group that marks the end of the first part; the next is that of the second.
    first_mark: usize,
    parts: usize,
}

/// What is wrong with a pattern, and where, without the picture of it that the parser draws.
fn wrong(error: &regex_syntax::Error) -> String {
    use regex_syntax::Error::{Parse, Translate};
    match error {
        Parse(error) => place(error.kind(), error.span()),
        Translate(error) => place(error.kind(), error.span()),
        other => other.to_string(),
    }
}

fn place(kind: &dyn std::fmt::Display, span: &Span) -> String {
    format!("{kind}, at character {}", span.start.column)
}

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let hir = regex_syntax::parse(text).map_err(|e| wrong(&e))?;
        let first_mark = hir.properties().explicit_captures_len() + 1;
        let parts = match hir.kind() {
            HirKind::Concat(parts) => parts.clone(),
            _ => vec![hir],
        };
        let mark = |index: usize| {
            Hir::capture(Capture {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                name: None,
                sub: Box::new(Hir::empty()),
            })
        };
        let marks = (first_mark..).map(mark);
        let count = parts.len();
        let marked = parts.into_iter().zip(marks).flat_map(|(p, m)| [p, m]);
        let automaton = Compiler::new()
            .configure(NFA::config().nfa_size_limit(Some(SIZE)))
            .build_from_hir(&Hir::concat(marked.collect()))
            .map_err(|e| match e.size_limit() {
                Some(_) => format!("takes more than {SIZE} bytes when compiled; shorten it"),
                None => e.to_string(),
            })?;
        Ok(Self {
            automaton,
            first_mark,
            parts: count,
        })
    }

    /// The share of the pattern's parts, from the left, that match somewhere; 1 where all do.
    pub(super) fn score(&self, text: &str, stop: &Stop) -> f64 {
        let text = text.as_bytes();
        let mut seen = vec![usize::MAX; self.automaton.states().len()];
        let (mut now, mut next) = (Vec::new(), Vec::new());
        let mut matched = 0;
        for at in 0..=text.len() {
            // A match may begin anywhere.
            now.push(self.automaton.start_anchored());
            while let Some(state) = now.pop() {
                if std::mem::replace(&mut seen[state.as_usize()], at) != at {
                    matched = matched.max(self.step(state, text, at, &mut now, &mut next));
                }
            }
            if matched == self.parts || stop.is_overdue() {
                break;
            }
            std::mem::swap(&mut now, &mut next);
        }
        matched as f64 / self.parts as f64
    }

    /// Goes on from a state: to others at the same place, or behind the next byte. Gives the
    /// number of parts that have matched.
    fn step(
        &self,
        state: StateID,
        text: &[u8],
        at: usize,
        now: &mut Vec<StateID>,
        next: &mut Vec<StateID>,
    ) -> usize {
        match self.automaton.state(state) {
            State::ByteRange { trans } => {
                next.extend(trans.matches(text, at).then_some(trans.next));
            }
            State::Sparse(all) => next.extend(all.matches(text, at)),
            State::Dense(all) => next.extend(all.matches(text, at)),
            State::Look { look, next: behind } => {
                let matcher = self.automaton.look_matcher();
                now.extend(matcher.matches(*look, text, at).then_some(*behind));
            }
            State::Union { alternates } => now.extend(alternates),
            State::BinaryUnion { alt1, alt2 } => now.extend([*alt1, *alt2]),
            State::Capture {
                next, group_index, ..
            } => {
                now.push(*next);
                return (group_index.as_usize() + 1).saturating_sub(self.first_mark);
            }
            State::Fail | State::Match { .. } => {}
        }
        0
    }
}
