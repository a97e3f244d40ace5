//! The perturbations of a candidate that uses the noise of several places.

use std::sync::{Arc, Mutex, PoisonError};

use super::noise::NoiseKey;
use super::price::TokenNats;

/// A place whose noise is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) iteration: u32,
    pub(super) candidate: u32,
}

/// The mean of an iteration's fresh noise.
#[derive(Debug)]
pub(super) struct Mean {
    /// u `[d]`.
    pub(super) u: Vec<f32>,
    /// W̄ `[d]`, where what a response says already is taken out of u.
    pub(super) row: Option<Vec<f32>>,
}

/// The means by iteration; `None` where it is zero.
pub(super) type Means = Arc<[Option<Arc<Mean>>]>;

/// Tokens that a candidate has of another one, with what was said of them there.
pub type Beginning = Arc<[(i32, TokenNats)]>;

/// The first `length` of `tokens`; none where it is not known what was said of them.
pub(super) fn beginning(tokens: &[i32], nats: &[TokenNats], length: usize) -> Beginning {
    let length = if nats.len() < length { 0 } else { length };
    let pairs = tokens.iter().copied().zip(nats.iter().copied());
    pairs.take(length).collect()
}

/// What is left of a mean behind the tokens that say some of it.
#[derive(Debug, Default)]
struct Left {
    /// Of which iteration.
    iteration: u32,
    tokens: Vec<i32>,
    u: Vec<f32>,
}

impl Left {
    /// Goes on to `tokens`, from the beginning where they are others than those so far: behind each
    /// token y that u pushes towards, u loses its part along W_y − W̄.
    fn follow<E>(
        &mut self,
        iteration: u32,
        mean: &Mean,
        tokens: &[i32],
        mut row_of: impl FnMut(i32, &mut [f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(centre) = &mean.row else {
            self.u.clone_from(&mean.u);
            return Ok(());
        };
        if self.u.is_empty() || self.iteration != iteration || !tokens.starts_with(&self.tokens) {
            *self = Self {
                iteration,
                tokens: Vec::new(),
                u: mean.u.clone(),
            };
        }
        let mut row = vec![0.0; self.u.len()];
        for &token in &tokens[self.tokens.len()..] {
            row_of(token, &mut row)?;
            row.iter_mut().zip(centre).for_each(|(w, c)| *w -= c);
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
                products.sum()
            };
            let (along, square) = (dot(&self.u, &row), dot(&row, &row));
            if along > 0.0 {
                let share = (along / square) as f32;
                self.u
                    .iter_mut()
                    .zip(&row)
                    .for_each(|(u, w)| *u -= share * w);
            }
            self.tokens.push(token);
        }
        Ok(())
    }
}

/// The perturbations of one candidate: which noise it uses at which position.
#[derive(Clone, Debug)]
pub struct Trajectory {
    pub(super) seed: u64,
    /// σ of the noise of iteration 0, and of later ones; `None` where tokens are drawn instead.
    pub(super) sigmas: [Option<f32>; 2],
    pub(super) null_candidate: bool,
    pub(super) means: Means,
    /// By position, τ of them.
    pub(super) origins: Arc<[Origin]>,
    left: Arc<Mutex<Left>>,
    beginning: Beginning,
}

impl Trajectory {
    pub(super) fn new(
        seed: u64,
        sigmas: [Option<f32>; 2],
        null_candidate: bool,
        means: Means,
        origins: Arc<[Origin]>,
    ) -> Self {
        Self {
            seed,
            sigmas,
            null_candidate,
            means,
            origins,
            left: Arc::default(),
            beginning: Beginning::default(),
        }
    }

    /// The same, which is known to begin with these tokens.
    pub(super) fn behind(mut self, beginning: &Beginning) -> Self {
        self.beginning = Arc::clone(beginning);
        self
    }

    /// Tokens that it begins with, as far as they are known; they need not be written again.
    #[must_use]
    pub fn beginning(&self) -> &Beginning {
        &self.beginning
    }

    fn sigma(&self, origin: Origin) -> Option<f32> {
        self.sigmas[usize::from(origin.iteration > 0)]
    }

    /// Whether the token at `position` is to be drawn at temperature 1, by [`uniform`](Self::uniform),
    /// instead of being the largest logit.
    #[must_use]
    pub fn draws(&self, position: usize) -> bool {
        let origin = self.origins.get(position);
        origin.is_some_and(|origin| self.sigma(*origin).is_none())
    }

    /// Adds v_t to `row` `[d]`, the pre-logits behind the t `tokens` of the response so far; answers
    /// false, and leaves the row alone, where the token is [drawn](Self::draws) from the model itself
    /// and from the horizon on. `row_of` reads the row W_j `[d]` of a token j, and is asked only for those that a mean may
    /// have pushed.
    ///
    /// # Errors
    /// What `row_of` failed with.
    pub fn perturb<E>(
        &self,
        tokens: &[i32],
        row_of: impl FnMut(i32, &mut [f32]) -> Result<(), E>,
        row: &mut [f32],
    ) -> Result<bool, E> {
        let position = tokens.len();
        let Some(origin) = self.origins.get(position) else {
            return Ok(false);
        };
        let (mean, sigma) = (&self.means[origin.iteration as usize], self.sigma(*origin));
        if let Some(mean) = mean {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.follow(origin.iteration, mean, tokens, row_of)?;
            for (z, u) in row.iter_mut().zip(&left.u) {
                *z += u;
            }
        }
        if let Some(sigma) = sigma.filter(|sigma| *sigma > 0.0)
            && !(self.null_candidate && origin.candidate == 0)
        {
            let mut noise = vec![0.0; row.len()];
            self.key(*origin, position).standard_normal(&mut noise);
            for (z, epsilon) in row.iter_mut().zip(&noise) {
                *z += sigma * epsilon;
            }
        }
        Ok(mean.is_some() || sigma.is_some())
    }

    /// A number in `[0, 1)` for choosing the token at `position` by chance.
    #[must_use]
    pub fn uniform(&self, position: usize) -> f64 {
        let last = self.origins[self.origins.len() - 1];
        let origin = self.origins.get(position).copied().unwrap_or(last);
        self.key(origin, position).uniform()
    }

    /// Positions from the start whose noise is not that of the last one: an earlier candidate's.
    #[must_use]
    pub fn kept(&self) -> usize {
        let last = self.origins.last();
        self.origins.iter().take_while(|o| Some(*o) != last).count()
    }

    /// Positions whose noise is not that of `other`.
    #[must_use]
    pub fn redrawn(&self, other: &Self) -> usize {
        let pairs = self.origins.iter().zip(other.origins.iter());
        pairs.filter(|(a, b)| a != b).count()
    }

    fn key(&self, origin: Origin, position: usize) -> NoiseKey {
        NoiseKey {
            seed: self.seed,
            iteration: origin.iteration,
            candidate: origin.candidate,
            position: u32::try_from(position).unwrap_or(u32::MAX),
        }
    }
}
