//! The types of the C interface.

use std::ffi::{c_char, c_int, c_void};

/// One alignment run: the search for the best response to one prompt. Belongs to one thread at
/// a time.
pub struct aisp(());

/// What a call says of itself: AISP_OK, or what kind of thing was wrong.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum aisp_status {
    /// Done.
    AISP_OK = 0,
    /// The handle is NULL, was freed, or did not come from aisp_create.
    AISP_BAD_HANDLE = -1,
    /// An argument cannot be: NULL, out of range, of the wrong size.
    AISP_BAD_ARGUMENT = -2,
    /// The call came at the wrong time.
    AISP_BAD_ORDER = -3,
    /// Two threads used the handle at once.
    AISP_BUSY = -4,
    /// The model file cannot be used.
    AISP_BAD_MODEL = -5,
    /// A defect of this library.
    AISP_INTERNAL = -6,
    /// An earlier call on this handle failed.
    AISP_FAILED = -7,
}

/// How the perturbation gets into the host's logits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum aisp_tier {
    /// Added to the pre-logits inside the host's graph: the host sets `cparams.cb_eval` to
    /// aisp_eval_callback and calls aisp_bind before every decode. The host's own graph does
    /// the rest; costs a copy of the rows.
    AISP_TIER_EXACT = 0,
    /// W·v added to finished logits by the sampler: no change to the context. Costs a product
    /// with the output matrix for every position, and differs from the exact tier by the
    /// rounding of the host's own product.
    AISP_TIER_SAMPLER = 1,
}

/// What makes the next candidates of the last.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum aisp_method {
    /// The search: a mean by regression on the output matrix, and the best candidates continued.
    /// The default.
    AISP_METHOD_SEARCH = 0,
    /// Adaptive importance sampling, arXiv 2510.26219: the weighted mean of the noise.
    AISP_METHOD_AISP = 1,
}

/// Options of a run. aisp_options_init fills in all but `model_path` and `horizon`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct aisp_options {
    /// sizeof(aisp_options).
    pub size: usize,
    /// The GGUF file that the host's model was loaded from, UTF-8. Read by aisp_create only.
    pub model_path: *const c_char,
    /// An aisp_tier.
    pub tier: c_int,
    /// An aisp_method.
    pub method: c_int,
    /// Candidates of one iteration, 1 to 4096 (16). Times `horizon` they are at most 67108864.
    pub samples: u32,
    /// Iterations (8).
    pub iterations: u32,
    /// Response positions that are perturbed, usually the most tokens of a response; 1 to
    /// 131072. Times the width of the pre-logits they are at most 268435456.
    pub horizon: u32,
    /// Seed of the noise (0).
    pub seed: u64,
    /// Standard deviation of the noise on a pre-logit; below 0 (the default) it follows from
    /// logit_sd.
    pub sigma: f64,
    /// Standard deviation of the noise on a logit beside what all logits share, in root mean square
    /// over the vocabulary (0.770: Gumbel noise at temperature 0.6).
    pub logit_sd: f64,
    /// Search: norm of the mean in units of the noise's, for a reward that it explains entirely
    /// (2).
    pub steer: f64,
    /// Search: candidates that are continued from a cut (4).
    pub elites: u32,
    /// Search: share of an iteration's candidates that are drawn anew (0.25).
    pub fresh: f64,
    /// Aisp: temperature of the weights; 0 or less (the default) is the one that meets `ess`.
    pub lambda: f64,
    /// Aisp: target effective sample size as a fraction of the samples (0.25).
    pub ess: f64,
    /// Aisp: how far the penalty's base follows the mean, 0 to 1 (0.999).
    pub alpha: f64,
    /// Aisp: whether positions past a candidate's end carry no weight (1).
    pub mask_past_end: c_int,
    /// Whether candidate 0 of every iteration is the mean itself (0).
    pub null_candidate: c_int,
}

/// What the library needs of the host's ggml. aisp_llama_glue.h fills it in.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct aisp_host {
    /// sizeof(aisp_host).
    pub size: usize,
    /// Turns `count` values of ggml type `type` at `data` into floats at `out`; answers 0 for a
    /// type it cannot turn. With `data` NULL it only answers. Must return: what it throws, or jumps
    /// over with longjmp, would end the program.
    pub decode: Option<
        unsafe extern "C" fn(
            r#type: c_int,
            data: *const c_void,
            out: *mut f32,
            count: i64,
        ) -> c_int,
    >,
}

/// A candidate token: the layout of llama_token_data.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct aisp_token {
    /// Token id.
    pub id: i32,
    /// Its logit.
    pub logit: f32,
    /// Its probability; not looked at.
    pub p: f32,
}

/// What the last update said; NAN where there is nothing to say.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct aisp_report {
    /// sizeof(aisp_report).
    pub size: usize,
    /// Iterations done.
    pub iterations: u32,
    /// Best reward of all candidates so far.
    pub best_reward: f64,
    /// Mean reward of the last iteration done.
    pub mean_reward: f64,
    /// Effective sample size of the candidates that the next iteration starts from.
    pub ess: f64,
    /// Temperature of the weights.
    pub lambda: f64,
    /// Standard deviation of the noise on a pre-logit.
    pub sigma: f64,
    /// |U|/(σ√(dτ)).
    pub u_norm: f64,
    /// KL(Q_U‖P) in nats.
    pub kl: f64,
    /// Share of the reward's variance that the mean's direction explains.
    pub r2: f64,
}
