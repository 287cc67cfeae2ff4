//! Cuts the bytes of a stream into gRPC messages: a flag, a length of four bytes, and that many bytes.
//!
//! Guarantees: a message's whole size is taken from the budget when its prefix arrives, and nothing is kept that
//! was not taken. Pieces under `COMPACT_BYTES` are copied out, because a small slice would pin the whole buffer
//! that the connection was read into; what is held is therefore at most about twice what is counted.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::status::{self, Status};
use crate::chunks::Chunks;
use crate::transport::budget::{Budget, Held};

pub const PREFIX_BYTES: usize = 5;
const COMPACT_BYTES: usize = 4096;
const PUSHBACK_MS: u32 = 200;

/// One message, as it was sent.
#[derive(Debug)]
pub struct Message {
    pub compressed: bool,
    pub body: Chunks,
    pub held: Held,
}

/// What bounds messages.
pub struct Bounds<'a> {
    pub max_message_bytes: usize,
    pub budget: &'a Arc<Budget>,
}

/// Reads the messages of one stream.
#[derive(Debug, Default)]
pub struct Assembler {
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    compressed: bool,
    left: usize,
    body: Chunks,
    small: BytesMut,
    held: Held,
}

impl Assembler {
    /// Take bytes from the front of `data`, up to the end of one message, and return it when it is whole.
    /// Without a message all of `data` was taken.
    pub fn feed(&mut self, data: &mut Bytes, bounds: &Bounds<'_>) -> Result<Option<Message>, Status> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => match self.begin(data, bounds)? {
                Some(open) => open,
                None => return Ok(None),
            },
        };
        let size = open.left.min(data.len());
        if size > 0 {
            if size < COMPACT_BYTES {
                open.small.extend_from_slice(&data[..size]);
                data.advance(size);
            } else {
                if !open.small.is_empty() {
                    open.body.push(open.small.split().freeze());
                }
                open.body.push(data.split_to(size));
            }
            open.left -= size;
        }
        if open.left > 0 {
            self.open = Some(open);
            return Ok(None);
        }
        open.body.push(open.small.freeze());
        Ok(Some(Message { compressed: open.compressed, body: open.body, held: open.held }))
    }

    fn begin(&mut self, data: &mut Bytes, bounds: &Bounds<'_>) -> Result<Option<Open>, Status> {
        let size = (PREFIX_BYTES - self.prefix_len).min(data.len());
        self.prefix[self.prefix_len..self.prefix_len + size].copy_from_slice(&data[..size]);
        self.prefix_len += size;
        data.advance(size);
        if self.prefix_len < PREFIX_BYTES {
            return Ok(None);
        }
        self.prefix_len = 0;
        let [flag, a, b, c, d] = self.prefix;
        if flag > 1 {
            let message = format!("a message begins with the flag {flag}; it must be 0 or 1");
            return Err(Status::new(status::INTERNAL, message));
        }
        let size = u32::from_be_bytes([a, b, c, d]) as usize;
        if size > bounds.max_message_bytes {
            let limit = bounds.max_message_bytes;
            let message = format!("a message of {size} bytes is over the limit of {limit} bytes");
            return Err(Status::new(status::RESOURCE_EXHAUSTED, message));
        }
        let Some(held) = bounds.budget.take(size) else {
            let limit = bounds.budget.limit();
            return Err(Status {
                code: status::RESOURCE_EXHAUSTED,
                message: format!("the requests in this gateway hold {limit} bytes, which is its limit"),
                pushback_ms: Some(PUSHBACK_MS),
            });
        };
        Ok(Some(Open {
            compressed: flag == 1,
            left: size,
            body: Chunks::new(),
            small: BytesMut::with_capacity(if size <= COMPACT_BYTES { size } else { 0 }),
            held,
        }))
    }

    /// Whether the stream may end here: between messages.
    pub fn is_between(&self) -> bool {
        self.open.is_none() && self.prefix_len == 0
    }
}

/// Return a message with its prefix, not compressed.
pub fn framed(message: &[u8]) -> Bytes {
    let mut framed = Vec::with_capacity(PREFIX_BYTES + message.len());
    framed.push(0);
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    Bytes::from(framed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(body: &Chunks) -> Vec<u8> {
        let mut bytes = vec![0; body.len()];
        body.copy_to(&mut bytes);
        bytes
    }

    fn read(stream: &[u8], piece: usize, max: usize) -> Result<Vec<Vec<u8>>, Status> {
        let budget = Budget::new(1 << 20);
        let bounds = Bounds { max_message_bytes: max, budget: &budget };
        let (mut assembler, mut found) = (Assembler::default(), Vec::new());
        for part in stream.chunks(piece.max(1)) {
            let mut data = Bytes::copy_from_slice(part);
            loop {
                match assembler.feed(&mut data, &bounds)? {
                    Some(message) => found.push(whole(&message.body)),
                    None => break,
                }
                if data.is_empty() {
                    break;
                }
            }
            assert!(data.is_empty());
        }
        assert!(assembler.is_between());
        drop(assembler);
        assert_eq!(budget.held(), 0);
        Ok(found)
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let bodies: Vec<Vec<u8>> = vec![vec![], vec![7; 3], vec![1; 4095], vec![2; 4096], vec![3; 20000]];
        let stream: Vec<u8> = bodies.iter().flat_map(|body| framed(body).to_vec()).collect();
        for piece in [1, 2, 5, 6, 1000, 4096, 5000, 16384, stream.len()] {
            assert_eq!(read(&stream, piece, 1 << 16).as_ref(), Ok(&bodies), "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_too_large_or_not_grpc_is_refused_at_its_prefix() {
        let too_large = read(&[0, 0, 1, 0, 0], 5, 65535).map_err(|status| status.code);
        assert_eq!(too_large, Err(status::RESOURCE_EXHAUSTED));
        assert_eq!(read(b"GET / ", 6, 100).map_err(|status| status.code), Err(status::INTERNAL));
    }

    #[test]
    fn a_message_is_taken_from_the_budget_when_its_prefix_arrives() {
        let budget = Budget::new(100);
        let bounds = Bounds { max_message_bytes: 1000, budget: &budget };
        let mut first = Assembler::default();
        assert!(first.feed(&mut Bytes::from_static(&[0, 0, 0, 0, 80]), &bounds).is_ok_and(|m| m.is_none()));
        assert_eq!(budget.held(), 80);
        let refused = Assembler::default().feed(&mut Bytes::from_static(&[0, 0, 0, 0, 21]), &bounds);
        assert!(refused.is_err_and(|status| status.pushback_ms.is_some()));
        drop(first);
        assert_eq!(budget.held(), 0);
    }
}
