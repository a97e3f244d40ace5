//! Weights in fewer bits, by llama.cpp's own quantiser.

use std::ffi::CString;
use std::path::Path;

use llama_cpp_sys_2 as sys;

use super::backend;
use crate::error::{Error, Result};
use crate::gguf::Gguf;

/// What weights can be written as without an importance matrix: llama.cpp's names, and the numbers of
/// its `enum llama_ftype`.
pub const WEIGHT_TYPES: [(&str, sys::llama_ftype); 22] = [
    ("F32", sys::LLAMA_FTYPE_ALL_F32),
    ("F16", sys::LLAMA_FTYPE_MOSTLY_F16),
    ("BF16", sys::LLAMA_FTYPE_MOSTLY_BF16),
    ("Q8_0", sys::LLAMA_FTYPE_MOSTLY_Q8_0),
    ("Q6_K", sys::LLAMA_FTYPE_MOSTLY_Q6_K),
    ("Q5_K_M", sys::LLAMA_FTYPE_MOSTLY_Q5_K_M),
    ("Q5_K_S", sys::LLAMA_FTYPE_MOSTLY_Q5_K_S),
    ("Q5_1", sys::LLAMA_FTYPE_MOSTLY_Q5_1),
    ("Q5_0", sys::LLAMA_FTYPE_MOSTLY_Q5_0),
    ("Q4_K_M", sys::LLAMA_FTYPE_MOSTLY_Q4_K_M),
    ("Q4_K_S", sys::LLAMA_FTYPE_MOSTLY_Q4_K_S),
    ("Q4_1", sys::LLAMA_FTYPE_MOSTLY_Q4_1),
    ("Q4_0", sys::LLAMA_FTYPE_MOSTLY_Q4_0),
    ("IQ4_NL", sys::LLAMA_FTYPE_MOSTLY_IQ4_NL),
    ("IQ4_XS", sys::LLAMA_FTYPE_MOSTLY_IQ4_XS),
    ("MXFP4_MOE", sys::LLAMA_FTYPE_MOSTLY_MXFP4_MOE),
    ("Q3_K_L", sys::LLAMA_FTYPE_MOSTLY_Q3_K_L),
    ("Q3_K_M", sys::LLAMA_FTYPE_MOSTLY_Q3_K_M),
    ("Q3_K_S", sys::LLAMA_FTYPE_MOSTLY_Q3_K_S),
    ("Q2_K", sys::LLAMA_FTYPE_MOSTLY_Q2_K),
    ("TQ2_0", sys::LLAMA_FTYPE_MOSTLY_TQ2_0),
    ("TQ1_0", sys::LLAMA_FTYPE_MOSTLY_TQ1_0),
];

/// How weights are written.
#[derive(Clone, Debug)]
pub struct QuantizeOptions {
    /// The type of most of them, a name of [`WEIGHT_TYPES`]; llama.cpp gives some more bits.
    pub to: String,
    /// CPU threads.
    pub threads: usize,
    /// Whether weights that are quantised already may be quantised again, which loses more than from
    /// the original.
    pub again: bool,
    /// Whether the output matrix stays as it is.
    pub keep_output: bool,
    /// Whether all matrices get the same type.
    pub pure: bool,
}

/// Writes the model of `from` to `into` with its weights as another type.
///
/// # Errors
/// [`Error::Field`] for a type that there is not, or for weights that are quantised already,
/// [`Error::Gguf`] for a file that cannot be read, [`Error::Model`] where llama.cpp refuses it.
pub fn quantize(from: &Path, into: &Path, options: &QuantizeOptions) -> Result<()> {
    let kind = WEIGHT_TYPES.iter().find(|(name, _)| *name == options.to);
    let Some(&(_, kind)) = kind else {
        let names: Vec<&str> = WEIGHT_TYPES.iter().map(|(name, _)| *name).collect();
        let reason = format!("no type {:?}; there are {}", options.to, names.join(", "));
        return Err(Error::field("type", reason));
    };
    let gguf = Gguf::open(from).map_err(Error::gguf(from))?;
    let floats = ["F32", "F16", "BF16"];
    let quantised = gguf.quantisation();
    if !options.again && !floats.contains(&quantised.as_str()) {
        let reason = format!(
            "{}: its weights are {quantised} already; start from F16 or BF16, or give \
             `allow-requantize`",
            from.display()
        );
        return Err(Error::field("type", reason));
    }
    let text = |path: &Path| {
        let bytes = path.as_os_str().as_encoded_bytes();
        CString::new(bytes).map_err(|_| Error::field("file", "a name with a NUL in it"))
    };
    let (source, target) = (text(from)?, text(into)?);
    backend();
    // SAFETY: takes nothing.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.ftype = kind;
    params.nthread = i32::try_from(options.threads).unwrap_or(i32::MAX);
    params.allow_requantize = options.again;
    params.quantize_output_tensor = !options.keep_output;
    params.pure_ = options.pure;
    // SAFETY: both names are NUL-terminated, the parameters are llama.cpp's own but for plain numbers; it
    // catches what it throws.
    let failed =
        unsafe { sys::llama_model_quantize(source.as_ptr(), target.as_ptr(), &raw const params) };
    match failed {
        0 => Ok(()),
        _ => Err(Error::model(
            from,
            format!(
                "llama.cpp does not write it as {}; -v shows why",
                options.to
            ),
        )),
    }
}
