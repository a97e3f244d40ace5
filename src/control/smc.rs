//! AISP as a sequential Monte Carlo sampler: a population that follows the target itself, not a
//! Gaussian near it.
//!
//! ```text
//! q*_λ(V) ∝ p(V)·exp(r(y(V))/λ),   p(V) = N(0, σ²I),   ẑ ≈ E_P[exp(r/λ)]
//! ```
//!
//! Iteration 0 draws from p. Then, again and again:
//!
//! 1. *Temper.* λ falls, by bisection on 1/λ, until the weights `exp(r·(1/λ' − 1/λ))` have the
//!    effective sample size that is asked for, and not so far that fewer than two different
//!    candidates are left, by 1/Σw² with copies taken together. Their mean is a factor of ẑ.
//! 2. *Resample*, systematically and in the order of the rewards, to n ancestors. Where λ stayed,
//!    at its floor for one, nobody is resampled: the chains go on.
//! 3. *Move* each ancestor, [once or more](SmcOptions::chain).
//!
//! *Waste-free*: all states of the chains since the last resampling, the ancestors included, are
//! the particles of the next step, not only the last ones.
//!
//! # Markov moves
//!
//! A text y uses L(V) = min(|y|, τ) positions. A move draws a position c uniformly from `0..L(V)`
//! and the noise of a block B(c) anew from p: `c..τ` for a cut, `c..min(c+ℓ, τ)` for a window. The
//! block is a function of c alone, and reaches behind the end of the text as far as τ. From V with
//! c to V' that equals V outside of B(c):
//!
//! ```text
//! p(V)·(1/L(V))·p(V'_B)  against, for the way back,  p(V')·(1/L(V'))·p(V_B)
//! ```
//!
//! As `p(V) = p(V_B)·p(V_outside)` and V' has the same outside, the noise cancels and `L(V)/L(V')`
//! is left. The way back is possible with the same c: both texts have the same noise, so the same
//! tokens, before c, and as y did not end there, y' has a token at c too. To leave q*_λ as it is, a
//! move is therefore accepted with probability
//!
//! ```text
//! min(1, exp((r' − r)/λ)·L(V)/L(V'))
//! ```
//!
//! Noise behind the end of a text counts in V and not in y. It must be drawn anew where the block
//! has it, and kept where not: a longer text of a later move will use it. Where tokens are drawn by
//! chance, a position's uniform number goes with its noise, and those behind the horizon with that
//! of position τ−1: every cut draws them anew, and a window if it has τ−1.
//!
//! # Weighted steps
//!
//! A caller that has a mean u proposes from N(u, σ²I) instead. That is no move that leaves q*_λ
//! as it is, but a step of the sampler with a backward kernel (Del Moral, Doucet and Jasra 2006).
//! The states are texts here: P(y) = Π p(y_t | y_<t), target P(y)·exp(r/λ). Forward: c uniform over
//! `0..L`, the tokens from c on drawn from q_u. Backward: the same c, uniform over `0..L'`, the
//! tokens from c on drawn from p. The weight is multiplied by target × backward over target ×
//! forward,
//!
//! ```text
//! P(y')·exp(r'/λ)·(1/L')·P(y_≥c | y_<c)
//! ─────────────────────────────────────── = exp((r' − r)/λ)·(L/L')·Π_{t≥c} p(y'_t | y'_<t)/q_u(y'_t | y'_<t)
//! P(y)·exp(r/λ)·(1/L)·q_u(y'_≥c | y_<c)
//! ```
//!
//! as y and y' are the same before c. Its mean over q*_λ is 1, so ancestors with weight 1 and what
//! became of them belong to one population. Only a cut can be steered: a window keeps noise behind
//! it, and noise that was drawn from q_u is right for its own text alone.
//!
//! Source: Del Moral, Doucet and Jasra 2006; waste-free: Dau and Chopin 2022; the order of
//! resampling: Gerber, Chopin and Whiteley 2019. Its use for AISP, the moves and the rule for λ
//! are (chosen).

use std::sync::Arc;

use super::noise::NoiseKey;
use super::options::{ControlError, Move, SmcOptions, invalid};
use super::population::{Particle, Population, SmcParticle};
pub use super::smc_records::{SmcProposal, SmcReport, SmcTrial, Step};
use super::trajectory::{Mean, Means, Origin, Trajectory};

/// Effective sample size, of different candidates, that a step leaves where more than that is asked
/// for: one candidate is no sample.
const FEWEST: f64 = 2.0;

/// What a decision is about: the position of its key.
#[derive(Clone, Copy)]
enum Decision {
    Cut = 0,
    Accept = 1,
    Resample = 2,
}

