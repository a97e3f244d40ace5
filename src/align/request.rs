//! What is asked for: a prompt, a method, limits.

use super::record::Usage;
use crate::error::{Error, Result};
use crate::llama::Message;
use crate::method::{MethodSpec, Rounds};
use crate::rollout::Form;

/// What the model is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Text that the model continues; special tokens written in it are special tokens.
    Raw(String),
    /// A conversation, rendered with the chat template.
    Chat(Vec<Message>),
}

impl Prompt {
    /// A conversation of one message, behind a system prompt where there is one.
    #[must_use]
    pub fn user(system: Option<&str>, text: impl Into<String>) -> Self {
        let mut messages: Vec<Message> = system
            .map(|text| Message::new("system", text))
            .into_iter()
            .collect();
        messages.push(Message::new("user", text));
        Self::Chat(messages)
    }

    /// The text that most rewards see as the prompt, and that reports show: the raw text, or
    /// the last user message.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Raw(text) => text,
            Self::Chat(messages) => messages
                .iter()
                .rev()
                .find(|m| m.role == "user")
                .map_or("", |m| &m.content),
        }
    }

    /// The conversation, for rewards that read one; none where [`text`](Self::text) is all of it.
    #[must_use]
    pub fn conversation(&self) -> &[Message] {
        match self {
            Self::Chat(messages) if messages.len() > 1 => messages,
            _ => &[],
        }
    }
}

/// Limits of one run, counted the same way for every method. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// Generated candidates.
    pub candidates: Option<usize>,
    /// Tokens generated; stops in the middle of an iteration. Candidates count in their order, as if
    /// they were written one after the other: the first that would exceed the limit, and all behind
    /// it, are not scored and not counted, so that the result depends on nobody's batch.
    pub generated_tokens: Option<usize>,
    /// Candidates scored.
    pub reward_calls: Option<usize>,
    /// Tokens read by the reward model.
    pub reward_tokens: Option<usize>,
    /// Wall-clock seconds; stops in the middle of an iteration.
    pub seconds: Option<f64>,
}

impl Budget {
    pub(super) fn is_spent(&self, usage: &Usage) -> bool {
        let over = |limit: Option<usize>, used: usize| limit.is_some_and(|limit| used >= limit);
        over(self.candidates, usage.candidates)
            || over(self.generated_tokens, usage.generated_tokens)
            || over(self.reward_calls, usage.reward_calls)
            || over(self.reward_tokens, usage.reward_tokens)
    }

    /// How many candidates of an iteration the limit of tokens pays for, beside what was `used`
    /// before it; `None` where it may be all. Of every candidate in its order: whether it is
    /// finished, and its tokens so far.
    pub(super) fn paid(
        &self,
        used: &Usage,
        candidates: impl Iterator<Item = (bool, usize)>,
    ) -> Option<usize> {
        let mut left = self.generated_tokens?.saturating_sub(used.generated_tokens);
        for (index, (finished, tokens)) in candidates.enumerate() {
            match finished {
                true if tokens <= left => left -= tokens,
                false if tokens < left => return None,
                _ => return Some(index),
            }
        }
        None
    }
}

/// What one run does.
#[derive(Clone, Debug, Default)]
pub struct AlignOptions {
    /// The method with its settings (default: the first of [`METHODS`](crate::method::METHODS)).
    pub method: MethodSpec,
    /// Samples, iterations, seed and length.
    pub rounds: Rounds,
    /// Limits besides samples and iterations.
    pub budget: Budget,
    /// Divides each part of a reward that is a sum by its standard deviation over the texts of the
    /// first iteration; the reward is then in no unit at all, and comparable within the run alone.
    pub reward_scale: bool,
    /// Ends the run once a response has at least this reward.
    pub target_reward: Option<f64>,
    /// Ends the run once, since some earlier iteration, the mean reward has risen and the
    /// mean held-out reward has fallen, both by more than two standard errors.
    pub stop_on_divergence: bool,
    /// Where responses end beside the model's own end. How reasoning is marked is taken from the chat
    /// template where it says so.
    pub form: Form,
    /// Ends the run once so many iterations in a row have made the answer no better by a tenth of
    /// the standard deviation of the first iteration's rewards.
    pub patience: Option<usize>,
}

impl AlignOptions {
    /// Checks everything that can be checked without a model.
    ///
    /// # Errors
    /// [`Error::Field`] naming the field and its value.
    pub fn validate(&self) -> Result<()> {
        self.method.validate(&self.rounds)?;
        self.check_limits()
    }

    /// The same without the method.
    pub(super) fn check_limits(&self) -> Result<()> {
        self.rounds.validate()?;
        if let Some(limit) = self.budget.seconds.filter(|l| !l.is_finite() || *l <= 0.0) {
            let reason = format!("{limit}; must be a number of seconds above 0");
            return Err(Error::field("time-limit", reason));
        }
        if self.patience == Some(0) {
            return Err(Error::field("patience", "0; give at least 1"));
        }
        if self.target_reward.is_some_and(f64::is_nan) {
            return Err(Error::field("target-reward", "NaN; must be a number"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_pay_for_candidates_in_their_order() {
        let budget = Budget {
            generated_tokens: Some(100),
            ..Budget::default()
        };
        let used = Usage {
            generated_tokens: 80,
            ..Usage::default()
        };
        let paid = |candidates: &[(bool, usize)]| budget.paid(&used, candidates.iter().copied());
        // 20 are left.
        assert_eq!(paid(&[(true, 8), (true, 12)]), None);
        assert_eq!(paid(&[(true, 8), (true, 13)]), Some(1));
        assert_eq!(paid(&[(true, 8), (true, 12), (true, 1)]), Some(2));
        // Whatever is finished behind one that is not, it may still end in time …
        assert_eq!(paid(&[(true, 8), (false, 11), (true, 9)]), None);
        // … and cannot where it needs another token.
        assert_eq!(paid(&[(true, 8), (false, 12), (true, 3)]), Some(1));
        assert_eq!(paid(&[(true, 20), (false, 0)]), Some(1));
        assert_eq!(paid(&[(false, 20), (true, 3)]), Some(0));
        assert_eq!(
            Budget::default().paid(&used, std::iter::once((true, 999))),
            None
        );
    }
}
