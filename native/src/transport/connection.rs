//! One HTTP/2 connection: its streams, from the first byte of a request to the last of its answer.
//!
//! Guarantees. One task per connection, none per request. A request that is reset, or whose connection ends, is
//! reported once; what is sent to it afterwards goes nowhere. Messages are read as fast as they come, because their
//! bytes are taken from a budget beforehand; a stream that has too much unanswered is not read, so that the peer's
//! window pushes back. Nothing that a peer sends ends more than its own connection.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::header::{HeaderMap, HeaderValue, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};

use super::answer::{bad, begin, good, missing, respond_with};
use super::budget::{Budget, Held};
use super::io::{watched, Io, Watched};
use super::mailbox::{Mailbox, Ready, StreamWaker};
use super::payload::{Payload, Unsent};
use super::server::{now_ns, Address, Answering, Arrived, Call, Head, Outgoing, Rpc, Thread, What};
use super::socket::Socket;
use super::stream::{Body, Kind, Load, Ordered, Stream, Streams, Waiting, MAX_RPC_MESSAGE_BYTES};
use super::tls::Tls;
use crate::grpc::framing::{Assembler, Bounds, Message};
use crate::grpc::head::{encoding, timeout_ns, Encoding};
use crate::grpc::inflate::inflate;
use crate::grpc::response::stream_error;
use crate::grpc::status::{self, Status};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const MAX_FRAME_BYTES: u32 = 256 << 10;
const MAX_HEADER_BYTES: u32 = 16 << 10;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// A peer that reads nothing of its answers for this long is given up.
const UNREAD: Duration = Duration::from_secs(30);
/// How long a peer may take to close its side after ours.
const LINGER: Duration = Duration::from_secs(1);
/// How long requests may take that are under way when a connection has reached its age.
const AGE_GRACE: Duration = Duration::from_secs(30);

struct Connection {
    thread: Rc<Thread>,
    mailbox: Rc<Mailbox>,
    id: u64,
    peer: Arc<str>,
    h2: server::Connection<Io<Socket>, Payload>,
    io: Watched<Socket>,
    streams: Streams,
    ready: Arc<Ready>,
    /// Streams that were not read because they were full.
    blocked: Vec<u32>,
    load: Load,
    unsent: Rc<Unsent>,
    arrived: Arrived,
    ping: Option<PingPong>,
    pinged: Option<Instant>,
    said_goodbye: Option<Instant>,
    ok: HeaderMap,
}

/// Serve one connection until it ends.
pub async fn serve(thread: Rc<Thread>, socket: Socket, peer: Arc<str>, tls: Option<Rc<Tls>>) {
    let shared = thread.shared.clone();
    let opened = tokio::time::timeout(HANDSHAKE, async {
        let socket = match (socket, tls) {
            (Socket::Tcp(stream), Some(tls)) => {
                let (acceptor, warning) = tls.acceptor();
                shared
                    .deliver(&mut Arrived { warnings: warning.into_iter().collect(), ..Arrived::default() });
                Socket::Tls(Box::new(acceptor.accept(stream).await.ok()?))
            }
            (socket, _) => socket,
        };
        let local = matches!(socket, Socket::Unix(_));
        let (io, watch) = watched(socket, local);
        let mut handshake = server::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_concurrent_streams(shared.config.max_concurrent_streams)
            .max_concurrent_reset_streams(64)
            .max_pending_accept_reset_streams(512)
            .reset_stream_duration(Duration::from_secs(1))
            .handshake::<_, Payload>(io);
        let h2 = std::future::poll_fn(|cx| {
            let polled = std::pin::Pin::new(&mut handshake).poll(cx);
            let _ = watch.poll_flush(cx); // a broken socket is seen by the next read
            polled
        });
        Some((h2.await.ok()?, watch))
    });
    let Ok(Some((mut h2, io))) = opened.await else {
        shared.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let now = thread.now.get();
    let leaving = shared.draining.load(Ordering::Acquire) && shared.deaf.load(Ordering::Acquire);
    let mailbox = Rc::new(Mailbox::new(now, leaving));
    let id = thread.next_connection();
    thread.peers.borrow_mut().insert(id, mailbox.clone());
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let mut ok = HeaderMap::with_capacity(1);
    ok.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut connection = Connection {
        mailbox,
        id,
        peer,
        ping: h2.ping_pong(),
        h2,
        io,
        streams: Streams::default(),
        ready: Arc::default(),
        blocked: Vec::new(),
        load: Load::default(),
        unsent: Rc::new(Unsent::new(thread.now.clone())),
        arrived: Arrived::default(),
        pinged: None,
        said_goodbye: None,
        ok,
        thread: thread.clone(),
    };
    // a defect ends this connection, and whoever waits for its requests hears of it
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| connection.poll(cx))) {
        Ok(polled) => polled,
        Err(_) => {
            connection.arrived.warnings.push(format!("defect: connection from {} ended", connection.peer));
            Poll::Ready(())
        }
    })
    .await;
    connection.end();
    let _ = tokio::time::timeout(LINGER, std::future::poll_fn(|cx| connection.io.poll_close(cx))).await;
    thread.peers.borrow_mut().remove(&id);
    shared.disconnected();
}

