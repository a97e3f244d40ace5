//! What a candidate's price does to its worth.
//!
//! A response is as dear as it is improbable to the model itself: `Σ_t (−log p(y_t | y_<t) − H_t)`
//! nats, zero on average for the model's own samples. The objective `E[r] − λ·KL` charges it
//! ([`PriceRule::Weight`]); a guard ([`PriceRule::Limit`]) leaves the reward as it is and refuses
//! what is dearer than a limit.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::options::{ControlError, invalid};

/// How the price counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum PriceRule {
    /// Not at all.
    Off,
    /// What is dearer a token than a limit is worth nothing.
    #[default]
    Limit,
    /// Each nat costs so much, in reward units.
    Weight(f64),
}

impl Serialize for PriceRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::Limit => serializer.serialize_str("limit"),
            Self::Weight(weight) => serializer.serialize_f64(*weight),
        }
    }
}

impl<'de> Deserialize<'de> for PriceRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Word(String),
        }
        match Written::deserialize(deserializer) {
            Ok(Written::Number(weight)) => Ok(Self::Weight(weight)),
            Ok(Written::Word(word)) if word == "off" => Ok(Self::Off),
            Ok(Written::Word(word)) if word == "limit" => Ok(Self::Limit),
            _ => Err(D::Error::custom("expected limit, off or a number")),
        }
    }
}

/// What the model itself, without perturbation and truncation and at temperature 1, says of a
/// token of a candidate, in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenNats {
    /// −log p of the token.
    pub surprise: f32,
    /// Entropy H of the distribution that p is of.
    pub entropy: f32,
    /// log p − log q of a token that was drawn from perturbed logits at temperature 1 and without
    /// truncation, both over the tokens that the floor allows, q being what it was drawn from; 0
    /// without a perturbation and for tokens that were chosen otherwise.
    pub log_ratio: f32,
}

/// What a candidate costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Its price in nats.
    pub nats: f64,
    /// Its price in nats a token.
    pub per_token: f64,
    /// −log p, its surprise, in nats a token.
    pub surprise: f64,
}

/// Mean and standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Level {
    pub(super) mean: f64,
    pub(super) sd: f64,
}

impl Level {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let n = values.clone().count() as f64;
        let mean = values.clone().sum::<f64>() / n;
        let squares: f64 = values.map(|x| (x - mean).powi(2)).sum();
        Self {
            mean,
            sd: (squares / (n - 1.0)).sqrt(),
        }
    }
}

/// The rule with its limits, where they are known by now.
///
/// A limit that is given is one of the price a token. One that is not is found from the first
/// iteration, and is then one of the surprise as well: a text that leads the model to where it does
/// not know how to go on has surprise, and entropy to pay for it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PriceGuard {
    rule: PriceRule,
    given: Option<f64>,
    /// The first candidates' prices and surprises a token.
    first: Option<(Level, Level)>,
}

impl PriceGuard {
    /// `limit` is in nats a token; `None` is found from the [first](Self::observe_first) candidates.
    ///
    /// # Errors
    /// [`ControlError::Option`] for a weight below 0 or a limit that is no number.
    pub fn new(rule: PriceRule, limit: Option<f64>) -> Result<Self, ControlError> {
        if let PriceRule::Weight(weight) = rule
            && !(weight >= 0.0 && weight.is_finite())
        {
            invalid("price", weight, "limit, off, or a finite number, 0 or more")?;
        }
        if let Some(limit) = limit.filter(|limit| !limit.is_finite()) {
            invalid("price-limit", limit, "auto or a finite number")?;
        }
        Ok(Self {
            rule,
            given: limit,
            first: None,
        })
    }

    /// Takes what the first iteration's candidates cost: limits that are not given are their mean
    /// and one standard deviation.
    pub fn observe_first(&mut self, costs: &[Cost]) {
        if costs.len() > 1 && self.first.is_none() {
            let prices = Level::of(costs.iter().map(|c| c.per_token));
            let surprises = Level::of(costs.iter().map(|c| c.surprise));
            self.first = Some((prices, surprises));
        }
    }

    /// The limit in nats a token, where there is one.
    #[must_use]
    pub fn limit(&self) -> Option<f64> {
        let found = self.first.map(|(price, _)| price.mean + price.sd);
        self.given
            .or(found)
            .filter(|_| self.rule == PriceRule::Limit)
    }

