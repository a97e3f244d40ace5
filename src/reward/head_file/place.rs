//! Where the tensors of a head are, and what is in them.
//!
//! Files are read through [`Files`], a part at a time: those of this computer, or of a server.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata};

use crate::error::{Error, Result};
use crate::gguf::{TensorInfo, TensorType};
use crate::llama::row_decoder;
use crate::text;

/// Longest header a safetensors file may have, in bytes, by its specification.
const MAX_HEADER: u64 = 100_000_000;

/// Most bytes of a tensor that is read: a dense layer of 8192 features.
const MAX_BYTES: u64 = 256 << 20;

/// Files that are read in parts.
pub trait Files {
    /// What messages call them all.
    fn name(&self) -> String;

    /// Whether there is such a file.
    fn has(&self, file: &Path) -> bool;

    /// At most `length` bytes from `offset` on, fewer where the file ends.
    ///
    /// # Errors
    /// Those of the disk or the server.
    fn read(&self, file: &Path, offset: u64, length: u64) -> Result<Vec<u8>>;
}

/// The files below a folder of this computer; below no folder, any file.
#[derive(Clone, Debug, Default)]
pub struct Folder(pub PathBuf);

impl Files for Folder {
    fn name(&self) -> String {
        let absolute = std::path::absolute(self.0.join(".")).unwrap_or_else(|_| self.0.clone());
        let name = absolute.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn has(&self, file: &Path) -> bool {
        self.0.join(file).is_file()
    }

    fn read(&self, file: &Path, offset: u64, length: u64) -> Result<Vec<u8>> {
        let path = self.0.join(file);
        let mut bytes = Vec::new();
        text::regular(&path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(offset))?;
                file.take(length).read_to_end(&mut bytes)
            })
            .map_err(Error::io(&path))?;
        Ok(bytes)
    }
}

/// How the elements of a tensor are stored.
#[derive(Clone, Copy)]
enum Element {
    F16,
    Bf16,
    F32,
    F64,
    /// In blocks, as ggml does.
    Ggml(TensorType),
}

/// A tensor's place in its file.
pub(super) struct Place {
    file: PathBuf,
    name: String,
    /// `None` for a type that is not read here, whose name is `kind`.
    element: Option<Element>,
    kind: String,
    /// Rows first.
    pub shape: Vec<u64>,
    /// In bytes, from the start of the file.
    offset: u64,
    bytes: u64,
}

impl Place {
    /// Of a tensor of the GGUF `file`.
    pub fn of_gguf(file: &Path, tensor: &TensorInfo) -> Self {
        Self {
            file: file.to_path_buf(),
            name: tensor.name.clone(),
            element: match tensor.kind.0 {
                0 => Some(Element::F32),
                1 => Some(Element::F16),
                28 => Some(Element::F64),
                30 => Some(Element::Bf16),
                _ => row_decoder(tensor.kind).map(|_| Element::Ggml(tensor.kind)),
            },
            kind: tensor.kind.to_string(),
            shape: tensor.dims.iter().rev().copied().collect(),
            offset: tensor.offset,
            bytes: tensor.bytes,
        }
    }

    /// Of the tensor `name` of a safetensors `file` with this header.
    pub fn of_safetensors(file: &Path, (header, start): &Header, name: &str) -> Option<Self> {
        let info = header.info(name)?;
        let (begin, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        Some(Self {
            file: file.to_path_buf(),
            name: name.to_owned(),
            element: match info.dtype {
                Dtype::F16 => Some(Element::F16),
                Dtype::BF16 => Some(Element::Bf16),
                Dtype::F32 => Some(Element::F32),
                Dtype::F64 => Some(Element::F64),
                _ => None,
            },
            kind: format!("{:?}", info.dtype),
            shape: info.shape.iter().map(|&n| n as u64).collect(),
            offset: start.saturating_add(begin),
            bytes: end - begin,
        })
    }

    /// All of its values, finite.
    pub fn values(&self, files: &dyn Files) -> Result<Vec<f32>> {
        if self.bytes == 0 {
            return Err(self.unusable("it is empty"));
        }
        if self.bytes > MAX_BYTES {
            return Err(self.unusable("no head is so large; give another tensor's name"));
        }
        let Some(element) = self.element else {
            let reason = format!("its type is {}; export it again as F32", self.kind);
            return Err(self.unusable(&reason));
        };
        let bytes = files.read(&self.file, self.offset, self.bytes)?;
        if bytes.len() as u64 != self.bytes {
            return Err(self.unusable("the file ends inside it; download it again"));
        }
        let count = self.shape.iter().product::<u64>();
        let values = element.decode(&bytes, usize::try_from(count).unwrap_or(0));
        match values.iter().all(|v| v.is_finite()) {
            true => Ok(values),
            false => Err(self.unusable("it has NaN or infinite values; export it again")),
        }
    }

    /// It is no head, as it has so many outputs.
    pub fn outputs(&self, outputs: u64) -> Error {
        let name = &self.name;
        Error::model(
            &self.file,
            format!("{name} has {outputs} outputs; a reward has one, so give another head"),
        )
    }

    /// It cannot be used for this reason.
    pub fn unusable(&self, reason: &str) -> Error {
        let (name, shape) = (&self.name, &self.shape);
        let reason = format!("{name} {shape:?} cannot be used: {reason}");
        Error::model(&self.file, reason)
    }
}

impl Element {
    fn decode(self, bytes: &[u8], count: usize) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], decode: fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks().0.iter().map(|&b| decode(b)).collect()
        }
        match self {
            Self::F16 => each(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            Self::F32 => each(bytes, f32::from_le_bytes),
            Self::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            Self::Ggml(kind) => {
                let mut values = vec![f32::NAN; count];
                if let Some(decode) = row_decoder(kind) {
                    decode(bytes, &mut values);
                }
                values
            }
        }
    }
}

/// The header of a safetensors file, and where its data start.
pub(super) type Header = (Metadata, u64);

/// Reads it.
pub(super) fn safetensors_header(files: &dyn Files, file: &Path) -> Result<Header> {
    let unusable = |reason: String| {
        Error::model(
            file,
            format!("not a safetensors or GGUF file: {reason}; give the head's own file"),
        )
    };
    let length = files.read(file, 0, 8)?;
    let length = <[u8; 8]>::try_from(length.as_slice())
        .map_err(|_| unusable("it has fewer than 8 bytes".into()))?;
    let length = u64::from_le_bytes(length);
    if !(2..=MAX_HEADER).contains(&length) {
        return Err(unusable(format!(
            "its first 8 bytes give a header of {length} bytes"
        )));
    }
    let bytes = files.read(file, 8, length)?;
    let header: Metadata = serde_json::from_slice(&bytes)
        .map_err(|e| unusable(format!("its header cannot be read ({e})")))?;
    Ok((header, 8 + length))
}
