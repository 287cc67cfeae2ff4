//! The I/O thread, what it hands to the gateway, and what the gateway hands to it.
//!
//! Requests are collected and announced by one eventfd: written when the first of a burst arrives, read when the
//! gateway takes them all. Answers go the other way in lists, with one wake-up. Neither side ever waits for the
//! other.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::RawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::budget::{Budget, Held};
use super::event::Event;
use super::listener::{self, Bound};
use super::mailbox::Mailbox;
use crate::grpc::framing::Message;
use crate::grpc::status::Status;
use crate::request::{Reader, Request};

/// Where and how to listen, and what bounds it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub host: String,
    pub port: u16,
    /// Path of an additional Unix socket, '' for none.
    pub unix: String,
    /// Listening sockets to take over instead of opening any, TCP or Unix.
    pub fds: Vec<RawFd>,
    pub tls: Option<TlsFiles>,
    pub max_message_bytes: usize,
    /// What requests may hold together; answers that wait to be sent may hold as much again.
    pub max_held_bytes: usize,
    pub max_concurrent_streams: u32,
    /// 0: connections may stay for ever.
    pub max_connection_age_s: f64,
    pub keepalive_s: f64,
    pub keepalive_timeout_s: f64,
    /// Full method names, `/package.Service/Method`, that are answered by the gateway's servicers.
    pub unary: Vec<String>,
    pub streams: Vec<String>,
}

/// Files in PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    pub certificate: String,
    pub key: String,
    /// Clients must present a certificate that this authority has signed; '' for any client.
    pub client_ca: String,
}

/// Which request an answer belongs to: the connection, its stream, and the message's number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub connection: u64,
    pub stream: u32,
    pub message: u32,
}

/// What a request said before its first message.
#[derive(Debug)]
pub struct Head {
    pub headers: HeaderMap,
    pub peer: Arc<str>,
}

/// A request for inference.
#[derive(Debug)]
pub struct Call {
    pub id: u64,
    pub to: Address,
    pub request: Request,
    pub streamed: bool,
    /// CLOCK_MONOTONIC.
    pub arrived_ns: u64,
    pub deadline_ns: Option<u64>,
    pub head: Arc<Head>,
    pub size_bytes: usize,
    pub held: Held,
}

/// What happened to an RPC that the gateway's servicers answer.
#[derive(Debug)]
pub enum Rpc {
    Unary { to: Address, path: String, message: Vec<u8>, head: Arc<Head>, held: Held },
    Opened { to: Address, path: String },
    Message { to: Address, message: Vec<u8> },
    HalfClosed { to: Address },
    Gone { to: Address },
}

impl Rpc {
    fn to(&self) -> Address {
        match self {
            Rpc::Unary { to, .. }
            | Rpc::Opened { to, .. }
            | Rpc::Message { to, .. }
            | Rpc::HalfClosed { to }
            | Rpc::Gone { to } => *to,
        }
    }
}

/// Everything that arrived since the gateway last asked.
#[derive(Debug, Default)]
pub struct Arrived {
    pub calls: Vec<Call>,
    pub cancels: Vec<u64>,
    pub rpcs: Vec<Rpc>,
    pub warnings: Vec<String>,
}

impl Arrived {
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.cancels.is_empty() && self.rpcs.is_empty() && self.warnings.is_empty()
    }

    fn append(&mut self, other: &mut Arrived) {
        self.calls.append(&mut other.calls);
        self.cancels.append(&mut other.cancels);
        self.rpcs.append(&mut other.rpcs);
        self.warnings.append(&mut other.warnings);
    }

    /// Forget what came and went before anybody looked: to ask and to take it back at once costs the peer little.
    fn forget_what_went(&mut self) {
        if !self.cancels.is_empty() {
            let mut gone: HashSet<u64> = self.cancels.iter().copied().collect();
            self.calls.retain(|call| !gone.remove(&call.id));
            self.cancels.retain(|id| gone.contains(id));
        }
        let gone = self.rpcs.iter().filter(|rpc| matches!(rpc, Rpc::Gone { .. })).map(Rpc::to);
        let gone: HashSet<Address> = gone.collect();
        if !gone.is_empty() {
            let began = self.rpcs.iter().filter(|rpc| matches!(rpc, Rpc::Opened { .. } | Rpc::Unary { .. }));
            let both: HashSet<Address> = began.map(Rpc::to).filter(|to| gone.contains(to)).collect();
            self.rpcs.retain(|rpc| !both.contains(&rpc.to()));
        }
    }
}

