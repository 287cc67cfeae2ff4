//! Whether the data of a BYTES tensor is as many elements as its shape says.

use crate::chunks::{Chunks, Cursor};

/// The datatype whose elements carry their own length.
pub const BYTES: &str = "BYTES";

/// Return whether `data` is exactly as many elements as `shape` says, each a little-endian uint32 length and
/// that many bytes. False for shapes that no tensor has.
///
/// Takes time in proportion to the elements and pieces of `data`, and copies nothing.
pub fn elements_fit(data: &Chunks, shape: &[i64]) -> bool {
    let Some(count) = element_count(shape) else {
        return false;
    };
    let mut cursor = data.cursor();
    for _ in 0..count {
        let length = match cursor.window().first_chunk() {
            Some(length) => *length,
            None => match scattered(&mut cursor.clone()) {
                Some(length) => length,
                None => return false,
            },
        };
        // one after the other: their sum may be more than a usize holds
        if !cursor.advance(4) || !cursor.advance(u32::from_le_bytes(length) as usize) {
            return false;
        }
    }
    cursor.remaining() == 0
}

/// The next four bytes, which lie in more than one piece.
fn scattered(cursor: &mut Cursor<'_>) -> Option<[u8; 4]> {
    let mut bytes = [0; 4];
    for byte in &mut bytes {
        *byte = *cursor.window().first()?;
        cursor.advance(1);
    }
    Some(bytes)
}

/// The product of the sizes; None where one is negative or the product is no u64.
fn element_count(shape: &[i64]) -> Option<u64> {
    let mut sizes = Some(1_u64);
    let mut empty = false;
    for &size in shape {
        let size = u64::try_from(size).ok()?;
        empty |= size == 0;
        sizes = sizes.and_then(|sizes| sizes.checked_mul(size));
    }
    if empty {
        Some(0)
    } else {
        sizes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn fit(data: &[u8], shape: &[i64]) -> bool {
        let whole = elements_fit(&Bytes::copy_from_slice(data).into(), shape);
        for piece in 1..6 {
            let mut chunks = Chunks::new();
            for part in data.chunks(piece) {
                chunks.push(Bytes::copy_from_slice(part));
            }
            assert_eq!(elements_fit(&chunks, shape), whole);
        }
        whole
    }

    #[test]
    fn data_must_be_as_many_elements_as_the_shape_says() {
        let two = b"\x02\0\0\0hi\0\0\0\0";
        assert!(fit(two, &[2]));
        assert!(fit(two, &[1, 2, 1]));
        assert!(!fit(two, &[1]));
        assert!(!fit(two, &[3]));
        assert!(!fit(two, &[]));
        assert!(!fit(&two[..9], &[2]));
        assert!(!fit(b"\x02\0\0\0hi\0\0\0\0x", &[2]));
        assert!(fit(b"\0\0\0\0", &[]));
        assert!(!fit(b"\xff\xff\xff\xffx", &[1]));
        assert!(!fit(b"", &[1]));
    }

    #[test]
    fn shapes_without_elements_want_no_data() {
        assert!(fit(b"", &[0]));
        assert!(fit(b"", &[2, 0, i64::MAX, i64::MAX]));
        assert!(!fit(b"\0\0\0\0", &[0]));
    }

    #[test]
    fn shapes_that_no_tensor_has_never_fit() {
        for shape in [&[-1][..], &[-1, -1], &[-1, 0], &[i64::MAX, i64::MAX]] {
            assert!(!fit(b"\0\0\0\0", shape));
            assert!(!fit(b"", shape));
        }
    }
}
