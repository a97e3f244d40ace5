//! Where a model's layers and tensors go, and what is changed of it when it is loaded.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::isolation::Isolation;
use crate::error::{Error, Result};
use crate::gguf::Value;

/// How a model is loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelOptions {
    /// Layers to put on the GPU; `None` leaves it to llama.cpp, 0 is CPU only, and more than there
    /// are is all.
    pub gpu_layers: Option<u32>,
    /// Map the file instead of reading it (default true).
    pub mmap: bool,
    /// Keep the model in memory, so that it is never swapped out; where the system does not allow
    /// that, llama.cpp warns and goes on.
    pub mlock: bool,
    /// Names of the devices to put layers on; `None` takes all, an empty list none.
    pub devices: Option<Vec<String>>,
    /// Servers of llama.cpp's RPC, `HOST:PORT` each, whose devices are there too, in front of this
    /// machine's. One that goes away later ends the process.
    pub rpc: Vec<String>,
    /// How a model is divided among devices.
    pub split_mode: SplitMode,
    /// The parts of the model that the devices get, in their order; empty follows their free memory.
    pub tensor_split: Vec<f32>,
    /// With [`SplitMode::None`] the index of the device among them; a negative one takes none.
    pub main_gpu: i32,
    /// Tensors whose names match a regular expression, and the type of buffer that they go to, such
    /// as `CPU`; the first that matches counts.
    pub override_tensor: Vec<(String, String)>,
    /// Leading layers whose experts stay on the CPU; `usize::MAX` is all.
    pub cpu_moe: usize,
    /// Metadata that replaces what the file says; the first value of a key counts.
    pub override_kv: Vec<(String, Value)>,
    /// LoRA adapters and their scales; contexts of the model use them all.
    pub lora: Vec<(PathBuf, f32)>,
    /// Another process that the files are tried in first; none by default.
    #[serde(skip)]
    pub isolation: Option<Isolation>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            gpu_layers: None,
            mmap: true,
            mlock: false,
            devices: None,
            rpc: Vec::new(),
            split_mode: SplitMode::default(),
            tensor_split: Vec::new(),
            main_gpu: 0,
            override_tensor: Vec::new(),
            cpu_moe: 0,
            override_kv: Vec::new(),
            lora: Vec::new(),
            isolation: None,
        }
    }
}

/// How a model is divided among devices. llama.cpp's experimental way by tensors is not among them:
/// whether its graph shows the pre-logits as a whole is not checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SplitMode {
    /// Not at all: one device has all.
    None,
    /// By layers.
    #[default]
    Layer,
    /// By rows of the matrices, where the device can.
    Row,
}

/// Where a reward model goes, where that is not where the others go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Layers on the GPU, as [`gpu_layers`] reads them.
    pub gpu_layers: Option<Option<u32>>,
    /// Devices, as [`devices`] reads them.
    pub devices: Option<Vec<String>>,
}

impl Placement {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `options` with what is said here.
    #[must_use]
    pub fn applied(&self, options: &ModelOptions) -> ModelOptions {
        let mut options = options.clone();
        if let Some(layers) = self.gpu_layers {
            options.gpu_layers = layers;
        }
        if let Some(devices) = &self.devices {
            options.devices = Some(devices.clone());
            // They count other devices.
            options.tensor_split = Vec::new();
            options.main_gpu = 0;
        }
        options
    }
}

/// Reads a number of layers, `all` or `auto`, as llama.cpp does: −1 is `auto`, and another negative
/// number all.
///
/// # Errors
/// [`Error::Field`] for anything else.
pub fn gpu_layers(text: &str) -> Result<Option<u32>> {
    match (text, text.parse::<i32>()) {
        ("auto", _) | (_, Ok(-1)) => Ok(None),
        ("all", _) | (_, Ok(i32::MIN..-1)) => Ok(Some(u32::MAX)),
        (_, Ok(layers)) => Ok(u32::try_from(layers).ok()),
        _ => Err(Error::field(
            "gpu-layers",
            "neither a number nor all nor auto",
        )),
    }
}