/// What the gateway sends.
#[derive(Debug)]
pub enum What {
    /// The answer to a call, framed; with the trailing metadata of its stream.
    Answer { message: Bytes, trailing: Arc<HeaderMap> },
    /// The answer to a call, or the end of an RPC, that is an error.
    Error { status: Status, trailing: Arc<HeaderMap> },
    /// A message of an RPC, framed.
    Message(Bytes),
    /// The good end of an RPC.
    End,
    /// The gateway has taken a message of an RPC.
    Taken,
    /// A compressed message that has been decompressed.
    Inflated(Result<Message, Status>),
}

#[derive(Debug)]
pub struct Outgoing {
    pub to: Address,
    pub what: What,
}

/// How calls are answered.
#[derive(Debug)]
pub enum Answering {
    Gateway,
    /// With this message at once, without being looked at: the floor that a gateway can be compared with.
    Echo(Bytes),
}

/// What both sides share.
#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub answering: Answering,
    pub incoming: Arc<Budget>,
    pub outgoing: Arc<Budget>,
    arrived: Mutex<Arrived>,
    event: Event,
    outbox: Mutex<Vec<Outgoing>>,
    wake: Notify,
    /// Set once: connections are asked to go away.
    pub draining: AtomicBool,
    /// No new connections.
    pub deaf: AtomicBool,
    closing: AtomicBool,
    /// Requests that are not answered; streams that stay open without any do not count.
    pub unanswered: AtomicUsize,
    pub connections: AtomicUsize,
    pub accepted: AtomicU64,
    /// Connections that were closed because of what the peer did.
    pub refused: AtomicU64,
    next_call: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // nothing is left half done where a panic could poison these
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Hand over what has arrived, and wake the gateway if it does not know of anything yet.
    pub fn deliver(&self, arrived: &mut Arrived) {
        if arrived.is_empty() {
            return;
        }
        let mut queue = lock(&self.arrived);
        let first = queue.is_empty();
        queue.append(arrived);
        drop(queue);
        if first {
            self.event.set();
        }
    }

    /// Return everything that has arrived.
    pub fn take(&self) -> Arrived {
        self.event.clear();
        let mut arrived = std::mem::take(&mut *lock(&self.arrived));
        arrived.forget_what_went();
        arrived
    }

    pub fn event_fd(&self) -> RawFd {
        self.event.fd()
    }

    /// Send these answers.
    pub fn send(&self, mut answers: Vec<Outgoing>) {
        lock(&self.outbox).append(&mut answers);
        self.wake.notify_one();
    }

    pub fn next_call(&self) -> u64 {
        self.next_call.fetch_add(1, Ordering::Relaxed)
    }

    /// Count requests that are answered or gone. Whoever drains hears of the last one.
    pub fn answered(&self, requests: usize) {
        let before = self.unanswered.fetch_sub(requests, Ordering::AcqRel);
        if before == requests && self.draining.load(Ordering::Acquire) {
            self.event.set();
        }
    }

    /// Count a connection that has gone. Whoever drains hears of the last one.
    pub fn disconnected(&self) {
        if self.connections.fetch_sub(1, Ordering::AcqRel) == 1 && self.draining.load(Ordering::Acquire) {
            self.event.set();
        }
    }

    /// Ask every connection to go away once its requests are answered. `deaf`: take no new ones either.
    pub fn drain(&self, deaf: bool) {
        self.draining.store(true, Ordering::Release);
        if deaf {
            self.deaf.store(true, Ordering::Release);
        }
        self.wake.notify_one();
    }
}

