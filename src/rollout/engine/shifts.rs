//! The logits of z + v from those of z, for a few tokens: W_j·v is added to the logit of each.
//!
//! Under a floor only the tokens that it allows can be chosen, some dozens of a vocabulary; their
//! rows cost nothing beside a second product with the whole output matrix, and v is not rounded to
//! the activations' type.

use crate::error::{Error, Result};
use crate::llama::Model;
use crate::math::largest;
use crate::output::{OutputHead, OutputRows};

/// What it takes of a model.
pub(super) struct Shifts {
    rows: OutputRows,
    head: OutputHead,
    row: Vec<f32>,
}

impl Shifts {
    /// Those of `model`; `None` where its rows cannot be read, or its head is not known.
    pub(super) fn of(model: &Model) -> Option<Self> {
        let head = OutputHead::read(model.gguf()).ok()?;
        let rows = model.output_rows().ok()?;
        let mut row = vec![0.0; rows.width()];
        rows.row(0, &mut row).ok()?;
        (rows.width() == model.width()).then_some(Self { rows, head, row })
    }

    /// Moves those of the `logits` `[vocabulary]` that are finite from z to z + v; what is not finite
    /// then is NaN.
    pub(super) fn apply(&mut self, v: &[f32], logits: &mut [f32]) -> Result<()> {
        // All of a block, so that the compiler may use vectors.
        const BLOCK: usize = 256;
        let any = |block: &[f32]| block.iter().fold(false, |any, l| any | l.is_finite());
        let blocks = logits.chunks_mut(BLOCK).zip((0..).step_by(BLOCK));
        let blocks = blocks.filter(|(block, _)| any(block));
        let all = blocks.flat_map(|(block, first)| block.iter_mut().zip(first..));
        for (logit, token) in all.filter(|(logit, _)| logit.is_finite()) {
            self.rows.row(token, &mut self.row)?;
            let products = self
                .row
                .iter()
                .zip(v)
                .map(|(&w, &v)| f64::from(w) * f64::from(v));
            let shifted = self.head.shifted(*logit, products.sum::<f64>() as f32);
            *logit = if shifted.is_finite() {
                shifted
            } else {
                f32::NAN
            };
        }
        Ok(())
    }
}

/// The least of the `own` logits that are not below the floor.
pub(super) fn least(floor: f32, own: &[f32]) -> f32 {
    largest(own) + floor.ln()
}

/// Puts into `allowed` the `logits` of the tokens whose `own` logit is not below the floor, and −∞
/// for the others; all `[vocabulary]`.
pub(super) fn above(floor: f32, own: &[f32], logits: &[f32], allowed: &mut Vec<f32>) {
    let least = least(floor, own);
    let both = logits.iter().zip(own);
    allowed.clear();
    allowed.extend(both.map(|(&l, &o)| if o < least { f32::NEG_INFINITY } else { l }));
}

/// Refuses logits that are no numbers.
pub(super) fn check(logits: &[f32], position: usize) -> Result<()> {
    // All of a block, so that the compiler may use vectors.
    let any = |block: &[f32]| block.iter().fold(false, |nan, logit| nan | logit.is_nan());
    match logits.chunks(1024).any(any) {
        true => Err(Error::Run(format!(
            "the logits of token {position} are NaN or infinite; what moves them is too strong: lower `step`, \
             `steer` or the noise, or check the model with `aisp-llama inspect`"
        ))),
        false => Ok(()),
    }
}
