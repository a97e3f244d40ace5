//! A GGUF file in memory: loading, vocabulary, tokens to text and back.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::OnceLock;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token_type::LlamaTokenAttr;
use llama_cpp_sys_2 as sys;
use llguidance::ParserFactory;

use super::load::{Adapter, LoadParams, adapt, override_header};
use super::log::heard;
use super::obstacles::{decoder_obstacle, generator_obstacle, model_obstacle};
use super::placement::ModelOptions;
use super::{ANY_GROUP, LEAST_ROWS, ROW_GROUP, parts};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo, TensorType};
use crate::output::{Decoder, OutputRows};

/// A token id.
pub type Token = i32;

/// What is wrong with a model that computes `what`.
pub(super) fn no_numbers(what: impl fmt::Display) -> String {
    format!(
        "it computes {what}, so some of its weights are no numbers; download it again, or convert \
         the model again"
    )
}

/// A loaded GGUF model, shared by the contexts made from it.
pub struct Model {
    // Freed with `inner`.
    adapters: Vec<Adapter>,
    inner: LlamaModel,
    path: PathBuf,
    options: ModelOptions,
    gguf: Gguf,
    specials: OnceLock<Vec<Special>>,
    ends: OnceLock<Vec<Token>>,
    /// The least rows of a step.
    least_rows: usize,
    /// What reads schemas for its vocabulary.
    pub(super) schemas: OnceLock<std::result::Result<ParserFactory, String>>,
}

impl Model {
    /// Loads `path`; its header is read and checked first, so that a broken file is an
    /// error with a reason instead of llama.cpp's "failed to load", or the end of the process.
    /// [`ModelOptions::isolation`] tries it in another process before.
    ///
    /// # Errors
    /// [`Error::Gguf`] when the file, or that of an adapter, is not a sound GGUF, [`Error::Model`]
    /// when llama.cpp refuses it or would not survive it, [`Error::Field`] for options that cannot be.
    pub fn load(path: &Path, options: &ModelOptions) -> Result<Self> {
        let mut gguf = Gguf::open(path).map_err(Error::gguf(path))?;
        override_header(&mut gguf, &options.override_kv)?;
        if let Some(reason) = model_obstacle(path, &gguf) {
            return Err(Error::model(path, reason));
        }
        let params = LoadParams::new(options, &gguf)?;
        if let Some(isolation) = &options.isolation {
            isolation.check(path, options, &gguf)?;
        }
        let (inner, reason) = heard(|| params.load(path));
        let mut inner = inner.ok_or_else(|| {
            let patterns = match options.override_tensor.is_empty() {
                true => "",
                false => "; is every pattern of `override-tensor` a regular expression?",
            };
            let architecture = gguf.architecture().unwrap_or("?");
            let reason = match reason.is_empty() {
                true => "without a reason; `verbose` shows its log",
                false => &reason,
            };
            Error::model(
                path,
                format!(
                    "llama.cpp cannot load this model (architecture {architecture}): \
                     {reason}{patterns}"
                ),
            )
        })?;
        let adapters = options
            .lora
            .iter()
            .map(|(file, scale)| Adapter::load(&mut inner, &gguf, file, *scale))
            .collect::<Result<Vec<_>>>()?;
        let least = adapters.iter().map(|adapter| least_rows(&adapter.header));
        let model = Self {
            least_rows: least.fold(least_rows(&gguf), usize::max),
            adapters,
            inner,
            path: path.to_path_buf(),
            options: options.clone(),
            gguf,
            specials: OnceLock::new(),
            ends: OnceLock::new(),
            schemas: OnceLock::new(),
        };
        // `raw` reaches through the binding's pointer: what it sees must be this model.
        // SAFETY: a query on a live model.
        let width = unsafe { sys::llama_model_n_embd(model.raw().as_ptr()) };
        assert_eq!(
            width,
            model.inner.n_embd(),
            "llama-cpp-2 changed its model type"
        );
        Ok(model)
    }

    /// The model object of llama.cpp.
    pub(super) fn raw(&self) -> NonNull<sys::llama_model> {
        const {
            assert!(size_of::<LlamaModel>() == size_of::<NonNull<sys::llama_model>>());
            assert!(align_of::<LlamaModel>() == align_of::<NonNull<sys::llama_model>>());
        }
        // SAFETY: `LlamaModel` is `repr(transparent)` over a non-null model pointer; size and
        // alignment are asserted above and `load` checks what the pointer leads to.
        unsafe { *std::ptr::from_ref(&self.inner).cast::<NonNull<sys::llama_model>>() }
    }

    /// The binding's own view of the model, for what it offers beyond this crate.
    #[must_use]
    pub fn as_llama_cpp_2(&self) -> &LlamaModel {
        &self.inner
    }

