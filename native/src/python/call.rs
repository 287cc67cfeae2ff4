//! Requests as Python sees them: `Call`, with the attributes of `gateway.call.Call`, and what it is made of.

use std::ffi::{c_int, c_void, CString};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use pyo3::exceptions::{PyBufferError, PyKeyError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use crate::chunks::Chunks;
use crate::grpc::head::is_metadata;
use crate::request::{Parameter, Shape};
use crate::transport::server::{self, Head};

/// What requests of one kind have in common, as Python objects. Equal only to itself.
#[pyclass(frozen, module = "gateway._native", name = "ShapeKey")]
pub struct ShapeKey {
    model: Py<PyString>,
    version: Py<PyString>,
    outputs: Py<PyTuple>,
    parameters: Py<PyDict>,
    /// Whether every tensor has the elements that its shape says.
    #[pyo3(get)]
    elements_fit: bool,
}

/// Return the key of a shape: the same object as long as the shape is remembered.
pub fn key_of<'py>(py: Python<'py>, shape: &Shape) -> PyResult<Bound<'py, ShapeKey>> {
    if let Some(key) = shape.key.get() {
        return Ok(key.bind(py).clone().cast_into::<ShapeKey>()?);
    }
    let parameters = PyDict::new(py);
    for (name, value) in &shape.parameters {
        match value {
            Parameter::Bool(value) => parameters.set_item(name, value)?,
            Parameter::Int64(value) => parameters.set_item(name, value)?,
            Parameter::String(value) => parameters.set_item(name, value)?,
            Parameter::Double(value) => parameters.set_item(name, value)?,
            Parameter::Uint64(value) => parameters.set_item(name, value)?,
        }
    }
    let key = Bound::new(
        py,
        ShapeKey {
            model: PyString::new(py, &shape.model).unbind(),
            version: PyString::new(py, &shape.version).unbind(),
            outputs: PyTuple::new(py, &shape.outputs)?.unbind(),
            parameters: parameters.unbind(),
            elements_fit: shape.inputs.iter().all(|input| input.elements_fit),
        },
    )?;
    let kept = shape.key.get_or_init(|| key.into_any().unbind());
    Ok(kept.bind(py).clone().cast_into::<ShapeKey>()?)
}

/// The bytes of one tensor, in the pieces in which they came. Supports the buffer protocol, read-only; whoever asks
/// for a view of several pieces has them joined.
#[pyclass(frozen, module = "gateway._native")]
pub struct Buffer {
    pub chunks: Chunks,
    joined: OnceLock<Bytes>,
}

impl Buffer {
    pub fn new(chunks: Chunks) -> Self {
        Buffer { chunks, joined: OnceLock::new() }
    }

    fn bytes(&self) -> &[u8] {
        match self.chunks.contiguous() {
            Some(bytes) => bytes,
            None => self.joined.get_or_init(|| {
                let mut bytes = vec![0; self.chunks.len()];
                self.chunks.copy_to(&mut bytes);
                Bytes::from(bytes)
            }),
        }
    }
}

#[pymethods]
impl Buffer {
    fn __len__(&self) -> usize {
        self.chunks.len()
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.chunks.len()
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view"));
        }
        if flags & ffi::PyBUF_WRITABLE == ffi::PyBUF_WRITABLE {
            return Err(PyBufferError::new_err("these bytes are read-only"));
        }
        let bytes = slf.get().bytes();
        let (pointer, size) = (bytes.as_ptr(), bytes.len());
        // SAFETY: `view` is the caller's Py_buffer; the bytes never move or change while `slf`, which the view
        // holds a reference to, lives; `PyBuffer_FillInfo` is made for exactly this.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                pointer as *mut c_void,
                size as ffi::Py_ssize_t,
                1,
                flags,
            )
        };
        if filled == 0 {
            Ok(())
        } else {
            Err(PyErr::fetch(slf.py()))
        }
    }
}

/// A caller's metadata: a read-only mapping of lower-case names to text.
#[pyclass(frozen, mapping, module = "gateway._native")]
pub struct Metadata {
    head: Arc<Head>,
}

impl Metadata {
    pub(super) fn new(head: Arc<Head>) -> Self {
        Metadata { head }
    }

    fn find(&self, name: &str) -> Option<&str> {
        if !is_metadata(name) {
            return None;
        }
        self.head.headers.get(name)?.to_str().ok()
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.head.headers.iter();
        headers.filter_map(|(name, value)| {
            is_metadata(name.as_str()).then_some((name.as_str(), value.to_str().ok()?))
        })
    }
}

