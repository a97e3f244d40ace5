//! Measures of an answer besides its reward.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::llama::{Attention, ChatOptions, Model};
use crate::reward::{FeaturePooling, Features, FeaturesOptions, RewardText, Sample, TooLong};

/// Π_{n=2..4} (1 − rep_n), rep_n = 1 − unique n-grams / (n-grams + 1), over the words of a text:
/// near 1 where nothing is said twice, 0 for fewer than two words.
///
/// Source: Khanov et al. 2024 (ARGS, arXiv 2402.01694), after Su et al. 2022.
#[must_use]
pub fn diversity(text: &str) -> f64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    let kept = |n: usize| {
        let grams = words.windows(n);
        let count = grams.len() as f64;
        let unique: HashSet<&[&str]> = grams.collect();
        unique.len() as f64 / (count + 1.0)
    };
    (2..=4)
        .filter(|&n| words.len() >= n)
        .map(kept)
        .product::<f64>()
        * f64::from(u8::from(words.len() >= 2))
}

/// Whether a text is hardly an answer: fewer than five words, or one of them three times in ten.
/// Words are what stands between spaces, without their punctuation and in lower case.
#[must_use]
pub fn is_degenerate(text: &str) -> bool {
    let words: Vec<String> = text
        .split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for word in &words {
        *counts.entry(word).or_default() += 1;
    }
    let most = counts.into_values().max().unwrap_or(0);
    words.len() < 5 || 10 * most >= 3 * words.len()
}

/// Cosine of the embeddings of prompt and response.
pub struct Coherence {
    features: Features,
    last_prompt: Option<(String, Vec<f32>)>,
}

impl Coherence {
    /// Embeds with `model`: the mean of its final hidden states over a text.
    ///
    /// # Errors
    /// Those of [`Features::new`].
    pub fn new(model: Arc<Model>, threads: usize) -> Result<Self> {
        let options = FeaturesOptions {
            rendering: ChatOptions::default(),
            threads,
            attention: Attention::default(),
            text: Some(RewardText::parse("{response}")?),
            append: None,
            pooling: Some(FeaturePooling::Mean),
            too_long: TooLong::Truncate,
        };
        Ok(Self {
            features: Features::new(model, &options)?,
            last_prompt: None,
        })
    }

    /// The cosine, −1 to 1; `None` where one of the two has no embedding.
    ///
    /// # Errors
    /// [`Error::Engine`] when llama.cpp fails.
    pub fn cosine(&mut self, prompt: &str, response: &str) -> Result<Option<f64>> {
        if self.last_prompt.as_ref().is_none_or(|(p, _)| p != prompt) {
            let Some(values) = self.embed(prompt)? else {
                return Ok(None);
            };
            self.last_prompt = Some((prompt.to_owned(), values));
        }
        let response = self.embed(response)?;
        let prompt = self.last_prompt.as_ref().map(|(_, values)| values);
        Ok(prompt.zip(response).and_then(|(a, b)| cosine(a, &b)))
    }

    fn embed(&mut self, text: &str) -> Result<Option<Vec<f32>>> {
        let sample = Sample::new("", text);
        let mut vectors = self.features.compute(&[sample])?;
        let vector = vectors.pop();
        let vector = vector.ok_or_else(|| Error::Engine("a text without features".into()))?;
        Ok(vector.ok().map(|v| v.values))
    }
}

fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    let dot = |x: &[f32], y: &[f32]| {
        let products = x.iter().zip(y).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum::<f64>()
    };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    (norms > 0.0).then(|| dot(a, b) / norms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diversity_is_counted_by_hand() {
        // 5 words: 4, 3, 2 n-grams, all unique.
        let all_new = (4.0 / 5.0) * (3.0 / 4.0) * (2.0 / 3.0);
        assert!((diversity("one two three four five") - all_new).abs() < 1e-12);
        // 1 unique n-gram of each length.
        let repeated = (1.0 / 5.0) * (1.0 / 4.0) * (1.0 / 3.0);
        assert!((diversity("a a a a a") - repeated).abs() < 1e-12);
        assert_eq!(diversity("word"), 0.0);
        assert_eq!(diversity(""), 0.0);
    }

    #[test]
    fn answers_that_are_hardly_any_are_known() {
        assert!(is_degenerate("Beautiful countryside welcomes welcomes."));
        assert!(is_degenerate("the truth and the truth and the sea"));
        assert!(is_degenerate(""));
        assert!(!is_degenerate("A serene and peaceful western landscape."));
        assert!(!is_degenerate(
            "– The dog, the – cat, a bird and two of more."
        ));
    }

    #[test]
    fn cosines() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), Some(0.0));
        assert_eq!(cosine(&[1.0, 1.0], &[-2.0, -2.0]), Some(-1.0));
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), None);
    }
}
