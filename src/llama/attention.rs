//! How attention is computed, and what keys and values are kept as.
//!
//! Source: `llama_init_from_model` in llama.cpp's `src/llama-context.cpp`, and `kv_cache_types` in
//! `common/arg.cpp`.

use std::fmt;

use llama_cpp_sys_2 as sys;

use super::memory::heads;
use super::model::Model;
use crate::error::{Error, Result};
use crate::gguf::TensorType;

/// When attention is computed in one operation that never stores its weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlashAttention {
    /// Where the device of every layer can.
    #[default]
    Auto,
    /// Everywhere.
    On,
    /// Nowhere.
    Off,
}

impl FlashAttention {
    /// As llama.cpp takes it.
    pub(super) fn raw(self) -> sys::llama_flash_attn_type {
        match self {
            Self::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
            Self::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            Self::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        }
    }
}

impl fmt::Display for FlashAttention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// The type of numbers that keys or values are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheType(TensorType);

impl CacheType {
    /// Two-byte floats, what they are where nothing is said.
    pub const F16: Self = Self(TensorType(1));

    /// All that llama.cpp takes, by its names for them.
    pub const ALL: [(&str, Self); 9] = [
        ("f32", Self(TensorType::F32)),
        ("f16", Self::F16),
        ("bf16", Self(TensorType(30))),
        ("q8_0", Self(TensorType(8))),
        ("q4_0", Self(TensorType(2))),
        ("q4_1", Self(TensorType(3))),
        ("iq4_nl", Self(TensorType(20))),
        ("q5_0", Self(TensorType(6))),
        ("q5_1", Self(TensorType(7))),
    ];

    /// Bytes of so many numbers, which are whole blocks.
    #[must_use]
    pub fn bytes(self, numbers: u64) -> u64 {
        let (block, bytes) = self.block();
        (numbers / block).saturating_mul(bytes)
    }

    /// Whether numbers are kept in blocks with a common scale.
    #[must_use]
    pub fn is_quantised(self) -> bool {
        self.block().0 > 1
    }

    /// Numbers and bytes of a block.
    fn block(self) -> (u64, u64) {
        self.0.block_size().unwrap_or((1, 4))
    }

    /// As llama.cpp takes it.
    pub(super) fn raw(self) -> sys::ggml_type {
        self.0.0 as sys::ggml_type
    }
}

impl Default for CacheType {
    fn default() -> Self {
        Self::F16
    }
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.name().to_lowercase())
    }
}

/// How a context computes attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attention {
    /// When it is flash attention. Texts that are only read go without it.
    pub flash: FlashAttention,
    /// What keys are kept as.
    pub keys: CacheType,
    /// What values are kept as: quantised ones need flash attention, and are F16 where texts are only
    /// read.
    pub values: CacheType,
}

impl Attention {
    /// That of a context for texts that are only read, of a model with one cache for both or not.
    fn for_reading(self, one_cache: bool) -> Self {
        let mut read = Self {
            flash: FlashAttention::Off,
            ..self
        };
        if self.values.is_quantised() {
            read.values = CacheType::F16;
            if one_cache {
                read.keys = CacheType::F16;
            }
        }
        read
    }

    /// What a context of `model` has of it, which may be one for texts that are only `read`.
    ///
    /// # Errors
    /// [`Error::Field`] for what the model cannot have.
    pub(super) fn of(self, model: &Model, read: bool) -> Result<Self> {
        // Multi-head latent attention: values are a part of the keys.
        let latent = model.gguf().arch_key("attention.key_length_mla").is_some();
        let own = match read {
            true => self.for_reading(latent),
            false => self,
        };
        if latent && own.keys != own.values {
            let reason = format!(
                "{}: this model has keys and values in one; give both one type",
                own.values
            );
            return Err(Error::field("cache-type-v", reason));
        }
        own.check(model).map(|()| own)
    }

    fn check(self, model: &Model) -> Result<()> {
        if self.values.is_quantised() && self.flash == FlashAttention::Off {
            return Err(Error::field(
                "cache-type-v",
                format!(
                    "{}: quantised values need flash attention; leave out `flash-attn` = off, or \
                     give f16, bf16 or f32",
                    self.values
                ),
            ));
        }
        let (key, value) = heads(model.gguf());
        for (field, kind, head) in [
            ("cache-type-k", self.keys, key),
            ("cache-type-v", self.values, value),
        ] {
            let (block, _) = kind.block();
            if head % block != 0 {
                return Err(Error::field(
                    field,
                    format!(
                        "{kind} has blocks of {block} numbers, which a head of {head} is no \
                         multiple of; give f16, bf16 or f32 for this model"
                    ),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_types_have_the_names_of_ggml() {
        for (name, kind) in CacheType::ALL {
            assert_eq!(kind.to_string(), name);
            // SAFETY: returns a static string for every type.
            let theirs = unsafe { std::ffi::CStr::from_ptr(sys::ggml_type_name(kind.raw())) };
            assert_eq!(theirs.to_str(), Ok(name));
            // SAFETY: a query of a static table.
            let bytes = unsafe { sys::ggml_row_size(kind.raw(), 256) };
            assert_eq!(kind.bytes(256), bytes as u64, "{name}");
        }
        assert_eq!(CacheType::default().bytes(64), 128);
    }

    #[test]
    fn texts_that_are_read_have_no_flash_attention() {
        let quantised = CacheType::ALL[3].1;
        let asked = Attention {
            flash: FlashAttention::On,
            keys: quantised,
            values: quantised,
        };
        let read = asked.for_reading(false);
        assert_eq!(read.flash, FlashAttention::Off);
        assert_eq!((read.keys, read.values), (quantised, CacheType::F16));
        assert_eq!(asked.for_reading(true).keys, CacheType::F16);
    }
}
