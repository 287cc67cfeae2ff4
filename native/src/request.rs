//! Reads ModelInferRequest over the pieces in which it arrived, without copying tensors.
//!
//! What is read, and what is refused and why, is what `gateway/frontend/codec.py` says with protobuf: it is the
//! reference, and `tests/native/test_request_reader.py` compares the two.
//!
//! Callers send the same model, names and shapes over and over; only ids and tensors differ. One scan of the
//! outermost fields parts the id and the tensors from the rest, the head. Requests whose heads are the same
//! bytes and whose tensors have the same sizes mean the same, and are not parsed again. Others are parsed in
//! place, and what they say is looked up: only what was never said before is built anew.

use std::sync::Arc;

use smallvec::SmallVec;

use self::elements::{elements_fit, BYTES};
use self::hash::HashKey;
use self::head::Head;
use self::table::Table;
use crate::chunks::{Chunks, Place};
use crate::protobuf::{length, skip, tag, Wire, WireError, MAX_DEPTH};

mod elements;
mod hash;
mod head;
mod input;
mod parameter;
mod repr;
mod table;
mod typed;

/// A head and its tensors' sizes are remembered up to this size.
const MAX_KEY_BYTES: usize = 4 << 10;
/// A shape is remembered if it takes no more memory than this.
const MAX_SHAPE_BYTES: usize = 16 << 10;
/// The working memory that is kept from one request to the next.
const MAX_SCRATCH_BYTES: usize = 64 << 10;

/// Empty inputs take two bytes each in a message and a hundred in memory.
pub const MAX_PARTS: usize = 10_000;

const ID: u32 = 3;
const RAW: u32 = 7;

/// A value of `InferParameter`.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    Bool(bool),
    Int64(i64),
    String(String),
    Double(f64),
    Uint64(u64),
}

/// What is known of one input tensor besides its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct InputHead {
    pub name: String,
    pub datatype: String,
    pub shape: Vec<i64>,
    pub size_bytes: u64,
    /// For BYTES: whether the data is exactly as many elements as the shape says. True for others.
    pub elements_fit: bool,
}

/// What requests that differ in nothing but their id and their tensors' bytes have in common.
///
/// One object stands for all of them, as long as it is remembered: pointer equality is a valid key.
#[derive(Debug)]
pub struct Shape {
    pub model: String,
    pub version: String,
    /// Ordered by name; each name comes once.
    pub parameters: Vec<(String, Parameter)>,
    pub inputs: Vec<InputHead>,
    /// Each name comes once.
    pub outputs: Vec<String>,
    #[cfg(feature = "python")]
    pub(crate) key: std::sync::OnceLock<pyo3::Py<pyo3::PyAny>>,
}

impl Shape {
    /// About how much memory this takes.
    fn memory_bytes(&self) -> usize {
        let parameters = self.parameters.iter().map(|(key, value)| {
            let text = match value {
                Parameter::String(text) => text.len(),
                _ => 0,
            };
            size_of::<(String, Parameter)>() + key.len() + text
        });
        let inputs = self.inputs.iter().map(|input| {
            let shape = input.shape.len() * size_of::<i64>();
            size_of::<InputHead>() + input.name.len() + input.datatype.len() + shape
        });
        let outputs = self.outputs.iter().map(|name| size_of::<String>() + name.len());
        let all = parameters.chain(inputs).chain(outputs).sum::<usize>();
        size_of::<Shape>() + self.model.len() + self.version.len() + all
    }
}

/// A ModelInferRequest. `inputs` is parallel to `shape.inputs`: raw little-endian bytes.
#[derive(Debug)]
pub struct Request {
    pub shape: Arc<Shape>,
    pub id: String,
    pub inputs: SmallVec<[Chunks; 1]>,
}

/// The message is no ModelInferRequest or breaks the protocol's rules; what the caller is told.
#[derive(Debug, PartialEq)]
pub struct Malformed(pub String);

impl From<WireError> for Malformed {
    fn from(_: WireError) -> Self {
        Malformed("the message is not a ModelInferRequest".to_owned())
    }
}

/// A head that came before, and what it means. The tensors of its requests are raw.
#[derive(Debug)]
struct KnownHead {
    key: Box<[u8]>,
    shape: Arc<Shape>,
    has_bytes: bool,
}

/// Reads requests, and remembers what comes again. One for each I/O thread.
///
/// Remembers at most 1024 heads of up to 4 KiB and 1024 shapes of up to 16 KiB. What never comes again does not
/// push out what does, so a caller whose heads are all different costs the others nothing.
#[derive(Debug)]
pub struct Reader {
    hash_key: HashKey,
    heads: Table<KnownHead>,
    shapes: Table<Arc<Shape>>,
    scratch: Vec<u8>,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    pub fn new() -> Self {
        Reader {
            hash_key: HashKey::random(),
            heads: Table::default(),
            shapes: Table::default(),
            scratch: Vec::new(),
        }
    }

