//! The wire format of Protocol Buffers: varints, tags, lengths, and passing over what nobody asked for.
//!
//! Accepts and refuses what upb, the C core of Python's protobuf, does. That is more lenient than the
//! specification in places: a varint may have bits above the 64th, which are dropped, and a known field with
//! another wire type than its own is an unknown field. Specification:
//! <https://protobuf.dev/programming-guides/encoding/>.

use crate::chunks::Cursor;

/// How many messages and groups may lie in one another below the outermost message.
pub const MAX_DEPTH: u32 = 100;

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WireError;

/// Bytes that are read from front to back, in one piece or in several.
pub trait Source {
    /// The bytes that follow and lie in one piece. Empty only at the end.
    fn window(&self) -> &[u8];

    /// How many bytes follow.
    fn remaining(&self) -> usize;

    /// Pass over `count` bytes. Returns false where fewer follow.
    fn advance(&mut self, count: usize) -> bool;
}

impl Source for &[u8] {
    #[inline]
    fn window(&self) -> &[u8] {
        self
    }

    #[inline]
    fn remaining(&self) -> usize {
        self.len()
    }

    #[inline]
    fn advance(&mut self, count: usize) -> bool {
        match self.get(count..) {
            Some(rest) => {
                *self = rest;
                true
            }
            None => false,
        }
    }
}

impl Source for Cursor<'_> {
    #[inline]
    fn window(&self) -> &[u8] {
        Cursor::window(self)
    }

    #[inline]
    fn remaining(&self) -> usize {
        Cursor::remaining(self)
    }

    #[inline]
    fn advance(&mut self, count: usize) -> bool {
        Cursor::advance(self, count)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wire {
    Varint,
    Fixed64,
    Delimited,
    GroupStart,
    GroupEnd,
    Fixed32,
}

/// What stands before a field. `number` is never 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tag {
    pub number: u32,
    pub wire: Wire,
}

/// Read a varint of one to ten bytes; bits above the 64th are dropped.
#[inline]
pub fn varint(source: &mut impl Source) -> Result<u64, WireError> {
    match source.window().first() {
        Some(&byte) if byte < 0x80 => {
            source.advance(1);
            Ok(byte.into())
        }
        _ => long_varint(source, 10),
    }
}

