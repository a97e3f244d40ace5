//! What goes into a sequential Monte Carlo sampler, and what comes out of it.

use super::trajectory::Trajectory;

/// How candidates become particles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Drawn from the model, and accepted or not.
    Markov,
    /// Drawn around a mean, and weighted.
    Weighted,
}

/// A candidate to be generated.
#[derive(Clone, Debug)]
pub struct SmcProposal {
    /// Its perturbations.
    pub trajectory: Trajectory,
    /// Where its noise begins to be new: the tokens of positions `0..cut` are its parent's.
    pub cut: usize,
    /// (iteration, number within it) of the candidate whose noise it starts from; `None` for one
    /// that is all new.
    pub parent: Option<(u32, u32)>,
}

/// One scored candidate as the sampler sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SmcTrial {
    /// Its number within the iteration.
    pub candidate: u32,
    /// What is maximised, prices included. NaN or infinite: weight 0, a move to it is rejected.
    pub reward: f64,
    /// Response tokens generated, including the end-of-turn token.
    pub length: usize,
    /// Σ log p(y_t | y_<t) − log q_u(y_t | y_<t) in nats over the tokens from its cut on and
    /// within the horizon; looked at in a [weighted](Step::Weighted) step only.
    pub log_ratio: f64,
}

/// What one update found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SmcReport {
    /// Temperature λ that the next iteration starts from, in reward units; infinite at first.
    pub lambda: f64,
    /// Effective sample size 1/Σw² of the different candidates at that λ, up to all
    /// [particles](Self::particles).
    pub ess: f64,
    /// log ẑ, the estimate of log E_P\[exp(r/λ)\] over the texts that have a reward.
    pub log_z: f64,
    /// Free energy λ·log ẑ, in reward units, an estimate of an upper bound on −J(U) for every U;
    /// the mean reward where λ is infinite, its limit.
    pub free_energy: f64,
    /// KL(q*_λ ‖ P) in nats, estimated by E\[r\]/λ − log ẑ.
    pub kl: f64,
    /// Share of the Markov moves that were accepted; `None` where there was none.
    pub acceptance: Option<f64>,
    /// Particles, states of the chains since the last resampling.
    pub particles: usize,
    /// How many of them are different candidates, and have weight.
    pub distinct: usize,
    /// Candidates with a NaN or infinite reward, or ratio where one counts.
    pub rejected: usize,
}
