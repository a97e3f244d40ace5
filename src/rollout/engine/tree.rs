//! What the model itself says behind the texts that were written behind a prompt, by their tokens.
//!
//! Under a floor that is a few logits for each text. A candidate that says what another one has said
//! so far needs them and no decoding: its perturbation moves them
//! ([`Shifts`](super::shifts::Shifts)), and where the token that it chooses stands in the tree as
//! well, so is the next one's. It is decoded from the first token on that nobody has said there.

use std::collections::HashMap;
use std::mem::size_of;

use super::choose::Said;
use super::{AskFor, Live, Rollout};
use crate::llama::Token;
use crate::math::Softmax;
use crate::rollout::{Form, Job, Written};

/// Most bytes of a tree, about; what comes to be known when it is full is not kept.
const MOST: usize = 16 << 20;

/// Bytes of a text: lists and maps have room for twice as many as are in them.
const TEXT: usize = 2 * (size_of::<Option<Known>>() + size_of::<((Place, Token), Place)>());

/// A text in a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place(u32);

/// What is known of one text.
struct Known {
    softmax: Softmax,
    floor: f32,
    /// Tokens that are not below the floor, with their logits by the model itself.
    logits: Box<[(Token, f32)]>,
}

/// The texts behind one prompt.
pub(super) struct Tree {
    /// By place; the first is the empty text.
    known: Vec<Option<Known>>,
    longer: HashMap<(Place, Token), Place>,
    bytes: usize,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            known: vec![None],
            longer: HashMap::new(),
            bytes: 0,
        }
    }

    /// The place of the text of these tokens; `None` where the tree is full.
    pub(super) fn place(&mut self, tokens: &[Token]) -> Option<Place> {
        let root = Some(Place(0));
        tokens
            .iter()
            .fold(root, |place, &token| self.behind(place?, token))
    }

    /// The place of the text that goes on with `token`; `None` where the tree is full.
    pub(super) fn behind(&mut self, place: Place, token: Token) -> Option<Place> {
        if let Some(&next) = self.longer.get(&(place, token)) {
            return Some(next);
        }
        let next = Place(u32::try_from(self.known.len()).ok()?);
        if self.bytes + TEXT > MOST {
            return None;
        }
        self.bytes += TEXT;
        self.known.push(None);
        self.longer.insert((place, token), next);
        Some(next)
    }

    /// Puts down what the model itself says at a place: the `own` logits `[vocabulary]`, and of all of
    /// them the `softmax`.
    pub(super) fn put(&mut self, place: Place, floor: f32, own: &[f32], softmax: Softmax) {
        let known = &mut self.known[place.0 as usize];
        if known.as_ref().is_some_and(|known| known.floor <= floor) {
            return;
        }
        let least = super::shifts::least(floor, own);
        // All of a block, so that the compiler may use vectors.
        const BLOCK: usize = 256;
        let any = |block: &[f32]| block.iter().fold(false, |any, l| any | (*l >= least));
        let blocks = own.chunks(BLOCK).zip((0..).step_by(BLOCK));
        let blocks = blocks.filter(|(block, _)| any(block));
        let logits = blocks.flat_map(|(block, first)| (first..).zip(block.iter().copied()));
        let logits: Box<[(Token, f32)]> = logits.filter(|(_, logit)| *logit >= least).collect();
        let bytes = size_of_val(&*logits);
        if self.bytes + bytes <= MOST {
            self.bytes += bytes;
            *known = Some(Known {
                softmax,
                floor,
                logits,
            });
        }
    }

    /// Puts the logits at a place into `own` `[vocabulary]`, and −∞ for those below the floor; answers
    /// with the sum of all. `None` where nothing is known of them under this floor.
    fn read(&self, place: Place, floor: f32, own: &mut [f32]) -> Option<Softmax> {
        let known = self.known[place.0 as usize].as_ref();
        let known = known.filter(|known| known.floor <= floor)?;
        own.fill(f32::NEG_INFINITY);
        for (token, logit) in &known.logits {
            own[*token as usize] = *logit;
        }
        Some(known.softmax)
    }
}

