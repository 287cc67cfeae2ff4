//! The client's side of one HTTP/2 connection, without its socket: bytes in, finished requests and bytes out.
//!
//! Written for one purpose, sending the same kind of unary gRPC request very often, so that it costs a fraction of
//! what the server under test does: the request's header block is made once, bodies are shared, frames are read
//! where they were received, and there is no task, lock or timer per request.

use std::collections::VecDeque;

use bytes::Bytes;

use super::frame::{self, Head};
use super::hpack::{Decoder, RequestHeaders, DEFAULT_TABLE_BYTES};
use super::outbox::Outbox;
use super::outcome::{Answer, Ended, Fields, Outcome};
use super::streams::{Streams, Ticket};

/// Of all that we let the server send before we say that we have read it.
const RECEIVE_WINDOW_BYTES: u32 = 1 << 30;
const MAX_FRAME_BYTES: usize = 1 << 20; // of ours, where the server takes as much
const MAX_HEADER_BLOCK_BYTES: usize = 1 << 18;

/// The peer broke the protocol, or ended the connection with an error; the connection is of no more use.
#[derive(Debug, PartialEq)]
pub(super) struct Broken(pub(super) String);

fn broken(what: &str) -> Broken {
    Broken(what.to_string())
}

pub(super) struct Finished {
    pub(super) ticket: Ticket,
    pub(super) ended: Ended,
}

pub(super) struct Connection {
    headers: RequestHeaders,
    decoder: Decoder,
    outbox: Outbox,
    streams: Streams,
    sending: VecDeque<u32>, // ids of streams whose rest waits for the connection's window
    window: i64,
    unacknowledged_bytes: u32,
    block: Option<(Head, Vec<u8>)>, // a header block that continues
    greeted: bool,
    leaving: bool,
    max_streams: usize,
    initial_window: i64,
    max_frame_bytes: usize,
}

impl Connection {
    /// Nothing may be started before the server has sent its settings: see `greeted`.
    pub(super) fn new(headers: RequestHeaders) -> Self {
        let mut outbox = Outbox::default();
        outbox.gather(|out| {
            out.extend_from_slice(frame::PREFACE);
            let settings = [(frame::ENABLE_PUSH, 0), (frame::INITIAL_WINDOW_SIZE, RECEIVE_WINDOW_BYTES)];
            Head { length: 6 * settings.len(), kind: frame::SETTINGS, flags: 0, stream: 0 }.put(out);
            for (name, value) in settings {
                out.extend_from_slice(&name.to_be_bytes());
                out.extend_from_slice(&value.to_be_bytes());
            }
            put_window_update(out, RECEIVE_WINDOW_BYTES - frame::DEFAULT_WINDOW_BYTES as u32);
        });
        Connection {
            headers,
            decoder: Decoder::new(),
            outbox,
            streams: Streams::new(),
            sending: VecDeque::new(),
            window: frame::DEFAULT_WINDOW_BYTES,
            unacknowledged_bytes: 0,
            block: None,
            greeted: false,
            leaving: false,
            max_streams: usize::MAX,
            initial_window: frame::DEFAULT_WINDOW_BYTES,
            max_frame_bytes: frame::MAX_PAYLOAD_BYTES,
        }
    }

    pub(super) fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Whether the server's settings have come.
    pub(super) fn greeted(&self) -> bool {
        self.greeted
    }

    /// Whether it takes no further request.
    pub(super) fn leaving(&self) -> bool {
        self.leaving
    }

    pub(super) fn in_flight(&self) -> usize {
        self.streams.len()
    }

    /// How many requests may be started now, at most `limit` in flight.
    pub(super) fn room(&self, limit: usize) -> usize {
        if !self.greeted || self.leaving {
            return 0;
        }
        limit.min(self.max_streams).saturating_sub(self.in_flight())
    }

