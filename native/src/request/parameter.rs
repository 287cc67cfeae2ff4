//! InferParameter, as it stands in the message.

use super::hash::Hash;
use super::Parameter;
use crate::protobuf::{text, Fields, Value, WireError};

/// A parameter's value; strings are the message's own bytes.
#[derive(Clone, Copy, Debug)]
pub enum Given<'a> {
    Bool(bool),
    Int64(i64),
    String(&'a str),
    Double(f64),
    Uint64(u64),
}

impl Given<'_> {
    pub fn hash(&self, hash: &mut Hash) {
        let (kind, bits) = match *self {
            Given::Bool(value) => (0, value.into()),
            Given::Int64(value) => (1, value as u64),
            Given::String(value) => {
                hash.bytes(value.as_bytes());
                (2, 0)
            }
            Given::Double(value) => (3, value.to_bits()),
            Given::Uint64(value) => (4, value),
        };
        hash.number(kind);
        hash.number(bits);
    }

    pub fn is(&self, parameter: &Parameter) -> bool {
        match (*self, parameter) {
            (Given::Bool(value), Parameter::Bool(other)) => value == *other,
            (Given::Int64(value), Parameter::Int64(other)) => value == *other,
            (Given::String(value), Parameter::String(other)) => value == other,
            (Given::Double(value), Parameter::Double(other)) => value.to_bits() == other.to_bits(),
            (Given::Uint64(value), Parameter::Uint64(other)) => value == *other,
            _ => false,
        }
    }

    pub fn to_parameter(self) -> Parameter {
        match self {
            Given::Bool(value) => Parameter::Bool(value),
            Given::Int64(value) => Parameter::Int64(value),
            Given::String(value) => Parameter::String(value.to_owned()),
            Given::Double(value) => Parameter::Double(value),
            Given::Uint64(value) => Parameter::Uint64(value),
        }
    }
}

/// Read an entry of a map<string, InferParameter>. None if it has unknown fields: upb then takes the whole entry
/// for one.
#[allow(clippy::type_complexity)]
pub fn map_entry(mut fields: Fields<'_>) -> Result<Option<(&str, Option<Given<'_>>)>, WireError> {
    let (mut key, mut given, mut understood) = ("", None, true);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Delimited(value)) => key = text(value)?,
            (2, Value::Delimited(value)) => parameter(fields.nested(value)?, &mut given)?,
            _ => understood = false,
        }
    }
    Ok(understood.then_some((key, given)))
}

/// Read an InferParameter over what an earlier part of it said.
fn parameter<'a>(mut fields: Fields<'a>, given: &mut Option<Given<'a>>) -> Result<(), WireError> {
    while let Some((number, value)) = fields.next_field()? {
        *given = Some(match (number, value) {
            (1, Value::Varint(value)) => Given::Bool(value != 0),
            (2, Value::Varint(value)) => Given::Int64(value as i64),
            (3, Value::Delimited(value)) => Given::String(text(value)?),
            (4, Value::Fixed64(bits)) => Given::Double(f64::from_bits(bits)),
            (5, Value::Varint(value)) => Given::Uint64(value),
            _ => continue,
        });
    }
    Ok(())
}
