//! InferTensorContents, the protocol's typed form of a tensor's data, as raw little-endian bytes.

use crate::protobuf::{varint, Fields, Value, WireError};

/// The fields of InferTensorContents, in the order of their numbers, which begin at 1.
const FIELD_NAMES: [&str; 8] = [
    "bool_contents",
    "int_contents",
    "int64_contents",
    "uint_contents",
    "uint64_contents",
    "fp32_contents",
    "fp64_contents",
    "bytes_contents",
];
const BOOL: u32 = 1;
const INT: u32 = 2;
const INT64: u32 = 3;
const UINT: u32 = 4;
const UINT64: u32 = 5;
const FP32: u32 = 6;
const FP64: u32 = 7;
const BYTES: u32 = 8;

/// Where a datatype's values stand, and the size in bytes that they have raw (0 for BYTES).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Form {
    field: u32,
    size: usize,
}

impl Form {
    /// The name of the field in which the values stand.
    pub fn name(self) -> &'static str {
        FIELD_NAMES[self.field as usize - 1]
    }
}

/// What the protocol says of a datatype's typed contents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Known {
    Typed(Form),
    /// It has none.
    RawOnly,
    /// The protocol does not know this datatype.
    Unknown,
}

/// Look a datatype's name up.
pub fn known(datatype: &str) -> Known {
    let (field, size) = match datatype {
        "BOOL" => (BOOL, 1),
        "INT8" => (INT, 1),
        "INT16" => (INT, 2),
        "INT32" => (INT, 4),
        "INT64" => (INT64, 8),
        "UINT8" => (UINT, 1),
        "UINT16" => (UINT, 2),
        "UINT32" => (UINT, 4),
        "UINT64" => (UINT64, 8),
        "FP32" => (FP32, 4),
        "FP64" => (FP64, 8),
        "BYTES" => (BYTES, 0),
        "FP16" | "BF16" => return Known::RawOnly,
        _ => return Known::Unknown,
    };
    Known::Typed(Form { field, size })
}

/// The contents of one tensor.
#[derive(Debug, Default, PartialEq)]
pub struct Typed {
    /// The values of the field that was wanted.
    pub data: Vec<u8>,
    /// Whether one of them is none that its datatype has; `data` then means nothing.
    pub out_of_range: bool,
    /// One bit for each field that has values, the lowest for field 1.
    filled: u8,
}

