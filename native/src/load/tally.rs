//! What is counted, by one thread or by all together.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::connection::Finished;
use super::outcome::Outcome;
use super::schedule::Kind;

const FINEST_NS: u64 = 64;
const LONGEST_NS: u64 = 1 << 42; // over an hour
const MAX_ERRORS: usize = 16;
const MAX_ERROR_CHARS: usize = 300;

/// Latencies in ns, with three significant digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(FINEST_NS, LONGEST_NS, 3).expect("the bounds are constants that fit")
}

/// The good answers to one body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answers {
    pub(super) ok: u64,
    pub(super) least_bytes: u64,
    pub(super) most_bytes: u64,
}

impl Answers {
    const NONE: Answers = Answers { ok: 0, least_bytes: u64::MAX, most_bytes: 0 };

    fn add(&mut self, other: Answers) {
        self.ok += other.ok;
        self.least_bytes = self.least_bytes.min(other.least_bytes);
        self.most_bytes = self.most_bytes.max(other.most_bytes);
    }
}

/// An answer that is handed back.
pub(super) struct Sample {
    pub(super) body: usize,
    pub(super) message: Vec<u8>,
}

/// One second of the run, counted from the start of the window; the warm-up's are negative.
pub(super) struct Second {
    pub(super) index: i64,
    pub(super) ok: u64,
    pub(super) unexpected: u64,
    pub(super) in_flight: usize,
    pub(super) latency: Histogram<u64>,
}

impl Second {
    pub(super) fn new(index: i64) -> Self {
        Second { index, ok: 0, unexpected: 0, in_flight: 0, latency: histogram() }
    }

    pub(super) fn add(&mut self, other: &Second) {
        self.ok += other.ok;
        self.unexpected += other.unexpected;
        self.in_flight += other.in_flight;
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
    }
}

/// Requests are *measured* if they were intended within the window; without a note, measured ones are counted.
pub(super) struct Tally {
    pub(super) latency: Histogram<u64>, // of OK answers to plain requests
    pub(super) plain: BTreeMap<Outcome, u64>,
    pub(super) malformed: BTreeMap<Outcome, u64>,
    pub(super) cancelled: u64,
    pub(super) answered_before_cancel: u64,
    pub(super) unexpected: u64,
    pub(super) answers: Vec<Answers>, // by body
    pub(super) errors: BTreeMap<(Outcome, String), u64>,
    pub(super) samples: Vec<Sample>,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    /// OK answers that came within the window, of whatever request.
    pub(super) ok_in_window: u64,
    pub(super) last_answer_ns: u64,
    /// All requests, also those of the warm-up.
    pub(super) started: u64,
    pub(super) finished: u64,
    pub(super) ok_in_all: u64,
    pub(super) unexpected_in_warm_up: u64,
    pub(super) late_starts: u64,
    pub(super) late_start_max_ns: u64,
    pub(super) held_back: u64,
    pub(super) never_started: u64,
    pub(super) connections_lost: u64,
    pub(super) last_loss: Option<String>,
    pub(super) max_streams: usize,
    /// The generator's own time, and what it did in it.
    pub(super) cpu_ns: u64,
    pub(super) cpu_wall_ns: u64,
    pub(super) cpu_requests: u64,
}

impl Tally {
    pub(super) fn new(bodies: usize) -> Self {
        Tally {
            latency: histogram(),
            plain: BTreeMap::new(),
            malformed: BTreeMap::new(),
            cancelled: 0,
            answered_before_cancel: 0,
            unexpected: 0,
            answers: vec![Answers::NONE; bodies],
            errors: BTreeMap::new(),
            samples: Vec::new(),
            sent_bytes: 0,
            received_bytes: 0,
            ok_in_window: 0,
            last_answer_ns: 0,
            started: 0,
            finished: 0,
            ok_in_all: 0,
            unexpected_in_warm_up: 0,
            late_starts: 0,
            late_start_max_ns: 0,
            held_back: 0,
            never_started: 0,
            connections_lost: 0,
            last_loss: None,
            max_streams: 0,
            cpu_ns: 0,
            cpu_wall_ns: 0,
            cpu_requests: 0,
        }
    }

