//! From [`ModelOptions`] to llama.cpp's parameters: what llama.cpp would abort on, or refuse without
//! a reason, is refused here. LoRA adapters too.
//!
//! Source: `llama_prepare_model_devices` in llama.cpp's `src/llama.cpp`, `src/llama-adapter.cpp`, and
//! `common/arg.cpp` for what flags mean.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr::NonNull;

use llama_cpp_2::model::{LlamaLoraAdapter, LlamaModel};
use llama_cpp_2::{LlamaBackendDevice, LlamaBackendDeviceType};
use llama_cpp_sys_2 as sys;

use super::c_string;
use super::devices::{add_servers, cpu_buffers};
use super::log::heard;
use super::placement::{ModelOptions, SplitMode};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, Value};

/// Tensors of experts, as llama.cpp's flags for them name them.
const EXPERTS: &str = "\\.ffn_(up|down|gate|gate_up)_(ch|)exps";

/// llama.cpp's parameters, and what they point to.
pub(super) struct LoadParams {
    raw: sys::llama_model_params,
    // What `raw` points to: their places on the heap stay where they are.
    _devices: Vec<sys::ggml_backend_dev_t>,
    _split: Vec<f32>,
    _patterns: Vec<CString>,
    _tensors: Vec<sys::llama_model_tensor_buft_override>,
    _metadata: Vec<sys::llama_model_kv_override>,
}

impl LoadParams {
    /// Those for the file with this header.
    pub(super) fn new(options: &ModelOptions, gguf: &Gguf) -> Result<Self> {
        super::backend();
        add_servers(&options.rpc)?;
        // SAFETY: returns plain data.
        let mut raw = unsafe { sys::llama_model_default_params() };
        if let Some(layers) = options.gpu_layers {
            raw.n_gpu_layers = i32::try_from(layers).unwrap_or(i32::MAX);
        }
        if options.mlock && !llama_cpp_2::mlock_supported() {
            return Err(Error::field("mlock", "this system cannot; leave it out"));
        }
        raw.load_mode = match (options.mmap, options.mlock) {
            (false, false) => sys::LLAMA_LOAD_MODE_NONE,
            (true, false) => sys::LLAMA_LOAD_MODE_MMAP,
            (false, true) => sys::LLAMA_LOAD_MODE_MLOCK,
            (true, true) => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
        };
        raw.split_mode = match options.split_mode {
            SplitMode::None => sys::LLAMA_SPLIT_MODE_NONE,
            SplitMode::Layer => sys::LLAMA_SPLIT_MODE_LAYER,
            SplitMode::Row => sys::LLAMA_SPLIT_MODE_ROW,
        };
        raw.main_gpu = options.main_gpu;
        let mut devices = devices(options)?;
        if options.devices.is_some() {
            raw.devices = devices.as_mut_ptr();
        }
        let mut split = options.tensor_split.clone();
        if !split.is_empty() {
            // llama.cpp reads so many of them.
            split.resize(llama_cpp_2::max_devices(), 0.0);
            raw.tensor_split = split.as_ptr();
        }
        let (patterns, tensors) = tensors(options, gguf)?;
        if tensors.len() > 1 {
            raw.tensor_buft_overrides = tensors.as_ptr();
        }
        let metadata: Vec<_> = options
            .override_kv
            .iter()
            .map(|(key, value)| kv_override(key, Some(value)))
            .chain([kv_override("", None)])
            .collect();
        if metadata.len() > 1 {
            raw.kv_overrides = metadata.as_ptr();
        }
        Ok(Self {
            raw,
            _devices: devices,
            _split: split,
            _patterns: patterns,
            _tensors: tensors,
            _metadata: metadata,
        })
    }

    /// The model in the file; `None` where llama.cpp refuses it.
    pub(super) fn load(&self, path: &Path) -> Option<LlamaModel> {
        let path = CString::new(path.to_str()?).ok()?;
        // SAFETY: the path is NUL-terminated, and all that the parameters point to is in `self`.
        let raw = unsafe { sys::llama_model_load_from_file(path.as_ptr(), self.raw) };
        // SAFETY: `LlamaModel` is `repr(transparent)` over a non-null model pointer, which is owned
        // from here on by it alone; sizes are compared by the compiler.
        NonNull::new(raw)
            .map(|raw| unsafe { std::mem::transmute::<NonNull<sys::llama_model>, LlamaModel>(raw) })
    }
}

/// Devices that layers can be put on.
fn usable_devices() -> Vec<LlamaBackendDevice> {
    let mut all = llama_cpp_2::list_llama_ggml_backend_devices();
    all.retain(|device| device.device_type != LlamaBackendDeviceType::Cpu);
    all
}

