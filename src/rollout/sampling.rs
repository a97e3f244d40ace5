//! From logits to a token: argmax, or llama.cpp's chain of top-k, top-p, min-p and
//! temperature.
//!
//! The chain runs in llama.cpp's order: top-k, then top-p, then min-p, then the
//! temperature, then a draw. Top-p and min-p therefore see probabilities at temperature 1.
//! Source: `common_params_sampling` and `llama-sampler.cpp`.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::llama::Token;
use crate::math::largest;

/// Options of the sampling chain, with llama.cpp's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct SamplingOptions {
    /// Temperature (default 0.8); 0 takes the most probable token.
    #[serde(rename = "temp", serialize_with = "shortest")]
    pub temperature: f32,
    /// Keep the k most probable tokens (default 40); 0 keeps all.
    pub top_k: usize,
    /// Keep the fewest tokens whose probabilities add up to p (default 0.95); 1 keeps all.
    #[serde(serialize_with = "shortest")]
    pub top_p: f32,
    /// Keep tokens at least this fraction as probable as the first (default 0.05); 0 keeps
    /// all.
    #[serde(serialize_with = "shortest")]
    pub min_p: f32,
}

/// Writes 0.8 as 0.8, not as the double that is nearest to the float.
pub(crate) fn shortest<S: Serializer>(
    x: &f32,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    let double = x.to_string().parse().unwrap_or(f64::from(*x));
    serializer.serialize_f64(double)
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
        }
    }
}

