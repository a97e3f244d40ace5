//! How an answer is read off the logits: which tokens say it, and what they are worth.

use std::collections::BTreeSet;

use super::Verdict;
use crate::error::{Error, Result};
use crate::llama::{Model, Reading, Token};
use crate::reward::RewardKind;

/// The tokens that begin one answer.
#[derive(Default)]
struct Spellings {
    /// Where it stands at once.
    first: BTreeSet<Token>,
    /// Where the space before it is a token of its own.
    behind: BTreeSet<Token>,
}

/// What is read off the logits.
pub(super) struct Answers {
    /// Those of yes and no; or of the numbers from the lowest on.
    spellings: Vec<Spellings>,
    /// The lowest number, on a scale.
    low: Option<u32>,
    /// A space that is a token of its own before all of them, as in SentencePiece vocabularies.
    space: Option<Token>,
    /// "1" and "0", where 10 is on the scale and takes two tokens.
    ten: Option<[Token; 2]>,
}

/// Tokens of `word` where a text goes on with it.
fn tokens_in_text(model: &Model, word: &str) -> Vec<Token> {
    // Some vocabularies put a space before a text of its own.
    let before = model.tokenize("\n", false, false);
    let both = model.tokenize(&format!("\n{word}"), false, false);
    match both.strip_prefix(&before[..]) {
        Some(tokens) if !tokens.is_empty() => tokens.to_vec(),
        _ => model.tokenize(word, false, false),
    }
}

/// A word as models may write it.
fn spellings(word: &str) -> BTreeSet<String> {
    let mut chars = word.chars();
    let first: String = chars
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .collect();
    let capital = first + &chars.as_str().to_lowercase();
    let forms = [
        word.to_owned(),
        word.to_lowercase(),
        word.to_uppercase(),
        capital,
    ];
    forms.into_iter().collect()
}

/// Takes out of every set what is in another one too.
fn keep_own(mut sets: Vec<&mut BTreeSet<Token>>) {
    let (mut seen, mut shared) = (BTreeSet::new(), BTreeSet::new());
    for &token in sets.iter().flat_map(|set| set.iter()) {
        if !seen.insert(token) {
            shared.insert(token);
        }
    }
    for set in &mut sets {
        set.retain(|token| !shared.contains(token));
    }
}

impl Answers {
    /// Those of `verdict`, for a reward of this kind.
    pub(super) fn new(kind: &RewardKind, model: &Model, verdict: &Verdict) -> Result<Self> {
        let (words, low) = match verdict {
            Verdict::YesNo { yes, no } => {
                let words = [yes, no].map(|word| word.trim().to_owned());
                (words.to_vec(), None)
            }
            Verdict::Scale { low, high } => {
                if low >= high || *high > 10 {
                    return Err(kind.refuse(format!(
                        "scale={low}..{high}; the numbers go up, from 0 to at most 10"
                    )));
                }
                let numbers = (*low..=*high).map(|number| number.to_string());
                (numbers.collect(), Some(*low))
            }
        };
        let mut answers = Self {
            spellings: words.iter().map(|_| Spellings::default()).collect(),
            low,
            space: Self::space(model, &words),
            ten: None,
        };
        for (index, word) in words.iter().enumerate() {
            for spelled in spellings(word) {
                for form in [spelled.clone(), format!(" {spelled}")] {
                    answers.add(index, &tokens_in_text(model, &form));
                }
            }
        }
        answers.keep_apart(kind, &words)?;
        Ok(answers)
    }

    /// The token of the space before every one of the words, where it is none of their own.
    fn space(model: &Model, words: &[String]) -> Option<Token> {
        let mut firsts = words.iter().map(|word| {
            let spaced = tokens_in_text(model, &format!(" {word}"));
            let plain = tokens_in_text(model, word);
            match spaced.split_first() {
                Some((&space, rest)) if rest == &plain[..] => Some(space),
                _ => None,
            }
        });
        let first = firsts.next()??;
        firsts.all(|other| other == Some(first)).then_some(first)
    }

    /// Takes the tokens of one spelling of an answer.
    fn add(&mut self, index: usize, tokens: &[Token]) {
        let spaced = self.space.is_some() && tokens.first().copied() == self.space;
        let (spaced, tokens) = match spaced {
            true => (true, &tokens[1..]),
            false => (false, tokens),
        };
        let Some((&first, rest)) = tokens.split_first() else {
            return;
        };
        let number = self.low.map(|low| low as usize + index);
        if let (Some(10), &[zero]) = (number, rest) {
            self.ten = Some([first, zero]);
        }
        // A number of several tokens does not begin with itself.
        if number.is_some() && !rest.is_empty() {
            return;
        }
        let of = &mut self.spellings[index];
        let into = if spaced {
            &mut of.behind
        } else {
            &mut of.first
        };
        into.insert(first);
    }

