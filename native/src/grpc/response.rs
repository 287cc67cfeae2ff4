//! Encodes ModelInferResponse and ModelStreamInferResponse; the fields are those of protos/inference.proto.

use bytes::{BufMut, Bytes, BytesMut};

use super::framing::PREFIX_BYTES;

/// One output of one answer; `data` is raw, little-endian.
pub struct Output<'a> {
    pub name: &'a str,
    pub datatype: &'a str,
    pub shape: &'a [i64],
    pub data: &'a [u8],
}

fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

fn put_varint(target: &mut impl BufMut, mut value: u64) {
    while value > 0x7f {
        target.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    target.put_u8(value as u8);
}

fn put_bytes(target: &mut impl BufMut, field: u8, bytes: &[u8]) {
    target.put_u8(field << 3 | 2);
    put_varint(target, bytes.len() as u64);
    target.put_slice(bytes);
}

fn put_text(target: &mut impl BufMut, field: u8, text: &str) {
    if !text.is_empty() {
        put_bytes(target, field, text.as_bytes());
    }
}

/// Return the fields before the id and the tensors: model, version and what the outputs are.
pub fn header(model: &str, version: &str, outputs: &[Output<'_>]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(64);
    put_text(&mut encoded, 1, model);
    put_text(&mut encoded, 2, version);
    let mut tensor = Vec::with_capacity(48);
    for output in outputs {
        tensor.clear();
        put_text(&mut tensor, 1, output.name);
        put_text(&mut tensor, 2, output.datatype);
        if !output.shape.is_empty() {
            let size: usize = output.shape.iter().map(|&dim| varint_len(dim as u64)).sum();
            tensor.put_u8(3 << 3 | 2);
            put_varint(&mut tensor, size as u64);
            for &dim in output.shape {
                put_varint(&mut tensor, dim as u64);
            }
        }
        put_bytes(&mut encoded, 5, &tensor);
    }
    encoded
}

// parameters["triton_final_response"].bool_param = true, as field 4 of ModelInferResponse
const FINAL_RESPONSE: &[u8] = b"\x22\x1b\x0a\x15triton_final_response\x12\x02\x08\x01";

/// How many bytes `put_answer` writes at most, besides the tensors and the header.
pub const ANSWER_EXTRA_BYTES: usize = 64;

/// Write one framed answer: header, id and tensors. `in_stream` wraps it as a ModelStreamInferResponse.
pub fn put_answer<'a>(
    target: &mut BytesMut,
    header: &[u8],
    id: &str,
    tensors: impl Iterator<Item = &'a [u8]> + Clone,
    in_stream: bool,
) {
    let mut size = header.len();
    if !id.is_empty() {
        size += 1 + varint_len(id.len() as u64) + id.len();
    }
    for data in tensors.clone() {
        size += 1 + varint_len(data.len() as u64) + data.len();
    }
    let mut message_size = size;
    if in_stream {
        size += FINAL_RESPONSE.len();
        message_size = 1 + varint_len(size as u64) + size;
    }
    target.reserve(PREFIX_BYTES + message_size);
    target.put_u8(0);
    target.put_u32(message_size as u32);
    if in_stream {
        target.put_u8(2 << 3 | 2);
        put_varint(target, size as u64);
    }
    target.put_slice(header);
    put_text(target, 3, id);
    if in_stream {
        target.put_slice(FINAL_RESPONSE);
    }
    for data in tensors {
        put_bytes(target, 6, data);
    }
}

/// Return a framed ModelStreamInferResponse that says what went wrong with the request of this id.
pub fn stream_error(message: &str, id: &str) -> Bytes {
    let mut response = Vec::new();
    put_text(&mut response, 3, id);
    response.put_slice(FINAL_RESPONSE);
    let mut encoded = Vec::new();
    put_text(&mut encoded, 1, message);
    put_bytes(&mut encoded, 2, &response);
    super::framing::framed(&encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_the_length_that_is_written() {
        for value in [0, 1, 127, 128, 16383, 16384, u64::from(u32::MAX), u64::MAX] {
            let mut written = Vec::new();
            put_varint(&mut written, value);
            assert_eq!(written.len(), varint_len(value), "{value}");
        }
    }

    #[test]
    fn an_answer_is_header_id_and_tensors() {
        let output = Output { name: "y", datatype: "FP32", shape: &[1, 300], data: b"" };
        let mut encoded = BytesMut::new();
        put_answer(&mut encoded, &header("m", "2", &[output]), "id", [&b"abcd"[..]].into_iter(), false);
        let expected: &[u8] =
            b"\0\0\0\0\x20\x0a\x01m\x12\x012\x2a\x0e\x0a\x01y\x12\x04FP32\x1a\x03\x01\xac\x02\x1a\x02id\x32\x04abcd";
        assert_eq!(&encoded[..], expected);
    }

    #[test]
    fn the_final_parameter_is_well_formed() {
        assert_eq!(FINAL_RESPONSE.len(), 2 + FINAL_RESPONSE[1] as usize);
        assert_eq!(FINAL_RESPONSE[3] as usize, "triton_final_response".len());
    }
}
