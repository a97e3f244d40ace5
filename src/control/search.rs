//! A population search on AISP's noise: what it learns is a direction in the output matrix, and
//! what it keeps are the beginnings of its best candidates.
//!
//! It is no importance sampling: it has no weights, no target and no effective sample size.
//!
//! ```text
//! v_t^i = u_k,t + σ·ε_t^i        from the candidate's cut on, and everywhere in a fresh one
//! v_t^i = v_t of an elite        before the cut
//! ```
//!
//! **The start.** The first iteration draws its tokens from the model itself ([`Start::Draws`]):
//! what those samples cost is what an answer may cost, and the regression begins with texts that
//! nothing has pushed anywhere. Positions that later candidates keep of them are drawn again, with
//! the same numbers, and so with the same tokens.
//!
//! **The mean.** A token y_t chosen under the noise says that v_t points along W_{y_t}, all that
//! the reward can know of v_t. The mean u_k is the ridge regression of all rewards so far on
//! φ_i = Σ_y a_y·(W_y − W̄) over the different tokens y of a text, a_y = 1 − p(y) where it comes first,
//! over distinct texts: a token counts once, and as far as it was a choice. u_k has the norm
//!
//! ```text
//! |u_k| = s·g_k·σ₀√d·√R²
//! ```
//!
//! with R² what the regressions before said of texts that they had not seen, less what chance would
//! explain: a reward that no direction explains gets no mean. σ₀ is the noise of `sigma` = auto,
//! and g_k, at most 1, is turned down while the candidates are dearer than their price allows, and
//! up again when they are cheaper.
//!
//! It is the same at every position but for what the response says already: its part along W_y − W̄ is
//! taken out behind every token y that it pushes towards ([`Trajectory::perturb`]). A mean that stays
//! says its words again and again, which the model finds cheap.
//!
//! **The elites.** The best few distinct candidates that the price allows are continued: a child
//! keeps an elite's noise, and so its text, up to a cut, and draws all of it anew from there on. Cuts
//! fall where the model was undecided: at a token with probability ∝ the entropy of its
//! distribution ([`Cut::Entropy`]). What is kept so scales with the length.
//!
//! Source: (chosen), measured in `docs/controller.md`.

use std::sync::Arc;

use super::noise::NoiseKey;
use super::options::{ControlError, Cut, SearchOptions, Start};
use super::price::{Cost, PriceGuard, TokenNats};
use super::regression::{MEMORY, Regression, Text};
use super::trajectory::{Beginning, Mean, Means, Origin, Trajectory, beginning};

/// How much of what the price leaves above the first candidates the later ones are to use up.
const AIM: f64 = 0.5;

/// One scored candidate as the search sees it.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// Its number within the iteration.
    pub candidate: u32,
    /// Its reward; a NaN or infinite one is counted and otherwise ignored.
    pub reward: f64,
    /// Its token ids; two candidates with the same ones are one.
    pub tokens: Vec<i32>,
    /// Its price, where that is known.
    pub cost: Option<Cost>,
    /// What the model itself says of each token; empty where that is not known.
    pub nats: Vec<TokenNats>,
    /// Σ_y a_y W_y `[d]` over its different tokens within the horizon, with the
    /// [weights](Self::weight) a_y where they come first; not looked at where `steer` is 0.
    pub features: Vec<f32>,
}

impl Trial {
    /// How much of the token at `position` was a choice: 1 − p(y_t) by the model itself, 1 where
    /// that is not known.
    #[must_use]
    pub fn weight(&self, position: usize) -> f32 {
        let nats = self.nats.get(position);
        nats.map_or(1.0, |nats| -(-nats.surprise).exp_m1())
    }

    /// Each token within the horizon, where it comes first, with its weight a_t.
    pub(super) fn weights(&self, horizon: usize) -> Vec<(i32, f32)> {
        let within = self.tokens.iter().take(horizon).enumerate();
        let first = within.filter(|&(t, token)| !self.tokens[..t].contains(token));
        first.map(|(t, &token)| (token, self.weight(t))).collect()
    }

    /// What a regression looks at.
    pub(super) fn text(&self, horizon: usize) -> Text {
        let weights = self.weights(horizon);
        Text {
            reward: self.reward,
            weights: weights.iter().map(|&(_, a)| f64::from(a)).sum(),
            features: self.features.clone(),
        }
    }
}

