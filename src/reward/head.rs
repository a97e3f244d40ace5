//! A scalar head beside a model: reward = w·features + b, computed here.
//!
//! llama.cpp loads classification heads for a few architectures only and squashes the
//! single output of others to a constant. Here the model computes [`Features`] and the
//! head, from a file of its own or from the GGUF, is applied in Rust: any decoder becomes a
//! reward model (last-token pre-logits, as Hugging Face's sequence classification does it),
//! and so does any encoder (mean features, or the first token's under a dense layer).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::head_file::LinearHead;
use super::options::{self, Options};
use super::{
    FeaturePooling, FeatureVector, Features, FeaturesOptions, ReadText, Reward, RewardKind,
    RewardLoader, RewardOption, RewardSource, RewardText, Sample, Score, Scores, check_tells_apart,
};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::llama::{Attention, ChatOptions, Model, Placement, head_inside_obstacle};

/// Its place among the kinds.
pub(super) const KIND: RewardKind = RewardKind {
    name: "head",
    form: "head:FILE",
    about: "a scalar head, from a file of its own or inside the GGUF, on the model's features",
    terms: &[],
    options: &[
        RewardOption::new(
            "head",
            "FILE",
            "the safetensors or GGUF file with the head [default: that inside FILE]",
        ),
        RewardOption::new(
            "name",
            "TENSOR",
            "the head's weights in that file [default: the names that heads are known by]",
        ),
        options::TEXT,
        RewardOption::new(
            "append",
            "TOKEN",
            "the token that every text ends with [default: what the head states]",
        ),
        RewardOption::new(
            "pooling",
            "last|mean|cls",
            "the last token's features, the mean of all, or an encoder's first [default: what the head \
             states, else last for decoders and mean for encoders]",
        ),
        options::TOO_LONG,
        options::NGL,
        options::DEV,
    ],
    parse,
};

fn parse(text: &str) -> Result<Arc<dyn RewardSource>> {
    let (file, mut options) = Options::parse(&KIND, text)?;
    let parsed = HeadOptions {
        head: options.text("head").map(PathBuf::from),
        name: options.text("name"),
        features: FeaturesOptions {
            append: options.text("append"),
            rendering: ChatOptions::default(),
            threads: 0,
            attention: Attention::default(),
            text: options.reward_text()?,
            pooling: options.take("pooling", str::parse)?,
            too_long: options.too_long()?,
        },
    };
    let placement = options.placement()?;
    options.finish()?;
    Ok(Arc::new(HeadSource(file.into(), parsed, placement)))
}

/// A head by its model's file.
#[derive(Debug)]
pub(super) struct HeadSource(pub PathBuf, pub HeadOptions, pub Placement);

impl RewardSource for HeadSource {
    fn files(&self) -> Vec<&Path> {
        let files = [Some(&self.0), self.1.head.as_ref()];
        files.into_iter().flatten().map(PathBuf::as_path).collect()
    }

    fn load(&self, loader: &mut RewardLoader) -> Result<Box<dyn Reward>> {
        let gguf = Gguf::open(&self.0).map_err(Error::gguf(&self.0))?;
        if let Some(reason) = head_inside_obstacle(&gguf) {
            return Err(Error::model(&self.0, reason));
        }
        let mut options = self.1.clone();
        options.features.threads = loader.threads;
        options.features.attention = loader.attention;
        options.features.rendering = loader.chat.of_any_model();
        let model = loader.open(&self.0, &self.2)?;
        Ok(Box::new(Head::new(model, &options)?))
    }
}

/// How a head is loaded.
#[derive(Clone, Debug, Default)]
pub struct HeadOptions {
    /// The file with the head (safetensors or GGUF); `None` takes the head inside the
    /// model's own file.
    pub head: Option<PathBuf>,
    /// The head's tensor, with or without `.weight`; `None` looks for the known names.
    pub name: Option<String>,
    /// How features are made; text, pooling and the token at the end that are `None` follow what
    /// the head's file states.
    pub features: FeaturesOptions,
}

/// A model with a scalar head beside it.
pub struct Head {
    features: Features,
    head: LinearHead,
    name: String,
}

impl Head {
    /// Puts the head beside `model` and checks that the two are a reward.
    ///
    /// # Errors
    /// [`Error::Model`] where no head is found, for one of another width, and for a reward
    /// that scores two clearly different texts alike; [`Error::Io`] and [`Error::Gguf`] for
    /// an unreadable file.
    pub fn new(model: Arc<Model>, options: &HeadOptions) -> Result<Self> {
        let path = model.path().to_path_buf();
        let name = options.name.as_deref();
        let found = match &options.head {
            Some(file) => Some(LinearHead::read(file, name)?),
            None => LinearHead::from_gguf(&path, model.gguf(), name)?,
        };
        let head_path = options.head.as_deref().unwrap_or(&path);
        let head = found.ok_or_else(|| {
            Error::model(
                &path,
                "has no head (score.weight, cls.output.weight) or none of that name; give one \
                 beside it, head:FILE.gguf;head=HEAD.safetensors, or ask the model itself, \
                 judge:FILE.gguf",
            )
        })?;
        let mut wanted = options.features.clone();
        if wanted.text.is_none() {
            wanted.text = Some(RewardText::of_file(model.gguf(), Some(&head))?.0);
        }
        wanted.append = wanted.append.or_else(|| head.append.clone());
        if wanted.pooling.is_none() {
            let stated = head.pooling.as_deref().map(str::parse).transpose();
            let stated: Option<FeaturePooling> = stated.map_err(|e: String| {
                Error::model(head_path, format!("aisp.reward.pooling: {e}"))
            })?;
            // A dense layer is one of a cross-encoder, on its first token.
            let under_dense = head.dense.is_some().then_some(FeaturePooling::Cls);
            wanted.pooling = stated.or(under_dense);
        }
        let features = Features::new(model, &wanted)?;
        let width = features.model().width();
        if head.weight.len() != width {
            return Err(Error::model(
                head_path,
                format!(
                    "the head takes {} features, {} has {width}; give the head made for it",
                    head.weight.len(),
                    path.display()
                ),
            ));
        }
        let name = match &options.head {
            Some(file) => format!("{} with {}", path.display(), file.display()),
            None => path.display().to_string(),
        };
        let mut head = Self {
            features,
            head,
            name,
        };
        check_tells_apart(&path, &mut head)?;
        Ok(head)
    }

    /// The text that the model sees.
    #[must_use]
    pub fn text(&self) -> &RewardText {
        self.features.text()
    }

    /// The model's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.features.model().path()
    }
}

impl Reward for Head {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sees(&self) -> String {
        self.text().to_string()
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        let vectors = self.features.compute(samples).map_err(Error::in_reward)?;
        let score = |v: FeatureVector| Score {
            reward: self.head.score(&v.values),
            tokens: v.tokens,
            truncated: v.truncated,
            ..Score::default()
        };
        Ok(vectors.into_iter().map(|v| v.map(score)).collect())
    }

    fn reads(&self, sample: &Sample<'_>) -> Result<Vec<ReadText>> {
        Ok(Vec::from_iter(self.features.show(sample)?))
    }
}