impl SamplingOptions {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Field`] naming the field and its value.
    pub fn validate(&self) -> Result<()> {
        let within = |flag: &str, value: f32, high: f32| {
            if value.is_finite() && (0.0..=high).contains(&value) {
                return Ok(());
            }
            let range = if high < f32::MAX {
                format!("between 0 and {high}")
            } else {
                "0 or more".into()
            };
            Err(Error::field(flag, format!("{value} is not {range}")))
        };
        within("temp", self.temperature, f32::MAX)?;
        within("top-p", self.top_p, 1.0)?;
        within("min-p", self.min_p, 1.0)
    }
}

/// How a token is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenChoice {
    /// The largest logit; of equal ones the lowest id.
    #[default]
    Argmax,
    /// A draw from the sampling chain.
    Sample(SamplingOptions),
}

impl TokenChoice {
    /// A draw at temperature 1 from all that there is.
    pub const PLAIN: Self = Self::Sample(SamplingOptions {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
    });
}

/// Chooses tokens; keeps its buffers between calls.
#[derive(Default)]
pub struct Chooser {
    kept: Vec<(f32, Token)>,
}

/// Larger logits first, then lower ids.
fn by_logit(a: &(f32, Token), b: &(f32, Token)) -> Ordering {
    b.0.partial_cmp(&a.0)
        .unwrap_or(Ordering::Equal)
        .then(a.1.cmp(&b.1))
}

impl Chooser {
    /// A token for `logits` `[vocabulary]`; `uniform` in `[0, 1)` decides a draw.
    pub fn choose(&mut self, choice: &TokenChoice, logits: &[f32], uniform: f64) -> Token {
        match choice {
            TokenChoice::Argmax => argmax(logits),
            TokenChoice::Sample(options) if options.temperature <= 0.0 => argmax(logits),
            TokenChoice::Sample(options) => {
                self.truncate(options, logits);
                self.draw(options.temperature, uniform)
            }
        }
    }

    /// The tokens that the chain keeps for a draw, the most probable first, with their
    /// logits.
    pub fn filter(&mut self, options: &SamplingOptions, logits: &[f32]) -> &[(f32, Token)] {
        self.truncate(options, logits);
        self.kept.sort_unstable_by(by_logit);
        &self.kept
    }

    fn truncate(&mut self, options: &SamplingOptions, logits: &[f32]) {
        self.top_k(options.top_k, logits);
        if options.top_p < 1.0 {
            self.top_p(f64::from(options.top_p));
        }
        if options.min_p > 0.0 {
            let least = self.best() + options.min_p.ln();
            self.kept.retain(|c| c.0 >= least);
        }
    }

    /// The largest logit kept.
    fn best(&self) -> f32 {
        self.kept.iter().map(|c| c.0).fold(f32::MIN, f32::max)
    }

    fn top_k(&mut self, k: usize, logits: &[f32]) {
        self.kept.clear();
        // NaN is the least of all.
        let all = logits.iter().map(|l| l.max(f32::NEG_INFINITY)).zip(0..);
        if k == 0 || k >= logits.len() {
            // What is not allowed has no chance; where nothing is, all are alike.
            self.kept
                .extend(all.clone().filter(|c| c.0 > f32::NEG_INFINITY));
            if self.kept.is_empty() {
                self.kept.extend(all);
            }
            return;
        }
        // One pass with the k best so far in order: most logits fail the first comparison.
        let mut least = f32::NEG_INFINITY;
        for candidate in all {
            if self.kept.len() == k && candidate.0 <= least {
                continue;
            }
            let place = self
                .kept
                .partition_point(|c| by_logit(c, &candidate).is_lt());
            if self.kept.len() == k {
                self.kept.pop();
            }
            self.kept.insert(place, candidate);
            least = self.kept.last().map_or(least, |c| c.0);
        }
    }

    fn top_p(&mut self, p: f64) {
        let best = self.best();
        let weight = |c: &(f32, Token)| f64::from((c.0 - best).exp());
        let total: f64 = self.kept.iter().map(weight).sum();
        let mut sum = 0.0;
        let last = self.find_sorted(|c| {
            sum += weight(c);
            sum >= p * total
        });
        if let Some(last) = last {
            self.kept.truncate(last + 1);
        }
    }

    fn draw(&mut self, temperature: f32, uniform: f64) -> Token {
        let best = self.best();
        let weight = |c: &(f32, Token)| f64::from((c.0 - best) / temperature).exp();
        let total: f64 = self.kept.iter().map(weight).sum();
        let mut left = uniform * total;
        let drawn = self.find_sorted(|c| {
            left -= weight(c);
            left < 0.0
        });
        let drawn = drawn.map_or(self.kept.last(), |i| self.kept.get(i));
        drawn.map_or(0, |c| c.1)
    }

    /// Goes through the kept tokens, the most probable first, up to the one that `wanted`
    /// wants, and gives its index. Sorting a whole vocabulary is rarely needed: ever more of
    /// its head is sorted.
    fn find_sorted(&mut self, mut wanted: impl FnMut(&(f32, Token)) -> bool) -> Option<usize> {
        let mut sorted = 0;
        let mut head = 256;
        while sorted < self.kept.len() {
            let end = head.min(self.kept.len());
            if end < self.kept.len() {
                self.kept[sorted..].select_nth_unstable_by(end - sorted, by_logit);
            }
            self.kept[sorted..end].sort_unstable_by(by_logit);
            if let Some(i) = self.kept[sorted..end].iter().position(&mut wanted) {
                return Some(sorted + i);
            }
            (sorted, head) = (end, end * 4);
        }
        None
    }
}

/// Index of the largest logit, the first of equal ones; NaN never wins.
fn argmax(logits: &[f32]) -> Token {
    // Only the block that holds the largest is searched.
    const BLOCK: usize = 1024;
    let mut best = f32::NEG_INFINITY;
    let mut block = 0;
    for (i, part) in logits.chunks(BLOCK).enumerate() {
        let most = largest(part);
        if most > best {
            (best, block) = (most, i);
        }
    }
    let start = block * BLOCK;
    let offset = logits
        .iter()
        .skip(start)
        .position(|&x| x == best)
        .unwrap_or(0);
    Token::try_from(start + offset).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(top_k: usize, top_p: f32, min_p: f32) -> SamplingOptions {
        SamplingOptions {
            temperature: 1.0,
            top_k,
            top_p,
            min_p,
        }
    }

    #[test]
    fn argmax_takes_the_first_of_equals_and_never_nan() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, f32::NAN]), 1);
        let mut long = vec![0.0; 5000];
        (long[4097], long[4100]) = (2.0, 2.0);
        assert_eq!(argmax(&long), 4097);
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), 1);
        let mut chooser = Chooser::default();
        let kept = chooser.filter(&sample(2, 1.0, 0.0), &[f32::NAN, 1.0, 2.0]);
        assert_eq!(kept, [(2.0, 2), (1.0, 1)]);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits: Vec<f32> = [0.5_f32, 0.25, 0.25].iter().map(|p| p.ln()).collect();
        let mut chooser = Chooser::default();
        let choice = TokenChoice::Sample(sample(0, 1.0, 0.0));
        let mut counts = [0; 3];
        for i in 0..1000 {
            let token = chooser.choose(&choice, &logits, (f64::from(i) + 0.5) / 1000.0);
            counts[token as usize] += 1;
        }
        assert_eq!(counts, [500, 250, 250]);
    }

    #[test]
    fn ranges_are_checked_by_flag() {
        for (options, flag) in [
            (
                SamplingOptions {
                    temperature: -1.0,
                    ..Default::default()
                },
                "temp",
            ),
            (
                SamplingOptions {
                    top_p: 1.5,
                    ..Default::default()
                },
                "top-p",
            ),
            (
                SamplingOptions {
                    min_p: f32::NAN,
                    ..Default::default()
                },
                "min-p",
            ),
        ] {
            let error = options.validate().unwrap_err().to_string();
            assert!(error.starts_with(flag), "{error}");
        }
    }

    proptest! {
        #[test]
        fn top_k_is_a_full_sort_cut_off(
            logits in prop::collection::vec(-5_i8..5, 1..300), k in 1_usize..50,
        ) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let mut expected: Vec<(f32, Token)> = logits.iter().copied().zip(0..).collect();
            expected.sort_by(by_logit);
            expected.truncate(k);
            let mut chooser = Chooser::default();
            prop_assert_eq!(chooser.filter(&sample(k, 1.0, 0.0), &logits), &expected[..]);
        }

        #[test]
        fn a_draw_from_all_is_a_full_sort_summed_up(
            logits in prop::collection::vec(-3.0_f32..3.0, 1..3000), uniform in 0.0..1.0,
        ) {
            let mut sorted: Vec<(f32, Token)> = logits.iter().copied().zip(0..).collect();
            sorted.sort_by(by_logit);
            let weights = sorted.iter().map(|c| f64::from(c.0 - sorted[0].0).exp());
            let mut left: f64 = uniform * weights.clone().sum::<f64>();
            let index = weights.into_iter().position(|w| { left -= w; left < 0.0 });
            // The sums are rounded in another order.
            prop_assume!(left.abs() > 1e-9);
            let choice = TokenChoice::Sample(sample(0, 1.0, 0.0));
            let token = Chooser::default().choose(&choice, &logits, uniform);
            prop_assert_eq!(token, index.map_or(0, |i| sorted[i].1));
        }

        #[test]
        fn top_p_is_a_full_sort_summed_up(
            logits in prop::collection::vec(-3.0_f32..3.0, 1..3000), p in 0.01_f32..0.999,
        ) {
            let mut sorted: Vec<(f32, Token)> = logits.iter().copied().zip(0..).collect();
            sorted.sort_by(by_logit);
            let weights: Vec<f64> = sorted.iter().map(|c| f64::from((c.0 - sorted[0].0).exp())).collect();
            let total: f64 = logits.iter().map(|&l| f64::from((l - sorted[0].0).exp())).sum();
            let mut sum = 0.0;
            let count = weights.iter().position(|w| { sum += w; sum >= f64::from(p) * total });
            let mut chooser = Chooser::default();
            let kept = chooser.filter(&sample(0, p, 0.0), &logits);
            prop_assert_eq!(kept.len(), count.map_or(sorted.len(), |c| c + 1));
        }
    }
}
