//! What methods ask of the model; read from its file when the first one asks, and kept.

use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::llama::Model;
use crate::output::OutputRows;

/// Facts about one model.
pub struct Facts {
    model: Arc<Model>,
    output: OnceLock<Arc<OutputRows>>,
    row_spread: OnceLock<f64>,
}

impl Facts {
    /// About `model`; nothing is read yet.
    #[must_use]
    pub fn new(model: Arc<Model>) -> Self {
        Self {
            model,
            output: OnceLock::new(),
            row_spread: OnceLock::new(),
        }
    }

    /// Width d of the pre-logits.
    #[must_use]
    pub fn width(&self) -> usize {
        self.model.width()
    }

    /// The output matrix.
    ///
    /// # Errors
    /// Those of [`Model::output_rows`].
    pub fn output(&self) -> Result<Arc<OutputRows>> {
        if let Some(output) = self.output.get() {
            return Ok(Arc::clone(output));
        }
        let output = Arc::new(self.model.output_rows()?);
        Ok(Arc::clone(self.output.get_or_init(|| output)))
    }

    /// Spread of the rows of the output matrix around their mean.
    ///
    /// # Errors
    /// Those of [`OutputRows::spread`]; [`Error::Model`] where its rows are all equal.
    pub fn row_spread(&self) -> Result<f64> {
        if let Some(spread) = self.row_spread.get() {
            return Ok(*spread);
        }
        let spread = self.output()?.spread()?;
        if spread <= 0.0 {
            let reason = "its output matrix has no rows that differ: its weights are all alike; download \
                          it again, or convert the model again";
            return Err(Error::model(self.model.path(), reason));
        }
        Ok(*self.row_spread.get_or_init(|| spread))
    }
}