    /// Takes out what begins several answers, and refuses one that nothing begins any more.
    fn keep_apart(&mut self, kind: &RewardKind, words: &[String]) -> Result<()> {
        keep_own(self.spellings.iter_mut().map(|of| &mut of.first).collect());
        keep_own(self.spellings.iter_mut().map(|of| &mut of.behind).collect());
        let nothing = |of: &Spellings| of.first.is_empty() && of.behind.is_empty();
        let is_ten = |index: usize| self.low.is_some_and(|low| low as usize + index == 10);
        let missing = self
            .spellings
            .iter()
            .enumerate()
            .find(|(index, of)| nothing(of) && !(is_ten(*index) && self.ten.is_some()));
        match (missing, self.low) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(kind.refuse(format!(
                "the answers {:?} and {:?} begin with the same token, or with none; choose words \
                 that differ from the first letter on",
                words[0], words[1]
            ))),
            (Some((index, _)), Some(_)) => Err(kind.refuse(format!(
                "this model has no token of its own for {}; use a yes/no judge",
                words[index]
            ))),
        }
    }

    /// Tokens behind the text, where their successors are asked for as well.
    pub(super) fn appended(&self) -> Vec<Token> {
        let one = self.ten.map(|[one, _]| one);
        self.space.into_iter().chain(one).collect()
    }

    /// Tokens whose logits are wanted, in order.
    pub(super) fn watched(&self) -> Vec<Token> {
        let of = |s: &Spellings| s.first.iter().chain(&s.behind).copied().collect::<Vec<_>>();
        let all = self.spellings.iter().flat_map(of);
        let ten = self.ten.into_iter().flatten();
        let all: BTreeSet<Token> = all.chain(ten).chain(self.space).collect();
        all.into_iter().collect()
    }

    /// The probability of every answer: of yes and no, or of the numbers.
    pub(super) fn probabilities(&self, positions: &[Reading]) -> Vec<f64> {
        let watched = self.watched();
        let p = |reading: Option<&Reading>, token: Token| -> f64 {
            let index = watched.binary_search(&token).ok();
            let logit = reading.and_then(|r| Some((r.logits.get(index?)?, r.log_sum_exp)));
            logit.map_or(0.0, |(&logit, sum)| (f64::from(logit) - sum).exp())
        };
        let first = positions.first();
        let spaced = self.space.map_or(0.0, |space| p(first, space));
        let behind = positions.get(1).filter(|_| self.space.is_some());
        let of = |spellings: &Spellings| {
            let at_once: f64 = spellings.first.iter().map(|&t| p(first, t)).sum();
            let later: f64 = spellings.behind.iter().map(|&t| p(behind, t)).sum();
            at_once + spaced * later
        };
        let mut all: Vec<f64> = self.spellings.iter().map(of).collect();
        if let (Some([one, zero]), Some(low)) = (self.ten, self.low) {
            // A "1" that a "0" follows is no 1.
            let ten = (p(first, one) + spaced * p(behind, one)) * p(positions.last(), zero);
            if let Some(p_one) = 1_usize
                .checked_sub(low as usize)
                .and_then(|i| all.get_mut(i))
            {
                *p_one -= ten;
            }
            if let Some(last) = all.last_mut() {
                *last += ten;
            }
        }
        all
    }

    pub(super) fn reward(&self, positions: &[Reading]) -> f64 {
        let p = self.probabilities(positions);
        match self.low {
            None => p[0].ln() - p[1].ln(),
            Some(low) => {
                let total: f64 = p.iter().sum();
                let numbers = (low..).map(f64::from);
                p.iter().zip(numbers).map(|(p, k)| p * k).sum::<f64>() / total
            }
        }
    }
}

/// Refuses answers that a model does not give: with less than this probability altogether they are no
/// more than noise in its tail.
pub(super) const LEAST: f64 = 0.05;

/// What to say of them.
pub(super) fn unlikely(kind: &RewardKind, model: &Model, verdict: &Verdict, found: f64) -> Error {
    let asked = match verdict {
        Verdict::YesNo { yes, no } => format!("{yes:?} and {no:?}"),
        Verdict::Scale { low, high } => format!("the numbers {low} to {high}"),
    };
    kind.refuse(format!(
        "{} answers with {asked} with a probability of {:.2} % only; ask another question, or for \
         other words, or use another model",
        model.path().display(),
        100.0 * found
    ))
}