/// The sampler for one prompt.
///
/// ```
/// use aisp_llama::control::{Smc, SmcOptions, SmcTrial};
///
/// let mut smc = Smc::new(SmcOptions::new(2, 4, 0.7, 1)).unwrap();
/// for _ in 0..3 {
///     let proposals = smc.propose(8);
///     let trials = proposals.iter().zip(0..).map(|(proposal, candidate)| {
///         let mut pre_logits = [0.0; 4];
///         let no_row = |_, _: &mut [f32]| Ok::<(), ()>(());
///         proposal.trajectory.perturb(&[], no_row, &mut pre_logits).unwrap();
///         let reward = f64::from(pre_logits[0]);
///         SmcTrial { candidate, reward, length: 2, log_ratio: 0.0 }
///     });
///     let report = smc.update(trials.collect());
///     assert!(report.lambda.is_finite());
/// }
/// ```
pub struct Smc {
    options: SmcOptions,
    iteration: u32,
    step: Step,
    means: Vec<Option<Arc<Mean>>>,
    proposed: Vec<SmcProposal>,
    /// 1/λ.
    beta: f64,
    log_z: f64,
    population: Population,
    /// The present state of each chain, an index into the population.
    chains: Vec<usize>,
    /// Moves since the last change of λ.
    moved: u32,
    /// Whether the weights differ, and ancestors are to be drawn by them.
    weighted: bool,
}