impl Connection {
    /// Do everything that can be done now. `Ready` when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.thread.now.set(Instant::now());
        self.remember_waker(cx);
        self.io.begin_turn();
        let answers = std::mem::take(&mut *self.mailbox.answers.borrow_mut());
        for (to, what) in answers {
            self.on_answer(to, what, cx);
        }
        if self.mailbox.draining.get() {
            self.say_goodbye();
        }
        let mut ended = false;
        loop {
            match self.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.on_request(request, respond, cx),
                Poll::Ready(_) => {
                    ended = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
        let seen = self.io.take_seen();
        if seen.heard {
            self.mailbox.heard.set(self.thread.now.get());
        }
        for stream in seen.resets {
            self.drop_stream(stream);
        }
        self.read_ready(cx);
        if let Some(flood) = seen.flood {
            self.refuse(flood);
        }
        let mut closing = false;
        if self.mailbox.ticked.take() && !ended {
            closing = self.on_tick(cx);
        }
        // answers that were made on the way, windows that were opened, and why the connection is closed: the
        // library writes them when it is polled
        if !ended {
            loop {
                match self.h2.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => self.on_request(request, respond, cx),
                    Poll::Ready(_) => {
                        ended = true;
                        break;
                    }
                    Poll::Pending => break,
                }
            }
        }
        self.thread.shared.deliver(&mut self.arrived);
        let flushed = self.io.poll_flush(cx);
        if ended || closing || matches!(flushed, Poll::Ready(Err(_))) {
            return Poll::Ready(());
        }
        let busy = !self.streams.is_empty() || self.unsent.answers.get() > 0 || self.pinged.is_some();
        self.mailbox.busy.set(busy);
        Poll::Pending
    }

