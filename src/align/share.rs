//! One run on several processes. Each of them carries out the same search, writes its share of every
//! iteration's candidates, scores its share of their texts, and hears the rest from the others.
//!
//! A [`Method`](crate::method::Method) depends on its seed and on what it observes alone, so it proposes
//! the same everywhere, and nothing of it travels. What does is a [`Part`] a round: the tokens of
//! candidates with what the model says of each, or scores; numbers by their bits.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::llama::{Model, Token};
use crate::reward::{Answer, SampleError, Score};
use crate::rollout::{Beginning, Candidate, End, Form, TokenNats};

/// What one process tells the others in a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Its candidates of an iteration.
    Candidates(Vec<SentCandidate>),
    /// What its reward says of its share of their texts, by the numbers of these; or why it has failed.
    Scores(std::result::Result<Vec<(usize, SentAnswer)>, String>),
}

/// A candidate as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SentCandidate {
    /// Its number in the iteration, from 0.
    pub number: usize,
    tokens: Vec<Token>,
    known: usize,
    /// Of each token the bits of surprise, entropy and log ratio.
    nats: Vec<[u32; 3]>,
    end: End,
}

/// What a reward says of a text, as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SentAnswer {
    /// A score, numbers by their bits.
    Score {
        /// [`Score::reward`].
        reward: u64,
        /// [`Score::tokens`].
        tokens: usize,
        /// [`Score::truncated`].
        truncated: bool,
        /// [`Score::parts`].
        parts: Vec<u64>,
    },
    /// [`SampleError::TooLong`].
    TooLong {
        /// Tokens of the text.
        tokens: usize,
        /// Most tokens the reward model takes.
        limit: usize,
    },
    /// [`SampleError::Other`].
    Other(String),
}

impl SentCandidate {
    pub(super) fn of(number: usize, candidate: &Candidate) -> Self {
        let bits =
            |nats: &TokenNats| [nats.surprise, nats.entropy, nats.log_ratio].map(f32::to_bits);
        Self {
            number,
            tokens: candidate.tokens.clone(),
            known: candidate.known,
            nats: candidate.nats.iter().map(bits).collect(),
            end: candidate.end,
        }
    }

    /// The candidate, a response of this form and of at most so many tokens that begins as it was to;
    /// why it is none.
    pub(super) fn read(
        self,
        model: &Model,
        form: &Form,
        max_tokens: usize,
        beginning: &Beginning,
    ) -> std::result::Result<Candidate, String> {
        let number = self.number;
        let count = self.tokens.len();
        let is_token =
            |&token: &Token| usize::try_from(token).is_ok_and(|token| token < model.vocabulary());
        if count == 0 || count > max_tokens || !self.tokens.iter().all(is_token) {
            return Err(format!("candidate {number} is no response"));
        }
        if self.nats.len() != count {
            return Err(format!("candidate {number} has other numbers than tokens"));
        }
        let mut begins = self.tokens.iter().zip(beginning.iter());
        if self.known != beginning.len()
            || self.known >= count
            || !begins.all(|(token, known)| *token == known.0)
        {
            return Err(format!("candidate {number} does not begin as it was to"));
        }
        let ends = self.tokens.iter().position(|&token| model.is_end(token));
        let right = match self.end {
            End::EndOfTurn => ends == Some(count - 1),
            End::Length => ends.is_none() && count == max_tokens,
            End::StopText | End::Stuck => ends.is_none(),
            End::GivenUp | End::Stopped => false,
        };
        let mut grammar = form.grammar.as_ref().map(|grammar| grammar.start());
        let mut said = self.tokens[..ends.unwrap_or(count)].iter();
        let follows = grammar
            .as_mut()
            .is_none_or(|grammar| said.all(|&token| grammar.accept(token).is_ok()));
        if !right || !follows {
            return Err(format!(
                "candidate {number} does not end as it says, or should"
            ));
        }
        let nats = |bits: [u32; 3]| {
            let numbers = bits.map(f32::from_bits);
            let [surprise, entropy, log_ratio] = numbers;
            let nats = TokenNats {
                surprise,
                entropy,
                log_ratio,
            };
            numbers
                .iter()
                .all(|number| number.is_finite())
                .then_some(nats)
        };
        let nats: Option<Vec<TokenNats>> = self.nats.into_iter().map(nats).collect();
        let nats = nats.ok_or_else(|| format!("candidate {number} has numbers that are none"))?;
        let reading = form.read(model, &self.tokens);
        Ok(Candidate {
            tokens: self.tokens,
            known: self.known,
            text: reading.text,
            reasoning: reading.reasoning,
            unfinished: reading.unfinished,
            nats,
            end: self.end,
            pre_logits: Vec::new(),
        })
    }
}