    /// Start a request, for which there must be room; `framed` is the message with gRPC's prefix. Gives its stream.
    pub(super) fn start(&mut self, ticket: Ticket, framed: &Bytes) -> u32 {
        let id = self.streams.open(ticket, framed.clone(), self.initial_window);
        self.leaving |= self.streams.are_used_up();
        let headers = &mut self.headers;
        self.outbox.gather(|out| {
            let at = out.len();
            Head { length: 0, kind: frame::HEADERS, flags: frame::END_HEADERS, stream: id }.put(out);
            headers.put(out);
            let length = (out.len() - at - frame::HEAD_BYTES) as u32;
            out[at..at + 3].copy_from_slice(&length.to_be_bytes()[1..]);
        });
        if self.send_body(id) {
            self.sending.push_back(id);
        }
        id
    }

    /// Reset a stream; gives the request if it had no answer yet.
    pub(super) fn cancel(&mut self, id: u32, outcome: Outcome) -> Option<Finished> {
        let finished = self.finish(id, |answer| answer.end(outcome, None))?;
        self.reset(id);
        Some(finished)
    }

    /// The streams that were started before this time.
    pub(super) fn older_than(&self, started_ns: u64) -> Vec<u32> {
        let started = self.streams.iter();
        started.filter(|stream| stream.ticket.started_ns < started_ns).map(|stream| stream.id).collect()
    }

    /// End all requests with one outcome, because the connection is gone.
    pub(super) fn abandon(&mut self, outcome: Outcome, finished: &mut Vec<Finished>) {
        let ids: Vec<u32> = self.streams.iter().map(|stream| stream.id).collect();
        finished.extend(ids.into_iter().filter_map(|id| self.finish(id, |answer| answer.end(outcome, None))));
    }

    /// Read the whole frames in `input`, appending what has ended; gives how many bytes they are.
    pub(super) fn receive(&mut self, input: &[u8], finished: &mut Vec<Finished>) -> Result<usize, Broken> {
        let mut at = 0;
        while let Some(raw) = input[at..].first_chunk::<{ frame::HEAD_BYTES }>() {
            let head = Head::read(raw);
            if head.length > frame::MAX_PAYLOAD_BYTES {
                return Err(broken("a frame that is too large"));
            }
            let start = at + frame::HEAD_BYTES;
            let Some(payload) = input.get(start..start + head.length) else { break };
            self.frame(head, payload, finished)?;
            at = start + head.length;
        }
        Ok(at)
    }

    fn frame(&mut self, head: Head, payload: &[u8], finished: &mut Vec<Finished>) -> Result<(), Broken> {
        if self.block.is_some() != (head.kind == frame::CONTINUATION) {
            return Err(broken("a header block that does not continue, or nothing to be continued"));
        }
        if !self.greeted && head.kind != frame::SETTINGS {
            return Err(broken("the server does not begin with SETTINGS"));
        }
        match head.kind {
            frame::DATA => self.data(head, payload, finished),
            frame::HEADERS => {
                let content =
                    frame::content(head, payload).ok_or_else(|| broken("padding that does not fit"))?;
                self.headers_part(head, head, content, Vec::new(), finished)
            }
            frame::CONTINUATION => match self.block.take() {
                Some((first, block)) if first.stream == head.stream => {
                    self.headers_part(first, head, payload, block, finished)
                }
                _ => Err(broken("a continuation of another stream's header block")),
            },
            frame::RST_STREAM => {
                let code = frame::number(payload).ok_or_else(|| broken("a short RST_STREAM"))?;
                self.check_started(head.stream)?;
                finished.extend(self.finish(head.stream, |answer| answer.end(Outcome::Reset(code), None)));
                Ok(())
            }
            frame::SETTINGS => self.settings(head, payload),
            frame::PING if !head.has(frame::ACK) => {
                self.outbox.gather(|out| {
                    Head { flags: frame::ACK, ..head }.put(out);
                    out.extend_from_slice(payload);
                });
                Ok(())
            }
            frame::GOAWAY => self.go_away(payload, finished),
            frame::WINDOW_UPDATE => self.window_update(head, payload),
            frame::PUSH_PROMISE => Err(broken("a push that was not allowed")),
            _ => Ok(()), // others are to be ignored (RFC 9113, section 5.5)
        }
    }

    // -- answers ---