    fn remember_waker(&self, cx: &Context<'_>) {
        let mut waker = self.mailbox.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
            *self.ready.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        }
    }

    /// The connection is over: whoever waits for an answer is gone.
    fn end(&mut self) {
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        for id in ids {
            self.drop_stream(id);
        }
        self.thread.shared.deliver(&mut self.arrived);
    }

    fn refuse(&mut self, why: &str) {
        self.thread.shared.refused.fetch_add(1, Ordering::Relaxed);
        self.arrived.warnings.push(format!("connection from {} closed: {why}", self.peer));
        self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    }

    fn say_goodbye(&mut self) {
        if self.said_goodbye.is_none() {
            self.said_goodbye = Some(self.thread.now.get());
            self.h2.graceful_shutdown();
        }
    }

    /// Look at the time. True when the connection is to be closed.
    fn on_tick(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.thread.now.get();
        let config = &self.thread.shared.config;
        let age = config.max_connection_age_s;
        if age > 0.0 && now.duration_since(self.mailbox.opened).as_secs_f64() >= age {
            self.say_goodbye();
            if self.said_goodbye.is_some_and(|said| now.duration_since(said) >= AGE_GRACE) {
                return true;
            }
        }
        if self.unsent.answers.get() > 0 && now.duration_since(self.unsent.progress.get()) >= UNREAD {
            self.refuse("its answers are not read");
            return true;
        }
        let stalled = self.streams.iter().filter(|(_, stream)| stream.is_stalled(now));
        let stalled: Vec<u32> = stalled.map(|(&id, _)| id).collect();
        for id in stalled {
            match self.streams.get_mut(&id) {
                Some(Stream { send: Some(send), .. }) => send.send_reset(Reason::CANCEL),
                Some(Stream { respond: Some(respond), .. }) => respond.send_reset(Reason::CANCEL),
                _ => {}
            }
            self.drop_stream(id);
        }
        self.keep_alive(now, cx)
    }

    /// Ask a silent peer whether it is there. True when it has not answered in time.
    fn keep_alive(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let config = &self.thread.shared.config;
        let Some(ping) = self.ping.as_mut() else {
            return false;
        };
        if let Some(sent) = self.pinged {
            if ping.poll_pong(cx).is_ready() || self.mailbox.heard.get() > sent {
                self.pinged = None;
            } else {
                return now.duration_since(sent).as_secs_f64() >= config.keepalive_timeout_s;
            }
        }
        let silent = now.duration_since(self.mailbox.heard.get()).as_secs_f64();
        if config.keepalive_s > 0.0 && silent >= config.keepalive_s && ping.send_ping(Ping::opaque()).is_ok()
        {
            self.pinged = Some(now);
        }
        false
    }

    fn on_request(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Payload>,
        cx: &mut Context<'_>,
    ) {
        let (parts, receive) = request.into_parts();
        let is_grpc = parts
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if parts.method != Method::POST || !is_grpc {
            let code =
                if is_grpc { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::UNSUPPORTED_MEDIA_TYPE };
            let mut response = Response::new(());
            *response.status_mut() = code;
            let _ = respond.send_response(response, true);
            return;
        }
        let read = timeout_ns(&parts.headers).and_then(|timeout| Ok((timeout, encoding(&parts.headers)?)));
        let (timeout, encoding) = match read {
            Ok(read) => read,
            Err(status) => {
                respond_with(&mut respond, &self.ok, &status, &HeaderMap::new());
                return;
            }
        };
        let id = receive.stream_id().as_u32();
        let path = parts.uri.path();
        let config = &self.thread.shared.config;
        let kind = match path {
            INFER => Kind::Infer { message: None, call: 0 },
            STREAM_INFER => Kind::StreamInfer(Box::new(Ordered {
                strict: parts
                    .headers
                    .get("triton_grpc_error")
                    .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")),
                waiting: VecDeque::new(),
                first: 0,
                settled_bytes: 0,
                half_closed: false,
            })),
            _ if config.unary.iter().any(|known| known == path) => {
                Kind::Unary { path: path.into(), message: None, submitted: false }
            }
            _ if config.streams.iter().any(|known| known == path) => {
                let to = self.address(id, 0);
                self.arrived.rpcs.push(Rpc::Opened { to, path: path.to_owned() });
                Kind::Rpc { untaken: VecDeque::new(), progress: self.thread.now.get() }
            }
            _ => {
                let shown: String = path.chars().take(200).collect();
                let status = Status::new(status::UNIMPLEMENTED, format!("there is no method {shown}"));
                respond_with(&mut respond, &self.ok, &status, &HeaderMap::new());
                return;
            }
        };
        let stream = Stream {
            respond: Some(respond),
            send: None,
            body: Some(Body {
                receive,
                assembler: Assembler::default(),
                encoding,
                inflating: false,
                rest: Bytes::new(),
                ended: false,
                unreleased: 0,
                progress: self.thread.now.get(),
                waker: None,
            }),
            head: Arc::new(Head { headers: parts.headers, peer: self.peer.clone() }),
            deadline_ns: timeout.map(|ns| now_ns().saturating_add(ns)),
            blocked: false,
            kind,
        };
        self.asked(stream.unanswered());
        self.streams.insert(id, stream);
        self.read(id, cx);
    }

    fn address(&self, stream: u32, message: u32) -> Address {
        Address { connection: self.id, stream, message }
    }

    /// Read what has come for the streams that were woken, and for those that were full.
    fn read_ready(&mut self, cx: &mut Context<'_>) {
        for id in std::mem::take(&mut self.blocked) {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.blocked = false;
            }
            self.read(id, cx);
        }
        let ready = std::mem::take(&mut *self.ready.streams.lock().unwrap_or_else(PoisonError::into_inner));
        for id in ready {
            self.read(id, cx);
        }
    }

    /// Read a stream's request as far as it has come.
    fn read(&mut self, id: u32, cx: &mut Context<'_>) {
        loop {
            let Some(stream) = self.streams.get_mut(&id) else {
                return;
            };
            if stream.is_full(&self.load, &self.unsent) {
                if let Some(body) = &mut stream.body {
                    body.progress = self.thread.now.get(); // it is not the peer who does not go on
                }
                if !std::mem::replace(&mut stream.blocked, true) {
                    self.blocked.push(id);
                }
                return;
            }
            let Some(body) = stream.body.as_mut().filter(|body| !body.inflating) else {
                return;
            };
            if !body.rest.is_empty() {
                let rest = std::mem::take(&mut body.rest);
                self.on_data(id, rest, cx);
                continue;
            }
            let unreleased = std::mem::take(&mut body.unreleased);
            let _ = body.receive.flow_control().release_capacity(unreleased);
            if body.ended {
                self.on_end(id, cx);
                return;
            }
            // most requests have come whole with their head: only the others need somebody to wake
            let waker = body.waker.as_ref().unwrap_or(Waker::noop());
            match body.receive.poll_data(&mut Context::from_waker(waker)) {
                Poll::Ready(Some(Ok(data))) => {
                    body.progress = self.thread.now.get();
                    body.unreleased = data.len();
                    body.ended = body.receive.is_end_stream();
                    self.on_data(id, data, cx);
                }
                Poll::Ready(Some(Err(_))) => {
                    self.drop_stream(id);
                    return;
                }
                Poll::Ready(None) => {
                    self.on_end(id, cx);
                    return;
                }
                Poll::Pending if body.waker.is_none() => {
                    body.waker =
                        Some(Waker::from(Arc::new(StreamWaker { stream: id, ready: self.ready.clone() })));
                }
                Poll::Pending => return,
            }
        }
    }

    /// Take the messages from what has been read; leave the rest where something is in the way.
    fn on_data(&mut self, id: u32, mut data: Bytes, cx: &mut Context<'_>) {
        while !data.is_empty() {
            let Some(stream) = self.streams.get_mut(&id) else {
                return; // answered meanwhile
            };
            let full = stream.is_full(&self.load, &self.unsent);
            let shared = &self.thread.shared;
            let max_message_bytes = match stream.kind {
                Kind::Rpc { .. } => shared.config.max_message_bytes.min(MAX_RPC_MESSAGE_BYTES),
                _ => shared.config.max_message_bytes,
            };
            let bounds = Bounds { max_message_bytes, budget: &shared.incoming };
            let Some(body) = stream.body.as_mut() else {
                return;
            };
            if full {
                body.rest = data;
                return;
            }
            let encoding = body.encoding;
            match body.assembler.feed(&mut data, &bounds) {
                Ok(None) => return,
                Ok(Some(message)) if !message.compressed => self.on_message(id, message, cx),
                Ok(Some(_)) if encoding == Encoding::Identity => {
                    let status =
                        Status::new(status::INTERNAL, "a compressed message without a grpc-encoding");
                    self.finish(id, &status, &HeaderMap::new());
                }
                Ok(Some(message)) => {
                    body.inflating = true;
                    body.rest = data;
                    self.inflate(id, message, encoding);
                    return;
                }
                Err(status) => self.finish(id, &status, &HeaderMap::new()),
            }
        }
    }

    /// Decompress a message elsewhere.
    fn inflate(&mut self, id: u32, message: Message, encoding: Encoding) {
        let shared = self.thread.shared.clone();
        let to = self.address(id, 0);
        tokio::task::spawn_blocking(move || {
            let limit = shared.config.max_message_bytes;
            let what = What::Inflated(inflate(message, encoding, limit, &shared.incoming));
            shared.send(vec![Outgoing { to, what }]);
        });
    }

    fn on_inflated(&mut self, id: u32, inflated: Result<Message, Status>, cx: &mut Context<'_>) {
        let Some(body) = self.streams.get_mut(&id).and_then(|stream| stream.body.as_mut()) else {
            return;
        };
        body.inflating = false;
        match inflated {
            Ok(message) => self.on_message(id, message, cx),
            Err(status) => self.finish(id, &status, &HeaderMap::new()),
        }
        self.read(id, cx);
    }

    /// A whole message has come.
    fn on_message(&mut self, id: u32, message: Message, cx: &mut Context<'_>) {
        let to = self.address(id, 0);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        match &mut stream.kind {
            Kind::Infer { message: place @ None, .. } | Kind::Unary { message: place @ None, .. } => {
                *place = Some(message);
            }
            Kind::Infer { .. } | Kind::Unary { .. } => {
                let status = Status::new(status::INTERNAL, "a second message where one is expected");
                self.finish(id, &status, &HeaderMap::new());
            }
            Kind::StreamInfer(ordered) => {
                let to = Address { message: ordered.first.wrapping_add(ordered.waiting.len() as u32), ..to };
                let (head, deadline_ns) = (stream.head.clone(), stream.deadline_ns);
                let waiting = match self.submit(to, message, head, deadline_ns, true) {
                    Ok((call, id)) => Waiting { call, id, answer: None },
                    Err(status) => {
                        Waiting { call: 0, id: String::new(), answer: Some(Err((status, Arc::default()))) }
                    }
                };
                let failed = waiting.answer.is_some();
                if let Some(Stream { kind: Kind::StreamInfer(ordered), .. }) = self.streams.get_mut(&id) {
                    ordered.waiting.push_back(waiting);
                    self.asked(1);
                }
                if failed {
                    self.send_ordered(id, cx);
                }
            }
            Kind::Rpc { untaken, progress } => {
                if untaken.is_empty() {
                    *progress = self.thread.now.get();
                }
                self.load.untaken_bytes += message.held.bytes();
                untaken.push_back(message.held);
                let mut bytes = vec![0; message.body.len()];
                message.body.copy_to(&mut bytes);
                self.arrived.rpcs.push(Rpc::Message { to, message: bytes });
            }
        }
    }

    /// Hand a request to the gateway; return the call's id and the request's.
    fn submit(
        &mut self,
        to: Address,
        message: Message,
        head: Arc<Head>,
        deadline_ns: Option<u64>,
        streamed: bool,
    ) -> Result<(u64, String), Status> {
        let request = self
            .thread
            .reader
            .borrow_mut()
            .read(&message.body)
            .map_err(|malformed| Status::new(status::INVALID_ARGUMENT, malformed.0))?;
        let id = self.thread.shared.next_call();
        let request_id = if streamed { request.id.clone() } else { String::new() };
        self.arrived.calls.push(Call {
            id,
            to,
            request,
            streamed,
            arrived_ns: now_ns(),
            deadline_ns,
            head,
            size_bytes: message.body.len(),
            held: message.held,
        });
        Ok((id, request_id))
    }

    /// The request's stream has ended.
    fn on_end(&mut self, id: u32, cx: &mut Context<'_>) {
        let to = self.address(id, 0);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let Some(body) = stream.body.as_mut() else {
            return;
        };
        if !body.assembler.is_between() {
            let status = Status::new(status::INTERNAL, "the request ended in the middle of a message");
            self.finish(id, &status, &HeaderMap::new());
            return;
        }
        stream.body = None;
        match &mut stream.kind {
            Kind::Infer { message, .. } => match message.take() {
                Some(message) => {
                    if let Answering::Echo(answer) = &self.thread.shared.answering {
                        let answer = answer.clone();
                        self.answer_unary(id, answer, &HeaderMap::new());
                        return;
                    }
                    let (head, deadline_ns) = (stream.head.clone(), stream.deadline_ns);
                    match self.submit(to, message, head, deadline_ns, false) {
                        Ok((submitted, _)) => {
                            if let Some(Stream { kind: Kind::Infer { call, .. }, .. }) =
                                self.streams.get_mut(&id)
                            {
                                *call = submitted;
                            }
                        }
                        Err(status) => self.finish(id, &status, &HeaderMap::new()),
                    }
                }
                None => self.finish(id, &missing(), &HeaderMap::new()),
            },
            Kind::Unary { path, message, submitted } => match message.take() {
                Some(message) => {
                    *submitted = true;
                    let mut bytes = vec![0; message.body.len()];
                    message.body.copy_to(&mut bytes);
                    let (path, head) = (path.to_string(), stream.head.clone());
                    self.arrived.rpcs.push(Rpc::Unary { to, path, message: bytes, head, held: message.held });
                }
                None => self.finish(id, &missing(), &HeaderMap::new()),
            },
            Kind::StreamInfer(ordered) => {
                ordered.half_closed = true;
                self.send_ordered(id, cx);
            }
            Kind::Rpc { .. } => self.arrived.rpcs.push(Rpc::HalfClosed { to }),
        }
    }

    fn on_answer(&mut self, to: Address, what: What, cx: &mut Context<'_>) {
        let id = to.stream;
        let Some(stream) = self.streams.get_mut(&id) else {
            return; // reset meanwhile
        };
        match (what, &mut stream.kind) {
            (What::Inflated(inflated), _) => self.on_inflated(id, inflated, cx),
            (What::Answer { message, trailing }, Kind::StreamInfer(ordered)) => {
                match hold(&self.thread.shared.outgoing, message.len()) {
                    Ok(held) => ordered.settle(to.message, Ok((message, held))),
                    Err(status) => return self.finish(id, &status, &trailing),
                }
                self.send_ordered(id, cx);
                self.read(id, cx);
            }
            (What::Error { status, trailing }, Kind::StreamInfer(ordered)) => {
                ordered.settle(to.message, Err((status, trailing)));
                self.send_ordered(id, cx);
                self.read(id, cx);
            }
            (What::Answer { message, trailing }, _) => self.answer_unary(id, message, &trailing),
            (What::Error { status, trailing }, kind) => {
                if let Kind::Infer { call, .. } = kind {
                    *call = 0; // it is answered: nothing is left to be cancelled
                }
                self.finish(id, &status, &trailing);
            }
            (What::Message(message), _) => self.send_message(id, message),
            (What::End, _) => self.finish_well(id, &HeaderMap::new()),
            (What::Taken, Kind::Rpc { untaken, progress }) => {
                self.load.untaken_bytes -= untaken.pop_front().map_or(0, |held| held.bytes());
                *progress = self.thread.now.get();
                self.read(id, cx);
            }
            (What::Taken, _) => {}
        }
    }

    /// Send the answers of a stream whose turn it is, and end it after the last.
    fn send_ordered(&mut self, id: u32, _: &mut Context<'_>) {
        loop {
            let Some(Stream { kind: Kind::StreamInfer(ordered), .. }) = self.streams.get_mut(&id) else {
                return;
            };
            let strict = ordered.strict;
            let Some((answer, request_id)) = ordered.take_settled() else {
                if ordered.waiting.is_empty() && ordered.half_closed {
                    self.finish_well(id, &HeaderMap::new());
                }
                return;
            };
            self.answered(1);
            match answer {
                Ok((message, held)) => self.send_payload(id, Payload::new(message, &self.unsent, Some(held))),
                Err((status, trailing)) if strict => self.finish(id, &status, &trailing),
                Err((status, _)) => self.send_message(id, stream_error(&status.message, &request_id)),
            }
        }
    }

    fn payload(&self, message: Bytes) -> Result<Payload, Status> {
        let held = hold(&self.thread.shared.outgoing, message.len())?;
        Ok(Payload::new(message, &self.unsent, Some(held)))
    }

    /// Send the one answer of a request and forget its stream.
    fn answer_unary(&mut self, id: u32, message: Bytes, trailing: &HeaderMap) {
        let payload = match self.payload(message) {
            Ok(payload) => payload,
            Err(status) => return self.finish(id, &status, trailing),
        };
        let Some(mut stream) = self.forget(id) else {
            return;
        };
        if let Some(mut send) = begin(&mut stream, &self.ok) {
            let _ = send.send_data(payload, false);
            let _ = send.send_trailers(good(trailing));
        }
    }

    fn send_message(&mut self, id: u32, message: Bytes) {
        match self.payload(message) {
            Ok(payload) => self.send_payload(id, payload),
            Err(status) => self.finish(id, &status, &HeaderMap::new()),
        }
    }

    fn send_payload(&mut self, id: u32, payload: Payload) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if let Some(mut send) = begin(stream, &self.ok) {
            let _ = send.send_data(payload, false);
            stream.send = Some(send);
        }
    }

    fn finish_well(&mut self, id: u32, trailing: &HeaderMap) {
        let Some(mut stream) = self.forget(id) else {
            return;
        };
        if let Some(mut send) = begin(&mut stream, &self.ok) {
            let _ = send.send_trailers(good(trailing));
        }
    }

    /// End a stream with an error. Requests of it that are under way are cancelled.
    fn finish(&mut self, id: u32, status: &Status, trailing: &HeaderMap) {
        let Some(mut stream) = self.forget(id) else {
            return;
        };
        self.cancel(id, &stream);
        match (stream.send.take(), stream.respond.take()) {
            (Some(mut send), _) => {
                let _ = send.send_trailers(bad(status, trailing));
            }
            (None, Some(mut respond)) => respond_with(&mut respond, &self.ok, status, trailing),
            (None, None) => {}
        }
    }

    fn forget(&mut self, id: u32) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        self.answered(stream.unanswered());
        self.load.untaken_bytes -= stream.untaken_bytes();
        Some(stream)
    }

    fn asked(&mut self, requests: usize) {
        self.load.calls += requests;
        self.thread.shared.unanswered.fetch_add(requests, Ordering::Relaxed);
    }

    fn answered(&mut self, requests: usize) {
        self.load.calls -= requests;
        self.thread.shared.answered(requests);
    }

    /// The peer has reset a stream, or it has become useless.
    fn drop_stream(&mut self, id: u32) {
        if let Some(stream) = self.forget(id) {
            self.cancel(id, &stream);
        }
    }

    /// Report the requests of a stream that nobody waits for any more. An RPC that has ended itself does not mind.
    fn cancel(&mut self, id: u32, stream: &Stream) {
        match &stream.kind {
            Kind::Infer { call, .. } if *call != 0 => self.arrived.cancels.push(*call),
            Kind::StreamInfer(ordered) => {
                let open =
                    ordered.waiting.iter().filter(|waiting| waiting.call != 0 && waiting.answer.is_none());
                self.arrived.cancels.extend(open.map(|waiting| waiting.call));
            }
            Kind::Rpc { .. } | Kind::Unary { submitted: true, .. } => {
                self.arrived.rpcs.push(Rpc::Gone { to: self.address(id, 0) });
            }
            _ => {}
        }
    }
}

/// Take an answer's bytes from what all answers may hold.
fn hold(budget: &Arc<Budget>, size_bytes: usize) -> Result<Held, Status> {
    budget.take(size_bytes).ok_or_else(|| Status {
        code: status::RESOURCE_EXHAUSTED,
        message: format!(
            "the answers that wait to be read hold {} bytes, which is the limit",
            budget.limit()
        ),
        pushback_ms: Some(200),
    })
}
