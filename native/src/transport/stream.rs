//! One request stream of a connection: what has been read of it, and what is still to be answered.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::HeaderMap;

use super::budget::Held;
use super::payload::{Payload, Unsent};
use super::server::Head;
use crate::grpc::framing::{Assembler, Message};
use crate::grpc::head::Encoding;
use crate::grpc::status::Status;

/// A stream with this many requests unanswered is not read further.
const MAX_STREAM_CALLS: usize = 512;
/// Of a connection with this many, no stream is.
const MAX_CONNECTION_CALLS: usize = 4096;
/// A connection whose peer leaves this much unread gets no further requests of a stream read.
const MAX_UNSENT_BYTES: usize = 4 << 20;
/// Messages of an RPC that the gateway has not taken yet, and how many bytes of such messages a connection may have:
/// those of the RPCs that are no inference are small.
const MAX_UNTAKEN: usize = 16;
const MAX_UNTAKEN_BYTES: usize = 64 << 10;
pub const MAX_RPC_MESSAGE_BYTES: usize = 64 << 10;
/// A request that makes no progress for this long is given up.
const STALLED: Duration = Duration::from_secs(30);

/// The answer to a request, or an error, with trailing metadata.
pub type Answer = Result<(Bytes, Held), (Status, Arc<HeaderMap>)>;

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

/// What the streams of a connection ask for together.
#[derive(Default)]
pub struct Load {
    /// Requests that are unanswered.
    pub calls: usize,
    /// The size of the messages of RPCs that the gateway has not taken.
    pub untaken_bytes: usize,
}

/// The request side of a stream, until it has ended.
pub struct Body {
    pub receive: RecvStream,
    pub assembler: Assembler,
    pub encoding: Encoding,
    /// A message is being decompressed.
    pub inflating: bool,
    /// Read, and to be looked at when nothing is in the way; whether that was the end; and how much of it all the
    /// peer's window does not know of.
    pub rest: Bytes,
    pub ended: bool,
    pub unreleased: usize,
    pub progress: Instant,
    pub waker: Option<Waker>,
}

pub struct Stream {
    pub respond: Option<SendResponse<Payload>>,
    pub send: Option<SendStream<Payload>>,
    pub body: Option<Body>,
    pub head: Arc<Head>,
    pub deadline_ns: Option<u64>,
    /// Was full when it was to be read last.
    pub blocked: bool,
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
    /// `untaken`: what the messages hold that the gateway has not taken; `progress`: when it took one, or got the
    /// first of these.
    Rpc {
        untaken: VecDeque<Held>,
        progress: Instant,
    },
}

/// The requests of a ModelStreamInfer, which are answered in their order.
pub struct Ordered {
    /// The first error ends the stream.
    pub strict: bool,
    pub waiting: VecDeque<Waiting>,
    /// The number of the first of those.
    pub first: u32,
    /// The size of the answers among them.
    pub settled_bytes: usize,
    pub half_closed: bool,
}

pub struct Waiting {
    pub call: u64,
    pub id: String,
    pub answer: Option<Answer>,
}

impl Stream {
    /// Whether nothing more may be read of its requests at present.
    pub fn is_full(&self, load: &Load, unsent: &Unsent) -> bool {
        match &self.kind {
            Kind::StreamInfer(ordered) => {
                ordered.waiting.len() >= MAX_STREAM_CALLS
                    || load.calls >= MAX_CONNECTION_CALLS
                    || ordered.settled_bytes + unsent.bytes.get() > MAX_UNSENT_BYTES
            }
            Kind::Rpc { untaken, .. } => {
                untaken.len() >= MAX_UNTAKEN || load.untaken_bytes >= MAX_UNTAKEN_BYTES
            }
            _ => false,
        }
    }

    /// Whether its peer has left it in the middle of a request for too long, or sends what nobody will take.
    pub fn is_stalled(&self, now: Instant) -> bool {
        let body = self.body.as_ref();
        let quiet = body.is_some_and(|body| !body.inflating && now.duration_since(body.progress) >= STALLED);
        let between = body.is_none_or(|body| body.assembler.is_between());
        match &self.kind {
            Kind::Infer { .. } | Kind::Unary { .. } => quiet,
            Kind::StreamInfer(_) => quiet && !between,
            Kind::Rpc { untaken, progress } => {
                (quiet && !between) || (!untaken.is_empty() && now.duration_since(*progress) >= STALLED)
            }
        }
    }

    /// The size of its messages that the gateway has not taken.
    pub fn untaken_bytes(&self) -> usize {
        match &self.kind {
            Kind::Rpc { untaken, .. } => untaken.iter().map(Held::bytes).sum(),
            _ => 0,
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
            self.settled_bytes += size_of(&answer);
            waiting.answer = Some(answer);
        }
    }

    /// Return the answer whose turn it is, with its request's id.
    pub fn take_settled(&mut self) -> Option<(Answer, String)> {
        let answer = self.waiting.front_mut()?.answer.take()?;
        let id = self.waiting.pop_front().map(|waiting| waiting.id).unwrap_or_default();
        self.first = self.first.wrapping_add(1);
        self.settled_bytes -= size_of(&answer);
        Some((answer, id))
    }
}

fn size_of(answer: &Answer) -> usize {
    answer.as_ref().map_or(0, |(message, _)| message.len())
}