/// Reads names of devices between commas, or `none`. Whether they are there is seen when a model is
/// loaded.
///
/// # Errors
/// [`Error::Field`] for an empty name.
pub fn devices(text: &str) -> Result<Vec<String>> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    match names.iter().any(String::is_empty) {
        true => Err(Error::field(
            "device",
            "names of devices stand between commas, or none",
        )),
        false => Ok(names),
    }
}

/// Reads proportions between commas or slashes.
///
/// # Errors
/// [`Error::Field`] for what is no such number, and for more of them than llama.cpp takes.
pub fn tensor_split(text: &str) -> Result<Vec<f32>> {
    let refuse = |reason: String| Err(Error::field("tensor-split", reason));
    let parts: Option<Vec<f32>> = text
        .split([',', '/'])
        .map(|part| part.trim().parse().ok())
        .map(|part| part.filter(|p: &f32| p.is_finite() && *p >= 0.0))
        .collect();
    // llama.cpp leaves one place free.
    let most = llama_cpp_2::max_devices() - 1;
    match parts {
        Some(parts) if parts.len() > most => {
            refuse(format!("{} parts; at most {most}", parts.len()))
        }
        Some(parts) => Ok(parts),
        None => refuse("proportions such as 3,1, none of them negative".into()),
    }
}

/// Reads `PATTERN=BUFFER,…`.
///
/// # Errors
/// [`Error::Field`] for what is none.
pub fn override_tensor(text: &str) -> Result<Vec<(String, String)>> {
    let pair = |item: &str| match item.split_once('=') {
        Some((pattern, buffer)) if !pattern.is_empty() && !pattern.contains('\0') => {
            Ok((pattern.to_owned(), buffer.to_owned()))
        }
        _ => Err(Error::field(
            "override-tensor",
            format!("{item:?} is not PATTERN=BUFFER, such as exps=CPU"),
        )),
    };
    text.split(',').map(pair).collect()
}

/// Bytes that llama.cpp has for a key or a text of an override, the NUL at its end among them.
const OVERRIDE_BYTES: usize = 128;

/// Reads `KEY=TYPE:VALUE,…`, where the types are int, float, bool and str.
///
/// # Errors
/// [`Error::Field`] for what is none.
pub fn override_kv(text: &str) -> Result<Vec<(String, Value)>> {
    let pair = |item: String| {
        let refuse = |reason: &str| Error::field("override-kv", format!("{item:?}: {reason}"));
        let (key, typed) = item.split_once('=').unwrap_or_default();
        let (kind, value) = typed.split_once(':').unwrap_or_default();
        let read = match kind {
            "int" => value.parse().ok().map(Value::I64),
            "float" => value.parse().ok().map(Value::F64),
            "bool" => value.parse().ok().map(Value::Bool),
            "str" => Some(Value::String(value.to_owned())),
            _ => {
                return Err(refuse(
                    "must be KEY=TYPE:VALUE, with int, float, bool or str",
                ));
            }
        };
        let read = read.ok_or_else(|| refuse(&format!("no {kind}")))?;
        if key.is_empty() || item.contains('\0') {
            return Err(refuse("there is no such key"));
        }
        let text = read.as_str().map_or(0, str::len);
        if key.len().max(text) >= OVERRIDE_BYTES {
            return Err(refuse(&format!("longer than {} bytes", OVERRIDE_BYTES - 1)));
        }
        Ok((key.to_owned(), read))
    };
    between_commas(text).into_iter().map(pair).collect()
}

/// Reads files of LoRA adapters between commas.
///
/// # Errors
/// [`Error::Field`] for an empty name.
pub fn lora(text: &str) -> Result<Vec<(PathBuf, f32)>> {
    let one = |file: String| match file.is_empty() {
        true => Err(Error::field("lora", "a file name is empty")),
        false => Ok((file.into(), 1.0)),
    };
    between_commas(text).into_iter().map(one).collect()
}

