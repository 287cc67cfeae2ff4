//! The server as Python sees it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use super::call::{Call, Metadata};
use super::copy::Foreign;
use crate::grpc::framing::framed;
use crate::grpc::response::{header, put_answer, Output, ANSWER_EXTRA_BYTES};
use crate::grpc::status::Status;
use crate::transport::server::{self, Address, Answering, Config, Outgoing, Rpc, What};

const VERSION: HeaderName = HeaderName::from_static("crossgate-version");
const REVISION: HeaderName = HeaderName::from_static("crossgate-revision");

fn pack(to: Address) -> (u64, u32, u32) {
    (to.connection, to.stream, to.message)
}

fn unpack((connection, stream, message): (u64, u32, u32)) -> Address {
    Address { connection, stream, message }
}

/// Which version and revision answered; nothing where the request reached none.
fn provenance(version: &str, revision: u64) -> Arc<HeaderMap> {
    let mut trailing = HeaderMap::new();
    if revision > 0 {
        if let (false, Ok(version)) = (version.is_empty(), HeaderValue::from_str(version)) {
            trailing.insert(VERSION, version);
        }
        trailing.insert(REVISION, HeaderValue::from(revision));
    }
    Arc::new(trailing)
}

/// One output of an answer or of a batch of answers.
struct Tensor {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    data: Foreign,
}

fn tensors(outputs: &Bound<'_, PyAny>) -> PyResult<Vec<Tensor>> {
    let mut found = Vec::new();
    for output in outputs.try_iter()? {
        let (name, datatype, shape, data): (String, String, Vec<i64>, Bound<'_, PyAny>) =
            output?.extract()?;
        found.push(Tensor { name, datatype, shape, data: Foreign::get(&data)? });
    }
    Ok(found)
}

/// Return where each row of a tensor begins, and the end; None where the bytes are not that many rows.
fn row_starts(tensor: &Tensor, rows: usize) -> Option<Vec<usize>> {
    let size = tensor.data.len();
    if tensor.shape.first() != Some(&(rows as i64)) {
        return None;
    }
    if tensor.datatype != "BYTES" {
        return (size % rows == 0).then(|| (0..=rows).map(|row| row * (size / rows)).collect());
    }
    let per_row: usize = tensor.shape[1..].iter().map(|&dim| dim as usize).product();
    // SAFETY: a worker may write here meanwhile; every length is compared with what is there before it is used.
    let bytes = unsafe { tensor.data.bytes() };
    let (mut starts, mut at) = (vec![0], 0usize);
    for _ in 0..rows {
        for _ in 0..per_row {
            let prefix: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
            at = at.checked_add(4)?.checked_add(u32::from_le_bytes(prefix) as usize)?;
            if at > size {
                return None;
            }
        }
        starts.push(at);
    }
    (at == size).then_some(starts)
}

/// A member of a batch: where its answer goes, and which rows are its own.
struct Member {
    to: Address,
    id: String,
    streamed: bool,
    start: usize,
    rows: usize,
}

/// Encode the answers of all members into one piece of memory.
fn encode(
    members: &[Member],
    outputs: &[Tensor],
    starts: &[Vec<usize>],
    model: &str,
    version: &str,
) -> Vec<Bytes> {
    // SAFETY: a worker may write here meanwhile: the bytes are only copied.
    let data: Vec<&[u8]> = outputs.iter().map(|tensor| unsafe { tensor.data.bytes() }).collect();
    let payload: usize = data.iter().map(|bytes| bytes.len()).sum();
    let mut headers: Vec<(usize, Vec<u8>)> = Vec::new(); // (rows, encoded)
    let mut memory = BytesMut::with_capacity(payload + members.len() * (ANSWER_EXTRA_BYTES + 64));
    let mut answers = Vec::with_capacity(members.len());
    for member in members {
        let known = headers.iter().position(|(rows, _)| *rows == member.rows);
        let at = known.unwrap_or_else(|| {
            let shapes: Vec<Vec<i64>> = outputs.iter().map(|tensor| shape_of(tensor, member.rows)).collect();
            let heads: Vec<Output<'_>> = outputs
                .iter()
                .zip(&shapes)
                .map(|(tensor, shape)| Output {
                    name: &tensor.name,
                    datatype: &tensor.datatype,
                    shape,
                    data: &[],
                })
                .collect();
            headers.push((member.rows, header(model, version, &heads)));
            headers.len() - 1
        });
        let (from, to) = (member.start, member.start + member.rows);
        let mine = data.iter().zip(starts).map(|(bytes, starts)| {
            if starts.is_empty() {
                *bytes
            } else {
                &bytes[starts[from]..starts[to]]
            }
        });
        put_answer(&mut memory, &headers[at].1, &member.id, mine, member.streamed);
        answers.push(memory.split().freeze());
    }
    answers
}

fn shape_of(tensor: &Tensor, rows: usize) -> Vec<i64> {
    let mut shape = tensor.shape.clone();
    if let (Some(first), true) = (shape.first_mut(), rows > 0) {
        *first = rows as i64;
    }
    shape
}

/// One listening server and its thread. `config` is JSON, see `gateway.frontend.native`.
#[pyclass(frozen, module = "gateway._native")]
pub struct Server {
    server: Mutex<server::Server>,
    shared: Arc<server::Shared>,
    origin: Py<PyAny>,
    tensor: Py<PyAny>,
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, server::Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn started(py: Python<'_>, config: &str, answering: Answering) -> PyResult<server::Server> {
    let config: Config = serde_json::from_str(config)
        .map_err(|error| PyValueError::new_err(format!("the configuration: {error}")))?;
    py.detach(|| server::Server::start(config, answering)).map_err(|error| match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, plain(&error))),
        None => PyOSError::new_err(error.to_string()),
    })
}

