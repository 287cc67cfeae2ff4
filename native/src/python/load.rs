//! The load generator's binding.

use bytes::Bytes;
use pyo3::exceptions::{PyConnectionError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::load::{run, Error, Observer, Snapshot};

/// Send what `config_json` says and return (the report as JSON, the sampled answers).
///
/// `bodies` are messages without gRPC's prefix. `on_progress` gets the JSON of each second; what it raises ends the
/// run and is raised here, and so is what a signal's handler raises. The GIL is not held meanwhile.
///
/// Raises ValueError for a configuration that cannot be used, ConnectionError where there is no connection, and
/// RuntimeError for a defect.
#[pyfunction]
#[pyo3(signature = (config_json, bodies, on_progress=None))]
fn load<'py>(
    py: Python<'py>,
    config_json: &str,
    bodies: Vec<Bound<'py, PyBytes>>,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<(String, Vec<Bound<'py, PyBytes>>)> {
    let config =
        serde_json::from_str(config_json).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let bodies: Vec<Bytes> = bodies.iter().map(|body| Bytes::copy_from_slice(body.as_bytes())).collect();
    let mut caller = Caller { on_progress, raised: None };
    let ended = py.detach(|| run(config, &bodies, &mut caller));
    if let Some(raised) = caller.raised {
        return Err(raised);
    }
    let (report, samples) = ended.map_err(exception)?;
    let json = serde_json::to_string(&report).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    Ok((json, samples.iter().map(|sample| PyBytes::new(py, sample)).collect()))
}

fn exception(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Invalid(_) => PyValueError::new_err(text),
        Error::NoConnection { .. } => PyConnectionError::new_err(text),
        Error::Stopped | Error::Failed(_) => PyRuntimeError::new_err(text),
    }
}

/// The Python side, as it watches a run.
struct Caller {
    on_progress: Option<Py<PyAny>>,
    raised: Option<PyErr>,
}

impl Caller {
    fn ask(&mut self, question: impl FnOnce(Python<'_>, Option<&Py<PyAny>>) -> PyResult<()>) -> bool {
        if self.raised.is_none() {
            self.raised = Python::attach(|py| question(py, self.on_progress.as_ref())).err();
        }
        self.raised.is_none()
    }
}

impl Observer for Caller {
    fn tick(&mut self) -> bool {
        self.ask(|py, _| py.check_signals())
    }

    fn progress(&mut self, snapshot: &Snapshot) -> bool {
        self.ask(|py, on_progress| {
            let Some(on_progress) = on_progress else { return Ok(()) };
            let json = serde_json::to_string(snapshot)
                .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
            on_progress.call1(py, (json,)).map(drop)
        })
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(load, module)?)
}
