//! The mathematics of steering a language model by moving its pre-logits, with no model in sight.
//!
//! A *candidate* is one response generated while Gaussian noise `V = v_1..v_τ`, `v_t ~ N(u_t, σ²I)`,
//! is added to the pre-logits of its first `τ` positions. Adaptive importance sampling on
//! pre-logits (AISP) looks for the mean `U` that minimises
//!
//! ```text
//! J(U) = −E_{V~Q_U}[ r(x, y(V)) ] + λ·KL(Q_U ‖ P),     Q_U = N(U, σ²I),  P = N(0, σ²I)
//! KL(Q_U ‖ P) = Σ_t |u_t|² / (2σ²)
//! ```
//!
//! The free energy `F = λ·log E_P[exp(r/λ)]` bounds `−J` from above and is reached by
//! `q*(V) ∝ exp(r/λ)·p(V)`. The Gaussian closest to `q*` has mean `E_{q*}[V]`, which
//! self-normalised importance sampling estimates from `n` candidates drawn from the current `Q_U`:
//!
//! ```text
//! s_i = r_i/λ − ((1−α)/σ²)·Σ_t u_t·v_t^i
//! w_i = exp(s_i) / Σ_j exp(s_j)
//! u_t ← Σ_i w_i·v_t^i
//! ```
//!
//! [`NoiseKey`] makes the noise, [`importance_weights`] the weights, [`WeightedMean`] the update. The noise
//! is a function of its place alone, so `V` is never stored: the update generates it again.
//!
//! [`Smc`] samples from q* itself, with a population that is resampled and moved. [`Search`] is no
//! importance sampling: the same noise, a mean by regression, and the best candidates continued.
//! [`Controller`] is any of the three, and [`PriceGuard`] holds what a candidate may cost. [`Smc`] has a
//! population instead of a mean, and follows `q*` itself.
//!
//! Source: arXiv 2510.26219. Where its text leaves a decision open, the docs say "(chosen)".

mod adam;
mod controller;
mod noise;
mod options;
mod population;
mod price;
mod readable;
mod regression;
mod ridge;
mod sampler;
mod search;
mod settings;
mod smc;
mod smc_records;
mod trajectory;
mod value;
mod weighted;
mod weights;

pub use adam::Adam;
pub use controller::{Controller, Perturbation, Telemetry};
pub use noise::{DEFAULT_LOGIT_SD, GUMBEL_SD, NoiseKey, calibrated_sigma, prompt_seed};
pub use options::{
    ControlError, Cut, DEFAULT_ESS_FRACTION, Move, SearchOptions, SmcOptions, Start,
    WeightedOptions,
};
pub use population::SmcParticle;
pub use price::{Cost, PriceGuard, PriceRule, TokenNats};
pub use readable::{expected_largest, rejection_gain};
pub use ridge::{RidgeFit, ridge};
pub use search::{Search, SearchReport, Trial};
pub use settings::{
    AutoOr, NoiseKind, NoiseSettings, PriceSettings, SamplerSettings, SearchSettings, Update,
};
pub use smc::{Smc, SmcProposal, SmcReport, SmcTrial, Step};
pub use trajectory::{Beginning, Trajectory};
pub use value::{Layer, Lesson, ValueErrors, ValueNetwork, ValueOptions};
pub use weighted::{Scored, UpdateReport, WeightedMean, soft_kl};
pub use weights::{LambdaRule, Weights, importance_weights};
