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

use super::{Gguf, TensorType};
use crate::error::{Error, Result};

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
    /// `None` for F32.
    decode: Option<Decoder>,
    plain: Option<String>,
}

/// Turns whole rows of a quantised tensor, given as bytes, into their values.
pub type Decoder = Box<dyn Fn(&[u8], &mut [f32]) + Send + Sync>;

impl OutputRows {
    /// Finds the matrix in the file `path` with the header `gguf`; `decoder` knows the types
    /// of tensors other than F32.
    ///
    /// # Errors
    /// [`Error::Model`] when the file has no such tensor or its type has no decoder,
    /// [`Error::Io`] when it cannot be opened.
    pub fn open(
        path: &Path,
        gguf: &Gguf,
        decoder: impl FnOnce(TensorType) -> Option<Decoder>,
    ) -> Result<Self> {
        let tensor = gguf
            .tensor("output.weight")
            .or_else(|| gguf.tensor("token_embd.weight"))
            .ok_or_else(|| {
                let remedy = "missing; give --update weights and --sigma as a number";
                Error::model(path, format!("output.weight: {remedy}"))
            })?;
        let unusable = || {
            Error::model(
                path,
                format!(
                    "{}: type {} cannot be decoded; give --update weights and --sigma as a number",
                    tensor.name,
                    tensor.kind.name()
                ),
            )
        };
        let (block, block_bytes) = tensor.kind.block_size().ok_or_else(unusable)?;
        let decode = match tensor.kind {
            TensorType::F32 => None,
            other => Some(decoder(other).ok_or_else(unusable)?),
        };
        let width = tensor.dims.first().copied().unwrap_or(0);
        if width == 0 || block == 0 || !width.is_multiple_of(block) {
            return Err(unusable());
        }
        let row_bytes = (width / block * block_bytes) as usize;
        let width = width as usize;
        let file = File::open(path).map_err(|source| Error::Io {
            path: path.to_path_buf(),
            source,
        })?;
        let unscaled = ["logit_scale", "final_logit_softcapping"];
        let plain = gguf
            .metadata()
            .find(|(key, _)| unscaled.iter().any(|end| key.ends_with(end)))
            .map(|(key, _)| key.to_owned());
        let bias = gguf.tensor("output.bias").map(|t| t.name.clone());
        Ok(Self {
            file: Mutex::new(file),
            path: path.to_path_buf(),
            offset: tensor.offset,
            row_bytes,
            width,
            vocabulary: tensor.dims.iter().skip(1).product::<u64>() as usize,
            decode,
            plain: plain.or(bias),
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
        self.plain.as_ref().map_or(Ok(()), |what| {
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

    /// Σ W_j `[d]` over the tokens j.
    ///
    /// # Errors
    /// Those of [`row`](Self::row).
    pub fn sum(&self, tokens: impl IntoIterator<Item = i32>) -> Result<Vec<f32>> {
        let mut row = vec![0.0; self.width];
        let mut sum = vec![0.0; self.width];
        for token in tokens {
            self.row(token, &mut row)?;
            for (sum, w) in sum.iter_mut().zip(&row) {
                *sum += w;
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

    /// Root mean square over the vocabulary of |W_j|, the Euclidean norm of a row: noise of
    /// standard deviation σ on the pre-logits gives logit j noise of standard deviation σ|W_j|.
    ///
    /// # Errors
    /// Those of [`for_each_block`](Self::for_each_block).
    pub fn rms_norm(&self) -> Result<f64> {
        let mut total = 0.0;
        self.for_each_block(|_, rows| {
            total += rows.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
        })?;
        Ok((total / self.vocabulary.max(1) as f64).sqrt())
    }

    /// Decodes as many rows as `out` holds, from number `first` on.
    fn read(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let count = out.len() / self.width;
        let mut bytes = vec![0_u8; count * self.row_bytes];
        let start = self.offset + (first * self.row_bytes) as u64;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|source| Error::Io {
                path: self.path.clone(),
                source,
            })?;
        match &self.decode {
            Some(decode) => decode(&bytes, out),
            None => {
                for (value, chunk) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32::from_le_bytes(*chunk);
                }
            }
        }
        Ok(())
    }
}
