//! What a run found out, as it goes out in JSON.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::config::{Config, Mode, Plan};
use super::outcome::Outcome;
use super::tally::{Second, Tally};

/// Microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    #[serde(rename = "p99.9")]
    pub p999: f64,
    pub max: f64,
}

impl Latency {
    /// None of no answer at all.
    pub(super) fn of(latency: &Histogram<u64>) -> Option<Latency> {
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |quantile| us(latency.value_at_quantile(quantile).min(latency.max()));
        (!latency.is_empty()).then(|| Latency {
            count: latency.len(),
            mean: latency.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: us(latency.max()),
        })
    }
}

/// One second of the run. `second` counts from the start of the window; those of the warm-up are negative.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    pub second: i64,
    pub requests_per_s: f64,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub unexpected: u64,
    /// At the end of the second.
    pub in_flight: usize,
}

impl Snapshot {
    fn of(second: &Second) -> Snapshot {
        let latency = Latency::of(&second.latency);
        Snapshot {
            second: second.index,
            requests_per_s: second.ok as f64,
            p50_us: latency.as_ref().map(|latency| latency.p50),
            p99_us: latency.as_ref().map(|latency| latency.p99),
            unexpected: second.unexpected,
            in_flight: second.in_flight,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Cancelled {
    /// Reset before their answer came.
    pub sent: u64,
    /// Answered before they were to be reset; not among the outcomes, and in no latency.
    pub answered_first: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Malformed {
    pub sent: u64,
    /// As wanted: INVALID_ARGUMENT.
    pub rejected: u64,
    pub outcomes: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Unexpected {
    pub outcome: String,
    /// The server's grpc-message.
    pub message: String,
    pub count: u64,
}

/// The OK answers to one body. Their sizes differ where answers do.
#[derive(Clone, Debug, Serialize)]
pub struct Body {
    pub size_bytes: usize,
    pub malformed: bool,
    pub ok: u64,
    pub answer_bytes_min: Option<u64>,
    pub answer_bytes_max: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct WarmUp {
    pub unexpected: u64,
}

/// How far the load was from the plan.
#[derive(Clone, Debug, Serialize)]
pub struct Schedule {
    /// Started over 1 ms after they were due.
    pub late_starts: u64,
    pub late_start_max_us: f64,
    /// Due while there was no room for them.
    pub held_back: u64,
    /// Due within the window, and given up.
    pub never_started: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Connections {
    /// How many requests the server allows at once on one connection; None: any number.
    pub max_streams: Option<usize>,
    pub lost: u64,
    pub last_failure: Option<String>,
}

/// What the generator itself took.
#[derive(Clone, Debug, Serialize)]
pub struct Generator {
    pub cpu_us_per_request: f64,
    /// Of one processor; near the number of threads, it is the generator that is measured.
    pub cpu_share: f64,
}

/// A request counts if it was due within the window, whenever its answer came.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// OK answers that came within the window, over its length.
    pub requests_per_s: f64,
    pub window_s: f64,
    /// How many requests count.
    pub requests: u64,
    /// {outcome: how many}, of requests neither malformed nor cancelled.
    pub outcomes: BTreeMap<String, u64>,
    /// Of OK answers to requests neither malformed nor cancelled, from when they were due.
    pub latency_us: Option<Latency>,
    /// How many requests ended otherwise than they should.
    pub unexpected: u64,
    pub errors: Vec<Unexpected>,
    pub cancelled: Cancelled,
    pub malformed: Malformed,
    /// Messages with gRPC's prefix.
    pub sent_bytes: u64,
    /// Messages without it.
    pub received_bytes: u64,
    pub bodies: Vec<Body>,
    /// The body of each answer that is handed back.
    pub sampled_bodies: Vec<usize>,
    /// All requests that were sent, also in the warm-up, and how many had OK answers.
    pub sent_in_all: u64,
    pub ok_in_all: u64,
    pub warm_up: WarmUp,
    pub schedule: Option<Schedule>,
    pub connections: Connections,
    pub generator: Generator,
    pub series: Vec<Snapshot>,
    pub config: Config,
}

impl Report {
    pub(super) fn new(plan: &Plan, tally: &Tally, seconds: Seconds) -> Report {
        let window_s = window_s(plan, tally);
        let plain: u64 = tally.plain.values().sum();
        let malformed: u64 = tally.malformed.values().sum();
        let good = plan.mix.good;
        let open = matches!(plan.config.mode, Mode::Open { .. });
        let errors = tally.errors.iter().map(|((outcome, message), count)| Unexpected {
            outcome: outcome.to_string(),
            message: message.clone(),
            count: *count,
        });
        let bodies = plan.framed.iter().zip(&tally.answers).enumerate().map(|(at, (framed, answers))| Body {
            size_bytes: framed.len() - 5,
            malformed: at >= good,
            ok: answers.ok,
            answer_bytes_min: (answers.ok > 0).then_some(answers.least_bytes),
            answer_bytes_max: (answers.ok > 0).then_some(answers.most_bytes),
        });
        Report {
            requests_per_s: tally.ok_in_window as f64 / window_s.max(1e-9),
            window_s,
            requests: plain + malformed + tally.cancelled + tally.answered_before_cancel,
            outcomes: named(&tally.plain),
            latency_us: Latency::of(&tally.latency),
            unexpected: tally.unexpected,
            errors: errors.collect(),
            cancelled: Cancelled { sent: tally.cancelled, answered_first: tally.answered_before_cancel },
            malformed: Malformed {
                sent: malformed,
                rejected: tally.malformed.get(&Outcome::INVALID_ARGUMENT).copied().unwrap_or_default(),
                outcomes: named(&tally.malformed),
            },
            sent_bytes: tally.sent_bytes,
            received_bytes: tally.received_bytes,
            bodies: bodies.collect(),
            sampled_bodies: tally.samples.iter().map(|sample| sample.body).collect(),
            sent_in_all: tally.started,
            ok_in_all: tally.ok_in_all,
            warm_up: WarmUp { unexpected: tally.unexpected_in_warm_up },
            schedule: open.then(|| Schedule {
                late_starts: tally.late_starts,
                late_start_max_us: tally.late_start_max_ns as f64 / 1e3,
                held_back: tally.held_back,
                never_started: tally.never_started,
            }),
            connections: Connections {
                max_streams: Some(tally.max_streams).filter(|most| *most < u32::MAX as usize),
                lost: tally.connections_lost,
                last_failure: tally.last_loss.clone(),
            },
            generator: Generator {
                cpu_us_per_request: tally.cpu_ns as f64 / 1e3 / (tally.cpu_requests as f64).max(1.0),
                cpu_share: tally.cpu_ns as f64 / (tally.cpu_wall_ns as f64).max(1.0),
            },
            series: seconds.within(window_s),
            config: plan.config.clone(),
        }
    }
}

fn window_s(plan: &Plan, tally: &Tally) -> f64 {
    let until_last_ns = tally.last_answer_ns.saturating_sub(plan.window_start_ns);
    plan.config.duration_s.unwrap_or(until_last_ns as f64 / 1e9)
}

fn named(counts: &BTreeMap<Outcome, u64>) -> BTreeMap<String, u64> {
    let mut named = BTreeMap::new();
    for (outcome, count) in counts {
        *named.entry(outcome.to_string()).or_default() += count;
    }
    named
}

/// The seconds as the threads hand them over. A whole one keeps no histogram: a run may be long.
pub(super) struct Seconds {
    threads: usize,
    parts: BTreeMap<i64, (Second, usize)>, // what some threads have handed over, and how many
    whole: BTreeMap<i64, Snapshot>,
}

impl Seconds {
    pub(super) fn new(threads: usize) -> Self {
        Seconds { threads, parts: BTreeMap::new(), whole: BTreeMap::new() }
    }

    /// Gives the second if all threads have handed it over.
    pub(super) fn add(&mut self, part: Second) -> Option<&Snapshot> {
        let index = part.index;
        let (sum, parts) = self.parts.entry(index).or_insert_with(|| (Second::new(index), 0));
        sum.add(&part);
        *parts += 1;
        if *parts < self.threads {
            return None;
        }
        let (sum, _) = self.parts.remove(&index)?;
        Some(self.whole.entry(index).or_insert(Snapshot::of(&sum)))
    }

    /// Those of a window of this length; the last one may be shorter. Where a number of requests ends the run, some
    /// threads end earlier than others.
    fn within(mut self, window_s: f64) -> Vec<Snapshot> {
        for (index, (sum, _)) in self.parts {
            self.whole.insert(index, Snapshot::of(&sum));
        }
        let within =
            self.whole.into_values().filter(|each| each.second >= 0 && (each.second as f64) < window_s);
        within
            .map(|each| {
                let length_s = (window_s - each.second as f64).min(1.0);
                Snapshot { requests_per_s: each.requests_per_s / length_s, ..each }
            })
            .collect()
    }
}
