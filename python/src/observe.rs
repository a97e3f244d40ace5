//! Who is told of a run, and who may end it.

use aisp_llama::Event;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

/// A request to stop, from another thread: the best answer so far is the answer.
#[pyclass(frozen)]
#[derive(Default)]
pub struct Stop(pub aisp_llama::Stop);

#[pymethods]
impl Stop {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Asks the run to stop after the step that it is in.
    fn request(&self) {
        self.0.request();
    }
}

/// Hands events to a Python function, and hears an interrupt.
pub struct Observer<'a> {
    function: Option<&'a Py<PyAny>>,
    stop: &'a aisp_llama::Stop,
    /// What the function raised.
    pub failed: Option<PyErr>,
    /// An interrupt.
    pub interrupt: Option<PyErr>,
}

impl<'a> Observer<'a> {
    pub fn new(function: Option<&'a Py<PyAny>>, stop: &'a aisp_llama::Stop) -> Self {
        Self {
            function,
            stop,
            failed: None,
            interrupt: None,
        }
    }

    /// Tells of an event; what goes wrong in Python ends the run.
    pub fn tell(&mut self, event: &Event) {
        Python::attach(|py| {
            if let Err(error) = py.check_signals() {
                let own = error.is_instance_of::<PyKeyboardInterrupt>(py);
                let place = if own {
                    &mut self.interrupt
                } else {
                    &mut self.failed
                };
                *place = place.take().or(Some(error));
                self.stop.request();
            }
            let Some(function) = self.function.filter(|_| self.failed.is_none()) else {
                return;
            };
            let told = pythonize::pythonize(py, event)
                .map_err(PyErr::from)
                .and_then(|event| function.call1(py, (event,)));
            if let Err(error) = told {
                self.failed = Some(error);
                self.stop.request();
            }
        });
    }
}
