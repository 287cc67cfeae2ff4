//! The part of a ModelInferRequest that is neither its id nor raw tensors, as it stands in the message.

use std::collections::HashSet;

use smallvec::SmallVec;

use super::elements::BYTES;
use super::hash::HashKey;
use super::input::Input;
use super::parameter::{map_entry, Given};
use super::repr::python_repr;
use super::{check_parts, Malformed, Shape};
use crate::chunks::Chunks;
use crate::protobuf::{text, Fields, Value, WireError};

/// Parameters of requested outputs whose answer would not be the raw bytes that this server sends.
const OTHER_FORMS: [&str; 2] = ["classification", "shared_memory_region"];
/// Up to this many, comparing all with all costs less than hashing.
const FEW: usize = 16;

/// What a head says; names are the message's own bytes.
#[derive(Debug, Default)]
pub struct Head<'a> {
    model: &'a str,
    version: &'a str,
    parameters: SmallVec<[(&'a str, Option<Given<'a>>); 4]>,
    inputs: SmallVec<[Input<'a>; 2]>,
    outputs: SmallVec<[&'a str; 4]>,
    /// The first output that asks for another form, and the parameter that does.
    refused: Option<(&'a str, &'static str)>,
}

impl<'a> Head<'a> {
    /// Read a head. Fields 3 and 7 may stand in it and are passed over. Typed contents are checked, and kept if
    /// `keep_typed`.
    pub fn parse(bytes: &'a [u8], keep_typed: bool) -> Result<Self, Malformed> {
        let mut head = Head::default();
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next_field()? {
            let Value::Delimited(value) = value else {
                continue; // unknown: no field of a request has another wire type
            };
            match number {
                1 => head.model = text(value)?,
                2 => head.version = text(value)?,
                4 => {
                    check_parts(head.parameters.len(), "parameters")?;
                    head.parameters.extend(map_entry(fields.nested(value)?)?);
                }
                5 => {
                    check_parts(head.inputs.len(), "inputs")?;
                    head.inputs.push(Input::parse(fields.nested(value)?, keep_typed)?);
                }
                6 => {
                    check_parts(head.outputs.len(), "outputs")?;
                    let (name, refused) = output(fields.nested(value)?)?;
                    head.outputs.push(name);
                    head.refused = head.refused.or(refused.map(|key| (name, key)));
                }
                _ => {}
            }
        }
        head.settle_parameters();
        Ok(head)
    }

    /// Order parameters by key; the last of each key counts, and those without a value do not.
    fn settle_parameters(&mut self) {
        self.parameters.sort_by_key(|(key, _)| *key); // a stable sort
        self.parameters.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                *kept = *later;
            }
            same
        });
        self.parameters.retain(|(_, value)| value.is_some());
    }

    /// Make each of `raw`, in their order, or else the typed contents, the inputs' data.
    pub fn take_data<I>(&mut self, raw: I) -> Result<SmallVec<[Chunks; 1]>, Malformed>
    where
        I: ExactSizeIterator<Item = Chunks>,
    {
        let mut data = SmallVec::<[Chunks; 1]>::with_capacity(self.inputs.len());
        if raw.len() == 0 {
            for input in &mut self.inputs {
                data.push(input.typed_data()?);
            }
        } else if raw.len() != self.inputs.len() {
            return Err(Malformed(format!(
                "{} raw_input_contents for {} inputs",
                raw.len(),
                self.inputs.len()
            )));
        } else {
            for (input, raw) in self.inputs.iter().zip(raw) {
                if input.typed.is_some() {
                    return Err(Malformed(format!(
                        "input {} has typed contents beside raw_input_contents",
                        python_repr(input.name)
                    )));
                }
                data.push(raw);
            }
        }
        for (input, data) in self.inputs.iter_mut().zip(&data) {
            input.measure(data);
        }
        Ok(data)
    }

    /// Check that the requested outputs are to come as raw bytes, and drop those asked for twice.
    pub fn settle_outputs(&mut self) -> Result<(), Malformed> {
        if let Some((name, key)) = self.refused {
            return Err(Malformed(format!(
                "output {}: parameter {} is not offered",
                python_repr(name),
                python_repr(key)
            )));
        }
        if self.outputs.len() > FEW {
            let mut seen = HashSet::new();
            self.outputs.retain(|name| seen.insert(*name));
        } else {
            let mut distinct = SmallVec::new();
            for name in &self.outputs {
                if !distinct.contains(name) {
                    distinct.push(*name);
                }
            }
            self.outputs = distinct;
        }
        Ok(())
    }

    pub fn has_inputs(&self) -> bool {
        !self.inputs.is_empty()
    }

    pub fn has_bytes(&self) -> bool {
        self.inputs.iter().any(|input| input.datatype == BYTES)
    }

    /// A hash that heads of the same meaning share.
    pub fn hash(&self, key: HashKey) -> u64 {
        let mut hash = key.hasher();
        hash.bytes(self.model.as_bytes());
        hash.bytes(self.version.as_bytes());
        hash.number(self.parameters.len() as u64);
        for (key, value) in &self.parameters {
            hash.bytes(key.as_bytes());
            if let Some(value) = value {
                value.hash(&mut hash);
            }
        }
        hash.number(self.inputs.len() as u64);
        for input in &self.inputs {
            input.hash(&mut hash);
        }
        for name in &self.outputs {
            hash.bytes(name.as_bytes());
        }
        hash.finish()
    }

    /// Whether `shape` is what this head says. NaNs are the same if their bits are.
    pub fn is(&self, shape: &Shape) -> bool {
        self.model == shape.model
            && self.version == shape.version
            && all_are(&self.inputs, &shape.inputs, Input::is)
            && all_are(&self.outputs, &shape.outputs, |name, other| name == other)
            && all_are(&self.parameters, &shape.parameters, |(key, value), (other_key, other)| {
                key == other_key && value.is_some_and(|value| value.is(other))
            })
    }

    pub fn to_shape(&self) -> Shape {
        let parameters = self.parameters.iter();
        Shape {
            model: self.model.to_owned(),
            version: self.version.to_owned(),
            parameters: parameters
                .filter_map(|(key, value)| Some(((*key).to_owned(), (*value)?.to_parameter())))
                .collect(),
            inputs: self.inputs.iter().map(Input::to_head).collect(),
            outputs: self.outputs.iter().map(|&name| name.to_owned()).collect(),
            #[cfg(feature = "python")]
            key: std::sync::OnceLock::new(),
        }
    }
}

/// Whether both have the same length, and `same` holds for each pair.
fn all_are<A, B>(ours: &[A], theirs: &[B], same: impl Fn(&A, &B) -> bool) -> bool {
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| same(a, b))
}

/// Read an InferRequestedOutputTensor: its name, and the parameter by which it asks for another form.
fn output(mut fields: Fields<'_>) -> Result<(&str, Option<&'static str>), WireError> {
    let (mut name, mut refused) = ("", None);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Delimited(value)) => name = text(value)?,
            (2, Value::Delimited(entry)) => {
                if let Some((key, _)) = map_entry(fields.nested(entry)?)? {
                    let form = OTHER_FORMS.iter().copied().find(|form| *form == key);
                    refused = refused.or(form);
                }
            }
            _ => {}
        }
    }
    Ok((name, refused))
}
