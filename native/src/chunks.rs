//! Bytes in the pieces in which they arrived.

use bytes::Bytes;
use smallvec::SmallVec;

/// A byte string in pieces, none of which is empty. Cloning and slicing share the memory.
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    parts: SmallVec<[Bytes; 1]>,
    len: usize,
}

impl Chunks {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Add a piece at the end.
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.len += part.len();
            self.parts.push(part);
        }
    }

    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// The whole as one slice, where it lies in one piece.
    pub fn contiguous(&self) -> Option<&[u8]> {
        match self.parts.len() {
            0 => Some(&[]),
            1 => Some(&self.parts[0]),
            _ => None,
        }
    }

    /// The bytes from `start` to `end`, sharing the memory.
    ///
    /// # Panics
    /// If `start > end` or `end > self.len()`.
    pub fn slice(&self, start: usize, end: usize) -> Chunks {
        assert!(start <= end && end <= self.len);
        let mut found = Chunks::new();
        let mut at = 0;
        for part in &self.parts {
            let (from, to) = (start.max(at), end.min(at + part.len()));
            if from < to {
                found.push(part.slice(from - at..to - at));
            }
            at += part.len();
            if at >= end {
                break;
            }
        }
        found
    }

    /// A reader that stands at the first byte.
    pub fn cursor(&self) -> Cursor<'_> {
        let window: &[u8] = self.parts.first().map_or(&[], |part| part);
        Cursor { parts: &self.parts, part: 0, window, behind: self.len - window.len() }
    }

    /// The `len` bytes from `place` on, sharing the memory; fewer, where the whole ends before.
    ///
    /// Takes time in proportion to the pieces that it returns, wherever they stand.
    ///
    /// # Panics
    /// If `place` is of another `Chunks`.
    pub fn slice_from(&self, place: Place, len: usize) -> Chunks {
        let Some(parts) = self.parts.get(place.part..) else {
            return Chunks::new();
        };
        if let Some(first) = parts.first() {
            let end = place.offset.saturating_add(len);
            if end <= first.len() {
                return first.slice(place.offset..end).into();
            }
        }
        let (mut count, mut reached) = (0, 0);
        while count < parts.len() && reached < place.offset.saturating_add(len) {
            reached += parts[count].len();
            count += 1;
        }
        let mut found = Chunks { parts: SmallVec::with_capacity(count), len: 0 };
        let mut from = place.offset;
        for part in &parts[..count] {
            let to = part.len().min(from.saturating_add(len - found.len));
            found.push(part.slice(from..to));
            from = 0;
        }
        found
    }

    /// Copy everything to `target`, which must be exactly as long.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn copy_to(&self, target: &mut [u8]) {
        assert_eq!(target.len(), self.len);
        let mut at = 0;
        for part in &self.parts {
            target[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }
}

/// Where a byte of a `Chunks` stands; see `Cursor::place`.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    part: usize,
    offset: usize,
}

/// Reads forward through a `Chunks` without joining its pieces.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    parts: &'a [Bytes],
    part: usize,
    window: &'a [u8],
    behind: usize,
}

impl<'a> Cursor<'a> {
    /// The bytes that follow and lie in one piece. Empty only at the end.
    #[inline]
    pub fn window(&self) -> &'a [u8] {
        self.window
    }

    /// How many bytes follow.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.window.len() + self.behind
    }

    pub fn place(&self) -> Place {
        let len = self.parts.get(self.part).map_or(0, Bytes::len);
        Place { part: self.part, offset: len - self.window.len() }
    }

    /// Pass over `count` bytes. Returns false and stays where it is, where fewer follow.
    #[inline]
    pub fn advance(&mut self, count: usize) -> bool {
        if count < self.window.len() {
            self.window = &self.window[count..];
            return true;
        }
        self.advance_to_another_part(count)
    }

    fn advance_to_another_part(&mut self, count: usize) -> bool {
        if count > self.remaining() {
            return false;
        }
        let mut left = count;
        while left >= self.window.len() {
            left -= self.window.len();
            let Some(next) = self.parts.get(self.part + 1) else {
                self.window = &[];
                return true;
            };
            self.part += 1;
            self.window = next;
            self.behind -= next.len();
        }
        self.window = &self.window[left..];
        true
    }

    /// Append the next `count` bytes to `target` and pass over them. Returns false and does neither, where
    /// fewer follow.
    pub fn read_to(&mut self, count: usize, target: &mut Vec<u8>) -> bool {
        if count > self.remaining() {
            return false;
        }
        let mut left = count;
        while left > 0 {
            let here = left.min(self.window.len());
            target.extend_from_slice(&self.window[..here]);
            self.advance(here);
            left -= here;
        }
        true
    }
}

impl From<Bytes> for Chunks {
    fn from(part: Bytes) -> Self {
        let mut chunks = Chunks::new();
        chunks.push(part);
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(parts: &[&'static [u8]]) -> Chunks {
        let mut chunks = Chunks::new();
        for part in parts {
            chunks.push(Bytes::from_static(part));
        }
        chunks
    }

    #[test]
    fn slices_cross_pieces() {
        let whole = chunks(&[b"abc", b"", b"de", b"fghi"]);
        assert_eq!(whole.len(), 9);
        for start in 0..=9 {
            for end in start..=9 {
                let mut copied = vec![0; end - start];
                whole.slice(start, end).copy_to(&mut copied);
                assert_eq!(copied, b"abcdefghi"[start..end]);
            }
        }
    }

    #[test]
    fn slices_from_a_place_are_those_from_a_number() {
        for whole in [chunks(&[b"abc", b"de", b"fghi"]), chunks(&[b"abcdefghi"])] {
            for start in 0..=9 {
                let mut cursor = whole.cursor();
                assert!(cursor.advance(start));
                for len in 0..=12 {
                    let found = whole.slice_from(cursor.place(), len);
                    let mut copied = vec![0; found.len()];
                    found.copy_to(&mut copied);
                    assert_eq!(copied, b"abcdefghi"[start..(start + len).min(9)]);
                }
            }
        }
        assert!(Chunks::new().slice_from(Chunks::new().cursor().place(), 1).is_empty());
    }

    #[test]
    fn a_cursor_reads_what_the_pieces_hold() {
        let whole = chunks(&[b"abc", b"de", b"fghi"]);
        for first in 0..=9 {
            for second in 0..=9 - first {
                let mut cursor = whole.cursor();
                let mut read = Vec::new();
                assert!(cursor.read_to(first, &mut read) && cursor.advance(second));
                assert_eq!(read, b"abcdefghi"[..first]);
                assert_eq!(cursor.remaining(), 9 - first - second);
                assert_eq!(cursor.window().is_empty(), cursor.remaining() == 0);
                let left = cursor.remaining();
                assert!(!cursor.advance(left + 1) && !cursor.read_to(left + 1, &mut read));
                assert!(cursor.read_to(left, &mut read));
                assert_eq!(read[first..], b"abcdefghi"[first + second..]);
            }
        }
    }

    #[test]
    fn one_piece_is_contiguous() {
        assert_eq!(chunks(&[b"abc"]).contiguous(), Some(&b"abc"[..]));
        assert_eq!(chunks(&[]).contiguous(), Some(&b""[..]));
        assert_eq!(chunks(&[b"a", b"b"]).contiguous(), None);
    }
}
