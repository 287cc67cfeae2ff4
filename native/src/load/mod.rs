//! The load generator: open and closed loops against a gRPC inference server.
//!
//! It shares the machine with the server that it measures, so what counts is what a request costs here: one thread
//! with one loop, no task, lock or timer per request, header blocks made once, bodies shared, and an HTTP/2 client
//! that does no more than this takes. (A client made of the crate h2 takes three times as long for a small request,
//! h2load twice; and what measures a server made of h2 had better be something else.) It knows neither tensors nor
//! protobuf; messages are bytes.
//!
//! - **Closed loop**: every connection keeps a fixed number of requests in flight.
//! - **Open loop**: Poisson arrivals at a given rate, whatever the server does. Latency counts from when a request
//!   was *due*, so a stall of the server, or of this generator, shows in full (no coordinated omission).
//!
//! What is sent and when depends on the configuration and its seed alone, in an open loop; in a closed loop the
//! sequence does, and the server sets the pace.

mod config;
mod connection;
mod driver;
mod frame;
mod hpack;
mod lane;
mod outbox;
mod outcome;
mod report;
mod schedule;
mod share;
mod socket;
mod streams;
mod sys;
mod tally;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use config::{Config, Invalid, Mode};
pub use outcome::Outcome;
pub use report::{Latency, Report, Snapshot};

use config::Plan;
use driver::{Control, Driver, Failure, Message};
use report::Seconds;
use share::Share;
use tally::Tally;

/// How often the caller may look for a reason to stop.
const TICK: Duration = Duration::from_millis(100);

/// Why there is no report.
#[derive(Debug)]
pub enum Error {
    Invalid(Invalid),
    /// No connection at the start, or none for too long later.
    NoConnection {
        target: String,
        why: String,
    },
    /// The observer wanted it.
    Stopped,
    /// A defect or the system's refusal.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Invalid(invalid) => invalid.fmt(f),
            Error::NoConnection { target, why } => write!(f, "cannot connect to {target}: {why}"),
            Error::Stopped => f.write_str("stopped"),
            Error::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

/// Who watches a run. Both are called from the thread that called `run`; `false` stops it.
pub trait Observer {
    /// Several times a second.
    fn tick(&mut self) -> bool;
    /// After each second.
    fn progress(&mut self, snapshot: &Snapshot) -> bool;
}

/// For those who only want the report.
impl Observer for () {
    fn tick(&mut self) -> bool {
        true
    }

    fn progress(&mut self, _: &Snapshot) -> bool {
        true
    }
}

/// Run to the end; gives the report and the sampled answers, as messages without gRPC's prefix.
///
/// # Errors
/// Everything in `Error`. An answer that is not OK is no error but a count in the report.
pub fn run(
    config: Config,
    bodies: &[Bytes],
    observer: &mut dyn Observer,
) -> Result<(Report, Vec<Vec<u8>>), Error> {
    let plan = Arc::new(Plan::new(config, bodies).map_err(Error::Invalid)?);
    let stop = AtomicBool::new(false);
    let (seconds, tallies) = thread::scope(|scope| {
        let (messages, inbox) = mpsc::channel();
        let mut begins = Vec::new();
        let threads: Vec<_> = (0..plan.config.threads)
            .map(|number| {
                let (begin_sender, begin) = mpsc::channel();
                begins.push(begin_sender);
                let control = Control { stop: &stop, messages: messages.clone(), begin };
                let (plan, stop) = (plan.clone(), &stop);
                scope.spawn(move || {
                    let share = Share::of(&plan, number);
                    let alone = StopsOthers(stop);
                    let tally = Driver::new(plan, share, control).run()?;
                    std::mem::forget(alone);
                    Ok(tally)
                })
            })
            .collect();
        drop(messages);
        let seconds = watch(&plan, &inbox, begins, observer, &stop);
        let ends: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        (seconds, ends)
    });
    let mut tally = Tally::new(plan.framed.len());
    let mut stopped = false;
    for ended in tallies {
        match ended
            .map_err(|_| Error::Failed("the load generator has failed; its message is above".into()))?
        {
            Ok(part) => tally.add(part),
            Err(Failure::Stopped) => stopped = true,
            Err(Failure::NoConnection(why)) => {
                return Err(Error::NoConnection { target: plan.target.to_string(), why });
            }
            Err(Failure::System(error)) => return Err(Error::Failed(error.to_string())),
        }
    }
    if stopped {
        return Err(Error::Stopped);
    }
    let report = Report::new(&plan, &tally, seconds);
    Ok((report, tally.samples.into_iter().map(|sample| sample.message).collect()))
}

/// A thread that fails or panics takes the others with it.
struct StopsOthers<'a>(&'a AtomicBool);

impl Drop for StopsOthers<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Collect what the threads tell until all have ended.
fn watch(
    plan: &Plan,
    inbox: &mpsc::Receiver<Message>,
    mut begins: Vec<mpsc::Sender<Instant>>,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Seconds {
    let mut seconds = Seconds::new(plan.config.threads);
    let mut connected = 0;
    let mut ticked = Instant::now();
    loop {
        let mut go_on = true;
        match inbox.recv_timeout(TICK.saturating_sub(ticked.elapsed())) {
            Ok(Message::Connected) => {
                connected += 1;
                if connected == plan.config.threads {
                    let now = Instant::now();
                    for begin in begins.drain(..) {
                        let _ = begin.send(now); // one that has failed since tells so when it is joined
                    }
                }
            }
            Ok(Message::Second(part)) => {
                if let Some(whole) = seconds.add(*part) {
                    go_on = observer.progress(whole);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            go_on &= observer.tick();
        }
        if !go_on {
            stop.store(true, Ordering::Relaxed);
        }
        if stop.load(Ordering::Relaxed) {
            begins.clear(); // wakes those who wait for the others' connections
        }
    }
    seconds
}
