//! The rows of the output matrix, read from the file as they are needed.
//!
//! The running model keeps its weights in whatever form its back end likes, packed or on
//! another device; the file has them in one form, of which any row can be decoded alone.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, s};

use super::OutputHead;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorType};

/// Most numbers of a row, and most rows: far above every model, and little enough to be allocated.
const MAX_WIDTH: u64 = 1 << 20;
const MAX_VOCABULARY: u64 = 1 << 24;

/// Values of one block of rows: 4 MB as F32.
const BLOCK_VALUES: usize = 1 << 20;

/// The output matrix W `[vocabulary, d]` in its file: `output.weight`, else
/// `token_embd.weight`. Logit scale and soft-capping are not part of it.
pub struct OutputRows {
    file: Mutex<File>,
    path: PathBuf,
    offset: u64,
    row_bytes: usize,
    width: usize,
    vocabulary: usize,
    /// `None` for F32; the reason where rows cannot be decoded.
    decode: std::result::Result<Option<Decoder>, String>,
    /// What stands between W z and the logits.
    obstacle: Option<String>,
}

/// Turns whole rows of a quantised tensor, given as bytes, into their values; whether it could.
pub type Decoder = Box<dyn Fn(&[u8], &mut [f32]) -> bool + Send + Sync>;

/// The other parts of the split model whose first part is `path`.
///
/// Source: `llama_split_path` in llama.cpp's `src/llama.cpp`.
fn other_parts(path: &Path, gguf: &Gguf) -> Result<Vec<(PathBuf, Gguf)>> {
    let count = gguf.u64("split.count").unwrap_or(1);
    if count <= 1 {
        return Ok(Vec::new());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = name
        .strip_suffix(&format!("-00001-of-{count:05}.gguf"))
        .ok_or_else(|| {
            let reason = format!(
                "split.count is {count}, but the name does not end in -00001-of-{count:05}.gguf; \
                 give the first part, under the name it was made with"
            );
            Error::model(path, reason)
        })?;
    (2..=count)
        .map(|number| {
            let part = path.with_file_name(format!("{prefix}-{number:05}-of-{count:05}.gguf"));
            let gguf = Gguf::open(&part).map_err(Error::gguf(&part))?;
            Ok((part, gguf))
        })
        .collect()
}

impl OutputRows {
    /// Finds the matrix in the file `path` with the header `gguf`, or in the other parts of a
    /// split model that it is the first of; `decoder` knows the types of tensors other than F32.
    /// A type that it does not know is an error only once rows are read.
    ///
    /// # Errors
    /// [`Error::Model`] when there is no such tensor, [`Error::Gguf`] for a part that cannot be
    /// read, [`Error::Io`] when the file cannot be opened.
    pub fn open(
        path: &Path,
        gguf: &Gguf,
        decoder: impl FnOnce(TensorType) -> Option<Decoder>,
    ) -> Result<Self> {
        let others = other_parts(path, gguf)?;
        let find = |name: &str| {
            let others = others.iter().map(|(path, gguf)| (path.as_path(), gguf));
            std::iter::once((path, gguf))
                .chain(others)
                .find_map(|(path, gguf)| Some((path, gguf.tensor(name)?)))
        };
        let (path, tensor) = find("output.weight")
            .or_else(|| find("token_embd.weight"))
            .ok_or_else(|| Error::model(path, "output.weight: missing"))?;
        let unusable = |reason: String| {
            let remedy = "no rows are needed for `update` = weights with a number for `sigma`";
            format!("{}: {reason}; {remedy}", tensor.name)
        };
        let unknown = || unusable(format!("type {} cannot be decoded", tensor.kind.name()));
        let (block, block_bytes) = tensor
            .kind
            .block_size()
            .ok_or_else(|| Error::model(path, unknown()))?;
        let decode = match tensor.kind {
            _ if find("output.scale").is_some() => {
                Err(unusable("output.scale is not applied to rows".into()))
            }
            TensorType::F32 => Ok(None),
            other => decoder(other).map(Some).ok_or_else(unknown),
        };
        let width = tensor.dims.first().copied().unwrap_or(0);
        if width == 0 || block == 0 || !width.is_multiple_of(block) {
            return Err(Error::model(path, unknown()));
        }
        let vocabulary = tensor.dims.iter().skip(1).product::<u64>();
        if width > MAX_WIDTH || vocabulary > MAX_VOCABULARY {
            let reason = format!(
                "{}: {vocabulary} rows of {width} numbers; at most {MAX_VOCABULARY} of {MAX_WIDTH} are \
                 read",
                tensor.name
            );
            return Err(Error::model(path, reason));
        }
        let row_bytes = (width / block * block_bytes) as usize;
        let width = width as usize;
        let file = File::open(path).map_err(Error::io(path))?;
        let head = match OutputHead::read(gguf) {
            Ok(head) => head.obstacle().map(String::from),
            Err(unknown) => Some(unknown),
        };
        let bias = find("output.bias").map(|(_, t)| t.name.clone());
        Ok(Self {
            file: Mutex::new(file),
            path: path.to_path_buf(),
            offset: tensor.offset,
            row_bytes,
            width,
            vocabulary: vocabulary as usize,
            decode,
            obstacle: head.or(bias),
        })
    }

    /// Width d of a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows: the size of the vocabulary.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Checks that the model's logits are W z and nothing else.
    ///
    /// # Errors
    /// [`Error::Model`] naming the scale, soft-capping or bias that is there.
    pub fn check_plain(&self, method: &str) -> Result<()> {
        self.obstacle.as_ref().map_or(Ok(()), |what| {
            let reason = format!("{what}: {method} needs logits that are W z alone; use aisp");
            Err(Error::model(&self.path, reason))
        })
    }

    /// Decodes W_j of token j into `row` `[d]`.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Run`] for a token beyond the
    /// vocabulary.
    ///
    /// # Panics
    /// If `row` does not have the matrix's width.
    pub fn row(&self, token: i32, row: &mut [f32]) -> Result<()> {
        assert_eq!(row.len(), self.width, "pre-logit width");
        let index = usize::try_from(token).ok().filter(|&t| t < self.vocabulary);
        let index = index.ok_or_else(|| Error::Run(format!("no token {token}")))?;
        self.read(index, row)
    }

    /// Σ a_j W_j `[d]` over pairs of a token j and its weight a_j.
    ///
    /// # Errors
    /// Those of [`row`](Self::row).
    pub fn sum(&self, tokens: &[(i32, f32)]) -> Result<Vec<f32>> {
        let mut row = vec![0.0; self.width];
        let mut sum = vec![0.0; self.width];
        for &(token, weight) in tokens {
            self.row(token, &mut row)?;
            for (sum, w) in sum.iter_mut().zip(&row) {
                *sum += weight * w;
            }
        }
        Ok(sum)
    }

    /// Gives all rows to `use_block`, some at a time: the first row's number, and the rows
    /// `[rows, d]`.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read.
    pub fn for_each_block(
        &self,
        mut use_block: impl FnMut(usize, ArrayView2<'_, f32>),
    ) -> Result<()> {
        let rows = (BLOCK_VALUES / self.width).clamp(1, self.vocabulary.max(1));
        let mut values = Array2::<f32>::zeros((rows, self.width));
        for first in (0..self.vocabulary).step_by(rows) {
            let count = rows.min(self.vocabulary - first);
            let mut block = values.slice_mut(s![..count, ..]);
            if let Some(values) = block.as_slice_mut() {
                self.read(first, values)?;
            }
            use_block(first, block.view());
        }
        Ok(())
    }

    /// W x of every row x of `x` `[n, d]`: `[n, vocabulary]`.
    ///
    /// # Errors
    /// Those of [`for_each_block`](Self::for_each_block).
    pub fn logits(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        let mut out = Array2::zeros((x.nrows(), self.vocabulary));
        self.for_each_block(|first, rows| {
            let mut part = out.slice_mut(s![.., first..first + rows.nrows()]);
            general_mat_mul(1.0, &x, &rows.t(), 0.0, &mut part);
        })?;
        Ok(out)
    }

    /// Wᵀ p of every row p of `p` `[n, vocabulary]`: `[n, d]`.
    ///
    /// # Errors
    /// Those of [`for_each_block`](Self::for_each_block).
    pub fn transposed(&self, p: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        let mut out = Array2::zeros((p.nrows(), self.width));
        self.for_each_block(|first, rows| {
            let part = p.slice(s![.., first..first + rows.nrows()]);
            general_mat_mul(1.0, &part, &rows, 1.0, &mut out);
        })?;
        Ok(out)
    }

    /// √(mean_j |W_j|² − |W̄|²), the spread of the rows around their mean W̄: noise of standard
    /// deviation σ on the pre-logits moves logit j, beside what all logits share and no choice can
    /// see, by σ|W_j − W̄|, of which this is the root mean square over the vocabulary.
    ///
    /// # Errors
    /// Those of [`for_each_block`](Self::for_each_block), and [`Error::Model`] where a weight is not
    /// finite.
    pub fn spread(&self) -> Result<f64> {
        let mut squares = 0.0;
        let mut sum = vec![0.0_f64; self.width];
        self.for_each_block(|_, rows| {
            for row in rows.rows() {
                for (sum, &w) in sum.iter_mut().zip(row) {
                    *sum += f64::from(w);
                    squares += f64::from(w).powi(2);
                }
            }
        })?;
        let count = self.vocabulary.max(1) as f64;
        let mean: f64 = sum.iter().map(|s| (s / count).powi(2)).sum();
        let square = squares / count - mean;
        if !square.is_finite() {
            return Err(self.not_finite());
        }
        Ok(square.max(0.0).sqrt())
    }

    /// What is wrong where a product with the matrix is no number.
    pub(crate) fn not_finite(&self) -> Error {
        Error::model(
            &self.path,
            "some of its weights, in the output matrix, are infinite or no numbers: the file is damaged; \
             download it again",
        )
    }

    /// Decodes as many rows as `out` holds, from number `first` on.
    fn read(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let count = out.len() / self.width;
        let decode = self
            .decode
            .as_ref()
            .map_err(|reason| Error::model(&self.path, reason.as_str()))?;
        let mut bytes = vec![0_u8; count * self.row_bytes];
        let start = self.offset + (first * self.row_bytes) as u64;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(Error::io(&self.path))?;
        match decode {
            Some(decode) if !decode(&bytes, out) => {
                return Err(Error::Run(format!("rows from {first} on were not decoded")));
            }
            Some(_) => {}
            None => {
                for (value, chunk) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32::from_le_bytes(*chunk);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::testing::{Builder, build};

    /// A part of a model in two parts.
    fn part(tensor: &str) -> Builder {
        build()
            .u32("split.count", 2)
            .tensor(tensor, &[1, 2], TensorType::F32.0)
    }

    fn write(folder: &Path, number: u32, part: Builder, row: f32) -> PathBuf {
        let path = folder.join(format!("m-{number:05}-of-00002.gguf"));
        let mut bytes = part.bytes();
        let start = bytes.len() - 8;
        bytes[start..start + 4].copy_from_slice(&row.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn open(path: &Path) -> Result<OutputRows> {
        OutputRows::open(path, &Gguf::open(path).unwrap(), |_| None)
    }

    #[test]
    fn the_output_matrix_may_be_in_another_part() {
        let folder = tempfile::tempdir().unwrap();
        let first = write(folder.path(), 1, part("token_embd.weight"), 1.0);
        write(folder.path(), 2, part("output.weight"), 2.0);
        let mut row = [0.0];
        open(&first).unwrap().row(0, &mut row).unwrap();
        assert_eq!(row, [2.0]);
        // A model whose embedding is its output matrix.
        write(folder.path(), 2, part("output_norm.weight"), 3.0);
        open(&first).unwrap().row(0, &mut row).unwrap();
        assert_eq!(row, [1.0]);
    }

    #[test]
    fn a_missing_part_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let first = write(folder.path(), 1, part("token_embd.weight"), 1.0);
        let message = open(&first).err().unwrap().to_string();
        assert!(message.contains("m-00002-of-00002.gguf"), "{message}");
        let renamed = folder.path().join("m.gguf");
        std::fs::rename(first, &renamed).unwrap();
        let message = open(&renamed).err().unwrap().to_string();
        assert!(message.contains("-00001-of-00002.gguf"), "{message}");
    }

    #[test]
    fn a_type_without_a_decoder_is_an_error_once_rows_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let model = build().tensor("output.weight", &[32, 2], 2);
        std::fs::write(&path, model.bytes()).unwrap();
        let rows = open(&path).unwrap();
        assert_eq!((rows.width(), rows.vocabulary()), (32, 2));
        let message = rows.spread().unwrap_err().to_string();
        assert!(message.contains("Q4_0 cannot be decoded"), "{message}");
    }
}
