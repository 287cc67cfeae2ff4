//! How a connection's task is woken, and what for.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Instant;

use super::server::{Address, Config, What};

/// What others of the I/O thread leave for a connection's task.
pub struct Mailbox {
    pub answers: RefCell<Vec<(Address, What)>>,
    pub waker: RefCell<Option<Waker>>,
    pub draining: Cell<bool>,
    pub ticked: Cell<bool>,
    pub heard: Cell<Instant>,
    pub opened: Instant,
    /// Whether the task must look at the time.
    pub busy: Cell<bool>,
}

impl Mailbox {
    pub fn new(now: Instant, draining: bool) -> Self {
        Mailbox {
            answers: RefCell::default(),
            waker: RefCell::default(),
            draining: Cell::new(draining),
            ticked: Cell::new(false),
            heard: Cell::new(now),
            opened: now,
            busy: Cell::new(false),
        }
    }

    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    pub fn put(&self, to: Address, what: What) {
        let mut answers = self.answers.borrow_mut();
        answers.push((to, what));
        if answers.len() == 1 {
            self.wake();
        }
    }

    pub fn drain(&self) {
        self.draining.set(true);
        self.wake();
    }

    /// A second has passed.
    pub fn tick(&self, now: Instant, config: &Config) {
        let silent = config.keepalive_s > 0.0
            && now.duration_since(self.heard.get()).as_secs_f64() >= config.keepalive_s;
        let old = config.max_connection_age_s > 0.0
            && now.duration_since(self.opened).as_secs_f64() >= config.max_connection_age_s;
        if silent || old || self.busy.get() {
            self.ticked.set(true);
            self.wake();
        }
    }
}

/// Wakes a connection's task and says for which of its streams.
pub struct StreamWaker {
    pub stream: u32,
    pub ready: Arc<Ready>,
}

#[derive(Default)]
pub struct Ready {
    pub streams: Mutex<Vec<u32>>,
    pub task: Mutex<Option<Waker>>,
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let ready = &self.ready;
        ready.streams.lock().unwrap_or_else(PoisonError::into_inner).push(self.stream);
        if let Some(task) = &*ready.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }
}
