//! Bytes on their way out: small pieces are gathered, large ones are sent from where they lie.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::Bytes;

/// Up to here a copy costs less than another slice of a vectored write.
const COPY_BYTES: usize = 1024;
const MAX_SLICES: usize = 64;

enum Piece {
    /// The next bytes of `gathered`.
    Gathered(usize),
    Shared(Bytes),
}

#[derive(Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Piece>,
    gathered: Vec<u8>,
    written: usize, // of `gathered`
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Append what `fill` puts at the end.
    pub(super) fn gather(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        let before = self.gathered.len();
        fill(&mut self.gathered);
        let added = self.gathered.len() - before;
        match self.pieces.back_mut() {
            Some(Piece::Gathered(length)) => *length += added,
            _ if added > 0 => self.pieces.push_back(Piece::Gathered(added)),
            _ => {}
        }
    }

    pub(super) fn append(&mut self, bytes: Bytes) {
        if bytes.len() <= COPY_BYTES {
            self.gather(|gathered| gathered.extend_from_slice(&bytes));
        } else {
            self.pieces.push_back(Piece::Shared(bytes));
        }
    }

    /// Write until all is written or the writer would block.
    pub(super) fn write_to(&mut self, writer: &mut impl Write) -> io::Result<()> {
        while !self.pieces.is_empty() {
            match self.write_once(writer) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_once(&self, writer: &mut impl Write) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut at = self.written;
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = match piece {
                Piece::Gathered(length) => {
                    at += length;
                    IoSlice::new(&self.gathered[at - length..at])
                }
                Piece::Shared(bytes) => IoSlice::new(bytes),
            };
            count += 1;
        }
        match &slices[..count] {
            [only] => writer.write(only),
            many => writer.write_vectored(many),
        }
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let (length, left) = match piece {
                Piece::Gathered(length) => {
                    let taken = written.min(*length);
                    *length -= taken;
                    self.written += taken;
                    (taken, *length)
                }
                Piece::Shared(bytes) => {
                    let taken = written.min(bytes.len());
                    bytes::Buf::advance(bytes, taken);
                    (taken, bytes.len())
                }
            };
            written -= length;
            if left > 0 {
                return;
            }
            self.pieces.pop_front();
        }
        self.gathered.clear();
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes of each write, blocks for 0.
    struct Slow {
        takes: Vec<usize>,
        got: Vec<u8>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let mut left = self.takes.pop().unwrap_or(usize::MAX);
            if left == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let before = self.got.len();
            for slice in slices {
                let taken = slice.len().min(left);
                self.got.extend_from_slice(&slice[..taken]);
                left -= taken;
            }
            Ok(self.got.len() - before)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_leaves_in_its_order_however_little_is_taken() {
        let mut wanted = Vec::new();
        let mut outbox = Outbox::default();
        let mut writer = Slow { takes: vec![0, 3, 0, 1, 6000, 2, 0], got: Vec::new() };
        for round in 0..20u8 {
            let (small, large) = (vec![round; 10], vec![round; COPY_BYTES + 1]);
            outbox.gather(|gathered| gathered.extend_from_slice(&small));
            outbox.append(Bytes::from(large.clone()));
            outbox.append(Bytes::from(small.clone()));
            wanted.extend([&small[..], &large, &small].concat());
            outbox.write_to(&mut writer).unwrap();
        }
        outbox.write_to(&mut writer).unwrap();
        assert!(outbox.is_empty() && outbox.gathered.is_empty());
        assert_eq!(writer.got, wanted);
    }

    #[test]
    fn a_writer_that_takes_nothing_is_an_error() {
        let mut outbox = Outbox::default();
        outbox.append(Bytes::from_static(b"abc"));
        let error = outbox.write_to(&mut (&mut [][..])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