#[pymethods]
impl Metadata {
    fn __getitem__(&self, name: &str) -> PyResult<&str> {
        self.find(name).ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }

    #[pyo3(signature = (name, default=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> Option<Bound<'py, PyAny>> {
        self.find(name).map(|value| PyString::new(py, value).into_any()).or(default)
    }

    fn __contains__(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn __len__(&self) -> usize {
        self.pairs().count()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.keys(py)?.try_iter()?.into_any())
    }

    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.pairs().map(|(name, _)| name).collect::<Vec<_>>())
    }

    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.pairs().map(|(_, value)| value).collect::<Vec<_>>())
    }

    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.pairs().collect::<Vec<_>>())
    }
}

/// One request for inference. Its attributes are those of `gateway.call.Call`.
#[pyclass(frozen, module = "gateway._native")]
pub struct Call {
    pub call: server::Call,
    key: Py<ShapeKey>,
    origin: Py<PyAny>,
    tensor: Py<PyAny>,
}

impl Call {
    /// `tensor` is the type of `inputs`' members, called with name, datatype, shape and data.
    pub fn new<'py>(
        py: Python<'py>,
        call: server::Call,
        origin: &Py<PyAny>,
        tensor: &Py<PyAny>,
    ) -> PyResult<Bound<'py, Call>> {
        let key = key_of(py, &call.request.shape)?.unbind();
        Bound::new(py, Call { call, key, origin: origin.clone_ref(py), tensor: tensor.clone_ref(py) })
    }
}

#[pymethods]
impl Call {
    #[getter]
    fn id(&self) -> u64 {
        self.call.id
    }

    #[getter]
    fn origin(&self, py: Python<'_>) -> Py<PyAny> {
        self.origin.clone_ref(py)
    }

    #[getter]
    fn shape_key(&self, py: Python<'_>) -> Py<ShapeKey> {
        self.key.clone_ref(py)
    }

    #[getter]
    fn model(&self, py: Python<'_>) -> Py<PyString> {
        self.key.get().model.clone_ref(py)
    }

    #[getter]
    fn version(&self, py: Python<'_>) -> Py<PyString> {
        self.key.get().version.clone_ref(py)
    }

    #[getter]
    fn outputs(&self, py: Python<'_>) -> Py<PyTuple> {
        self.key.get().outputs.clone_ref(py)
    }

    #[getter]
    fn parameters(&self, py: Python<'_>) -> Py<PyDict> {
        self.key.get().parameters.clone_ref(py)
    }

    #[getter]
    fn request_id(&self) -> &str {
        &self.call.request.id
    }

    #[getter]
    fn arrived_ns(&self) -> u64 {
        self.call.arrived_ns
    }

    #[getter]
    fn deadline_ns(&self) -> Option<u64> {
        // what is centuries away must fit the signed numbers that deadlines are compared with
        self.call.deadline_ns.map(|ns| ns.min(i64::MAX as u64 - 1))
    }

    #[getter]
    fn size_bytes(&self) -> usize {
        self.call.size_bytes
    }

    #[getter]
    fn peer(&self) -> &str {
        &self.call.head.peer
    }

    #[getter]
    fn metadata(&self) -> Metadata {
        Metadata::new(self.call.head.clone())
    }

    #[getter]
    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let request = &self.call.request;
        let heads = request.shape.inputs.iter().zip(&request.inputs);
        let tensors: PyResult<Vec<_>> = heads
            .map(|(head, data)| {
                let shape = PyTuple::new(py, &head.shape)?;
                let data = Buffer::new(data.clone());
                self.tensor.bind(py).call1((head.name.as_str(), head.datatype.as_str(), shape, data))
            })
            .collect();
        PyTuple::new(py, tensors?)
    }

    /// The bytes of the input at this position.
    fn data(&self, position: usize) -> PyResult<Buffer> {
        match self.call.request.inputs.get(position) {
            Some(data) => Ok(Buffer::new(data.clone())),
            None => Err(pyo3::exceptions::PyIndexError::new_err(position)),
        }
    }

    fn __repr__(&self) -> String {
        let shape = &self.call.request.shape;
        format!(
            "<Call {} of model {:?}>",
            self.call.id,
            CString::new(shape.model.as_bytes()).unwrap_or_default()
        )
    }
}
