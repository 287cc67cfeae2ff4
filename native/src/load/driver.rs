//! One thread of a run: its connections, its share of the load, its counts.
//!
//! One loop does it all: wait for a socket or a point in time, read, count what has ended, start what is due,
//! write. A socket is read and written once in a round, whatever number of requests that concerns.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};

use super::config::{Mode, Plan};
use super::connection::Finished;
use super::lane::Lane;
use super::outcome::Outcome;
use super::schedule::{Arrivals, Kind, Requests};
use super::share::Share;
use super::streams::Ticket;
use super::sys;
use super::tally::{Second, Tally};

const SECOND_NS: u64 = 1_000_000_000;
/// How soon a request to stop is noticed, and how often a connection is looked after that is being made.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
const LOOK_AFTER: Duration = Duration::from_millis(2);
/// A start counts as late from here on.
const LATE_NS: u64 = 1_000_000;

/// Why a thread gave up.
#[derive(Debug)]
pub(super) enum Failure {
    /// Some connection could not be made at the start, or none for too long later.
    NoConnection(String),
    System(std::io::Error),
    Stopped,
}

pub(super) enum Message {
    Connected,
    Second(Box<Second>),
}

/// How a thread is told when to begin and when to stop, and tells how it goes.
pub(super) struct Control<'a> {
    pub(super) stop: &'a AtomicBool,
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) begin: mpsc::Receiver<Instant>,
}

pub(super) struct Driver<'a> {
    plan: Arc<Plan>,
    share: Share,
    control: Control<'a>,
    lanes: Vec<Lane>,
    descriptors: Vec<libc::pollfd>, // one for each lane
    requests: Requests,
    arrivals: Option<Arrivals>,
    began: Instant,
    next_lane: usize,
    cancellations: BinaryHeap<Reverse<(u64, usize, u32, u32)>>, // (when, lane, its epoch, stream)
    finished: Vec<Finished>,
    measured: u64, // requests that count, so far
    kept: usize,
    held_until_ns: u64, // arrivals up to here found no room
    blocked: bool,      // there is no room now: only an answer or a new connection makes some
    over_since_ns: Option<u64>,
    up_at: Instant,
    cpu_from: Option<(Duration, u64, u64)>, // processor time, time and finished requests at the window's start
    second: Second,
    tally: Tally,
}

impl<'a> Driver<'a> {
    pub(super) fn new(plan: Arc<Plan>, share: Share, control: Control<'a>) -> Self {
        let seed = plan.config.seed.wrapping_add((share.thread as u64) << 32);
        let now = Instant::now();
        Driver {
            lanes: (0..share.connections).map(|_| Lane::new(plan.clone())).collect(),
            descriptors: Vec::new(),
            requests: Requests::new(plan.mix.clone(), seed),
            // another sequence than that of the requests
            arrivals: (share.rate_per_s > 0.0).then(|| Arrivals::new(share.rate_per_s, !seed)),
            began: now,
            next_lane: 0,
            cancellations: BinaryHeap::new(),
            finished: Vec::new(),
            measured: 0,
            kept: 0,
            held_until_ns: 0,
            blocked: false,
            over_since_ns: None,
            up_at: now,
            cpu_from: None,
            second: Second::new(-(plan.window_start_ns.div_ceil(SECOND_NS) as i64)),
            tally: Tally::new(plan.framed.len()),
            plan,
            share,
            control,
        }
    }

    /// Run to the end of the plan.
    pub(super) fn run(mut self) -> Result<Tally, Failure> {
        sys::wake_exactly();
        self.connect()?;
        let _ = self.control.messages.send(Message::Connected);
        self.began = self.control.begin.recv().map_err(|_| Failure::Stopped)?;
        self.up_at = self.began;
        self.start();
        while !self.is_done() {
            self.turn()?;
        }
        self.close()
    }

