//! Methods written in Python.

use std::sync::Arc;

use aisp_llama::control::NoiseKey;
use aisp_llama::llama::Token;
use aisp_llama::method::{Method, Outcome, Proposal, Telemetry};
use aisp_llama::rollout::{SamplingOptions, Steer, TokenChoice};
use aisp_llama::{Error, Result};
use numpy::ndarray::Array2;
use numpy::{PyArray1, PyArray2, PyReadonlyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::reward::Raised;

/// A method whose `propose()` and `observe(outcomes)` are Python's.
pub struct PythonMethod {
    object: Py<PyAny>,
    shape: (usize, usize),
    width: usize,
    seed: u64,
    keeps_pre_logits: bool,
    iteration: u32,
    raised: Raised,
}

/// The perturbations `[τ, d]` of a candidate, and the key of its randomness.
struct Rows {
    rows: Option<Array2<f32>>,
    key: NoiseKey,
}

impl Steer for Rows {
    fn perturb(&self, tokens: &[Token], row: &mut [f32]) -> Result<bool> {
        let Some(rows) = self.rows.as_ref().filter(|r| tokens.len() < r.nrows()) else {
            return Ok(false);
        };
        let own = rows.row(tokens.len());
        row.iter_mut().zip(own).for_each(|(out, v)| *out += v);
        Ok(true)
    }

    fn uniform(&self, position: usize) -> f64 {
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        NoiseKey {
            position,
            ..self.key
        }
        .uniform()
    }
}

impl PythonMethod {
    pub fn new(
        object: &Bound<'_, PyAny>,
        shape: (usize, usize),
        width: usize,
        seed: u64,
        raised: Raised,
    ) -> PyResult<Self> {
        for name in ["propose", "observe"] {
            if !object
                .getattr_opt(name)?
                .is_some_and(|own| own.is_callable())
            {
                let reason = format!("method: a name, or an object with `{name}`");
                return Err(PyValueError::new_err(reason));
            }
        }
        let keeps = object.getattr_opt("keeps_pre_logits")?;
        Ok(Self {
            object: object.clone().unbind(),
            shape,
            width,
            seed,
            keeps_pre_logits: keeps.map_or(Ok(false), |own| own.is_truthy())?,
            iteration: 0,
            raised,
        })
    }

    /// Keeps what Python raised; the run ends with its text.
    fn keep(&self, error: PyErr) -> Error {
        let text = format!("the method: {error}");
        if let Ok(mut raised) = self.raised.lock() {
            *raised = Some(error);
        }
        Error::Run(text)
    }

    fn proposals(&self) -> PyResult<Vec<Proposal>> {
        Python::attach(|py| {
            let proposed = self.object.call_method0(py, "propose")?;
            let proposed: Vec<Bound<'_, PyAny>> = proposed.extract(py)?;
            let numbered = proposed.iter().zip(0..);
            numbered.map(|(one, n)| self.proposal(one, n)).collect()
        })
    }

    fn proposal(&self, one: &Bound<'_, PyAny>, candidate: u32) -> PyResult<Proposal> {
        let perturbation: Option<PyReadonlyArray2<'_, f32>> =
            one.getattr("perturbation")?.extract()?;
        let rows = perturbation.map(|rows| rows.as_array().to_owned());
        if let Some(rows) = rows.as_ref().filter(|rows| rows.ncols() != self.width) {
            let reason = format!(
                "perturbation: {} columns; the model's pre-logits have {}",
                rows.ncols(),
                self.width
            );
            return Err(PyValueError::new_err(reason));
        }
        let temperature: Option<f32> = one.getattr("temperature")?.extract()?;
        let key = NoiseKey {
            seed: self.seed,
            iteration: self.iteration,
            candidate,
            position: 0,
        };
        Ok(Proposal {
            steer: Some(Arc::new(Rows { rows, key })),
            choice: match temperature {
                Some(temperature) => TokenChoice::Sample(SamplingOptions {
                    temperature,
                    top_k: 0,
                    top_p: 1.0,
                    min_p: 0.0,
                }),
                None => TokenChoice::Argmax,
            },
            ..Proposal::default()
        })
    }

    fn tell(&self, outcomes: &[Outcome<'_>]) -> PyResult<()> {
        Python::attach(|py| {
            let outcomes = outcomes
                .iter()
                .map(|outcome| {
                    let dict = PyDict::new(py);
                    dict.set_item("candidate", outcome.candidate)?;
                    dict.set_item("reward", outcome.reward)?;
                    dict.set_item("tokens", PyArray1::from_slice(py, outcome.tokens))?;
                    let surprise = outcome.nats.iter().map(|nats| nats.surprise);
                    dict.set_item("surprise", PyArray1::from_iter(py, surprise))?;
                    let entropy = outcome.nats.iter().map(|nats| nats.entropy);
                    dict.set_item("entropy", PyArray1::from_iter(py, entropy))?;
                    if self.keeps_pre_logits {
                        let shape = (outcome.pre_logits.len() / self.width, self.width);
                        let rows = Array2::from_shape_vec(shape, outcome.pre_logits.to_vec());
                        let rows = rows.map_err(|e| PyValueError::new_err(e.to_string()))?;
                        dict.set_item("pre_logits", PyArray2::from_owned_array(py, rows))?;
                    }
                    Ok(dict)
                })
                .collect::<PyResult<Vec<_>>>()?;
            self.object.call_method1(py, "observe", (outcomes,))?;
            Ok(())
        })
    }
}

impl Method for PythonMethod {
    fn name(&self) -> &'static str {
        "python"
    }

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn propose(&mut self) -> Vec<Proposal> {
        if self.iteration as usize >= self.shape.1 {
            return Vec::new();
        }
        let proposals = self.proposals();
        self.iteration += 1;
        proposals.unwrap_or_else(|error| {
            let _ = self.keep(error);
            Vec::new()
        })
    }

    fn observe(&mut self, outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        self.tell(outcomes).map_err(|error| self.keep(error))?;
        Ok(Telemetry::default())
    }

    fn keeps_pre_logits(&self) -> bool {
        self.keeps_pre_logits
    }
}