pub fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// What belongs to the I/O thread alone.
pub struct Thread {
    pub shared: Arc<Shared>,
    pub reader: RefCell<Reader>,
    pub peers: RefCell<HashMap<u64, Rc<Mailbox>>>,
    /// Updated at every wake-up and at least each second: for time limits, not for measuring.
    pub now: Rc<Cell<Instant>>,
    next_connection: Cell<u64>,
}

impl Thread {
    pub fn next_connection(&self) -> u64 {
        let id = self.next_connection.get();
        self.next_connection.set(id + 1);
        id
    }
}

/// A running server: owns its thread.
pub struct Server {
    pub shared: Arc<Shared>,
    bound: String,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Start a server; it listens when this returns.
    pub fn start(config: Config, answering: Answering) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            incoming: Budget::new(config.max_held_bytes),
            outgoing: Budget::new(config.max_held_bytes),
            answering,
            arrived: Mutex::default(),
            event: Event::new()?,
            outbox: Mutex::default(),
            wake: Notify::new(),
            draining: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            unanswered: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            next_call: AtomicU64::new(1),
            config,
        });
        let (tell, told) = mpsc::channel();
        let theirs = shared.clone();
        let thread = thread::Builder::new().name("crossgate-io".into()).spawn(move || {
            // connections guard themselves; without this thread the process would only pretend to serve
            if catch_unwind(AssertUnwindSafe(|| run(theirs, &tell))).is_err() {
                std::process::abort();
            }
        })?;
        let bound = told.recv().unwrap_or_else(|_| Err(io::Error::other("the I/O thread ended")));
        match bound {
            Ok(bound) => Ok(Server { shared, bound, thread: Some(thread) }),
            Err(error) => {
                let _ = thread.join();
                Err(error)
            }
        }
    }

    /// The TCP address, `host:port`.
    pub fn address(&self) -> &str {
        &self.bound
    }

    /// End everything at once.
    pub fn close(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}

fn run(shared: Arc<Shared>, tell: &mpsc::Sender<io::Result<String>>) {
    // decompressing is the only thing that blocks
    let built = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    let thread = Rc::new(Thread {
        shared: shared.clone(),
        reader: RefCell::new(Reader::new()),
        peers: RefCell::default(),
        now: Rc::new(Cell::new(Instant::now())),
        next_connection: Cell::new(1),
    });
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let Bound { listeners, address } = match listener::bind(&shared.config) {
            Ok(bound) => bound,
            Err(error) => {
                let _ = tell.send(Err(error));
                return;
            }
        };
        let accepting = listeners
            .into_iter()
            .map(|listener| tokio::task::spawn_local(listener.accept_forever(thread.clone())))
            .collect();
        tokio::task::spawn_local(tick(thread.clone()));
        let _ = tell.send(Ok(address));
        dispatch(&thread, accepting).await;
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
}

/// Give the gateway's answers to the connections, until the server is closed.
async fn dispatch(thread: &Thread, mut accepting: Vec<JoinHandle<()>>) {
    let shared = &thread.shared;
    let mut told = false;
    let mut answers = Vec::new();
    while !shared.closing.load(Ordering::Acquire) {
        shared.wake.notified().await;
        if shared.deaf.load(Ordering::Acquire) {
            // between two connections: what waits in the socket's queue is left to whoever shares it
            accepting.drain(..).for_each(|task| task.abort());
        }
        std::mem::swap(&mut answers, &mut *lock(&shared.outbox));
        let peers = thread.peers.borrow();
        for Outgoing { to, what } in answers.drain(..) {
            if let Some(mailbox) = peers.get(&to.connection) {
                mailbox.put(to, what);
            }
        }
        if shared.draining.load(Ordering::Acquire) && !told {
            told = true;
            peers.values().for_each(|mailbox| mailbox.drain());
            if shared.unanswered.load(Ordering::Acquire) == 0 {
                shared.event.set();
            }
        }
    }
}

/// Look after what takes seconds: keepalive, age, and what has stopped.
async fn tick(thread: Rc<Thread>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = Instant::now();
        thread.now.set(now);
        for mailbox in thread.peers.borrow().values() {
            mailbox.tick(now, &thread.shared.config);
        }
    }
}
