//! What rewards are loaded with, and the models that they share.

use std::path::Path;
use std::sync::Arc;

use super::{RewardKind, RewardText, TooLong};
use crate::error::{Error, Result};
use crate::llama::{Attention, ChatOptions, Model, ModelOptions, Placement};
use crate::stop::Stop;

/// Loads rewards; a model that several of them name, or that is the generator, is loaded
/// once.
pub struct RewardLoader {
    /// The generator, where there is one.
    pub generator: Option<Arc<Model>>,
    /// Loading of models.
    pub model: ModelOptions,
    /// CPU threads.
    pub threads: usize,
    /// How attention is computed.
    pub attention: Attention,
    /// How conversations are rendered; its template is the generator's alone.
    pub chat: ChatOptions,
    /// The text of [`RewardSpec::file`](super::RewardSpec::file) rewards; `None` takes what their file states.
    pub text: Option<RewardText>,
    /// What happens to texts too long for those.
    pub too_long: TooLong,
    /// A request to stop, soon after which a reward that is silent is given up.
    pub stop: Stop,
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
            attention: Attention::default(),
            chat: ChatOptions::default(),
            text: None,
            too_long: TooLong::default(),
            stop: Stop::new(),
            loaded: Vec::new(),
        }
    }

    /// A model, loaded once for all that use its path and put it in the same place. The generator is
    /// used where it is in that file and no adapter changes it.
    ///
    /// # Errors
    /// Those of [`Model::load`].
    pub fn open(&mut self, path: &Path, placement: &Placement) -> Result<Arc<Model>> {
        let options = placement.applied(&self.model);
        let same = |model: &&Arc<Model>| {
            model.path() == path
                || matches!(
                    (model.path().canonicalize(), path.canonicalize()),
                    (Ok(a), Ok(b)) if a == b
                )
        };
        let fits = |model: &&Arc<Model>| *model.options() == options;
        let generator = self.generator.iter().filter(same).find(|model| {
            let anywhere = placement.is_empty() && model.options().lora.is_empty();
            anywhere || fits(model)
        });
        let mut loaded = self.loaded.iter().filter(fits);
        if let Some(model) = generator.or_else(|| loaded.find(same)) {
            return Ok(Arc::clone(model));
        }
        let model = Model::load(path, &options).map_err(misplaced(placement))?;
        let model = Arc::new(model);
        self.loaded.push(Arc::clone(&model));
        Ok(model)
    }

    /// The model of `KIND:FILE`, or the generator for `KIND:self`, where there is no file.
    ///
    /// # Errors
    /// Those of [`Self::open`], and [`Error::Field`] where there is no generator, or it is to go
    /// elsewhere.
    pub(super) fn open_or_self(
        &mut self,
        kind: &RewardKind,
        file: Option<&Path>,
        placement: &Placement,
    ) -> Result<Arc<Model>> {
        match (file, &self.generator) {
            (Some(file), _) => self.open(file, placement),
            (None, _) if !placement.is_empty() => Err(kind.refuse(
                "the generator is where it is; leave out ngl=… and dev=…, or name its file",
            )),
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

/// For `map_err`: a device that is not there is the fault of the description that names it.
pub(super) fn misplaced(placement: &Placement) -> impl Fn(Error) -> Error {
    let named = placement.devices.is_some();
    move |error| match error {
        Error::Field { field, reason } if named && field == "device" => {
            Error::field("reward", format!("dev={reason}"))
        }
        other => other,
    }
}
