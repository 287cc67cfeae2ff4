//! An answer's bytes on their way, counted until they have left.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use bytes::{Buf, Bytes};

use super::budget::Held;

/// Answer bytes that have not left yet, of one connection.
pub struct Unsent {
    pub answers: Cell<usize>,
    pub bytes: Cell<usize>,
    /// When something left last, or the first of these was put here.
    pub progress: Cell<Instant>,
    pub now: Rc<Cell<Instant>>,
}

impl Unsent {
    pub fn new(now: Rc<Cell<Instant>>) -> Self {
        Unsent { answers: Cell::new(0), bytes: Cell::new(0), progress: Cell::new(now.get()), now }
    }
}

/// An answer's bytes on their way; counted until they have left.
pub struct Payload {
    pub bytes: Bytes,
    pub unsent: Rc<Unsent>,
    pub _held: Option<Held>,
}

impl Payload {
    pub fn new(bytes: Bytes, unsent: &Rc<Unsent>, held: Option<Held>) -> Self {
        if unsent.answers.get() == 0 {
            unsent.progress.set(unsent.now.get());
        }
        unsent.answers.set(unsent.answers.get() + 1);
        unsent.bytes.set(unsent.bytes.get() + bytes.len());
        Payload { bytes, unsent: unsent.clone(), _held: held }
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.unsent.bytes.set(self.unsent.bytes.get() - count);
        self.unsent.progress.set(self.unsent.now.get());
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        let unsent = &self.unsent;
        unsent.answers.set(unsent.answers.get() - 1);
        unsent.bytes.set(unsent.bytes.get() - self.bytes.len());
        unsent.progress.set(unsent.now.get());
    }
}
