//! One request stream of a connection: what has been read of it, and what is still to be answered.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::HeaderMap;

use super::payload::{Payload, Unsent};
use super::server::Head;
use crate::grpc::framing::{Assembler, Message};
use crate::grpc::head::Encoding;
use crate::grpc::status::Status;

/// A stream with this many requests unanswered is not read further.
const MAX_STREAM_CALLS: usize = 512;
/// A connection whose peer leaves this much unread gets no further requests of a stream read.
const MAX_UNSENT_BYTES: usize = 4 << 20;
/// Messages of an RPC that the gateway has not taken yet.
const MAX_UNTAKEN: usize = 16;

/// The answer to a request, or an error, with trailing metadata.
pub type Answer = Result<(Bytes, Arc<HeaderMap>), (Status, Arc<HeaderMap>)>;

/// Stream ids are small numbers that the peer cannot choose freely: no hash is needed.
#[derive(Default)]
pub struct StreamHasher(u64);

impl Hasher for StreamHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u32(&mut self, id: u32) {
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub type Streams = HashMap<u32, Stream, BuildHasherDefault<StreamHasher>>;

/// The request side of a stream, until it has ended.
pub struct Body {
    pub receive: RecvStream,
    pub assembler: Assembler,
    pub encoding: Encoding,
    /// A message is being decompressed: what came behind it, and whether that was the end, waits.
    pub inflating: bool,
    pub rest: Bytes,
    pub ended: bool,
    pub progress: Instant,
    pub waker: Option<Waker>,
}

pub struct Stream {
    pub respond: Option<SendResponse<Payload>>,
    pub send: Option<SendStream<Payload>>,
    pub body: Option<Body>,
    pub head: Arc<Head>,
    pub deadline_ns: Option<u64>,
    pub kind: Kind,
}

pub enum Kind {
    /// `message` waits for the end of the request's stream; `call` is 0 until it is submitted.
    Infer {
        message: Option<Message>,
        call: u64,
    },
    StreamInfer(Box<Ordered>),
    Unary {
        path: Box<str>,
        message: Option<Message>,
        submitted: bool,
    },
    Rpc {
        untaken: usize,
        half_closed: bool,
    },
}

/// The requests of a ModelStreamInfer, which are answered in their order.
pub struct Ordered {
    /// The first error ends the stream.
    pub strict: bool,
    pub waiting: VecDeque<Waiting>,
    /// The number of the first of those.
    pub first: u32,
    pub half_closed: bool,
}

pub struct Waiting {
    pub call: u64,
    pub id: String,
    pub answer: Option<Answer>,
}

impl Stream {
    /// Whether nothing more may be read of its requests at present.
    pub fn is_full(&self, unsent: &Unsent) -> bool {
        match &self.kind {
            Kind::StreamInfer(ordered) => {
                ordered.waiting.len() >= MAX_STREAM_CALLS || unsent.bytes.get() > MAX_UNSENT_BYTES
            }
            Kind::Rpc { untaken, .. } => *untaken >= MAX_UNTAKEN,
            _ => false,
        }
    }

    /// How many requests of it are unanswered. Streams may stay open without any.
    pub fn unanswered(&self) -> usize {
        match &self.kind {
            Kind::Infer { .. } | Kind::Unary { .. } => 1,
            Kind::StreamInfer(ordered) => ordered.waiting.len(),
            Kind::Rpc { .. } => 0,
        }
    }
}

impl Ordered {
    pub fn settle(&mut self, message: u32, answer: Answer) {
        let at = message.wrapping_sub(self.first) as usize;
        if let Some(waiting) = self.waiting.get_mut(at) {
            waiting.answer = Some(answer);
        }
    }
}
