//! The perturbations of a candidate that uses the noise of several places.

use std::sync::Arc;

use super::noise::NoiseKey;

/// A place whose noise is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) iteration: u32,
    pub(super) candidate: u32,
}

/// The perturbations of one candidate: which noise it uses at which position.
#[derive(Clone, Debug)]
pub struct Trajectory {
    pub(super) seed: u64,
    /// σ of the noise of iteration 0, `None` where its tokens are drawn, and of later ones.
    pub(super) sigmas: [Option<f32>; 2],
    pub(super) null_candidate: bool,
    /// u_k by iteration, `[d]` each; `None` where it is zero.
    pub(super) means: Arc<[Option<Arc<[f32]>>]>,
    /// By position, τ of them.
    pub(super) origins: Arc<[Origin]>,
}

impl Trajectory {
    fn sigma(&self, origin: Origin) -> Option<f32> {
        self.sigmas[usize::from(origin.iteration > 0)]
    }

    /// Whether the token at `position` is to be drawn from the model's own distribution, by
    /// [`uniform`](Self::uniform), instead of being the largest logit.
    #[must_use]
    pub fn draws(&self, position: usize) -> bool {
        let origin = self.origins.get(position);
        origin.is_some_and(|origin| self.sigma(*origin).is_none())
    }

    /// Adds v_t to `row` `[d]`, the pre-logits at response position t, counted from 0; answers
    /// false, and leaves the row alone, where the token is [drawn](Self::draws) and from the horizon
    /// on.
    pub fn perturb(&self, position: usize, row: &mut [f32]) -> bool {
        let Some(origin) = self.origins.get(position) else {
            return false;
        };
        let Some(sigma) = self.sigma(*origin) else {
            return false;
        };
        if let Some(mean) = &self.means[origin.iteration as usize] {
            for (z, u) in row.iter_mut().zip(mean.iter()) {
                *z += u;
            }
        }
        if sigma > 0.0 && !(self.null_candidate && origin.candidate == 0) {
            let mut noise = vec![0.0; row.len()];
            self.key(*origin, position).standard_normal(&mut noise);
            for (z, epsilon) in row.iter_mut().zip(&noise) {
                *z += sigma * epsilon;
            }
        }
        true
    }

    /// A number in `[0, 1)` for choosing the token at `position` by chance.
    #[must_use]
    pub fn uniform(&self, position: usize) -> f64 {
        let last = self.origins[self.origins.len() - 1];
        let origin = self.origins.get(position).copied().unwrap_or(last);
        self.key(origin, position).uniform()
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
