//! Lets tests compare the native reader of requests with the one in Python. The gateway does not call it.

use bytes::Bytes;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::chunks::Chunks;
use crate::request::{Malformed, Parameter, Reader, Request};

/// Read a ModelInferRequest that is cut at `cuts`; each counts from the start and may be beyond the end.
///
/// Returns (model, version, id, {parameter: value}, [(name, datatype, shape, data, elements_fit)], [output]).
///
/// Raises:
///     ValueError: the message is malformed; the text is what a caller is told.
///     RuntimeError: one reader took the same message differently the second time.
#[pyfunction]
fn read_request<'py>(py: Python<'py>, message: &[u8], cuts: Vec<usize>) -> PyResult<Bound<'py, PyTuple>> {
    let message = cut(message, cuts);
    let mut reader = Reader::new();
    let first = to_python(py, reader.read(&message));
    let second = to_python(py, reader.read(&message));
    let (said, again) = (shown(py, &first)?, shown(py, &second)?);
    if said != again {
        let text = format!("first {said}, then {again}");
        return Err(PyRuntimeError::new_err(text));
    }
    first
}

/// A text that tells different readings apart.
fn shown(py: Python<'_>, read: &PyResult<Bound<'_, PyTuple>>) -> PyResult<String> {
    match read {
        Ok(request) => Ok(request.repr()?.to_string()),
        Err(error) => Ok(error.value(py).to_string()),
    }
}

fn cut(message: &[u8], mut cuts: Vec<usize>) -> Chunks {
    cuts.push(message.len());
    cuts.sort_unstable();
    let (mut chunks, mut from) = (Chunks::new(), 0);
    for to in cuts {
        let to = to.min(message.len());
        chunks.push(Bytes::copy_from_slice(&message[from..to]));
        from = to;
    }
    chunks
}

fn to_python(py: Python<'_>, read: Result<Request, Malformed>) -> PyResult<Bound<'_, PyTuple>> {
    let Request { shape, id, inputs } = read.map_err(|Malformed(why)| PyValueError::new_err(why))?;
    let parameters = PyDict::new(py);
    for (key, value) in &shape.parameters {
        match value {
            Parameter::Bool(value) => parameters.set_item(key, value)?,
            Parameter::Int64(value) => parameters.set_item(key, value)?,
            Parameter::String(value) => parameters.set_item(key, value)?,
            Parameter::Double(value) => parameters.set_item(key, value)?,
            Parameter::Uint64(value) => parameters.set_item(key, value)?,
        }
    }
    let mut tensors = Vec::new();
    for (head, data) in shape.inputs.iter().zip(&inputs) {
        let data = PyBytes::new_with(py, data.len(), |target| {
            data.copy_to(target);
            Ok(())
        })?;
        let sizes = PyTuple::new(py, &head.shape)?;
        tensors.push((&head.name, &head.datatype, sizes, data, head.elements_fit));
    }
    (&shape.model, &shape.version, id, parameters, tensors, &shape.outputs).into_pyobject(py)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(read_request, module)?)
}
