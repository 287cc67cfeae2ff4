//! One connection's place in a run: connected, used, lost, connected again.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{self, TryRecvError};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::config::Plan;
use super::connection::{Connection, Finished};
use super::outcome::Outcome;
use super::socket::Socket;
use super::streams::Ticket;

const INPUT_BYTES: usize = 1 << 18;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

enum State {
    Connecting { result: mpsc::Receiver<io::Result<Socket>>, since: Instant },
    Up(Box<Link>),
    Waiting { until: Instant },
}

struct Link {
    socket: Socket,
    connection: Connection,
    input: Vec<u8>,
    filled: usize,
    since: Instant,
}

pub(super) struct Lane {
    plan: Arc<Plan>,
    state: State,
    pause: Duration,
    /// Counts the connections, so that a stream's number is not taken for one of an earlier connection.
    pub(super) epoch: u32,
    /// Connections that were of use and then ended.
    pub(super) lost: u64,
    /// Why the last one ended or did not come to be.
    pub(super) failure: Option<String>,
}

impl Lane {
    pub(super) fn new(plan: Arc<Plan>) -> Self {
        let state = connecting(&plan);
        Lane { plan, state, pause: FIRST_PAUSE, epoch: 0, lost: 0, failure: None }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(&self.state, State::Up(link) if link.connection.greeted())
    }

    /// Whether something happens here without a descriptor that says so.
    pub(super) fn needs_looking_after(&self) -> bool {
        !self.is_up()
    }

    pub(super) fn max_streams(&self) -> usize {
        match &self.state {
            State::Up(link) => link.connection.room(usize::MAX) + link.connection.in_flight(),
            _ => 0,
        }
    }

    pub(super) fn room(&self, limit: usize) -> usize {
        match &self.state {
            State::Up(link) => link.connection.room(limit),
            _ => 0,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        match &self.state {
            State::Up(link) => link.connection.in_flight(),
            _ => 0,
        }
    }

    /// What to wait for; a negative descriptor is ignored.
    pub(super) fn descriptor(&mut self) -> libc::pollfd {
        let mut found = libc::pollfd { fd: -1, events: 0, revents: 0 };
        if let State::Up(link) = &mut self.state {
            found.fd = link.socket.as_raw_fd();
            found.events = libc::POLLIN;
            if !link.connection.outbox().is_empty() {
                found.events |= libc::POLLOUT;
            }
        }
        found
    }

    /// Start a request, for which there must be room; gives its stream.
    pub(super) fn start(&mut self, ticket: Ticket, framed: &Bytes) -> Option<u32> {
        match &mut self.state {
            State::Up(link) => Some(link.connection.start(ticket, framed)),
            _ => None,
        }
    }

    pub(super) fn cancel(&mut self, id: u32, outcome: Outcome) -> Option<Finished> {
        match &mut self.state {
            State::Up(link) => link.connection.cancel(id, outcome),
            _ => None,
        }
    }

    /// Cancel what was started before this time.
    pub(super) fn expire(&mut self, started_ns: u64, finished: &mut Vec<Finished>) {
        if let State::Up(link) = &mut self.state {
            let old = link.connection.older_than(started_ns);
            finished.extend(old.into_iter().filter_map(|id| link.connection.cancel(id, Outcome::Unanswered)));
        }
    }

    /// Read once if there is something to read, and look after connecting. Gives when the bytes were there.
    pub(super) fn receive(&mut self, readable: bool, finished: &mut Vec<Finished>) -> Instant {
        let now = Instant::now();
        let limit = self.plan.connect_limit();
        match &mut self.state {
            State::Up(link) => {
                let mut at = now;
                if let Err(why) = link.receive(readable, &mut at, finished) {
                    self.fail(why, now, finished);
                    return at;
                }
                if !link.connection.greeted() && now - link.since > limit {
                    self.fail("the server did not answer as an HTTP/2 server does".into(), now, finished);
                } else if link.connection.leaving() && link.connection.in_flight() == 0 {
                    self.epoch += 1;
                    self.state = connecting(&self.plan);
                }
                at
            }
            State::Connecting { result, since } => {
                match result.try_recv() {
                    Ok(Ok(socket)) => self.state = State::Up(Box::new(Link::new(socket, &self.plan, now))),
                    Ok(Err(error)) => self.fail(error.to_string(), now, finished),
                    Err(TryRecvError::Empty) if now - *since < limit => {}
                    Err(_) => self.fail("it took too long".into(), now, finished),
                }
                now
            }
            State::Waiting { until } => {
                if now >= *until {
                    self.state = connecting(&self.plan);
                }
                now
            }
        }
    }

    /// Write what can be written.
    pub(super) fn flush(&mut self, finished: &mut Vec<Finished>) {
        if let State::Up(link) = &mut self.state {
            if let Err(error) = link.connection.outbox().write_to(&mut link.socket) {
                self.fail(error.to_string(), Instant::now(), finished);
            }
        }
    }

    fn fail(&mut self, why: String, now: Instant, finished: &mut Vec<Finished>) {
        self.failure = Some(why);
        if let State::Up(link) = &mut self.state {
            link.connection.abandon(Outcome::Connection, finished);
            if link.connection.greeted() {
                self.lost += 1;
                self.pause = FIRST_PAUSE;
            }
        }
        self.epoch += 1;
        self.state = State::Waiting { until: now + self.pause };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

fn connecting(plan: &Plan) -> State {
    let result = Socket::connecting(&plan.target, plan.connect_limit());
    State::Connecting { result, since: Instant::now() }
}

impl Link {
    fn new(socket: Socket, plan: &Plan, since: Instant) -> Self {
        let connection = Connection::new(plan.headers());
        Link { socket, connection, input: vec![0; INPUT_BYTES], filled: 0, since }
    }

    fn receive(
        &mut self,
        readable: bool,
        at: &mut Instant,
        finished: &mut Vec<Finished>,
    ) -> Result<(), String> {
        if !readable {
            return Ok(());
        }
        let count = match self.socket.read(&mut self.input[self.filled..]) {
            Ok(0) => return Err("the server closed the connection".into()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error.to_string()),
        };
        *at = Instant::now();
        self.filled += count;
        if !self.connection.greeted() && self.input[..self.filled].starts_with(b"HTTP/1") {
            return Err("the server answers with HTTP/1".into());
        }
        let taken =
            self.connection.receive(&self.input[..self.filled], finished).map_err(|broken| broken.0)?;
        self.input.copy_within(taken..self.filled, 0);
        self.filled -= taken;
        Ok(())
    }
}
