//! Noise that depends on where it is used and on nothing else.
//!
//! Row `ε` of candidate `i` at position `t` is the start of one ChaCha8 stream, turned into standard
//! normals by the ziggurat method:
//!
//! ```text
//! key    = seed (8 bytes) ‖ iteration (4) ‖ domain (4) ‖ a constant (16)
//! stream = candidate·2³² + position
//! ```
//!
//! Batching, thread count and the order of the calls therefore cannot change a result, and a row
//! can be made again instead of being kept. Counter-based noise is (chosen).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// Standard deviation of standard Gumbel noise, `π/√6`.
///
/// Sampling a token at temperature `T` is the argmax of the logits plus Gumbel noise of this
/// deviation times `T`; `T·GUMBEL_SD` is the natural target for [`calibrated_sigma`].
pub const GUMBEL_SD: f64 = 1.282_549_830_161_864;

/// Target standard deviation of a logit, where σ is not given: that of Gumbel noise at
/// temperature 0.6, with which argmax would sample at about that temperature.
pub const DEFAULT_LOGIT_SD: f64 = 0.6 * GUMBEL_SD;

/// The σ that gives the logits noise of standard deviation `target_logit_sd`.
///
/// Noise of deviation `σ` in every pre-logit reaches logit `j`, beside what all logits share and no
/// argmax can see, with deviation `σ·|W_j − W̄|`, `W_j` the `j`-th row of the output matrix and `W̄`
/// the mean of the rows. `row_spread` is `√(mean_j |W_j|² − |W̄|²)`; the result,
/// `target_logit_sd / row_spread`, meets the target in the root mean square over the vocabulary.
/// Calibration is (chosen); the paper fixes `σ² = 0.5`.
///
/// A `row_spread` of 0 gives an infinite or NaN σ, which [`WeightedMean::new`](super::WeightedMean::new) refuses.
pub fn calibrated_sigma(target_logit_sd: f64, row_spread: f64) -> f64 {
    target_logit_sd / row_spread
}

/// The seed of the noise for a prompt, from that of a run and the prompt's tokens: runs of one seed
/// on several prompts are then independent draws.
///
/// FNV-1a over the little-endian bytes of both, then the finaliser of SplitMix64.
#[must_use]
pub fn prompt_seed(seed: u64, prompt: &[i32]) -> u64 {
    let tokens = prompt.iter().flat_map(|token| token.to_le_bytes());
    let bytes = seed.to_le_bytes().into_iter().chain(tokens);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Position of one noise row: the noise is a function of these four numbers alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NoiseKey {
    /// Seed of the run.
    pub seed: u64,
    /// Iteration, from 0.
    pub iteration: u32,
    /// Candidate within the iteration, from 0.
    pub candidate: u32,
    /// Response position, from 0.
    pub position: u32,
}

/// What a stream is used for; different uses never share a key.
#[derive(Clone, Copy)]
enum Domain {
    Normal = 0,
    Uniform = 1,
    Cut = 2,
    Decision = 3,
}

impl NoiseKey {
    /// Fills `out` with independent standard normals.
    ///
    /// A shorter `out` receives the beginning of what a longer one would.
    pub fn standard_normal(&self, out: &mut [f32]) {
        let mut stream = self.stream(Domain::Normal);
        for value in out {
            *value = stream.sample(StandardNormal);
        }
    }

    /// One uniform number in [0, 1): the randomness of token sampling at this place.
    ///
    /// Independent of [`standard_normal`](Self::standard_normal).
    pub fn uniform(&self) -> f64 {
        self.stream(Domain::Uniform).random()
    }

    /// One uniform number in [0, 1) that decides where a candidate parts from its parent.
    ///
    /// Independent of the other two.
    pub fn cut(&self) -> f64 {
        self.stream(Domain::Cut).random()
    }

    /// One uniform number in [0, 1) for a controller's own decisions, which `position` tells apart.
    ///
    /// Independent of the other three.
    pub(super) fn decision(&self) -> f64 {
        self.stream(Domain::Decision).random()
    }

    fn stream(&self, domain: Domain) -> ChaCha8Rng {
        // The constant keeps these keys apart from generators that other code seeds from small
        // integers.
        let mut key = *b"................aisp-llama noise";
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..12].copy_from_slice(&self.iteration.to_le_bytes());
        key[12..16].copy_from_slice(&(domain as u32).to_le_bytes());
        let mut stream = ChaCha8Rng::from_seed(key);
        stream.set_stream(u64::from(self.candidate) << 32 | u64::from(self.position));
        stream
    }
}
