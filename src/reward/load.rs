//! What rewards are loaded with, and the models that they share.

use std::path::Path;
use std::sync::Arc;

use super::{RewardKind, RewardText, TooLong};
use crate::error::{Error, Result};
use crate::llama::{ChatOptions, Model, ModelOptions};

/// Loads rewards; a model that several of them name, or that is the generator, is loaded
/// once.
pub struct RewardLoader {
    /// The generator, where there is one.
    pub generator: Option<Arc<Model>>,
    /// Loading of models.
    pub model: ModelOptions,
    /// CPU threads.
    pub threads: usize,
    /// How conversations are rendered; its template is the generator's alone.
    pub chat: ChatOptions,
    /// The text of [`RewardSpec::file`](super::RewardSpec::file) rewards; `None` takes what their file states.
    pub text: Option<RewardText>,
    /// What happens to texts too long for those.
    pub too_long: TooLong,
    loaded: Vec<Arc<Model>>,
}

impl RewardLoader {
    /// Loads with `threads` CPU threads, on whatever files state.
    #[must_use]
    pub fn new(generator: Option<Arc<Model>>, model: ModelOptions, threads: usize) -> Self {
        Self {
            generator,
            model,
            threads,
            chat: ChatOptions::default(),
            text: None,
            too_long: TooLong::default(),
            loaded: Vec::new(),
        }
    }

    /// A model, loaded once for all that use its path.
    ///
    /// # Errors
    /// Those of [`Model::load`].
    pub fn open(&mut self, path: &Path) -> Result<Arc<Model>> {
        let same = |model: &&Arc<Model>| {
            model.path() == path
                || matches!(
                    (model.path().canonicalize(), path.canonicalize()),
                    (Ok(a), Ok(b)) if a == b
                )
        };
        let known = self.generator.iter().chain(&self.loaded).find(same);
        if let Some(model) = known {
            return Ok(Arc::clone(model));
        }
        let model = Arc::new(Model::load(path, &self.model)?);
        self.loaded.push(Arc::clone(&model));
        Ok(model)
    }

    /// The model of `KIND:FILE`, or the generator for `KIND:self`, where there is no file.
    ///
    /// # Errors
    /// Those of [`Self::open`], and [`Error::Field`] where there is no generator.
    pub(super) fn open_or_self(
        &mut self,
        kind: &RewardKind,
        file: Option<&Path>,
    ) -> Result<Arc<Model>> {
        match (file, &self.generator) {
            (Some(file), _) => self.open(file),
            (None, Some(generator)) => Ok(Arc::clone(generator)),
            (None, None) => {
                let name = kind.name;
                let reason =
                    format!("{name}:self needs a generator; name a file, {name}:FILE.gguf");
                Err(Error::field("reward", reason))
            }
        }
    }
}