    /// Read a ModelInferRequest. Raw tensors share the message's memory; typed contents are copied once.
    ///
    /// Takes time and memory about in proportion to the message, whatever is in it.
    pub fn read(&mut self, message: &Chunks) -> Result<Request, Malformed> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let request = self.read_with(message, &mut scratch);
        if scratch.capacity() <= MAX_SCRATCH_BYTES {
            self.scratch = scratch;
        }
        request
    }

    /// Read a message; `scratch` is working memory, whatever is in it.
    fn read_with(&mut self, message: &Chunks, scratch: &mut Vec<u8>) -> Result<Request, Malformed> {
        scratch.clear();
        let Scanned { id, raw, head } = scan(message, scratch)?;
        let copied = scratch.len();
        let mut hash = match head {
            CopiedHead::Whole => add_sizes(scratch, &raw).then(|| {
                let mut hash = self.hash_key.hasher();
                hash.bytes(scratch);
                hash.finish()
            }),
            CopiedHead::TooLong => None,
        };
        if let Some(known) = hash.and_then(|hash| {
            let is = |known: &KnownHead| *known.key == **scratch;
            self.heads.find(hash, is)
        }) {
            let inputs = raw.iter().map(|raw| raw.slice(message)).collect();
            if !known.has_bytes || fit_as_known(&known.shape, &inputs) {
                let shape = Arc::clone(&known.shape);
                return Ok(Request { shape, id, inputs });
            }
            hash = None; // it is remembered, with elements that fit otherwise
        }
        let bytes = message.contiguous().unwrap_or(&scratch[..copied]);
        let mut head = Head::parse(bytes, raw.is_empty())?;
        let inputs = head.take_data(raw.iter().map(|raw| raw.slice(message)))?;
        head.settle_outputs()?;
        let shape = self.remembered(&head);
        let are_raw = !raw.is_empty() || !head.has_inputs();
        match hash {
            Some(hash) if are_raw && shape.memory_bytes() <= MAX_SHAPE_BYTES => {
                let known = KnownHead {
                    key: scratch.as_slice().into(),
                    shape: Arc::clone(&shape),
                    has_bytes: head.has_bytes(),
                };
                self.heads.add(hash, known);
            }
            _ => {}
        }
        Ok(Request { shape, id, inputs })
    }

    /// Return the shape of a head; the same object for every head that means the same.
    fn remembered(&mut self, head: &Head<'_>) -> Arc<Shape> {
        let hash = head.hash(self.hash_key);
        if let Some(shape) = self.shapes.find(hash, |shape| head.is(shape)) {
            return Arc::clone(shape);
        }
        let shape = Arc::new(head.to_shape());
        if shape.memory_bytes() <= MAX_SHAPE_BYTES {
            self.shapes.add(hash, Arc::clone(&shape));
        }
        shape
    }
}

/// Whether the BYTES tensors among `inputs` hold as many elements, or just not as many, as those of `shape`.
fn fit_as_known(shape: &Shape, inputs: &SmallVec<[Chunks; 1]>) -> bool {
    let mut pairs = shape.inputs.iter().zip(inputs);
    pairs.all(|(head, data)| head.datatype != BYTES || elements_fit(data, &head.shape) == head.elements_fit)
}

/// Where one of the raw tensors lies in its message.
struct RawTensor {
    place: Place,
    len: usize,
}

impl RawTensor {
    fn slice(&self, message: &Chunks) -> Chunks {
        message.slice_from(self.place, self.len)
    }
}

/// Whether a message's head has been copied.
enum CopiedHead {
    Whole,
    /// It is over `MAX_KEY_BYTES`, and lies in one piece in the message anyway.
    TooLong,
}

struct Scanned {
    id: String,
    raw: SmallVec<[RawTensor; 2]>,
    head: CopiedHead,
}

/// Part a message into id, raw tensors and the rest, which is appended to `rest` unless that is of no use.
fn scan(message: &Chunks, rest: &mut Vec<u8>) -> Result<Scanned, Malformed> {
    let in_one_piece = message.parts().len() <= 1;
    let mut scanned = Scanned { id: String::new(), raw: SmallVec::new(), head: CopiedHead::Whole };
    let mut cursor = message.cursor();
    let mut copied = cursor.clone(); // up to here
    loop {
        let before = cursor.remaining();
        let found = if before == 0 { None } else { Some(tag(&mut cursor)?) };
        match found {
            Some(tag) if !(tag.wire == Wire::Delimited && matches!(tag.number, ID | RAW)) => {
                skip(&mut cursor, tag, MAX_DEPTH)?;
                continue;
            }
            _ => {}
        }
        let pending = copied.remaining() - before;
        if in_one_piece && rest.len() + pending > MAX_KEY_BYTES {
            scanned.head = CopiedHead::TooLong;
        } else {
            copied.read_to(pending, rest);
        }
        let Some(tag) = found else {
            return Ok(scanned);
        };
        let len = length(&mut cursor)?;
        let place = cursor.place();
        if tag.number == RAW {
            check_parts(scanned.raw.len(), "raw_input_contents")?;
            scanned.raw.push(RawTensor { place, len });
            cursor.advance(len);
        } else {
            let mut id = Vec::with_capacity(len);
            cursor.read_to(len, &mut id);
            scanned.id = String::from_utf8(id).map_err(|_| WireError)?;
        }
        copied = cursor.clone();
    }
}

/// Let another one of these pass, where there are `count` already.
fn check_parts(count: usize, what: &str) -> Result<(), Malformed> {
    if count < MAX_PARTS {
        return Ok(());
    }
    Err(Malformed(format!("a request may have {MAX_PARTS} {what}, this one has more")))
}

/// Append the tensors' sizes and their number; false if that makes the key too long.
fn add_sizes(key: &mut Vec<u8>, raw: &[RawTensor]) -> bool {
    let sizes = raw.len().saturating_add(1).saturating_mul(8);
    if key.len().saturating_add(sizes) > MAX_KEY_BYTES {
        return false;
    }
    for tensor in raw {
        key.extend_from_slice(&tensor.len.to_le_bytes());
    }
    key.extend_from_slice(&raw.len().to_le_bytes());
    true
}

#[cfg(test)]
mod tests;