/// Reads `FILE:SCALE,…`.
///
/// # Errors
/// [`Error::Field`] for what is none.
pub fn lora_scaled(text: &str) -> Result<Vec<(PathBuf, f32)>> {
    let one = |item: String| {
        let (file, scale) = item.rsplit_once(':').unwrap_or_default();
        let scale: Option<f32> = scale.parse().ok();
        match scale.filter(|s| s.is_finite() && !file.is_empty()) {
            Some(scale) => Ok((file.into(), scale)),
            None => Err(Error::field(
                "lora-scaled",
                format!("{item:?} is not FILE:SCALE"),
            )),
        }
    };
    between_commas(text).into_iter().map(one).collect()
}

/// The pieces between commas that are not in double quotes; a quote in a quoted piece is written
/// twice.
///
/// Source: `parse_csv_row` in llama.cpp's `common/arg.cpp`.
fn between_commas(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let piece = pieces.last_mut().expect("there is always one");
        match c {
            ',' if !quoted => pieces.push(String::new()),
            '"' if !quoted && piece.is_empty() => quoted = true,
            '"' if quoted && characters.next_if_eq(&'"').is_none() => quoted = false,
            c => piece.push(c),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_as_llama_cpp_does() {
        for (text, layers) in [
            ("0", Some(0)),
            ("12", Some(12)),
            ("auto", None),
            ("-1", None),
            ("all", Some(u32::MAX)),
            ("-2", Some(u32::MAX)),
        ] {
            assert_eq!(gpu_layers(text).unwrap(), layers, "{text}");
        }
        assert!(gpu_layers("some").is_err());
    }

    #[test]
    fn lists_are_read_as_llama_cpp_does() {
        assert_eq!(devices("none").unwrap(), Vec::<String>::new());
        assert_eq!(devices("CUDA0,CUDA1").unwrap(), ["CUDA0", "CUDA1"]);
        assert!(devices("CUDA0,").is_err());
        assert_eq!(tensor_split("3,1/0.5").unwrap(), [3.0, 1.0, 0.5]);
        for wrong in ["", "3,", "-1", "nan", "inf", &"1,".repeat(99)] {
            assert!(tensor_split(wrong).is_err(), "{wrong}");
        }
        let two = override_tensor("exps=CPU,blk\\.1=CUDA0").unwrap();
        assert_eq!(two[1], ("blk\\.1".into(), "CUDA0".into()));
        assert!(override_tensor("exps").is_err());
        assert_eq!(lora("a,\"b,\"\"c\"").unwrap()[1].0, PathBuf::from("b,\"c"));
        assert!(lora("a,").is_err());
        assert_eq!(lora_scaled("x:y:0.5").unwrap(), [("x:y".into(), 0.5)]);
        for wrong in ["a", "a:", ":1", "a:inf"] {
            assert!(lora_scaled(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn metadata_has_types() {
        let all = override_kv("a=int:3,b=float:0.5,c=bool:true,d=str:x:y").unwrap();
        let values = [
            Value::I64(3),
            Value::F64(0.5),
            Value::Bool(true),
            Value::String("x:y".into()),
        ];
        assert!(all.iter().map(|(_, value)| value).eq(&values));
        let long = format!("a=str:{}", "x".repeat(128));
        for wrong in [
            "a",
            "a=3",
            "a=int:x",
            "a=bool:yes",
            "=int:1",
            "a=u8:1",
            &long,
        ] {
            assert!(override_kv(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_placement_of_its_own_leaves_the_rest() {
        let asked = ModelOptions {
            mlock: true,
            main_gpu: 1,
            ..ModelOptions::default()
        };
        let none = Placement::default();
        assert!(none.is_empty());
        assert_eq!(none.applied(&asked), asked);
        let own = Placement {
            gpu_layers: Some(Some(0)),
            devices: Some(vec!["CUDA1".into()]),
        };
        let applied = own.applied(&asked);
        assert_eq!((applied.gpu_layers, applied.main_gpu), (Some(0), 0));
        assert!(applied.mlock && applied.devices.is_some());
    }
}
