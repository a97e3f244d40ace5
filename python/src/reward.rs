//! Rewards: descriptions, and functions in Python.

use std::path::Path;
use std::sync::{Arc, Mutex};

use aisp_llama::Error;
use aisp_llama::reward::{Reward, Sample, SampleError, Score, Scores};
use pyo3::prelude::*;

/// What a function in Python raised, kept for whoever called into Rust.
pub type Raised = Arc<Mutex<Option<PyErr>>>;

/// A Python function from a list of samples to a list of numbers, `None` for one without a reward.
pub struct Function {
    function: Py<PyAny>,
    /// Makes a sample of prompt and response.
    sample: Py<PyAny>,
    raised: Raised,
}

impl Function {
    /// `function` is called with samples that `sample` makes; what it raises is put into `raised`.
    pub fn new(function: Py<PyAny>, sample: Py<PyAny>, raised: Raised) -> Self {
        Self {
            function,
            sample,
            raised,
        }
    }

    fn call(&self, samples: &[Sample<'_>]) -> PyResult<Vec<Option<f64>>> {
        Python::attach(|py| {
            let samples: Vec<_> = samples
                .iter()
                .map(|s| {
                    let messages = pythonize::pythonize(py, s.messages)?;
                    self.sample.call1(py, (s.prompt, s.response, messages))
                })
                .collect::<PyResult<_>>()?;
            self.function.call1(py, (samples,))?.extract(py)
        })
    }
}

impl Reward for Function {
    fn name(&self) -> String {
        Python::attach(|py| {
            let name = self.function.getattr(py, "__name__");
            name.and_then(|name| name.extract(py))
                .unwrap_or_else(|_| "python".into())
        })
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> aisp_llama::Result<Scores> {
        let rewards = self.call(samples).map_err(|error| {
            let text = error.to_string();
            if let Ok(mut raised) = self.raised.lock() {
                *raised = Some(error);
            }
            Error::Reward(text)
        })?;
        let scored = |reward: Option<f64>| match reward {
            Some(reward) => Ok(Score {
                reward,
                ..Score::default()
            }),
            None => Err(SampleError::Other("the function answered None".into())),
        };
        Ok(rewards.into_iter().map(scored).collect())
    }
}

/// A description as the command line has it: `KIND:…`, or a GGUF file.
pub fn described(text: &str) -> aisp_llama::Result<aisp_llama::reward::RewardSpec> {
    use aisp_llama::reward::RewardSpec;
    let file = text.split(';').next().unwrap_or_default();
    let file = file.rsplit_once('*').map_or(file, |(_, file)| file);
    if Path::new(file).extension().is_some_and(|e| e == "gguf") && !file.contains(':') {
        return RewardSpec::parse_file(text);
    }
    RewardSpec::parse(text)
}