/// The devices that are asked for, and a null behind them.
fn devices(options: &ModelOptions) -> Result<Vec<sys::ggml_backend_dev_t>> {
    let usable = usable_devices();
    let mut found = Vec::new();
    for name in options.devices.iter().flatten() {
        let Some(device) = usable.iter().find(|device| device.name == *name) else {
            let names: Vec<&str> = usable.iter().map(|d| d.name.as_str()).collect();
            let names = match names.is_empty() {
                true => "this build found none but the CPU; give none".to_owned(),
                false => format!("there are {}, or none", names.join(", ")),
            };
            return Err(Error::field("device", format!("{name:?}: {names}")));
        };
        // SAFETY: the index is that of a device in ggml's list, which only grows.
        found.push(unsafe { sys::ggml_backend_dev_get(device.index) });
    }
    let count = match options.devices {
        Some(_) => found.len(),
        None => usable.len(),
    };
    let main = usize::try_from(options.main_gpu).unwrap_or(0);
    if options.split_mode == SplitMode::None && count > 0 && main >= count {
        return Err(Error::field(
            "main-gpu",
            format!("{main}: there are {count} devices; the first is 0"),
        ));
    }
    found.push(std::ptr::null_mut());
    Ok(found)
}

/// Patterns of tensors, and where those go, with an empty one behind them that points to none.
type Tensors = (Vec<CString>, Vec<sys::llama_model_tensor_buft_override>);

fn tensors(options: &ModelOptions, gguf: &Gguf) -> Result<Tensors> {
    let buffers = buffer_types();
    let mut wanted = Vec::new();
    for (pattern, name) in &options.override_tensor {
        let Some((_, buffer)) = buffers.iter().find(|(other, _)| other == name) else {
            let names: Vec<&str> = buffers.iter().map(|(name, _)| name.as_str()).collect();
            let reason = format!("{pattern}={name}: buffers are {}", names.join(", "));
            return Err(Error::field("override-tensor", reason));
        };
        wanted.push((pattern.clone(), *buffer));
    }
    let blocks = gguf.arch_key("block_count").and_then(Value::as_u64);
    let blocks = usize::try_from(blocks.unwrap_or(0)).unwrap_or(usize::MAX);
    let cpu = cpu_buffers();
    match options.cpu_moe {
        usize::MAX => wanted.push((EXPERTS.to_owned(), cpu)),
        layers => {
            let layers = 0..layers.min(blocks);
            wanted.extend(layers.map(|layer| (format!("blk\\.{layer}{EXPERTS}"), cpu)));
        }
    }
    let mut patterns = Vec::with_capacity(wanted.len());
    let mut tensors = Vec::with_capacity(wanted.len() + 1);
    for (pattern, buft) in wanted {
        let pattern = CString::new(pattern)
            .map_err(|_| Error::field("override-tensor", "a pattern has a NUL"))?;
        tensors.push(sys::llama_model_tensor_buft_override {
            pattern: pattern.as_ptr(),
            buft,
        });
        patterns.push(pattern);
    }
    tensors.push(sys::llama_model_tensor_buft_override {
        pattern: std::ptr::null(),
        buft: std::ptr::null_mut(),
    });
    Ok((patterns, tensors))
}

/// The buffers that tensors can go to, by their names: one of each device.
fn buffer_types() -> Vec<(String, sys::ggml_backend_buffer_type_t)> {
    let devices = llama_cpp_2::list_llama_ggml_backend_devices();
    let mut found: Vec<(String, sys::ggml_backend_buffer_type_t)> = Vec::new();
    for device in devices {
        // SAFETY: the index is that of a device in ggml's list; a buffer type has a static name.
        let (name, buffer) = unsafe {
            let device = sys::ggml_backend_dev_get(device.index);
            let buffer = sys::ggml_backend_dev_buffer_type(device);
            if buffer.is_null() {
                continue;
            }
            (c_string(sys::ggml_backend_buft_name(buffer)), buffer)
        };
        if !found.iter().any(|(other, _)| *other == name) {
            found.push((name, buffer));
        }
    }
    found
}

/// An override as llama.cpp takes it; an empty key ends a list of them.
fn kv_override(key: &str, value: Option<&Value>) -> sys::llama_model_kv_override {
    let (tag, value) = match value {
        Some(Value::F64(v)) => (
            sys::LLAMA_KV_OVERRIDE_TYPE_FLOAT,
            sys::llama_model_kv_override__bindgen_ty_1 { val_f64: *v },
        ),
        Some(Value::Bool(v)) => (
            sys::LLAMA_KV_OVERRIDE_TYPE_BOOL,
            sys::llama_model_kv_override__bindgen_ty_1 { val_bool: *v },
        ),
        Some(Value::String(v)) => (
            sys::LLAMA_KV_OVERRIDE_TYPE_STR,
            sys::llama_model_kv_override__bindgen_ty_1 { val_str: text(v) },
        ),
        other => (
            sys::LLAMA_KV_OVERRIDE_TYPE_INT,
            sys::llama_model_kv_override__bindgen_ty_1 {
                val_i64: other.and_then(Value::as_i64).unwrap_or(0),
            },
        ),
    };
    sys::llama_model_kv_override {
        tag,
        key: text(key),
        __bindgen_anon_1: value,
    }
}

