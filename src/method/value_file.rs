//! The file of a value network: a safetensors file of its layers and scales.

use std::io::Read;
use std::path::Path;

use ndarray::{Array1, Array2};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};

use crate::control::{Layer, ValueNetwork};
use crate::error::{Error, Result};
use crate::save::save;
use crate::text;

/// Largest file that is read: 1 GB.
const MAX_BYTES: u64 = 1 << 30;

impl ValueNetwork {
    /// Writes the network: `layers.N.weight` `[in, out]`, `layers.N.bias` `[out]`, `input_mean`
    /// `[d]` and `scales` (input scale, reward mean, reward scale), all F32.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let (rows, columns) = layer.weight.dim();
            let weight = layer.weight.iter().copied().collect();
            tensors.push((format!("layers.{i}.weight"), vec![rows, columns], weight));
            tensors.push((
                format!("layers.{i}.bias"),
                vec![columns],
                layer.bias.to_vec(),
            ));
        }
        let scales = vec![self.input_scale, self.reward_mean, self.reward_scale];
        tensors.push((
            "input_mean".into(),
            vec![self.width()],
            self.input_mean.to_vec(),
        ));
        tensors.push(("scales".into(), vec![3], scales));
        let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
            .into_iter()
            .map(|(name, shape, values)| {
                (
                    name,
                    shape,
                    values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                )
            })
            .collect();
        let failed = |e: safetensors::SafeTensorError| Error::Run(format!("value network: {e}"));
        let views = bytes
            .iter()
            .map(|(name, shape, data)| {
                Ok((
                    name,
                    TensorView::new(Dtype::F32, shape.clone(), data).map_err(failed)?,
                ))
            })
            .collect::<Result<Vec<_>>>()?;
        let content = serialize(views, None).map_err(failed)?;
        save(path, content)
    }

    /// Reads a network that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Field`] naming what is missing or
    /// wrong in it.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |reason: String| {
            let remedy = "make one with `aisp-llama train-value`";
            Error::field("value", format!("{}: {reason}; {remedy}", path.display()))
        };
        let file = text::regular(path).map_err(Error::io(path))?;
        let mut content = Vec::new();
        let read = file.take(MAX_BYTES + 1).read_to_end(&mut content);
        read.map_err(Error::io(path))?;
        if content.len() as u64 > MAX_BYTES {
            return Err(wrong("larger than 1 GB".into()));
        }
        let file = SafeTensors::deserialize(&content)
            .map_err(|e| wrong(format!("no safetensors file ({e})")))?;
        let tensor = |name: &str| {
            let tensor = file
                .tensor(name)
                .map_err(|_| wrong(format!("{name}: missing")))?;
            if tensor.dtype() != Dtype::F32 {
                return Err(wrong(format!("{name}: not F32")));
            }
            let chunks = tensor.data().as_chunks().0.iter();
            let values: Vec<f32> = chunks.map(|bytes| f32::from_le_bytes(*bytes)).collect();
            match values.iter().all(|v| v.is_finite()) {
                true => Ok((tensor.shape().to_vec(), values)),
                false => Err(wrong(format!("{name}: NaN or infinite"))),
            }
        };
        let input_mean = Array1::from(tensor("input_mean")?.1);
        let scales = tensor("scales")?.1;
        let &[input_scale, reward_mean, reward_scale] = scales.as_slice() else {
            return Err(wrong("scales: not three numbers".into()));
        };
        if input_scale <= 0.0 {
            return Err(wrong("scales: the input scale is not positive".into()));
        }
        let mut layers = Vec::new();
        let mut width = input_mean.len();
        while file
            .tensor(&format!("layers.{}.weight", layers.len()))
            .is_ok()
        {
            let index = layers.len();
            let (shape, values) = tensor(&format!("layers.{index}.weight"))?;
            let bias = Array1::from(tensor(&format!("layers.{index}.bias"))?.1);
            let misshapen = || wrong(format!("layers.{index}: shape {shape:?} does not fit"));
            if shape != [width, bias.len()] {
                return Err(misshapen());
            }
            let shape = (width, bias.len());
            width = bias.len();
            let weight = Array2::from_shape_vec(shape, values).map_err(|_| misshapen())?;
            layers.push(Layer { weight, bias });
        }
        if layers.is_empty() || width != 1 {
            return Err(wrong("its last layer has not one output".into()));
        }
        Ok(Self {
            layers,
            input_mean,
            input_scale,
            reward_mean,
            reward_scale,
        })
    }
}