/// What one update found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchReport {
    /// Elites that the next iteration starts from.
    pub elites: usize,
    /// Share of the reward's variance that the regressions explained of texts that they had not
    /// seen, less what chance would explain.
    pub r2: f64,
    /// |u|/(σ₀√d) of the next iteration.
    pub u_norm: f64,
    /// Most nats a token that an elite or an answer may cost, where there is a limit.
    pub price_limit: Option<f64>,
    /// Candidates with a NaN or infinite reward.
    pub rejected: usize,
}

/// A distinct text of an earlier iteration.
struct Seen {
    text: Text,
    cost: Option<Cost>,
    tokens: Vec<i32>,
    nats: Vec<TokenNats>,
    origins: Arc<[Origin]>,
}

/// The search for one prompt.
pub struct Search {
    options: SearchOptions,
    iteration: u32,
    means: Means,
    proposed: Vec<(Arc<[Origin]>, Beginning)>,
    seen: Vec<Seen>,
    /// Indices of `seen`, the best first.
    elites: Vec<usize>,
    guard: PriceGuard,
    /// g_k.
    gain: f64,
    regression: Regression,
}

impl Search {
    /// A search that has seen nothing.
    ///
    /// # Errors
    /// [`ControlError::Option`] names the option that is out of range and its value.
    pub fn new(options: SearchOptions) -> Result<Self, ControlError> {
        options.validate()?;
        Ok(Self {
            iteration: 0,
            means: Arc::new([None]),
            proposed: Vec::new(),
            seen: Vec::new(),
            elites: Vec::new(),
            guard: options.guard,
            gain: 1.0,
            regression: Regression::default(),
            options,
        })
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &SearchOptions {
        &self.options
    }

    /// The mean u `[d]` of the current iteration's fresh noise, behind nothing; `None` is zero.
    #[must_use]
    pub fn mean(&self) -> Option<&[f32]> {
        self.means.last()?.as_ref().map(|mean| mean.u.as_slice())
    }

    /// What a candidate is worth: see [`PriceGuard::worth`].
    #[must_use]
    pub fn worth(&self, reward: f64, cost: Option<Cost>) -> f64 {
        self.guard.worth(reward, cost)
    }

    /// The perturbations of `samples` candidates of the current iteration.
    pub fn propose(&mut self, samples: u32) -> Vec<Trajectory> {
        self.proposed = (0..samples).map(|c| self.origins(c, samples)).collect();
        let sigma = self.options.sigma as f32;
        let sigmas = [
            (self.options.start == Start::Noise).then_some(sigma),
            Some(sigma),
        ];
        self.proposed
            .iter()
            .map(|(origins, beginning)| {
                let trajectory = Trajectory::new(
                    self.options.seed,
                    sigmas,
                    self.options.null_candidate,
                    Arc::clone(&self.means),
                    Arc::clone(origins),
                );
                trajectory.behind(beginning)
            })
            .collect()
    }

    /// The noise of a candidate by position, and the tokens that it has of an elite.
    fn origins(&self, candidate: u32, samples: u32) -> (Arc<[Origin]>, Beginning) {
        let fresh = Origin {
            iteration: self.iteration,
            candidate,
        };
        let horizon = self.options.horizon;
        let null = self.options.null_candidate && candidate == 0;
        let all_fresh = (f64::from(samples) * self.options.fresh).ceil() as u32;
        if self.elites.is_empty() || null || candidate < all_fresh {
            return (vec![fresh; horizon].into(), Beginning::default());
        }
        let elite = &self.seen[self.elites[candidate as usize % self.elites.len()]];
        let cut = self.cut(elite, fresh);
        let kept = elite.origins.iter().take(cut).copied();
        let origins = kept.chain(std::iter::repeat(fresh)).take(horizon);
        (
            origins.collect(),
            beginning(&elite.tokens, &elite.nats, cut),
        )
    }

    /// Where a child parts from its elite: at a token with probability ∝ its entropy.
    fn cut(&self, elite: &Seen, child: Origin) -> usize {
        let length = elite.tokens.len().min(self.options.horizon);
        let key = NoiseKey {
            seed: self.options.seed,
            iteration: child.iteration,
            candidate: child.candidate,
            position: 0,
        };
        let weight = |t: usize| match (self.options.cut, elite.nats.get(t)) {
            (Cut::Entropy, Some(nats)) => f64::from(nats.entropy).max(1e-6),
            _ => 1.0,
        };
        let mut left = key.cut() * (0..length).map(weight).sum::<f64>();
        let cut = (0..length).find(|&t| {
            left -= weight(t);
            left < 0.0
        });
        cut.unwrap_or(length.saturating_sub(1))
    }

    /// Takes the outcomes of the last proposals, and begins the next iteration.
    ///
    /// The order of `trials` does not matter.
    ///
    /// # Panics
    /// If a trial's features do not have the width of the options, or its number was not proposed.
    pub fn update(&mut self, trials: Vec<Trial>) -> SearchReport {
        let mut trials = trials;
        trials.sort_by_key(|t| t.candidate);
        let all = trials.len();
        trials.retain(|trial| trial.reward.is_finite());
        let rejected = all - trials.len();
        let costs: Vec<Cost> = trials.iter().filter_map(|t| t.cost).collect();
        self.hold_price(&costs);
        let known = self.seen.len();
        for trial in trials {
            if self.options.steer > 0.0 {
                assert_eq!(trial.features.len(), self.options.width, "pre-logit width");
            }
            if self.seen.iter().any(|seen| seen.tokens == trial.tokens) {
                continue;
            }
            self.seen.push(Seen {
                text: trial.text(self.options.horizon),
                cost: trial.cost,
                nats: trial.nats,
                tokens: trial.tokens,
                origins: Arc::clone(&self.proposed[trial.candidate as usize].0),
            });
        }
        self.choose_elites();
        let (mean, r2) = self.direction(known);
        let dims = self.options.width as f64;
        let squares = mean.iter().flat_map(|m| m.u.iter());
        let squares: f64 = squares.map(|&u| f64::from(u).powi(2)).sum();
        let unit = self.options.unit;
        let mut means = self.means.to_vec();
        means.push(mean);
        self.means = means.into();
        self.iteration += 1;
        SearchReport {
            elites: self.elites.len(),
            r2,
            u_norm: match unit > 0.0 {
                true => (squares / dims).sqrt() / unit,
                false => 0.0,
            },
            price_limit: self.guard.limit(),
            rejected,
        }
    }

    /// Turns the mean down while the candidates are dearer than the price allows, and up again:
    /// what a mean costs is about the square of its length.
    fn hold_price(&mut self, costs: &[Cost]) {
        if self.iteration == 0 {
            self.guard.observe_first(costs);
        }
        if self.mean().is_some()
            && !costs.is_empty()
            && let Some(used) = self.guard.used(costs)
        {
            let factor = match used > 0.0 {
                true => (AIM / used).sqrt().clamp(0.5, 1.5),
                false => 1.5,
            };
            self.gain = (self.gain * factor).min(1.0);
        }
    }

    /// The best distinct candidates so far that the price allows; of equal ones the earlier one.
    fn choose_elites(&mut self) {
        let worth = |seen: &Seen| self.guard.worth(seen.text.reward, seen.cost);
        let mut order: Vec<(f64, usize)> = self.seen.iter().map(worth).zip(0..).collect();
        order.retain(|(worth, _)| *worth > f64::NEG_INFINITY);
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let best = order.into_iter().take(self.options.elites);
        self.elites = best.map(|(_, index)| index).collect();
    }

    /// The next mean, and how much of the reward the regressions explain of texts that they have
    /// not seen; the first `known` texts have been seen by the last one.
    fn direction(&mut self, known: usize) -> (Option<Arc<Mean>>, f64) {
        let SearchOptions {
            width, unit, steer, ..
        } = self.options;
        if steer == 0.0 || unit == 0.0 {
            return (None, 0.0);
        }
        let texts: Vec<&Text> = self.seen.iter().map(|seen| &seen.text).collect();
        self.regression.learn(&texts, known);
        let r2 = self.regression.r2();
        // It never looks at those again.
        let old = self.seen.len().saturating_sub(MEMORY);
        for seen in &mut self.seen[..old] {
            seen.text.features = Vec::new();
        }
        let long = steer * self.gain * unit * (width as f64).sqrt() * r2.sqrt();
        (self.regression.mean(long), r2)
    }
}