/// A text with a NUL behind it; what is too long is cut off.
fn text<const N: usize>(text: &str) -> [c_char; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes[..N - 1].iter_mut().zip(text.bytes()) {
        *to = from as c_char;
    }
    bytes
}

/// Puts overrides into the header as llama.cpp reads it with them.
///
/// # Errors
/// [`Error::Field`] for another kind of value than the file has, which llama.cpp would leave alone.
pub(super) fn override_header(gguf: &mut Gguf, overrides: &[(String, Value)]) -> Result<()> {
    let kind = |value: &Value| match value {
        Value::Array(_) => "a list",
        Value::String(_) => "str",
        Value::Bool(_) => "bool",
        Value::F32(_) | Value::F64(_) => "float",
        _ => "int",
    };
    // Of several values of a key the first counts.
    for (key, value) in overrides.iter().rev() {
        if let Some(there) = gguf
            .get(key)
            .map(kind)
            .filter(|there| *there != kind(value))
        {
            return Err(Error::field(
                "override-kv",
                format!("{key}: {there} in the file, not {}", kind(value)),
            ));
        }
        gguf.set(key, value.clone());
    }
    Ok(())
}

/// A LoRA adapter of a model, and its scale. It is freed with the model.
pub(super) struct Adapter {
    inner: LlamaLoraAdapter,
    scale: f32,
    /// The header of its file.
    pub(super) header: Gguf,
}

impl Adapter {
    /// Loads the adapter in `path` for the model with the header `gguf`.
    pub(super) fn load(
        model: &mut LlamaModel,
        gguf: &Gguf,
        path: &Path,
        scale: f32,
    ) -> Result<Self> {
        let header = check_adapter(path, gguf)?;
        let (inner, reason) = heard(|| model.lora_adapter_init(path));
        let inner = inner.map_err(|_| {
            let reason =
                format!("llama.cpp cannot load this LoRA adapter for this model: {reason}");
            Error::model(path, reason)
        })?;
        Ok(Self {
            inner,
            scale,
            header,
        })
    }

    /// The adapter object of llama.cpp.
    fn raw(&self) -> *mut sys::llama_adapter_lora {
        const {
            assert!(size_of::<LlamaLoraAdapter>() == size_of::<NonNull<sys::llama_adapter_lora>>());
        }
        // SAFETY: `LlamaLoraAdapter` is `repr(transparent)` over a non-null pointer.
        let raw =
            unsafe { *std::ptr::from_ref(&self.inner).cast::<NonNull<sys::llama_adapter_lora>>() };
        raw.as_ptr()
    }
}

/// Makes a new context use `adapters`.
pub(super) fn adapt(context: NonNull<sys::llama_context>, adapters: &[Adapter]) {
    if adapters.is_empty() {
        return;
    }
    let mut raw: Vec<_> = adapters.iter().map(Adapter::raw).collect();
    let mut scales: Vec<f32> = adapters.iter().map(|adapter| adapter.scale).collect();
    // SAFETY: the context and its model's adapters are alive; the arrays are as long as is said,
    // and are copied.
    unsafe {
        sys::llama_set_adapters_lora(
            context.as_ptr(),
            raw.as_mut_ptr(),
            raw.len(),
            scales.as_mut_ptr(),
        );
    }
}

/// The header of an adapter. Refuses what llama.cpp would abort on, and adapters that would change the
/// output matrix, whose rows are read from the model's file.
fn check_adapter(path: &Path, model: &Gguf) -> Result<Gguf> {
    let gguf = Gguf::open(path).map_err(Error::gguf(path))?;
    let refuse = |reason: &str| Err(Error::model(path, reason));
    if gguf.str("general.type") != Some("adapter") || gguf.str("adapter.type") != Some("lora") {
        return refuse("no LoRA adapter; convert it with llama.cpp's convert_lora_to_gguf.py");
    }
    if let Some(fault) = gguf.fault() {
        return refuse(&fault);
    }
    if gguf.architecture() != model.architecture() {
        return refuse("a LoRA adapter for another architecture than the model's");
    }
    if !matches!(gguf.get("adapter.lora.alpha"), None | Some(Value::F32(_))) {
        return refuse("adapter.lora.alpha: not a float");
    }
    if gguf.get("adapter.alora.invocation_tokens").is_some() {
        return refuse("a LoRA adapter that some tokens switch on; not supported");
    }
    let output = match model.tensor("output.weight") {
        Some(_) => "output.weight.lora_a",
        None => "token_embd.weight.lora_a",
    };
    if gguf.tensor(output).is_some() {
        return refuse(
            "a LoRA adapter of the output matrix, not supported; merge it into the model",
        );
    }
    Ok(gguf)
}