/// Whether tokens of a job may be chosen from what was said to others: under a floor, where it is
/// decoded in groups, and nobody wants more of a row than its logits.
pub(super) fn recalls(job: &Job, form: &Form) -> bool {
    let steer = job.steer.as_ref();
    let floored = steer.is_some_and(|steer| steer.floor() > 0.0 && steer.edit().is_none());
    let alike = job.recalls && !job.alone && !job.keep_pre_logits;
    floored && alike && form.grammar.is_none()
}

impl Live {
    /// Its place once its next token is written.
    pub(super) fn go_on(&mut self, place: Place, tree: &mut Tree) {
        let last = self.tokens.last();
        self.place = last.and_then(|&token| tree.behind(place, token));
    }
}

impl Rollout {
    /// Whether jobs go on from what others have written, and there is anything to go on from it with.
    pub(super) fn has_trees(&self) -> bool {
        self.pen.shifts.is_some() && !self.context.parked().is_empty()
    }

    /// Writes those of the next tokens of a job that need no decoding; gives it back where more are to
    /// come.
    pub(super) fn recall(
        &mut self,
        mut live: Live,
        ask: &mut AskFor<'_>,
        all: &mut Vec<Written>,
    ) -> Option<Live> {
        let model = self.context.model();
        self.own_allowed.resize(model.vocabulary(), 0.0);
        let bound = live.form.ignore_end && !model.ends().is_empty();
        while let Some(place) = live.place
            && let Some(steer) = live.job.steer.clone()
            && let Some(tree) = self.trees.get_mut(&live.job.prompt)
            && let Some(softmax) = tree.read(place, live.floor(), &mut self.own_allowed)
        {
            let said = Said {
                own: &self.own_allowed,
                logits: &self.own_allowed,
                softmax,
                bound,
            };
            let shifted = live.shift_by(&*steer, model.width());
            let end = shifted.and_then(|()| self.pen.write(model, &mut live, &said, ask));
            let job = live.id;
            self.work.ahead += usize::from(end.is_ok());
            let done = match end {
                Ok(None) => {
                    live.go_on(place, tree);
                    self.continued = true;
                    all.push(Written { job, done: None });
                    continue;
                }
                Ok(Some(end)) => Ok(live.finish(model, end)),
                Err(error) => Err(error),
            };
            let done = Some(done);
            all.push(Written { job, done });
            return None;
        }
        Some(live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_below_the_floor_is_read_again() {
        let own = [1.0, -2.0, 0.9, f32::NEG_INFINITY];
        let softmax = Softmax::of(&own);
        let mut tree = Tree::new();
        let place = tree.place(&[7, 5]).unwrap();
        assert_eq!(tree.place(&[7, 5]), Some(place));
        assert_ne!(tree.place(&[7]), Some(place));
        let mut read = [0.0; 4];
        assert!(tree.read(place, 0.5, &mut read).is_none());
        tree.put(place, 0.5, &own, softmax);
        // Nothing is known of what a lower floor would allow.
        assert!(tree.read(place, 0.01, &mut read).is_none());
        let found = tree.read(place, 0.5, &mut read).unwrap();
        let none = f32::NEG_INFINITY;
        assert_eq!(read, [1.0, none, 0.9, none]);
        assert_eq!(found.entropy, softmax.entropy);
        tree.put(place, 0.01, &own, softmax);
        assert!(tree.read(place, 0.01, &mut read).is_some());
        assert_eq!(read, [1.0, -2.0, 0.9, none]);
    }

    #[test]
    fn a_full_tree_takes_no_more_and_keeps_what_it_has() {
        let own = vec![0.0; 1000];
        let softmax = Softmax::of(&own);
        let mut tree = Tree::new();
        let mut read = own.clone();
        let first = tree.place(&[-1]).unwrap();
        tree.put(first, 1.0, &own, softmax);
        let places: Vec<Place> = (0..1_000_000).map_while(|t| tree.place(&[t])).collect();
        assert!(places.len() < 1_000_000);
        tree.put(places[0], 1.0, &own, softmax);
        assert!(tree.read(places[0], 1.0, &mut read).is_none());
        assert!(tree.read(first, 1.0, &mut read).is_some());
    }
}