    /// Count a request that ended at this time, which is `warm` after the warm-up and in no `second` after the
    /// window.
    pub(super) fn take(&mut self, finished: Finished, at_ns: u64, warm: bool, second: Option<&mut Second>) {
        let Finished { ticket, ended } = finished;
        let latency_ns = at_ns.saturating_sub(ticket.intended_ns);
        let ok = ended.outcome == Outcome::OK;
        let wanted = is_wanted(ticket.kind, ended.outcome);
        self.finished += 1;
        self.ok_in_all += u64::from(ok);
        if let Some(second) = second {
            self.ok_in_window += u64::from(ok && warm);
            second.ok += u64::from(ok);
            second.unexpected += u64::from(!wanted);
            if ok && ticket.kind == Kind::Plain {
                second.latency.saturating_record(latency_ns);
            }
        }
        if let Some(message) = ended.kept {
            self.samples.push(Sample { body: ticket.body, message });
        }
        if !wanted {
            self.take_error(ended.outcome, ended.grpc_message.unwrap_or_default());
        }
        if !ticket.measured {
            self.unexpected_in_warm_up += u64::from(!wanted);
            return;
        }
        self.last_answer_ns = self.last_answer_ns.max(at_ns);
        self.unexpected += u64::from(!wanted);
        self.received_bytes += ended.message_bytes;
        if ok {
            let size = ended.message_bytes;
            self.answers[ticket.body].add(Answers { ok: 1, least_bytes: size, most_bytes: size });
        }
        match ticket.kind {
            Kind::Cancelled { .. } if ended.outcome == Outcome::Cancelled => self.cancelled += 1,
            Kind::Cancelled { .. } if ok => self.answered_before_cancel += 1,
            Kind::Malformed => *self.malformed.entry(ended.outcome).or_default() += 1,
            _ => {
                if ok {
                    self.latency.saturating_record(latency_ns);
                }
                *self.plain.entry(ended.outcome).or_default() += 1;
            }
        }
    }

    fn take_error(&mut self, outcome: Outcome, message: String) {
        let message: String = message.chars().take(MAX_ERROR_CHARS).collect();
        let key = (outcome, message);
        if self.errors.len() < MAX_ERRORS || self.errors.contains_key(&key) {
            *self.errors.entry(key).or_default() += 1;
        }
    }

    /// Add what another thread counted.
    pub(super) fn add(&mut self, other: Tally) {
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
        for (counts, others) in [(&mut self.plain, other.plain), (&mut self.malformed, other.malformed)] {
            for (outcome, count) in others {
                *counts.entry(outcome).or_default() += count;
            }
        }
        for (mine, theirs) in self.answers.iter_mut().zip(other.answers) {
            mine.add(theirs);
        }
        for (key, count) in other.errors {
            *self.errors.entry(key).or_default() += count;
        }
        self.samples.extend(other.samples);
        self.cancelled += other.cancelled;
        self.answered_before_cancel += other.answered_before_cancel;
        self.unexpected += other.unexpected;
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.ok_in_window += other.ok_in_window;
        self.last_answer_ns = self.last_answer_ns.max(other.last_answer_ns);
        self.started += other.started;
        self.finished += other.finished;
        self.ok_in_all += other.ok_in_all;
        self.unexpected_in_warm_up += other.unexpected_in_warm_up;
        self.late_starts += other.late_starts;
        self.late_start_max_ns = self.late_start_max_ns.max(other.late_start_max_ns);
        self.held_back += other.held_back;
        self.never_started += other.never_started;
        self.connections_lost += other.connections_lost;
        self.last_loss = self.last_loss.take().or(other.last_loss);
        self.max_streams = self.max_streams.max(other.max_streams);
        self.cpu_ns += other.cpu_ns;
        self.cpu_wall_ns = self.cpu_wall_ns.max(other.cpu_wall_ns);
        self.cpu_requests += other.cpu_requests;
    }
}

fn is_wanted(kind: Kind, outcome: Outcome) -> bool {
    match kind {
        Kind::Plain => outcome == Outcome::OK,
        Kind::Malformed => outcome == Outcome::INVALID_ARGUMENT,
        Kind::Cancelled { .. } => matches!(outcome, Outcome::OK | Outcome::Cancelled),
    }
}