/// An error's words without the number that Python adds itself.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[pymethods]
impl Server {
    /// Start to listen. `origin` becomes the calls' origin, `tensor` the type of their inputs.
    #[new]
    fn new(py: Python<'_>, config: &str, origin: Py<PyAny>, tensor: Py<PyAny>) -> PyResult<Self> {
        let server = started(py, config, Answering::Gateway)?;
        Ok(Server { shared: server.shared.clone(), server: Mutex::new(server), origin, tensor })
    }

    #[getter]
    fn address(&self) -> String {
        self.lock().address().to_owned()
    }

    /// A descriptor that becomes readable when there is something to take.
    fn fileno(&self) -> i32 {
        self.shared.event_fd()
    }

    /// Return what has arrived: calls, ids of cancelled calls, events of other RPCs, and warnings.
    ///
    /// An event is (what, address, method or '', message or b'', metadata or None); what is 'unary', 'opened',
    /// 'message', 'half-closed' or 'gone'. Only 'unary' has metadata.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let arrived = self.shared.take();
        let calls = PyList::empty(py);
        for call in arrived.calls {
            calls.append(Call::new(py, call, &self.origin, &self.tensor)?)?;
        }
        let events = PyList::empty(py);
        for rpc in arrived.rpcs {
            let empty = || (String::new(), PyBytes::new(py, b""));
            let mut metadata = None;
            let (what, to, (path, message)) = match rpc {
                Rpc::Unary { to, path, message, head, .. } => {
                    metadata = Some(Metadata::new(head));
                    ("unary", to, (path, PyBytes::new(py, &message)))
                }
                Rpc::Opened { to, path } => ("opened", to, (path, PyBytes::new(py, b""))),
                Rpc::Message { to, message } => ("message", to, (String::new(), PyBytes::new(py, &message))),
                Rpc::HalfClosed { to } => ("half-closed", to, empty()),
                Rpc::Gone { to } => ("gone", to, empty()),
            };
            events.append((what, pack(to), path, message, metadata))?;
        }
        (calls, arrived.cancels, events, arrived.warnings).into_pyobject(py)
    }

    /// Answer calls that ran as one batch: each gets its rows, beginning at `starts`, of every output.
    ///
    /// `total_rows` 0: the outputs are the one call's as they stand. Raises ValueError where an output is not
    /// `total_rows` rows.
    #[allow(clippy::too_many_arguments)]
    fn settle_batch(
        &self,
        py: Python<'_>,
        calls: &Bound<'_, PyList>,
        starts: Vec<usize>,
        rows: Vec<usize>,
        total_rows: usize,
        model: &str,
        version: &str,
        revision: u64,
        outputs: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if starts.len() != calls.len() || rows.len() != calls.len() {
            return Err(PyValueError::new_err("calls, starts and rows differ in length"));
        }
        let outputs = tensors(outputs)?;
        let mut members = Vec::with_capacity(calls.len());
        for ((call, start), rows) in calls.iter().zip(starts).zip(rows) {
            if start + rows > total_rows && total_rows > 0 {
                return Err(PyValueError::new_err(format!(
                    "rows {start} to {} of {total_rows}",
                    start + rows
                )));
            }
            let call = &call.cast::<Call>()?.get().call;
            members.push(Member {
                to: call.to,
                id: call.request.id.clone(),
                streamed: call.streamed,
                start: if total_rows > 0 { start } else { 0 },
                rows: if total_rows > 0 { rows } else { 0 },
            });
        }
        let mut row_bounds = Vec::with_capacity(outputs.len());
        for tensor in &outputs {
            row_bounds.push(if total_rows == 0 {
                Vec::new()
            } else {
                row_starts(tensor, total_rows).ok_or_else(|| {
                    PyValueError::new_err(format!("output {} is not {total_rows} rows", tensor.name))
                })?
            });
        }
        let max = self.shared.config.max_message_bytes;
        let shared = &self.shared;
        let outputs = py.detach(move || {
            let trailing = provenance(version, revision);
            let answers = encode(&members, &outputs, &row_bounds, model, version);
            let sent = members.iter().zip(answers).map(|(member, message)| Outgoing {
                to: member.to,
                what: if message.len() - 5 > max {
                    too_large(model, message.len() - 5, max, &trailing)
                } else {
                    What::Answer { message, trailing: trailing.clone() }
                },
            });
            shared.send(sent.collect());
            outputs
        });
        drop(outputs);
        Ok(())
    }

    /// Answer calls with errors: (call, status code, message, milliseconds until a retry or None, version, revision).
    #[allow(clippy::type_complexity)] // as Python gives it
    fn settle_errors(&self, errors: Vec<(Bound<'_, Call>, u8, String, Option<u32>, String, u64)>) {
        let sent = errors.into_iter().map(|(call, code, message, pushback_ms, version, revision)| Outgoing {
            to: call.get().call.to,
            what: What::Error {
                status: Status { code, message, pushback_ms },
                trailing: provenance(&version, revision),
            },
        });
        self.shared.send(sent.collect());
    }

    /// Send a message of an RPC.
    fn send(&self, to: (u64, u32, u32), message: &[u8]) {
        self.post(to, What::Message(framed(message)));
    }

    /// Answer a unary RPC.
    fn answer(&self, to: (u64, u32, u32), message: &[u8]) {
        let message = framed(message);
        let trailing = Arc::default();
        self.post(to, What::Answer { message, trailing });
    }

    /// End an RPC.
    fn end(&self, to: (u64, u32, u32)) {
        self.post(to, What::End);
    }

    /// End an RPC with an error.
    fn fail(&self, to: (u64, u32, u32), code: u8, message: String, pushback_ms: Option<u32>) {
        let status = Status { code, message, pushback_ms };
        let trailing = Arc::default();
        self.post(to, What::Error { status, trailing });
    }

    /// A message of an RPC was taken: another may be read.
    fn taken(&self, to: (u64, u32, u32)) {
        self.post(to, What::Taken);
    }

    /// Requests that are not answered yet; the descriptor becomes readable when none is left during a drain.
    #[getter]
    fn unanswered(&self) -> usize {
        self.shared.unanswered.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Counts for metrics: open connections, accepted ones, ones closed for what the peer did, bytes held by requests
    /// and by answers.
    fn counts(&self) -> (usize, u64, u64, usize, usize) {
        use std::sync::atomic::Ordering::Relaxed;
        let shared = &self.shared;
        (
            shared.connections.load(Relaxed),
            shared.accepted.load(Relaxed),
            shared.refused.load(Relaxed),
            shared.incoming.held(),
            shared.outgoing.held(),
        )
    }

    /// Ask all connections to go away once their requests are answered. `deaf`: accept no new ones either.
    fn drain(&self, deaf: bool) {
        self.shared.drain(deaf);
    }

    /// End everything at once.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.lock().close());
    }
}