impl Typed {
    /// Read contents, which may be given in several parts. Only values in the form `wanted` are kept.
    pub fn read<'a>(
        parent: &Fields<'a>,
        parts: &[&'a [u8]],
        wanted: Option<Form>,
    ) -> Result<Typed, WireError> {
        let mut typed = Typed::default();
        for part in parts {
            let mut fields = parent.nested(part)?;
            while let Some((number, value)) = fields.next_field()? {
                let form = wanted.filter(|form| form.field == number);
                typed.read_field(number, value, form)?;
            }
        }
        Ok(typed)
    }

    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The name of the first field that has values and is not the one of `form`.
    pub fn other_field(&self, form: Form) -> Option<&'static str> {
        let others = self.filled & !bit(form.field);
        FIELD_NAMES.get(others.trailing_zeros() as usize).copied()
    }

    /// Add the values of one field; each may be repeated, numbers may be packed. Fields with another wire type
    /// than their own are unknown ones.
    fn read_field(&mut self, number: u32, value: Value<'_>, form: Option<Form>) -> Result<(), WireError> {
        match (number, value) {
            (BOOL..=UINT64, Value::Varint(value)) => self.add_varint(number, value, form),
            (BOOL..=UINT64, Value::Delimited(mut packed)) => {
                while !packed.is_empty() {
                    let value = varint(&mut packed)?;
                    self.add_varint(number, value, form);
                }
            }
            (FP32, Value::Fixed32(value)) => self.add_raw(number, &value.to_le_bytes(), form),
            (FP64, Value::Fixed64(value)) => self.add_raw(number, &value.to_le_bytes(), form),
            (FP32 | FP64, Value::Delimited(packed)) => {
                let size = if number == FP32 { 4 } else { 8 };
                if packed.len() % size != 0 {
                    return Err(WireError);
                }
                if !packed.is_empty() {
                    self.add_raw(number, packed, form);
                }
            }
            (BYTES, Value::Delimited(element)) => {
                self.filled |= bit(BYTES);
                if form.is_some() {
                    let size = u32::try_from(element.len()).map_err(|_| WireError)?;
                    self.data.extend_from_slice(&size.to_le_bytes());
                    self.data.extend_from_slice(element);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add_raw(&mut self, number: u32, raw: &[u8], form: Option<Form>) {
        self.filled |= bit(number);
        if form.is_some() {
            self.data.extend_from_slice(raw);
        }
    }

    /// Add a value as protobuf understands the varint: 32-bit integers are its low 32 bits.
    #[inline]
    fn add_varint(&mut self, number: u32, value: u64, form: Option<Form>) {
        self.filled |= bit(number);
        let Some(Form { size, .. }) = form else {
            return;
        };
        let bits = 8 * size as u32;
        let raw = match number {
            BOOL => u64::from(value != 0),
            INT => {
                let value = value as u32 as i32;
                let limit = 1_i64 << (bits - 1);
                self.out_of_range |= !(-limit..limit).contains(&value.into());
                value as u64
            }
            UINT => {
                let value = value as u32;
                self.out_of_range |= u64::from(value) >> bits != 0;
                value.into()
            }
            _ => value,
        };
        self.data.extend_from_slice(&raw.to_le_bytes()[..size]);
    }
}

/// The bit of a field's number in `Typed::filled`.
fn bit(number: u32) -> u8 {
    1 << (number - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(datatype: &str, contents: &[&[u8]]) -> Result<Typed, WireError> {
        let wanted = match known(datatype) {
            Known::Typed(form) => Some(form),
            _ => None,
        };
        Typed::read(&Fields::new(&[]), contents, wanted)
    }

    fn data(datatype: &str, contents: &[&[u8]]) -> Vec<u8> {
        let typed = read(datatype, contents).expect("these are contents");
        assert!(!typed.out_of_range && !typed.is_empty());
        typed.data
    }

    #[test]
    fn values_become_little_endian_bytes() {
        assert_eq!(data("BOOL", &[b"\x08\x00\x08\x80\x80\x80\x80\x10"]), [0, 1]);
        assert_eq!(data("INT8", &[b"\x10\x05"]), [5]);
        assert_eq!(data("INT16", &[b"\x10\x80\x02"]), [0, 1]);
        assert_eq!(data("INT32", &[b"\x10\x80\x80\x80\x80\x10"]), [0; 4]);
        let minus_one = b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(data("INT8", &[minus_one]), [0xff]);
        assert_eq!(data("INT32", &[minus_one]), [0xff; 4]);
        assert_eq!(data("INT64", &[b"\x18\x01"]), 1_i64.to_le_bytes());
        assert_eq!(data("UINT8", &[b"\x20\xff\x01"]), [0xff]);
        assert_eq!(data("UINT64", &[b"\x28\x01"]), 1_u64.to_le_bytes());
        assert_eq!(data("FP32", &[b"\x35\0\0\x80\x3f"]), 1_f32.to_le_bytes());
        assert_eq!(data("FP64", &[b"\x39\0\0\0\0\0\0\xf0\x3f"]), 1_f64.to_le_bytes());
        assert_eq!(data("BYTES", &[b"\x42\x02hi\x42\x00"]), b"\x02\0\0\0hi\0\0\0\0");
    }

    #[test]
    fn packed_and_single_values_in_several_parts_are_one_list() {
        assert_eq!(data("UINT8", &[b"\x20\x01\x22\x02\x02\x03", b"\x22\x00\x20\x04"]), [1, 2, 3, 4]);
        assert_eq!(data("FP32", &[b"\x32\x08aaaabbbb\x35cccc"]), b"aaaabbbbcccc");
    }

    #[test]
    fn values_that_the_datatype_has_not_are_out_of_range() {
        for (datatype, contents) in [
            ("INT8", &b"\x10\x80\x01"[..]),
            ("INT8", b"\x10\xff\xfe\xff\xff\xff\xff\xff\xff\xff\x01"),
            ("INT16", b"\x10\x80\x80\x02"),
            ("UINT8", b"\x20\x80\x02"),
            ("UINT16", b"\x20\x80\x80\x04"),
        ] {
            let typed = read(datatype, &[contents]);
            assert_eq!(typed.map(|typed| typed.out_of_range), Ok(true), "{datatype}");
        }
    }

    #[test]
    fn fields_without_values_are_not_filled() {
        for contents in [&b""[..], b"\x12\x00", b"\x32\x00", b"\x0d\0\0\0\0", b"\x45\0\0\0\0"] {
            assert!(read("INT8", &[contents]).expect("these are contents").is_empty());
        }
    }

    #[test]
    fn the_first_other_field_is_named() {
        let typed = read("INT8", &[b"\x42\x00\x10\x01\x20\x01"]).expect("these are contents");
        let Known::Typed(int8) = known("INT8") else {
            panic!("INT8 has typed contents");
        };
        assert_eq!(typed.other_field(int8), Some("uint_contents"));
        let typed = read("INT8", &[b"\x10\x01"]).expect("these are contents");
        assert_eq!(typed.other_field(int8), None);
    }

    #[test]
    fn half_values_are_malformed() {
        for contents in [&b"\x32\x03abc"[..], b"\x3a\x04abcd", b"\x0a\x01\x80", b"\x35abc"] {
            for datatype in ["FP32", "FP64", "BOOL", "BYTES", ""] {
                assert_eq!(read(datatype, &[contents]), Err(WireError));
            }
        }
    }
}
