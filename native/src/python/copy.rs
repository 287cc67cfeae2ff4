//! Copies into arenas: all parts of a batch's input in one call, without the GIL where it takes long.

use std::sync::{mpsc, Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::call::Buffer;
use crate::chunks::Chunks;
use crate::transport::event::Event;

/// Below this, giving up the GIL and getting it back costs more than the copy.
const DETACH_BYTES: usize = 32 << 10;

/// A buffer of Python's whose bytes are read or written without the GIL.
pub struct Foreign(PyBuffer<u8>);

// SAFETY: the view keeps its owner alive and its bytes in place; they are only copied.
unsafe impl Send for Foreign {}
unsafe impl Sync for Foreign {}

impl Foreign {
    pub fn get(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyBuffer::<u8>::get(object)?;
        if !buffer.is_c_contiguous() {
            return Err(PyValueError::new_err("the bytes do not lie in one piece"));
        }
        Ok(Foreign(buffer))
    }

    pub fn len(&self) -> usize {
        self.0.len_bytes()
    }

    /// # Safety
    /// The bytes may be shared memory that another process writes: nothing may be concluded from them.
    pub unsafe fn bytes(&self) -> &[u8] {
        if self.len() == 0 {
            return &[];
        }
        // SAFETY: contiguous, of this length, and alive as long as the view.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast::<u8>(), self.len()) }
    }
}

/// Where the bytes of a part come from.
pub enum Part {
    Native(Chunks),
    Foreign(Foreign),
}

impl Part {
    pub fn get(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        match object.cast::<Buffer>() {
            Ok(buffer) => Ok(Part::Native(buffer.get().chunks.clone())),
            Err(_) => Ok(Part::Foreign(Foreign::get(object)?)),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Part::Native(chunks) => chunks.len(),
            Part::Foreign(foreign) => foreign.len(),
        }
    }
}

/// Writable bytes of Python's.
pub struct Target(PyBuffer<u8>);

// SAFETY: as for `Foreign`; whoever made the target does not touch it before the copy is done.
unsafe impl Send for Target {}

impl Target {
    pub fn get(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyBuffer::<u8>::get(object)?;
        if buffer.readonly() || !buffer.is_c_contiguous() {
            return Err(PyValueError::new_err("the target must be writable and lie in one piece"));
        }
        Ok(Target(buffer))
    }

    pub fn len(&self) -> usize {
        self.0.len_bytes()
    }

    /// Write the parts one behind the other. The sizes must have been compared.
    pub fn fill(&mut self, parts: &[Part]) {
        if self.len() == 0 {
            return;
        }
        // SAFETY: writable, contiguous, of this length, alive as long as the view, and ours alone meanwhile.
        let target = unsafe { std::slice::from_raw_parts_mut(self.0.buf_ptr().cast::<u8>(), self.len()) };
        let mut at = 0;
        for part in parts {
            let end = at + part.len();
            match part {
                Part::Native(chunks) => chunks.copy_to(&mut target[at..end]),
                // SAFETY: only copied.
                Part::Foreign(foreign) => target[at..end].copy_from_slice(unsafe { foreign.bytes() }),
            }
            at = end;
        }
    }
}

pub fn parts_of(list: &Bound<'_, PyList>, size_bytes: usize) -> PyResult<Vec<Part>> {
    let parts: PyResult<Vec<Part>> = list.iter().map(|object| Part::get(&object)).collect();
    let parts = parts?;
    let given: usize = parts.iter().map(Part::len).sum();
    if given != size_bytes {
        return Err(PyValueError::new_err(format!("{given} bytes for {size_bytes}")));
    }
    Ok(parts)
}

/// Write the parts one behind the other into `target`, which they fill exactly.
#[pyfunction]
fn copy_parts(py: Python<'_>, parts: &Bound<'_, PyList>, target: &Bound<'_, PyAny>) -> PyResult<()> {
    let mut target = Target::get(target)?;
    let parts = parts_of(parts, target.len())?;
    if target.len() < DETACH_BYTES {
        target.fill(&parts);
    } else {
        let filled = py.detach(move || {
            target.fill(&parts);
            (target, parts)
        });
        drop(filled);
    }
    Ok(())
}

/// The copies of one batch, and the number that says that they are done.
struct Job {
    copies: Vec<(Target, Vec<Part>)>,
    token: u64,
}

/// A thread that copies while Python goes on. Readable (`fileno`) when something is done.
#[pyclass(frozen, module = "gateway._native")]
pub struct Copier {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    done: Arc<Done>,
}

/// Jobs that are done: kept, because what they hold is Python's and is given back under its lock.
struct Done {
    jobs: Mutex<Vec<Job>>,
    event: Event,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[pymethods]
impl Copier {
    #[new]
    fn new() -> PyResult<Self> {
        let done = Arc::new(Done { jobs: Mutex::default(), event: Event::new()? });
        let (sender, receiver) = mpsc::channel::<Job>();
        let theirs = done.clone();
        thread::Builder::new().name("crossgate-copy".into()).spawn(move || {
            for mut job in receiver {
                for (target, parts) in &mut job.copies {
                    target.fill(parts);
                }
                let mut jobs = lock(&theirs.jobs);
                jobs.push(job);
                if jobs.len() == 1 {
                    theirs.event.set();
                }
            }
        })?;
        Ok(Copier { jobs: Mutex::new(Some(sender)), done })
    }

    fn fileno(&self) -> i32 {
        self.done.event.fd()
    }

    /// Write parts one behind the other into targets, which they fill exactly: [(parts, target)].
    fn copy(&self, copies: Vec<(Bound<'_, PyList>, Bound<'_, PyAny>)>, token: u64) -> PyResult<()> {
        let copies: PyResult<Vec<_>> = copies
            .iter()
            .map(|(parts, target)| {
                let target = Target::get(target)?;
                let parts = parts_of(parts, target.len())?;
                Ok((target, parts))
            })
            .collect();
        let job = Job { copies: copies?, token };
        match &*lock(&self.jobs) {
            Some(sender) => {
                sender.send(job).map_err(|_| PyRuntimeError::new_err("the copying thread has ended"))
            }
            None => Err(PyRuntimeError::new_err("the copier is closed")),
        }
    }

    /// Return the tokens of what is done.
    fn take(&self) -> Vec<u64> {
        self.done.event.clear();
        let jobs = std::mem::take(&mut *lock(&self.done.jobs));
        jobs.into_iter().map(|job| job.token).collect()
    }

    /// End the thread when it has done what it was given.
    fn close(&self) {
        lock(&self.jobs).take();
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Copier>()?;
    module.add_function(wrap_pyfunction!(copy_parts, module)?)
}