impl From<&Answer> for SentAnswer {
    fn from(answer: &Answer) -> Self {
        match answer {
            Ok(score) => Self::Score {
                reward: score.reward.to_bits(),
                tokens: score.tokens,
                truncated: score.truncated,
                parts: score.parts.iter().map(|part| part.to_bits()).collect(),
            },
            Err(SampleError::TooLong { tokens, limit }) => Self::TooLong {
                tokens: *tokens,
                limit: *limit,
            },
            Err(SampleError::Other(reason)) => Self::Other(reason.clone()),
        }
    }
}

impl From<SentAnswer> for Answer {
    fn from(sent: SentAnswer) -> Self {
        match sent {
            SentAnswer::Score {
                reward,
                tokens,
                truncated,
                parts,
            } => Ok(Score {
                reward: f64::from_bits(reward),
                tokens,
                truncated,
                parts: parts.into_iter().map(f64::from_bits).collect(),
            }),
            SentAnswer::TooLong { tokens, limit } => Err(SampleError::TooLong { tokens, limit }),
            SentAnswer::Other(reason) => Err(SampleError::Other(reason)),
        }
    }
}

/// What has come of a round.
#[derive(Debug)]
pub enum Heard {
    /// Nothing yet.
    Nothing,
    /// What every other process has told.
    Parts(Vec<Part>),
    /// One of the others is gone, for this reason; the run goes on without them.
    Alone(String),
}

/// The way to the other processes.
pub trait Link: Send {
    /// Tells them this process's part of the next round.
    fn give(&mut self, part: Part);

    /// What has come of the round; nobody waits here.
    ///
    /// # Errors
    /// The run cannot go on here.
    fn hear(&mut self) -> Result<Heard>;
}

/// Which share of a run is written here.
pub struct Share {
    rank: usize,
    of: usize,
    link: Box<dyn Link>,
    given: bool,
}

impl Share {
    /// That of process `rank`, from 0, of `of`.
    ///
    /// # Errors
    /// [`Error::Field`] where there is no such process.
    pub fn new(rank: usize, of: usize, link: Box<dyn Link>) -> Result<Self> {
        if rank >= of || of < 2 {
            let reason =
                format!("number {rank} of {of}; they are counted from 0, and two at least");
            return Err(Error::field("workers", reason));
        }
        Ok(Self {
            rank,
            of,
            link,
            given: false,
        })
    }

    /// Whether the run was begun here.
    pub(super) fn leads(&self) -> bool {
        self.rank == 0
    }

    /// Whether the candidate, or the text, of this number is written, or scored, here.
    pub(super) fn has(&self, number: usize) -> bool {
        number % self.of == self.rank
    }

    /// Tells this process's `own` part, and answers with what has come of the round.
    pub(super) fn round(&mut self, own: impl FnOnce() -> Part) -> Result<Heard> {
        if !self.given {
            self.link.give(own());
            self.given = true;
        }
        let heard = self.link.hear()?;
        self.given = matches!(heard, Heard::Nothing);
        Ok(heard)
    }

    /// What becomes of a round in which another process tells what cannot be.
    pub(super) fn refuse(&self, reason: String) -> Result<Heard> {
        match self.leads() {
            true => Ok(Heard::Alone(reason)),
            false => Err(Error::Run(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_travel_by_their_bits() {
        let answers: [Answer; 4] = [
            Ok(Score {
                reward: 0.1 + 0.2,
                tokens: 7,
                truncated: true,
                parts: vec![f64::INFINITY, -0.0],
            }),
            Ok(Score {
                reward: f64::NAN,
                ..Score::default()
            }),
            Err(SampleError::TooLong {
                tokens: 9,
                limit: 8,
            }),
            Err(SampleError::Other("no".into())),
        ];
        for answer in &answers {
            let text = serde_json::to_string(&SentAnswer::from(answer)).unwrap();
            let back = Answer::from(serde_json::from_str::<SentAnswer>(&text).unwrap());
            match (answer, &back) {
                (Ok(one), Ok(other)) => {
                    assert_eq!(one.reward.to_bits(), other.reward.to_bits());
                    assert_eq!((one.tokens, one.truncated), (other.tokens, other.truncated));
                    let bits = |score: &Score| -> Vec<u64> {
                        score.parts.iter().map(|part| part.to_bits()).collect()
                    };
                    assert_eq!(bits(one), bits(other));
                }
                _ => assert_eq!(answer, &back),
            }
        }
    }
}
