//! The reader of requests against prost and the rules of `gateway/frontend/codec.py`, written a second time.

use std::cell::RefCell;
use std::collections::BTreeMap;

use _native::chunks::Chunks;
use _native::request::{Malformed, Parameter, Reader, Request};
use bytes::Bytes;
use prost::Message;

use crate::plain::is_plain;
use crate::schema::{InferInputTensor, InferTensorContents, ModelInferRequest, ParameterChoice};

/// What a request says. Floats are their bits.
#[derive(Debug, Default, PartialEq)]
struct Said {
    model: String,
    version: String,
    id: String,
    parameters: BTreeMap<String, Choice>,
    inputs: Vec<Input>,
    outputs: Vec<String>,
}

#[derive(Debug, PartialEq)]
enum Choice {
    Bool(bool),
    Int64(i64),
    String(String),
    Double(u64),
    Uint64(u64),
}

#[derive(Debug, PartialEq)]
struct Input {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    data: Vec<u8>,
    elements_fit: bool,
}

/// How the text of a refusal begins and ends; between them stands a name.
type Refusal = (&'static str, String);

thread_local! {
    /// Knows what came before, so that what is remembered wrongly is found.
    static EXPERIENCED: RefCell<Reader> = RefCell::default();
}

/// Check that readings of the same bytes, however they are cut and whatever came before, agree with each other
/// and with prost's.
///
/// # Panics
/// If they do not.
pub fn check_request(message: &[u8]) {
    let afresh = said(Reader::new().read(&cut(message, 1 + message.len() % 7)));
    let whole = cut(message, message.len().max(1));
    EXPERIENCED.with_borrow_mut(|reader| {
        for chunks in [
            whole.clone(),
            whole,
            cut(message, 1 + message.len() / 1000),
            cut(message, 2 + message.len() % 61),
        ] {
            let again = said(reader.read(&chunks));
            assert_eq!(afresh, again, "in {} pieces", chunks.parts().len());
        }
    });
    if is_plain(message) {
        check_against_prost(message, &afresh);
    }
}

fn check_against_prost(message: &[u8], read: &Result<Said, String>) {
    let expected = ModelInferRequest::decode(message)
        .map_err(|_| ("the message is not a ModelInferRequest", String::new()))
        .and_then(reference);
    match (read, &expected) {
        (Ok(read), Ok(expected)) => assert_eq!(read, expected),
        (Err(why), Err((start, end))) => {
            assert!(why.starts_with(start) && why.ends_with(end), "{why:?}, not {start:?} and {end:?}");
        }
        _ => panic!("read {read:?}, prost and the rules say {expected:?}"),
    }
}

fn cut(message: &[u8], size: usize) -> Chunks {
    let mut chunks = Chunks::new();
    for piece in message.chunks(size) {
        chunks.push(Bytes::copy_from_slice(piece));
    }
    chunks
}

fn said(read: Result<Request, Malformed>) -> Result<Said, String> {
    let Request { shape, id, inputs } = read.map_err(|Malformed(why)| why)?;
    assert_eq!(shape.inputs.len(), inputs.len());
    let pairs = shape.inputs.iter().zip(&inputs);
    let parameters: BTreeMap<_, _> = shape
        .parameters
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Parameter::Bool(value) => Choice::Bool(*value),
                Parameter::Int64(value) => Choice::Int64(*value),
                Parameter::String(value) => Choice::String(value.clone()),
                Parameter::Double(value) => Choice::Double(value.to_bits()),
                Parameter::Uint64(value) => Choice::Uint64(*value),
            };
            (key.clone(), value)
        })
        .collect();
    assert_eq!(parameters.len(), shape.parameters.len());
    Ok(Said {
        model: shape.model.clone(),
        version: shape.version.clone(),
        id,
        parameters,
        inputs: pairs
            .map(|(head, data)| {
                let mut bytes = vec![0; data.len()];
                data.copy_to(&mut bytes);
                assert_eq!(head.size_bytes, bytes.len() as u64);
                Input {
                    name: head.name.clone(),
                    datatype: head.datatype.clone(),
                    shape: head.shape.clone(),
                    data: bytes,
                    elements_fit: head.elements_fit,
                }
            })
            .collect(),
        outputs: shape.outputs.clone(),
    })
}

/// The rules of `decode_request`.
fn reference(request: ModelInferRequest) -> Result<Said, Refusal> {
    let raw = request.raw_input_contents;
    let mut data = Vec::new();
    if raw.is_empty() {
        for input in &request.inputs {
            data.push(typed(input)?);
        }
    } else if raw.len() != request.inputs.len() {
        let why = format!("{} raw_input_contents for {} inputs", raw.len(), request.inputs.len());
        return Err(("", why));
    } else if request.inputs.iter().any(|input| input.contents.is_some()) {
        let why = " has typed contents beside raw_input_contents";
        return Err(("input ", why.to_owned()));
    } else {
        data = raw;
    }
    let mut outputs: Vec<String> = Vec::new();
    for output in request.outputs {
        for key in ["classification", "shared_memory_region"] {
            if output.parameters.contains_key(key) {
                return Err(("output ", " is not offered".to_owned()));
            }
        }
        if !outputs.contains(&output.name) {
            outputs.push(output.name);
        }
    }
    let parameters = request.parameters.into_iter();
    Ok(Said {
        model: request.model_name,
        version: request.model_version,
        id: request.id,
        parameters: parameters
            .filter_map(|(key, value)| {
                let choice = match value.parameter_choice? {
                    ParameterChoice::Bool(value) => Choice::Bool(value),
                    ParameterChoice::Int64(value) => Choice::Int64(value),
                    ParameterChoice::String(value) => Choice::String(value),
                    ParameterChoice::Double(value) => Choice::Double(value.to_bits()),
                    ParameterChoice::Uint64(value) => Choice::Uint64(value),
                };
                Some((key, choice))
            })
            .collect(),
        inputs: request
            .inputs
            .into_iter()
            .zip(data)
            .map(|(input, data)| Input {
                elements_fit: input.datatype != "BYTES" || fits(&data, &input.shape),
                name: input.name,
                datatype: input.datatype,
                shape: input.shape,
                data,
            })
            .collect(),
        outputs,
    })
}

