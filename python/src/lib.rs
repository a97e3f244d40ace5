//! The Python module `aisp_llama._aisp_llama`; what people import is `aisp_llama`, which wraps it.

mod aligner;
mod method;
mod observe;
mod reward;

use pyo3::create_exception;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

create_exception!(
    aisp_llama,
    AlignmentError,
    PyRuntimeError,
    "A run that came to no answer, a reward that failed, or a model that cannot do what was asked."
);

/// An error of the library in Python's kinds: a wrong value is a `ValueError`, a file an `OSError`.
fn raised(error: aisp_llama::Error) -> PyErr {
    let text = error.to_string();
    match error {
        aisp_llama::Error::Field { .. } => PyValueError::new_err(text),
        aisp_llama::Error::Io { .. } => PyOSError::new_err(text),
        _ => AlignmentError::new_err(text),
    }
}

#[pymodule]
fn _aisp_llama(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("AlignmentError", module.py().get_type::<AlignmentError>())?;
    module.add_class::<aligner::Aligner>()?;
    module.add_class::<observe::Stop>()
}
