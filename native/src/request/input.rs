//! InferInputTensor, as it stands in the message.

use bytes::Bytes;
use smallvec::SmallVec;

use super::elements::{elements_fit, BYTES};
use super::hash::Hash;
use super::parameter::map_entry;
use super::repr::python_repr;
use super::typed::{known, Known, Typed};
use super::{InputHead, Malformed};
use crate::chunks::Chunks;
use crate::protobuf::{text, varint, Fields, Value, WireError};

/// One input. `size_bytes` and `elements_fit` are those of its data, once that is known.
#[derive(Debug)]
pub struct Input<'a> {
    pub name: &'a str,
    pub datatype: &'a str,
    pub shape: SmallVec<[i64; 6]>,
    /// None without the field; it may be there and hold nothing.
    pub typed: Option<Typed>,
    pub size_bytes: u64,
    pub elements_fit: bool,
}

impl<'a> Input<'a> {
    /// Read an InferInputTensor. Its parameters mean nothing to this server, but must be some.
    pub fn parse(mut fields: Fields<'a>, keep_typed: bool) -> Result<Self, WireError> {
        let (mut name, mut datatype) = ("", "");
        let mut shape = SmallVec::new();
        let mut contents = SmallVec::<[&[u8]; 1]>::new(); // parts of one message
        while let Some((number, value)) = fields.next_field()? {
            match (number, value) {
                (1, Value::Delimited(value)) => name = text(value)?,
                (2, Value::Delimited(value)) => datatype = text(value)?,
                (3, Value::Varint(size)) => shape.push(size as i64),
                (3, Value::Delimited(mut packed)) => {
                    while !packed.is_empty() {
                        shape.push(varint(&mut packed)? as i64);
                    }
                }
                (4, Value::Delimited(entry)) => {
                    map_entry(fields.nested(entry)?)?;
                }
                (5, Value::Delimited(part)) => contents.push(part),
                _ => {}
            }
        }
        let wanted = match known(datatype) {
            Known::Typed(form) if keep_typed => Some(form),
            _ => None,
        };
        let typed = if contents.is_empty() { None } else { Some(Typed::read(&fields, &contents, wanted)?) };
        Ok(Input { name, datatype, shape, typed, size_bytes: 0, elements_fit: false })
    }

    /// Whether `head` is what this input says.
    pub fn is(&self, head: &InputHead) -> bool {
        self.name == head.name
            && self.datatype == head.datatype
            && self.shape[..] == head.shape[..]
            && self.size_bytes == head.size_bytes
            && self.elements_fit == head.elements_fit
    }

    pub fn to_head(&self) -> InputHead {
        InputHead {
            name: self.name.to_owned(),
            datatype: self.datatype.to_owned(),
            shape: self.shape.to_vec(),
            size_bytes: self.size_bytes,
            elements_fit: self.elements_fit,
        }
    }

    /// Take the typed contents as raw bytes.
    pub fn typed_data(&mut self) -> Result<Chunks, Malformed> {
        let typed = self.typed.take().unwrap_or_default();
        let datatype = self.datatype;
        let what = match known(datatype) {
            Known::Unknown => return Ok(Chunks::new()), // the servable names what it expects
            Known::RawOnly => {
                format!(": {datatype} has no typed contents, send raw_input_contents")
            }
            Known::Typed(_) if typed.out_of_range => {
                format!(" holds a value that is no {datatype}")
            }
            Known::Typed(form) => match typed.other_field(form) {
                Some(field) => format!(" is {datatype} and has {field} instead of {}", form.name()),
                None if typed.is_empty() && !self.shape.contains(&0) => {
                    " has no data: neither raw_input_contents nor contents".to_owned()
                }
                None => return Ok(Bytes::from(typed.data).into()),
            },
        };
        Err(Malformed(format!("input {}{what}", python_repr(self.name))))
    }

    /// Note what is asked of an input's data later.
    pub fn measure(&mut self, data: &Chunks) {
        self.size_bytes = data.len() as u64;
        self.elements_fit = self.datatype != BYTES || elements_fit(data, &self.shape);
    }

    pub fn hash(&self, hash: &mut Hash) {
        hash.bytes(self.name.as_bytes());
        hash.bytes(self.datatype.as_bytes());
        hash.number(self.shape.len() as u64);
        for size in &self.shape {
            hash.number(*size as u64);
        }
        hash.number(self.size_bytes << 1 | u64::from(self.elements_fit));
    }
}