impl Server {
    fn post(&self, to: (u64, u32, u32), what: What) {
        self.shared.send(vec![Outgoing { to: unpack(to), what }]);
    }
}

fn too_large(model: &str, size: usize, limit: usize, trailing: &Arc<HeaderMap>) -> What {
    What::Error {
        status: Status::new(
            crate::grpc::status::RESOURCE_EXHAUSTED,
            format!("model {model}: the response of {size} bytes is over the limit of {limit} bytes"),
        ),
        trailing: trailing.clone(),
    }
}

/// A server that answers every ModelInfer with the same message and looks at none: what the transport alone costs.
#[pyclass(frozen, module = "gateway._native")]
pub struct Echo {
    server: Mutex<server::Server>,
}

#[pymethods]
impl Echo {
    #[new]
    fn new(py: Python<'_>, host: &str, port: u16, response: &[u8]) -> PyResult<Self> {
        let config = serde_json::json!({
            "host": host, "port": port, "unix": "", "fds": [], "tls": null, "max_message_bytes": 64 << 20,
            "max_held_bytes": 1 << 30, "max_concurrent_streams": 1024, "max_connection_age_s": 0.0,
            "keepalive_s": 60.0, "keepalive_timeout_s": 20.0, "unary": [], "streams": [],
        });
        let server = started(py, &config.to_string(), Answering::Echo(framed(response)))?;
        Ok(Echo { server: Mutex::new(server) })
    }

    #[getter]
    fn port(&self) -> u16 {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        server.address().rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_default()
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.server.lock().unwrap_or_else(PoisonError::into_inner).close());
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Server>()?;
    module.add_class::<Call>()?;
    module.add_class::<super::call::Buffer>()?;
    module.add_class::<Metadata>()?;
    module.add_class::<super::call::ShapeKey>()?;
    module.add_class::<Echo>()
}