    fn data(&mut self, head: Head, payload: &[u8], finished: &mut Vec<Finished>) -> Result<(), Broken> {
        let content = frame::content(head, payload).ok_or_else(|| broken("padding that does not fit"))?;
        self.check_started(head.stream)?;
        self.unacknowledged_bytes += head.length as u32;
        if self.unacknowledged_bytes > RECEIVE_WINDOW_BYTES / 2 {
            let read = std::mem::take(&mut self.unacknowledged_bytes);
            self.outbox.gather(|out| put_window_update(out, read));
        }
        let last = head.has(frame::END_STREAM);
        self.advance(head.stream, finished, |answer| answer.data(content, last));
        Ok(())
    }

    /// Take a HEADERS frame or what continues it; `first` begins the block, `head` is of this part.
    fn headers_part(
        &mut self,
        first: Head,
        head: Head,
        part: &[u8],
        mut before: Vec<u8>,
        finished: &mut Vec<Finished>,
    ) -> Result<(), Broken> {
        self.check_started(first.stream)?;
        if !head.has(frame::END_HEADERS) || !before.is_empty() {
            before.extend_from_slice(part);
            if before.len() > MAX_HEADER_BLOCK_BYTES {
                return Err(broken("a header block that is too large"));
            }
        }
        if !head.has(frame::END_HEADERS) {
            self.block = Some((first, before));
            return Ok(());
        }
        let block = if before.is_empty() { part } else { &before };
        let mut fields = Fields::default();
        // also where nobody waits for it any more: later blocks refer to it
        self.decoder
            .read(block, |name, value| fields.take(name, value))
            .map_err(|_| broken("a header block that cannot be read"))?;
        let last = first.has(frame::END_STREAM);
        self.advance(first.stream, finished, |answer| answer.headers(fields, last));
        Ok(())
    }

    /// Give a part to the answer of a stream, if anyone still waits for it.
    fn advance(
        &mut self,
        id: u32,
        finished: &mut Vec<Finished>,
        take: impl FnOnce(&mut Answer) -> Option<Ended>,
    ) {
        let Some(stream) = self.streams.get(id) else { return };
        let Some(ended) = take(&mut stream.answer) else { return };
        let sent = stream.unsent.is_empty();
        finished.extend(self.finish(id, |_| ended));
        if !sent {
            self.reset(id); // an answer to half a request: the server wants no more of it
        }
    }

    fn finish(&mut self, id: u32, end: impl FnOnce(&mut Answer) -> Ended) -> Option<Finished> {
        let mut stream = self.streams.remove(id)?;
        Some(Finished { ticket: stream.ticket, ended: end(&mut stream.answer) })
    }

    fn check_started(&self, id: u32) -> Result<(), Broken> {
        if self.streams.knows(id) {
            return Ok(());
        }
        Err(broken("a frame of a stream that was never opened"))
    }

    fn reset(&mut self, id: u32) {
        self.outbox.gather(|out| {
            Head { length: 4, kind: frame::RST_STREAM, flags: 0, stream: id }.put(out);
            out.extend_from_slice(&frame::CANCEL.to_be_bytes());
        });
    }

    // -- the connection ---

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Broken> {
        if head.stream != 0 || payload.len() % 6 != 0 {
            return Err(broken("SETTINGS of a wrong form"));
        }
        if head.has(frame::ACK) {
            return Ok(());
        }
        for entry in payload.chunks_exact(6) {
            let [a, b, rest @ ..] = entry else { continue };
            let value = frame::number(rest).unwrap_or_default();
            match u16::from_be_bytes([*a, *b]) {
                frame::HEADER_TABLE_SIZE => self.headers.resize((value as usize).min(DEFAULT_TABLE_BYTES)),
                frame::MAX_CONCURRENT_STREAMS => self.max_streams = value as usize,
                frame::INITIAL_WINDOW_SIZE => self.set_initial_window(i64::from(value))?,
                frame::MAX_FRAME_SIZE => {
                    if (value as usize) < frame::MAX_PAYLOAD_BYTES {
                        return Err(broken("SETTINGS_MAX_FRAME_SIZE below its minimum"));
                    }
                    self.max_frame_bytes = (value as usize).min(MAX_FRAME_BYTES);
                }
                _ => {}
            }
        }
        self.greeted = true;
        self.outbox
            .gather(|out| Head { length: 0, kind: frame::SETTINGS, flags: frame::ACK, stream: 0 }.put(out));
        self.send_waiting();
        Ok(())
    }