    /// The limit of the surprise in nats a token, where there is one.
    #[must_use]
    pub fn surprise_limit(&self) -> Option<f64> {
        let auto = self.rule == PriceRule::Limit && self.given.is_none();
        let found = self.first.map(|(_, surprise)| surprise.mean + surprise.sd);
        found.filter(|_| auto)
    }

    /// How much of what the limits leave above the first candidates is used up by `costs` on average:
    /// 1 at the limit; `None` where there is none.
    pub(super) fn used(&self, costs: &[Cost]) -> Option<f64> {
        let (price, surprise) = self.first?;
        let share = |limit: Option<f64>, first: Level, of: fn(&Cost) -> f64| {
            let mean = costs.iter().map(of).sum::<f64>() / costs.len().max(1) as f64;
            Some((mean - first.mean) / (limit? - first.mean).max(1e-3))
        };
        let price = share(self.limit(), price, |c| c.per_token);
        let surprise = share(self.surprise_limit(), surprise, |c| c.surprise);
        price.into_iter().chain(surprise).reduce(f64::max)
    }

    /// What a candidate is worth, in reward units; −∞ above a limit.
    #[must_use]
    pub fn worth(&self, reward: f64, cost: Option<Cost>) -> f64 {
        let Some(cost) = cost else {
            return reward;
        };
        let above = |limit: Option<f64>, value: f64| limit.is_some_and(|limit| value > limit);
        match self.rule {
            PriceRule::Weight(weight) => reward - weight * cost.nats,
            _ if above(self.limit(), cost.per_token) => f64::NEG_INFINITY,
            _ if above(self.surprise_limit(), cost.surprise) => f64::NEG_INFINITY,
            _ => reward,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten tokens at a price, where the entropy is 2.
    fn cost(per_token: f64) -> Cost {
        Cost {
            nats: 10.0 * per_token,
            per_token,
            surprise: 2.0 + per_token,
        }
    }

    #[test]
    fn the_limits_are_a_deviation_above_the_first_means() {
        let mut guard = PriceGuard::default();
        assert_eq!(guard.worth(1.0, Some(cost(9.0))), 1.0);
        guard.observe_first(&[-1.0, 0.0, 1.0].map(cost));
        guard.observe_first(&[5.0, 6.0].map(cost));
        assert_eq!(
            (guard.limit(), guard.surprise_limit()),
            (Some(1.0), Some(3.0))
        );
        assert_eq!(guard.worth(1.0, Some(cost(1.0))), 1.0);
        assert_eq!(guard.worth(1.0, Some(cost(1.1))), f64::NEG_INFINITY);
        assert_eq!(guard.worth(1.0, None), 1.0);
        assert_eq!(guard.used(&[0.0, 1.0].map(cost)), Some(0.5));
        // Entropy does not pay for surprise.
        let lost = Cost {
            surprise: 3.1,
            ..cost(0.0)
        };
        assert_eq!(guard.worth(1.0, Some(lost)), f64::NEG_INFINITY);
        let mut given = PriceGuard::new(PriceRule::Limit, Some(0.5)).unwrap();
        given.observe_first(&[-1.0, 0.0, 1.0].map(cost));
        assert_eq!((given.limit(), given.surprise_limit()), (Some(0.5), None));
        assert_eq!(given.worth(1.0, Some(lost)), 1.0);
    }

    #[test]
    fn nats_are_charged_and_off_is_off() {
        let weight = PriceGuard::new(PriceRule::Weight(0.5), None).unwrap();
        assert_eq!(weight.worth(1.0, Some(cost(0.2))), 0.0);
        let mut off = PriceGuard::new(PriceRule::Off, Some(0.0)).unwrap();
        off.observe_first(&[0.0, 0.0].map(cost));
        assert_eq!((off.worth(1.0, Some(cost(0.2))), off.limit()), (1.0, None));
    }

    #[cfg(feature = "engine")]
    #[test]
    fn rules_are_read_as_they_are_written() {
        for (rule, text) in [
            (PriceRule::Off, "\"off\""),
            (PriceRule::Limit, "\"limit\""),
            (PriceRule::Weight(0.5), "0.5"),
        ] {
            assert_eq!(serde_json::to_string(&rule).unwrap(), text);
            assert_eq!(serde_json::from_str::<PriceRule>(text).unwrap(), rule);
        }
        assert!(serde_json::from_str::<PriceRule>("\"on\"").is_err());
    }
}