    /// Where the model was loaded from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it was loaded.
    #[must_use]
    pub fn options(&self) -> &ModelOptions {
        &self.options
    }

    /// Makes a new context of this model use its adapters.
    pub(super) fn adapt(&self, context: NonNull<sys::llama_context>) {
        adapt(context, &self.adapters);
    }

    /// The header of the file, with what was overridden.
    #[must_use]
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// The output matrix as it stands in the file.
    ///
    /// # Errors
    /// Those of [`OutputRows::open`].
    pub fn output_rows(&self) -> Result<OutputRows> {
        OutputRows::open(&self.path, &self.gguf, row_decoder)
    }

    /// All values of a small tensor, as they stand in the file; `None` where it has none.
    pub(super) fn values(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.gguf.tensor(name) else {
            return Ok(None);
        };
        let mut bytes = vec![0; usize::try_from(tensor.bytes).unwrap_or(0)];
        File::open(&self.path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(tensor.offset))?;
                file.read_exact(&mut bytes)
            })
            .map_err(Error::io(&self.path))?;
        if tensor.kind == TensorType::F32 {
            let values = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
            return Ok(Some(values.collect()));
        }
        let mut values = vec![0.0; usize::try_from(tensor.elements()).unwrap_or(0)];
        match row_decoder(tensor.kind) {
            Some(decode) => decode(&bytes, &mut values),
            None => {
                let reason = format!("{name}: its type {} cannot be decoded", tensor.kind);
                return Err(Error::model(&self.path, reason));
            }
        };
        Ok(Some(values))
    }

    /// The error that this model computes what is no number.
    pub(crate) fn computes(&self, what: impl fmt::Display) -> Error {
        Error::model(&self.path, no_numbers(what))
    }

    /// `general.architecture`.
    #[must_use]
    pub fn architecture(&self) -> &str {
        self.gguf.architecture().unwrap_or("unknown")
    }

    /// Width d of the pre-logits.
    #[must_use]
    pub fn width(&self) -> usize {
        usize::try_from(self.inner.n_embd_out()).unwrap_or(0)
    }

    /// Number of tokens in the vocabulary.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        usize::try_from(self.inner.n_vocab()).unwrap_or(0)
    }

    /// Context length the model was trained with, in tokens.
    #[must_use]
    pub fn trained_context(&self) -> usize {
        self.inner.n_ctx_train() as usize
    }

    /// Whether a sequence has a recurrent state, alone or beside keys and values (a hybrid model):
    /// it cannot be cut back, only copied.
    #[must_use]
    pub fn is_recurrent(&self) -> bool {
        self.inner.is_recurrent() || self.inner.is_hybrid()
    }

    /// Rows of a decode step in which so many candidates are written: a multiple of [`ROW_GROUP`], and
    /// as few as their bits allow to depend on nothing else in the step.
    #[must_use]
    pub fn step_rows(&self, candidates: usize) -> usize {
        let least = if self.is_recurrent() {
            LEAST_ROWS
        } else {
            self.least_rows
        };
        candidates.next_multiple_of(ROW_GROUP).max(least)
    }

    /// Refuses what cannot generate here, by the architecture's name and with the reason.
    ///
    /// # Errors
    /// [`Error::Model`].
    pub fn check_generator(&self) -> Result<()> {
        match generator_obstacle(&self.gguf) {
            Some(reason) => Err(Error::model(&self.path, reason)),
            None => self.check_decoder(),
        }
    }

    /// Refuses what cannot read a text token by token here, such as an encoder; a
    /// classification head is no obstacle.
    ///
    /// # Errors
    /// [`Error::Model`].
    pub fn check_decoder(&self) -> Result<()> {
        let arch = self.architecture();
        let raw = self.raw().as_ptr();
        // SAFETY: queries on a live model.
        let decodes_alone =
            unsafe { sys::llama_model_has_decoder(raw) && !sys::llama_model_has_encoder(raw) };
        // The header first; then llama.cpp's own word, for architectures newer than the lists.
        let reason = if let Some(reason) = decoder_obstacle(&self.gguf) {
            reason
        } else if !decodes_alone {
            format!("architecture {arch} has an encoder; a generator decodes alone")
        } else {
            return Ok(());
        };
        Err(Error::model(&self.path, reason))
    }

    /// Outputs of the classification head as llama.cpp counts them.
    pub(super) fn classifier_outputs(&self) -> usize {
        self.inner.n_cls_out() as usize
    }

    /// Tokens of `text`.
    ///
    /// `add_special` adds what the model wants around a text (BOS, EOS); with
    /// `parse_special` texts such as `<|im_end|>` become their special tokens: never do that
    /// with text from a candidate or an untrusted user.
    #[must_use]
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<Token> {
        self.inner
            .vocab()
            .tokenize(text.as_bytes(), add_special, parse_special)
            .into_iter()
            .map(|t| t.0)
            .collect()
    }

    /// The bytes a token stands for; special tokens are empty unless `special`.
    #[must_use]
    pub fn piece(&self, token: Token, special: bool) -> Vec<u8> {
        if token < 0 || token as usize >= self.vocabulary() {
            return Vec::new();
        }
        self.inner
            .vocab()
            .token_to_piece(LlamaToken(token), special, None)
    }

    /// Text of generated tokens, special tokens left out; bytes that are no UTF-8 (a
    /// character cut off by the token limit) become U+FFFD.
    #[must_use]
    pub fn text(&self, tokens: &[Token]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|&t| self.piece(t, false)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether `token` ends the generation (end of sequence, of turn, of message).
    #[must_use]
    pub fn is_end(&self, token: Token) -> bool {
        self.inner.vocab().is_eog(LlamaToken(token))
    }

    /// All tokens that end the generation.
    #[must_use]
    pub fn ends(&self) -> &[Token] {
        self.ends.get_or_init(|| {
            let all = 0..self.vocabulary() as Token;
            all.filter(|&token| self.is_end(token)).collect()
        })
    }

    /// Whether the model wants a BOS token before a text.
    #[must_use]
    pub fn adds_bos(&self) -> bool {
        self.inner.vocab().should_add_bos()
    }

    /// Text of the BOS and EOS tokens, for chat templates; empty where there is none.
    #[must_use]
    pub fn bos_eos_text(&self) -> (String, String) {
        let vocab = self.inner.vocab();
        let text = |t: LlamaToken| String::from_utf8_lossy(&self.piece(t.0, true)).into_owned();
        (text(vocab.bos()), text(vocab.eos()))
    }

    /// The BOS (or CLS) token.
    pub(super) fn bos(&self) -> Option<Token> {
        let token = self.inner.vocab().bos().0;
        (token >= 0).then_some(token)
    }

    /// The token between two texts.
    pub(super) fn separator(&self) -> Option<Token> {
        let token = self.inner.vocab().sep().0;
        (token >= 0).then_some(token)
    }

    /// The tokens that the tokenizer would make of their texts if it were allowed to: those that
    /// control, and that for the unknown.
    pub(super) fn specials(&self) -> &[Special] {
        self.specials.get_or_init(|| {
            let vocab = self.inner.vocab();
            (0..self.vocabulary() as Token)
                .filter_map(|token| {
                    let attributes = vocab.attr(LlamaToken(token));
                    let has = |attribute| attributes.contains(attribute);
                    let special = has(LlamaTokenAttr::Control) || has(LlamaTokenAttr::Unknown);
                    (special || self.is_end(token)).then(|| Special {
                        text: String::from_utf8_lossy(&self.piece(token, true)).into_owned(),
                        token,
                        strips_left: has(LlamaTokenAttr::LStrip),
                        strips_right: has(LlamaTokenAttr::RStrip),
                    })
                })
                .filter(|special| special.text.chars().count() > 1)
                .collect()
        })
    }
}