    fn set_initial_window(&mut self, size: i64) -> Result<(), Broken> {
        if size > frame::MAX_WINDOW_BYTES {
            return Err(broken("SETTINGS_INITIAL_WINDOW_SIZE above its maximum"));
        }
        let change = size - self.initial_window;
        self.initial_window = size;
        for stream in self.streams.iter_mut() {
            stream.window += change;
            if stream.window > frame::MAX_WINDOW_BYTES {
                return Err(broken("a window that is too large"));
            }
            if !stream.unsent.is_empty() && !self.sending.contains(&stream.id) {
                self.sending.push_back(stream.id);
            }
        }
        Ok(())
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Broken> {
        let more = frame::number(payload).ok_or_else(|| broken("a short WINDOW_UPDATE"))? & 0x7fff_ffff;
        let window = if head.stream == 0 {
            self.window += i64::from(more);
            self.window
        } else {
            self.check_started(head.stream)?;
            let Some(stream) = self.streams.get(head.stream) else { return Ok(()) };
            stream.window += i64::from(more);
            let (window, waits) = (stream.window, !stream.unsent.is_empty());
            if waits && !self.sending.contains(&head.stream) {
                self.sending.push_back(head.stream);
            }
            window
        };
        if window > frame::MAX_WINDOW_BYTES {
            return Err(broken("a window that is too large"));
        }
        self.send_waiting();
        Ok(())
    }

    /// RFC 9113, section 6.8: what lies beyond the last stream was not and will not be processed.
    fn go_away(&mut self, payload: &[u8], finished: &mut Vec<Finished>) -> Result<(), Broken> {
        let last = frame::number(payload).ok_or_else(|| broken("a short GOAWAY"))? & 0x7fff_ffff;
        let code = payload.get(4..).and_then(frame::number).ok_or_else(|| broken("a short GOAWAY"))?;
        self.leaving = true;
        if code != 0 {
            let why = String::from_utf8_lossy(payload.get(8..).unwrap_or_default());
            return Err(Broken(format!("GOAWAY {} {why}", frame::reason(code)).trim_end().to_string()));
        }
        let beyond = self.streams.iter().map(|stream| stream.id).filter(|id| *id > last);
        for id in beyond.collect::<Vec<u32>>() {
            finished.extend(self.finish(id, |answer| answer.end(Outcome::Connection, None)));
        }
        Ok(())
    }

    // -- requests' bodies ---

    /// Send as much of a body as the windows allow. Gives whether it is the connection's window that ends it.
    fn send_body(&mut self, id: u32) -> bool {
        let max_frame = self.max_frame_bytes as i64;
        loop {
            let window = self.window;
            let Some(stream) = self.streams.get(id) else { return false };
            let allowed = stream.window.min(stream.unsent.len() as i64);
            if allowed <= 0 {
                return false; // all sent, or its own window is empty: WINDOW_UPDATE goes on with it
            }
            let size = allowed.min(window).min(max_frame);
            if size <= 0 {
                return true;
            }
            stream.window -= size;
            let part = stream.unsent.split_to(size as usize);
            let flags = if stream.unsent.is_empty() { frame::END_STREAM } else { 0 };
            self.window -= size;
            let head = Head { length: part.len(), kind: frame::DATA, flags, stream: id };
            self.outbox.gather(|out| head.put(out));
            self.outbox.append(part);
        }
    }

    /// In the order in which they began to wait.
    fn send_waiting(&mut self) {
        while let Some(&id) = self.sending.front() {
            if self.send_body(id) {
                return;
            }
            self.sending.pop_front();
        }
    }
}

fn put_window_update(out: &mut Vec<u8>, more: u32) {
    Head { length: 4, kind: frame::WINDOW_UPDATE, flags: 0, stream: 0 }.put(out);
    out.extend_from_slice(&more.to_be_bytes());
}