impl Smc {
    /// A sampler that has seen nothing.
    ///
    /// # Errors
    /// [`ControlError::Option`] names the option that is out of range and its value.
    pub fn new(options: SmcOptions) -> Result<Self, ControlError> {
        options.validate()?;
        Ok(Self {
            options,
            iteration: 0,
            step: Step::Markov,
            means: Vec::new(),
            proposed: Vec::new(),
            beta: 0.0,
            log_z: 0.0,
            population: Population::default(),
            chains: Vec::new(),
            moved: 0,
            weighted: false,
        })
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &SmcOptions {
        &self.options
    }

    /// `samples` candidates for a [Markov](Step::Markov) step.
    pub fn propose(&mut self, samples: u32) -> Vec<SmcProposal> {
        self.draw(samples, Step::Markov, None)
    }

    /// `samples` candidates for a [weighted](Step::Weighted) step: their new noise is drawn around
    /// `mean` `[d]`, in pre-logit units, the same at every position.
    ///
    /// # Errors
    /// [`ControlError::NotFinite`] for the mean; [`ControlError::Option`] where moves are windows,
    /// or σ is 0 and leaves no ratio to weigh by.
    ///
    /// # Panics
    /// If `mean` does not have the width of the options.
    pub fn propose_around(
        &mut self,
        samples: u32,
        mean: &[f32],
    ) -> Result<Vec<SmcProposal>, ControlError> {
        assert_eq!(mean.len(), self.options.width, "pre-logit width");
        if let Some((column, &value)) = mean.iter().enumerate().find(|(_, u)| !u.is_finite()) {
            return Err(ControlError::NotFinite {
                position: 0,
                column,
                value,
            });
        }
        let expected = "cut where candidates are drawn around a mean";
        if self.options.moves == Move::Window {
            invalid("move", "window", expected)?;
        }
        let expected = "positive where candidates are drawn around a mean";
        if self.options.sigma == 0.0 {
            invalid("sigma", 0.0, expected)?;
        }
        let u = mean.to_vec();
        let mean = Arc::new(Mean { u, row: None });
        Ok(self.draw(samples, Step::Weighted, Some(mean)))
    }

    /// What the last proposals are for.
    pub(super) fn step(&self) -> Step {
        self.step
    }

    /// Where the noise of one of the last proposals begins to be new.
    pub(super) fn cut(&self, candidate: u32) -> usize {
        self.proposed[candidate as usize].cut
    }

    /// Candidates for a step; around `mean` for a [weighted](Step::Weighted) one.
    pub(super) fn draw(
        &mut self,
        samples: u32,
        step: Step,
        mean: Option<Arc<Mean>>,
    ) -> Vec<SmcProposal> {
        self.step = step;
        self.means.resize(self.iteration as usize, None);
        self.means.push(mean);
        let samples = samples as usize;
        let stale = self.weighted || self.chains.len() != samples;
        if stale && samples > 0 && !self.population.particles.is_empty() {
            self.resample(samples);
        }
        let means = self.means.clone().into();
        let proposals = (0..samples as u32).map(|c| self.proposal(c, &means));
        self.proposed = proposals.collect();
        self.proposed.clone()
    }

    fn proposal(&self, candidate: u32, means: &Means) -> SmcProposal {
        let own = Origin {
            iteration: self.iteration,
            candidate,
        };
        let horizon = self.options.horizon;
        let Some(&parent) = self.chains.get(candidate as usize) else {
            return SmcProposal {
                trajectory: self.trajectory(means, vec![own; horizon].into()),
                cut: 0,
                parent: None,
            };
        };
        let parent = &self.population.particles[parent];
        let share = self.decide(candidate, Decision::Cut);
        let cut = ((share * parent.used as f64) as usize).min(parent.used - 1);
        let end = match self.options.moves {
            Move::Cut => horizon,
            Move::Window => cut.saturating_add(self.options.window).min(horizon),
        };
        let mut origins = parent.origins.to_vec();
        origins[cut..end].fill(own);
        SmcProposal {
            trajectory: self.trajectory(means, origins.into()),
            cut,
            parent: Some((parent.place.iteration, parent.place.candidate)),
        }
    }

    /// Starts new chains from the population.
    fn resample(&mut self, samples: usize) {
        let offset = self.decide(0, Decision::Resample);
        self.population.resample(samples, offset);
        self.chains = (0..samples).collect();
        self.moved = 0;
        self.weighted = false;
    }

    /// Takes the outcomes of the last proposals, and begins the next iteration.
    ///
    /// The order of `trials` does not matter. Where one is missing its chain rests.
    ///
    /// # Panics
    /// If the number of a trial was not proposed.
    pub fn update(&mut self, trials: Vec<SmcTrial>) -> SmcReport {
        let mut trials = trials;
        trials.sort_by_key(|t| t.candidate);
        let first = self.population.particles.is_empty();
        let (mut moves, mut accepted, mut rejected) = (0, 0, 0);
        for trial in trials {
            let proposal = &self.proposed[trial.candidate as usize];
            let valid = self.is_valid(&trial);
            rejected += usize::from(!valid);
            let mut next = self.particle(proposal, &trial);
            if proposal.parent.is_none() {
                if valid {
                    self.chains.push(self.population.particles.len());
                    self.population.particles.push(next);
                }
                continue;
            }
            let chain = trial.candidate as usize;
            let now = &self.population.particles[self.chains[chain]];
            let gain = self.beta * (next.reward - now.reward);
            let change = gain + (now.used as f64).ln() - (next.used as f64).ln();
            match self.step {
                Step::Weighted if valid => next.log_weight += now.log_weight + change,
                Step::Weighted => continue,
                Step::Markov => {
                    let accept = self.decide(trial.candidate, Decision::Accept).ln() < change;
                    moves += 1;
                    if valid && accept {
                        accepted += 1;
                        next.log_weight = now.log_weight;
                    } else {
                        next = now.clone();
                    }
                }
            }
            self.chains[chain] = self.population.particles.len();
            self.population.particles.push(next);
        }
        self.proposed.clear();
        self.iteration += 1;
        self.moved = self.moved.saturating_add(1);
        if first || self.moved >= self.options.chain {
            self.temper();
        }
        self.report(moves, accepted, rejected)
    }

    fn is_valid(&self, trial: &SmcTrial) -> bool {
        trial.reward.is_finite() && (self.step == Step::Markov || trial.log_ratio.is_finite())
    }

    /// The candidate of a trial, with the weight that its own tokens give it.
    fn particle(&self, proposal: &SmcProposal, trial: &SmcTrial) -> Particle {
        Particle {
            origins: Arc::clone(&proposal.trajectory.origins),
            place: Origin {
                iteration: self.iteration,
                candidate: trial.candidate,
            },
            reward: trial.reward,
            used: trial.length.clamp(1, self.options.horizon),
            log_weight: match self.step {
                Step::Markov => 0.0,
                Step::Weighted => trial.log_ratio,
            },
        }
    }

    /// Lowers λ as far as the population allows.
    fn temper(&mut self) {
        let rewards = self.population.rewards();
        let highest = 1.0 / self.options.lambda.abs();
        let room = highest - self.beta;
        let fewest = FEWEST.min(self.options.ess * self.chains.len() as f64);
        let step = rewards.step(self.options.ess, fewest, room);
        if step > 0.0 {
            self.log_z += rewards.log_mean_exp(step);
            // What is left of the room by rounding is no room.
            self.beta = if step == room {
                highest
            } else {
                self.beta + step
            };
            self.population.temper(step);
        }
        self.weighted = self.population.is_weighted();
    }

    fn report(&self, moves: usize, accepted: usize, rejected: usize) -> SmcReport {
        let rewards = self.population.rewards();
        let mean = rewards.mean();
        SmcReport {
            lambda: 1.0 / self.beta,
            ess: rewards.ess(),
            log_z: self.log_z,
            free_energy: match self.beta {
                0.0 => mean,
                beta => self.log_z / beta,
            },
            kl: self.beta * mean - self.log_z,
            acceptance: (moves > 0).then(|| accepted as f64 / moves as f64),
            particles: self.population.particles.len(),
            distinct: self.population.distinct(),
            rejected,
        }
    }

    /// The particles, with their weights for q*_λ at the λ of the last report.
    #[must_use]
    pub fn population(&self) -> Vec<SmcParticle> {
        let means = self.means.clone().into();
        let pairs = self
            .population
            .particles
            .iter()
            .zip(self.population.weights());
        let particle = |(p, weight): (&Particle, f64)| SmcParticle {
            trajectory: self.trajectory(&means, Arc::clone(&p.origins)),
            reward: p.reward,
            weight,
        };
        pairs.map(particle).collect()
    }

    fn trajectory(&self, means: &Means, origins: Arc<[Origin]>) -> Trajectory {
        Trajectory::new(
            self.options.seed,
            [(!self.options.draws).then_some(self.options.sigma as f32); 2],
            false,
            Arc::clone(means),
            origins,
        )
    }

    fn decide(&self, candidate: u32, decision: Decision) -> f64 {
        NoiseKey {
            seed: self.options.seed,
            iteration: self.iteration,
            candidate,
            position: decision as u32,
        }
        .decision()
    }
}