/// What turns whole rows of a type into numbers, where ggml has it.
pub(crate) fn row_decoder(kind: TensorType) -> Option<Decoder> {
    // A type without blocks is none that ggml's table has.
    kind.block_size()?;
    // SAFETY: ggml has a static table entry for every type with a known block size.
    let decode = unsafe {
        let traits = sys::ggml_get_type_traits(kind.0);
        (!traits.is_null()).then(|| (*traits).to_float)??
    };
    Some(Box::new(move |bytes, out| {
        // SAFETY: `bytes` holds whole rows of this type, `out` room for their values.
        unsafe { decode(bytes.as_ptr().cast(), out.as_mut_ptr(), out.len() as i64) };
        true
    }))
}

/// A token that texts from outside must not bring in.
#[derive(Clone, Debug)]
pub(super) struct Special {
    pub text: String,
    pub token: Token,
    /// Whether it takes the white space before it with it, and that behind it.
    pub strips_left: bool,
    pub strips_right: bool,
}

/// The least rows of a step with the weights of a file: few only where the types of all are known, and
/// [do not mind](ANY_GROUP).
fn least_rows(gguf: &Gguf) -> usize {
    let whole = parts::count(gguf) == 1;
    let any = |tensor: &TensorInfo| tensor.dims.len() < 2 || ANY_GROUP.contains(&tensor.kind);
    match whole && gguf.tensors().iter().all(any) {
        true => ROW_GROUP,
        false => LEAST_ROWS,
    }
}