#[inline(never)]
fn long_varint(source: &mut impl Source, max_bytes: u32) -> Result<u64, WireError> {
    let mut value = 0;
    for i in 0..max_bytes {
        let byte = *source.window().first().ok_or(WireError)?;
        source.advance(1);
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(WireError)
}

/// Read a tag, which has at most five bytes and 32 bits.
#[inline]
pub fn tag(source: &mut impl Source) -> Result<Tag, WireError> {
    let value = match source.window().first() {
        Some(&byte) if byte < 0x80 => {
            source.advance(1);
            byte.into()
        }
        _ => u32::try_from(long_varint(source, 5)?).map_err(|_| WireError)?,
    };
    let wire = match value & 7 {
        0 => Wire::Varint,
        1 => Wire::Fixed64,
        2 => Wire::Delimited,
        3 => Wire::GroupStart,
        4 => Wire::GroupEnd,
        5 => Wire::Fixed32,
        _ => return Err(WireError),
    };
    match value >> 3 {
        0 => Err(WireError),
        number => Ok(Tag { number, wire }),
    }
}

/// Read the length of a delimited value, all of which follows.
#[inline]
pub fn length(source: &mut impl Source) -> Result<usize, WireError> {
    match usize::try_from(varint(source)?) {
        Ok(length) if length <= source.remaining() => Ok(length),
        _ => Err(WireError),
    }
}

/// Pass over the value that follows `tag`. `depth` is how many groups may lie in one another.
#[inline]
pub fn skip(source: &mut impl Source, tag: Tag, depth: u32) -> Result<(), WireError> {
    let length = match tag.wire {
        Wire::Delimited => length(source)?,
        Wire::Varint => return varint(source).map(|_| ()),
        Wire::Fixed64 => 8,
        Wire::Fixed32 => 4,
        Wire::GroupStart => return skip_group(source, tag.number, depth),
        Wire::GroupEnd => return Err(WireError),
    };
    source.advance(length).then_some(()).ok_or(WireError)
}

/// Pass over what follows the start of group `number`, its end included.
#[inline(never)]
fn skip_group(source: &mut impl Source, number: u32, depth: u32) -> Result<(), WireError> {
    let mut open = vec![number]; // the groups that have not ended, at most `depth`
    if depth == 0 {
        return Err(WireError);
    }
    while let Some(&innermost) = open.last() {
        let tag = tag(source)?;
        match tag.wire {
            Wire::GroupStart if open.len() < depth as usize => open.push(tag.number),
            Wire::GroupStart => return Err(WireError),
            Wire::GroupEnd if tag.number == innermost => {
                open.pop();
            }
            _ => skip(source, tag, 0)?,
        }
    }
    Ok(())
}

/// What a `string` field holds, which is UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError)
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Delimited(&'a [u8]),
    /// Groups are known to end well; what is in them is not kept, no message here has any.
    Group,
}

/// The fields of one message, in their order.
#[derive(Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Fields<'a> {
    /// Those of an outermost message.
    pub fn new(message: &'a [u8]) -> Self {
        Fields { rest: message, depth: MAX_DEPTH }
    }

    /// Those of a message that is a field of this one.
    pub fn nested(&self, message: &'a [u8]) -> Result<Self, WireError> {
        Ok(Fields { rest: message, depth: self.depth.checked_sub(1).ok_or(WireError)? })
    }

    /// Return the next field's number and value, None after the last.
    #[inline]
    pub fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = tag(&mut self.rest)?;
        let value = match tag.wire {
            Wire::Varint => Value::Varint(varint(&mut self.rest)?),
            Wire::Delimited => {
                let length = length(&mut self.rest)?;
                let (value, rest) = self.rest.split_at_checked(length).ok_or(WireError)?;
                self.rest = rest;
                Value::Delimited(value)
            }
            Wire::Fixed32 => Value::Fixed32(u32::from_le_bytes(self.fixed()?)),
            Wire::Fixed64 => Value::Fixed64(u64::from_le_bytes(self.fixed()?)),
            Wire::GroupStart | Wire::GroupEnd => {
                skip(&mut self.rest, tag, self.depth)?;
                Value::Group
            }
        };
        Ok(Some((tag.number, value)))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(WireError)?;
        self.rest = rest;
        Ok(*value)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::chunks::Chunks;

    /// `bytes` in pieces of one byte each.
    fn scattered(bytes: &[u8]) -> Chunks {
        let mut chunks = Chunks::new();
        for byte in bytes {
            chunks.push(Bytes::copy_from_slice(&[*byte]));
        }
        chunks
    }

    fn read_varint(bytes: &[u8]) -> Result<u64, WireError> {
        let mut rest = bytes;
        let value = varint(&mut rest);
        let chunks = scattered(bytes);
        let mut cursor = chunks.cursor();
        assert_eq!(varint(&mut cursor), value);
        if value.is_ok() {
            assert_eq!(cursor.remaining(), rest.len());
        }
        value
    }

    #[test]
    fn varints_have_up_to_ten_bytes() {
        assert_eq!(read_varint(&[0x00]), Ok(0));
        assert_eq!(read_varint(&[0x7f, 9]), Ok(127));
        assert_eq!(read_varint(&[0x80, 0x01]), Ok(128));
        assert_eq!(read_varint(&[0x81, 0x80, 0x00]), Ok(1));
        let mut most = [0xff; 10];
        most[9] = 0x01;
        assert_eq!(read_varint(&most), Ok(u64::MAX));
        most[9] = 0x7f; // bits 64 and up are dropped
        assert_eq!(read_varint(&most), Ok(u64::MAX));
        assert_eq!(read_varint(&[0xff; 11]), Err(WireError));
        assert_eq!(read_varint(&[0x80; 9]), Err(WireError));
        assert_eq!(read_varint(&[]), Err(WireError));
    }

    #[test]
    fn tags_have_up_to_five_bytes_and_a_number() {
        fn read(mut bytes: &[u8]) -> Result<Tag, WireError> {
            tag(&mut bytes)
        }
        let (number, wire) = (7, Wire::Delimited);
        assert_eq!(read(&[0x3a]), Ok(Tag { number, wire }));
        assert_eq!(read(&[0xba, 0x80, 0x80, 0x80, 0x00]), Ok(Tag { number, wire }));
        assert_eq!(read(&[0xba, 0x80, 0x80, 0x80, 0x80, 0x00]), Err(WireError));
        assert_eq!(read(&[0xf8, 0xff, 0xff, 0xff, 0x0f]).map(|tag| tag.number), Ok((1 << 29) - 1));
        assert_eq!(read(&[0xba, 0x80, 0x80, 0x80, 0x10]), Err(WireError));
        assert_eq!(read(&[0x02]), Err(WireError));
        assert_eq!(read(&[0x7e]), Err(WireError));
        assert_eq!(read(&[0x7f]), Err(WireError));
        assert_eq!(read(&[]), Err(WireError));
    }

    /// Pass over the only field of `bytes`, in one piece and in many.
    fn skip_whole(bytes: &[u8], depth: u32) -> Result<(), WireError> {
        fn skip_in(source: &mut impl Source, depth: u32) -> Result<usize, WireError> {
            let tag = tag(source)?;
            skip(source, tag, depth)?;
            Ok(source.remaining())
        }
        let mut rest = bytes;
        let left = skip_in(&mut rest, depth);
        assert_eq!(skip_in(&mut scattered(bytes).cursor(), depth), left);
        left.map(|left| assert_eq!(left, 0))
    }

    #[test]
    fn fields_of_every_wire_type_are_passed_over() {
        for field in [
            &b"\x78\x80\x01"[..],
            b"\x79\0\0\0\0\0\0\0\0",
            b"\x7a\x03abc",
            b"\x7d\0\0\0\0",
            b"\x7b\x08\x01\x73\x7a\x01x\x74\x7c",
        ] {
            assert_eq!(skip_whole(field, MAX_DEPTH), Ok(()));
            for cut in 1..field.len() {
                assert_eq!(skip_whole(&field[..cut], MAX_DEPTH), Err(WireError));
            }
        }
    }

    #[test]
    fn groups_end_with_their_own_number_and_are_not_too_deep() {
        assert_eq!(skip_whole(b"\x7b\x74", 9), Err(WireError));
        assert_eq!(skip_whole(b"\x7c", 9), Err(WireError));
        assert_eq!(skip_whole(b"\x7b\x00\x00\x7c", 9), Err(WireError));
        for depth in 0..4 {
            let nested = |count| [vec![0x7b; count], vec![0x7c; count]].concat();
            if depth > 0 {
                assert_eq!(skip_whole(&nested(depth), depth as u32), Ok(()));
            }
            assert_eq!(skip_whole(&nested(depth + 1), depth as u32), Err(WireError));
        }
    }

    #[test]
    fn lengths_beyond_the_end_are_refused() {
        let mut most = vec![0x7a];
        most.extend([0xff; 9]);
        most.extend([0x01, b'x']);
        assert_eq!(skip_whole(&most, 9), Err(WireError));
        assert_eq!(skip_whole(b"\x7a\x02x", 9), Err(WireError));
    }

    #[test]
    fn fields_come_in_their_order() {
        let message = b"\x0a\x02hi\x10\x05\x1d\x01\0\0\0\x7b\x7c\x21\x02\0\0\0\0\0\0\0\x0a\0";
        let mut fields = Fields::new(message);
        let mut found = Vec::new();
        while let Some(field) = fields.next_field().expect("it is a message") {
            found.push(field);
        }
        assert_eq!(
            found,
            [
                (1, Value::Delimited(b"hi")),
                (2, Value::Varint(5)),
                (3, Value::Fixed32(1)),
                (15, Value::Group),
                (4, Value::Fixed64(2)),
                (1, Value::Delimited(b"")),
            ]
        );
    }
}