    /// All connections, once; the first that fails ends the run.
    fn connect(&mut self) -> Result<(), Failure> {
        while !self.lanes.iter().all(Lane::is_up) {
            self.exchange(LOOK_AFTER)?;
            self.flush();
            if let Some(why) = self.lanes.iter().find_map(|lane| lane.failure.clone()) {
                return Err(Failure::NoConnection(why));
            }
        }
        self.tally.max_streams = self.lanes.iter().map(Lane::max_streams).min().unwrap_or_default();
        Ok(())
    }

    fn turn(&mut self) -> Result<(), Failure> {
        self.exchange(self.wait())?;
        let now_ns = self.now_ns();
        self.cancel_due(now_ns);
        self.start();
        self.close_seconds(now_ns);
        self.flush();
        self.check_connections()
    }

    /// Wait, read, and count what has ended.
    fn exchange(&mut self, wait: Duration) -> Result<(), Failure> {
        if self.control.stop.load(Ordering::Relaxed) {
            return Err(Failure::Stopped);
        }
        self.descriptors.clear();
        self.descriptors.extend(self.lanes.iter_mut().map(Lane::descriptor));
        sys::wait(&mut self.descriptors, wait).map_err(Failure::System)?;
        for at in 0..self.lanes.len() {
            let readable = self.descriptors[at].revents & !libc::POLLOUT != 0;
            let lane = &mut self.lanes[at];
            if readable || lane.needs_looking_after() || lane.in_flight() == 0 {
                let received = lane.receive(readable, &mut self.finished);
                self.settle(received);
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        for lane in &mut self.lanes {
            lane.flush(&mut self.finished);
        }
        self.settle(Instant::now());
    }

    fn wait(&self) -> Duration {
        let now_ns = self.now_ns();
        if self.has_room_to_fill() {
            return Duration::ZERO;
        }
        let mut next_ns = self.second_end_ns(now_ns);
        if let Some(Reverse((due_ns, ..))) = self.cancellations.peek() {
            next_ns = next_ns.min(*due_ns);
        }
        if let Some(arrivals) =
            self.arrivals.as_ref().filter(|_| !self.blocked && self.over_since_ns.is_none())
        {
            next_ns = next_ns.min(arrivals.next_ns());
        }
        let longest =
            if self.lanes.iter().any(Lane::needs_looking_after) { LOOK_AFTER } else { LONGEST_WAIT };
        Duration::from_nanos(next_ns.saturating_sub(now_ns)).min(longest)
    }

    /// In a closed loop, room that a cancellation has made just now.
    fn has_room_to_fill(&self) -> bool {
        let Mode::Closed { streams } = self.plan.config.mode else { return false };
        self.over_since_ns.is_none() && self.lanes.iter().any(|lane| lane.room(streams) > 0)
    }

    fn now_ns(&self) -> u64 {
        self.ns(Instant::now())
    }

    fn ns(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_nanos() as u64
    }

    fn in_flight(&self) -> usize {
        self.lanes.iter().map(Lane::in_flight).sum()
    }

    // -- starting ---

    fn start(&mut self) {
        let now_ns = self.now_ns();
        if self.measured >= self.share.requests {
            self.over_since_ns.get_or_insert(now_ns);
        }
        if self.arrivals.is_some() {
            self.start_due(now_ns);
        } else {
            self.fill(now_ns);
        }
    }

    /// Closed loop: every connection has its number in flight.
    fn fill(&mut self, now_ns: u64) {
        if now_ns >= self.plan.window_end_ns {
            self.over_since_ns.get_or_insert(now_ns);
        }
        let Mode::Closed { streams } = self.plan.config.mode else { return };
        for lane in 0..self.lanes.len() {
            for _ in 0..self.lanes[lane].room(streams) {
                if self.over_since_ns.is_some() {
                    return;
                }
                self.start_one(lane, now_ns, now_ns);
            }
        }
    }

    /// Open loop: what is due, as far as there is room; the rest stays due.
    fn start_due(&mut self, now_ns: u64) {
        let mut in_flight = self.in_flight();
        self.blocked = false;
        while self.over_since_ns.is_none() {
            let Some(due_ns) = self.arrivals.as_ref().map(Arrivals::next_ns) else { return };
            if due_ns >= self.plan.window_end_ns {
                self.over_since_ns = Some(now_ns);
                return;
            }
            if due_ns > now_ns {
                return;
            }
            let lane = if in_flight < self.share.max_in_flight { self.lane_with_room() } else { None };
            let Some(lane) = lane else {
                self.blocked = true;
                self.held_until_ns = now_ns;
                self.give_up_starting(now_ns);
                return;
            };
            self.start_one(lane, due_ns, now_ns);
            in_flight += 1;
            if let Some(arrivals) = &mut self.arrivals {
                arrivals.advance();
            }
        }
    }

    /// What is still due long after the window has ended will not be started any more.
    fn give_up_starting(&mut self, now_ns: u64) {
        let end_ns = self.plan.window_end_ns;
        if now_ns < end_ns.saturating_add(self.plan.answer_limit_ns) {
            return;
        }
        self.over_since_ns = Some(end_ns);
        while let Some(arrivals) = self.arrivals.as_mut().filter(|arrivals| arrivals.next_ns() < end_ns) {
            arrivals.advance();
            self.tally.never_started += 1;
        }
    }

    fn lane_with_room(&mut self) -> Option<usize> {
        let count = self.lanes.len();
        let found = (0..count).map(|step| (self.next_lane + step) % count);
        let lane = found.into_iter().find(|lane| self.lanes[*lane].room(usize::MAX) > 0)?;
        self.next_lane = (lane + 1) % count;
        Some(lane)
    }

    fn start_one(&mut self, lane: usize, intended_ns: u64, now_ns: u64) {
        let (kind, body) = self.requests.next();
        let measured = intended_ns >= self.plan.window_start_ns;
        let keep = kind == Kind::Plain && self.kept < self.share.samples;
        let ticket = Ticket { intended_ns, started_ns: now_ns, kind, body, measured, keep };
        let framed = &self.plan.framed[body];
        let Some(stream) = self.lanes[lane].start(ticket, framed) else { return };
        self.kept += usize::from(keep);
        self.tally.started += 1;
        if measured {
            self.tally.sent_bytes += framed.len() as u64;
            self.measured += 1;
            if self.measured == self.share.requests {
                self.over_since_ns = Some(now_ns);
            }
            let late_ns = now_ns - intended_ns;
            self.tally.late_start_max_ns = self.tally.late_start_max_ns.max(late_ns);
            self.tally.late_starts += u64::from(late_ns > LATE_NS);
            self.tally.held_back += u64::from(intended_ns <= self.held_until_ns && self.held_until_ns > 0);
        }
        if kind == (Kind::Cancelled { after_ns: 0 }) {
            // the reset leaves together with the request
            self.finished.extend(self.lanes[lane].cancel(stream, Outcome::Cancelled));
        } else if let Kind::Cancelled { after_ns } = kind {
            let epoch = self.lanes[lane].epoch;
            self.cancellations.push(Reverse((now_ns + after_ns, lane, epoch, stream)));
        }
    }

    // -- ending ---

    fn cancel_due(&mut self, now_ns: u64) {
        while let Some(&Reverse((due_ns, lane, epoch, stream))) = self.cancellations.peek() {
            if due_ns > now_ns {
                break;
            }
            self.cancellations.pop();
            if self.lanes[lane].epoch == epoch {
                self.finished.extend(self.lanes[lane].cancel(stream, Outcome::Cancelled));
            }
        }
        self.settle_at(now_ns);
    }

    fn settle(&mut self, at: Instant) {
        if !self.finished.is_empty() {
            self.settle_at(self.ns(at));
        }
    }

    fn settle_at(&mut self, at_ns: u64) {
        let (start_ns, end_ns) = (self.plan.window_start_ns, self.plan.window_end_ns);
        for finished in self.finished.drain(..) {
            if finished.ticket.keep && finished.ended.kept.is_none() {
                self.kept -= 1; // not OK: another one takes its place
            }
            let second = (at_ns < end_ns).then_some(&mut self.second);
            self.tally.take(finished, at_ns, at_ns >= start_ns, second);
        }
    }

    /// When the current second ends, or the window; after that nothing does.
    fn second_end_ns(&self, now_ns: u64) -> u64 {
        let window_end_ns = self.plan.window_end_ns;
        if now_ns >= window_end_ns {
            return u64::MAX;
        }
        let end_ns = self.plan.window_start_ns as i64 + (self.second.index + 1) * SECOND_NS as i64;
        window_end_ns.min(end_ns.max(0) as u64)
    }

    /// Hand over the seconds that are over; nothing belongs to a second after the window.
    fn close_seconds(&mut self, now_ns: u64) {
        if now_ns >= self.plan.window_start_ns && self.cpu_from.is_none() {
            self.cpu_from = Some((sys::thread_cpu(), now_ns, self.tally.finished));
        }
        let start_ns = self.plan.window_start_ns as i64;
        let until_ns = now_ns.min(self.plan.window_end_ns) as i64;
        while start_ns + (self.second.index + 1) * SECOND_NS as i64 <= until_ns {
            self.hand_over_second();
            self.expire(now_ns.saturating_sub(self.plan.answer_limit_ns));
        }
        if self
            .over_since_ns
            .is_some_and(|since_ns| now_ns >= since_ns.saturating_add(self.plan.answer_limit_ns))
        {
            self.expire(now_ns);
        }
    }

    fn hand_over_second(&mut self) {
        let next = Second::new(self.second.index + 1);
        let mut done = std::mem::replace(&mut self.second, next);
        done.in_flight = self.in_flight();
        let _ = self.control.messages.send(Message::Second(Box::new(done))); // nobody listens after a failure
    }

    fn expire(&mut self, started_before_ns: u64) {
        for lane in &mut self.lanes {
            lane.expire(started_before_ns, &mut self.finished);
        }
        self.settle(Instant::now());
    }

    fn check_connections(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        if self.lanes.iter().any(Lane::is_up) {
            self.up_at = now;
            return Ok(());
        }
        let limit = Duration::from_secs_f64(self.plan.config.reconnect_limit_s);
        if now - self.up_at < limit {
            return Ok(());
        }
        let why = self.lanes.iter().find_map(|lane| lane.failure.clone()).unwrap_or_default();
        Err(Failure::NoConnection(format!("all connections were lost and none came back: {why}")))
    }

    fn is_done(&self) -> bool {
        self.over_since_ns.is_some() && self.in_flight() == 0
    }

    fn close(mut self) -> Result<Tally, Failure> {
        let now_ns = self.now_ns();
        let (cpu, from_ns, finished) =
            self.cpu_from.unwrap_or((sys::thread_cpu(), now_ns, self.tally.finished));
        self.tally.cpu_ns = (sys::thread_cpu() - cpu).as_nanos() as u64;
        self.tally.cpu_wall_ns = now_ns - from_ns;
        self.tally.cpu_requests = self.tally.finished - finished;
        self.tally.connections_lost = self.lanes.iter().map(|lane| lane.lost).sum();
        self.tally.last_loss = self.lanes.iter_mut().find_map(|lane| lane.failure.take());
        let second_start_ns = self.plan.window_start_ns as i64 + self.second.index * SECOND_NS as i64;
        if second_start_ns < now_ns.min(self.plan.window_end_ns) as i64 {
            self.hand_over_second(); // a part of one
        }
        Ok(self.tally)
    }
}