fn typed(input: &InferInputTensor) -> Result<Vec<u8>, Refusal> {
    let none = InferTensorContents::default();
    let contents = input.contents.as_ref().unwrap_or(&none);
    let datatype = input.datatype.as_str();
    let Some((expected, data)) = converted(datatype, contents) else {
        let why = format!(": {datatype} has no typed contents, send raw_input_contents");
        return match datatype {
            "FP16" | "BF16" => Err(("input ", why)),
            _ => Ok(Vec::new()),
        };
    };
    let Some(data) = data else {
        return Err(("input ", format!(" holds a value that is no {datatype}")));
    };
    let filled = filled(contents);
    if let Some(other) = filled.iter().find(|name| **name != expected) {
        let why = format!(" is {datatype} and has {other} instead of {expected}");
        return Err(("input ", why));
    }
    if filled.is_empty() && !input.shape.contains(&0) {
        let why = " has no data: neither raw_input_contents nor contents";
        return Err(("input ", why.to_owned()));
    }
    Ok(data)
}

/// The field in which a datatype's values stand, and them raw; None for those that do not fit.
fn converted(datatype: &str, contents: &InferTensorContents) -> Option<(&'static str, Option<Vec<u8>>)> {
    let (int, uint) = (&contents.int_contents, &contents.uint_contents);
    Some(match datatype {
        "BOOL" => ("bool_contents", raw(&contents.bool_contents, |v| Some([v.into()]))),
        "INT8" => ("int_contents", raw(int, |v| i8::try_from(v).ok().map(i8::to_le_bytes))),
        "INT16" => ("int_contents", raw(int, |v| i16::try_from(v).ok().map(i16::to_le_bytes))),
        "INT32" => ("int_contents", raw(int, |v| Some(v.to_le_bytes()))),
        "INT64" => ("int64_contents", raw(&contents.int64_contents, |v| Some(v.to_le_bytes()))),
        "UINT8" => ("uint_contents", raw(uint, |v| u8::try_from(v).ok().map(u8::to_le_bytes))),
        "UINT16" => ("uint_contents", raw(uint, |v| u16::try_from(v).ok().map(u16::to_le_bytes))),
        "UINT32" => ("uint_contents", raw(uint, |v| Some(v.to_le_bytes()))),
        "UINT64" => ("uint64_contents", raw(&contents.uint64_contents, |v| Some(v.to_le_bytes()))),
        "FP32" => ("fp32_contents", raw(&contents.fp32_contents, |v| Some(v.to_bits().to_le_bytes()))),
        "FP64" => ("fp64_contents", raw(&contents.fp64_contents, |v| Some(v.to_bits().to_le_bytes()))),
        "BYTES" => {
            let mut data = Vec::new();
            for element in &contents.bytes_contents {
                data.extend((element.len() as u32).to_le_bytes());
                data.extend(element);
            }
            ("bytes_contents", Some(data))
        }
        _ => return None,
    })
}

fn raw<T: Copy, const N: usize>(values: &[T], to_bytes: impl Fn(T) -> Option<[u8; N]>) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    for &value in values {
        data.extend(to_bytes(value)?);
    }
    Some(data)
}

fn filled(contents: &InferTensorContents) -> Vec<&'static str> {
    [
        ("bool_contents", contents.bool_contents.is_empty()),
        ("int_contents", contents.int_contents.is_empty()),
        ("int64_contents", contents.int64_contents.is_empty()),
        ("uint_contents", contents.uint_contents.is_empty()),
        ("uint64_contents", contents.uint64_contents.is_empty()),
        ("fp32_contents", contents.fp32_contents.is_empty()),
        ("fp64_contents", contents.fp64_contents.is_empty()),
        ("bytes_contents", contents.bytes_contents.is_empty()),
    ]
    .into_iter()
    .filter_map(|(name, is_empty)| (!is_empty).then_some(name))
    .collect()
}

/// Whether BYTES data is exactly as many elements as the shape says.
fn fits(data: &[u8], shape: &[i64]) -> bool {
    if shape.iter().any(|&size| size < 0) {
        return false;
    }
    let mut expected = 1_u128; // no product is zero by wrapping: it stops growing
    for &size in shape {
        expected = (expected * size as u128).min(u64::MAX.into());
    }
    if shape.contains(&0) {
        expected = 0;
    }
    let (mut rest, mut count) = (data, 0_u128);
    while count < expected {
        let Some((length, after)) = rest.split_first_chunk() else {
            return false;
        };
        let length = u32::from_le_bytes(*length) as usize;
        let Some(after) = after.get(length..) else {
            return false;
        };
        (rest, count) = (after, count + 1);
    }
    rest.is_empty()
}
