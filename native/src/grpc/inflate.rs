//! Compressed messages.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};

use super::framing::Message;
use super::head::Encoding;
use super::status::{self, Status};
use crate::chunks::Chunks;
use crate::transport::budget::Budget;

struct Pieces<'a> {
    body: &'a Chunks,
    part: usize,
    at: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, target: &mut [u8]) -> std::io::Result<usize> {
        while let Some(part) = self.body.parts().get(self.part) {
            let rest = &part[self.at..];
            if rest.is_empty() {
                (self.part, self.at) = (self.part + 1, 0);
                continue;
            }
            let size = rest.len().min(target.len());
            target[..size].copy_from_slice(&rest[..size]);
            self.at += size;
            return Ok(size);
        }
        Ok(0)
    }
}

/// Return a compressed message as it was before. Takes long for a large one: not for the I/O thread.
/// It is read no further than the limits allow, whatever it pretends to be.
pub fn inflate(
    message: Message,
    encoding: Encoding,
    max_message_bytes: usize,
    budget: &Arc<Budget>,
) -> Result<Message, Status> {
    let mut bytes = Vec::new();
    let pieces = Pieces { body: &message.body, part: 0, at: 0 };
    // the limit counts against the budget before anything is written; the rest goes back below
    let Some(all) = budget.take(max_message_bytes) else {
        return Err(Status {
            code: status::RESOURCE_EXHAUSTED,
            message: "no memory is left in this gateway for a compressed message".into(),
            pushback_ms: Some(200),
        });
    };
    let decoder: Box<dyn Read + '_> = match encoding {
        Encoding::Identity => Box::new(pieces),
        Encoding::Gzip => Box::new(MultiGzDecoder::new(pieces)),
        Encoding::Deflate => Box::new(ZlibDecoder::new(pieces)),
    };
    decoder.take(max_message_bytes as u64 + 1).read_to_end(&mut bytes).map_err(|error| {
        Status::new(status::INTERNAL, format!("the message cannot be decompressed: {error}"))
    })?;
    if bytes.len() > max_message_bytes {
        let text =
            format!("a message is over the limit of {max_message_bytes} bytes when it is decompressed");
        return Err(Status::new(status::RESOURCE_EXHAUSTED, text));
    }
    drop(all);
    bytes.shrink_to_fit();
    let Some(held) = budget.take(bytes.len()) else {
        return Err(Status {
            code: status::RESOURCE_EXHAUSTED,
            message: "no memory is left in this gateway for a compressed message".into(),
            pushback_ms: Some(200),
        });
    };
    Ok(Message { compressed: false, body: Chunks::from(Bytes::from(bytes)), held })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{write::GzEncoder, Compression};
    use std::io::Write;

    fn compressed(body: &[u8], budget: &Arc<Budget>) -> Message {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).expect("in memory");
        let bytes = encoder.finish().expect("in memory");
        let mut chunks = Chunks::new();
        for part in bytes.chunks(7) {
            chunks.push(Bytes::copy_from_slice(part));
        }
        Message { compressed: true, body: chunks, held: budget.take(bytes.len()).expect("room") }
    }

    #[test]
    fn a_message_comes_back_and_a_bomb_does_not() {
        let budget = Budget::new(1 << 20);
        let body = vec![5u8; 10_000];
        let message = inflate(compressed(&body, &budget), Encoding::Gzip, 10_000, &budget).expect("valid");
        assert_eq!(message.body.contiguous(), Some(&body[..]));
        drop(message);
        let bomb = inflate(compressed(&body, &budget), Encoding::Gzip, 9_999, &budget);
        assert_eq!(bomb.map(|_| ()).map_err(|status| status.code), Err(status::RESOURCE_EXHAUSTED));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn what_is_not_compressed_is_refused() {
        let budget = Budget::new(1 << 20);
        let message = Message {
            compressed: true,
            body: Chunks::from(Bytes::from_static(b"nonsense")),
            held: budget.take(8).expect("room"),
        };
        let refused =
            inflate(message, Encoding::Deflate, 100, &budget).map(|_| ()).map_err(|status| status.code);
        assert_eq!(refused, Err(status::INTERNAL));
    }
}
