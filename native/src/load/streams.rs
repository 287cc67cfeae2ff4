//! The requests in flight on one connection, by their stream's number.

use std::collections::VecDeque;

use bytes::Bytes;

use super::outcome::Answer;
use super::schedule::Kind;

const NONE: u32 = u32::MAX;
const LAST_ID: u32 = (1 << 31) - 1;

/// What is remembered of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ticket {
    /// When it was to be sent; latency counts from here.
    pub(super) intended_ns: u64,
    pub(super) started_ns: u64,
    pub(super) kind: Kind,
    pub(super) body: usize,
    /// Whether it was intended within the window that counts.
    pub(super) measured: bool,
    /// Whether the answer's message is wanted.
    pub(super) keep: bool,
}

pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) ticket: Ticket,
    pub(super) unsent: Bytes,
    pub(super) window: i64,
    pub(super) answer: Answer,
}

/// Numbers are odd and rise, so a queue finds a stream without hashing.
pub(super) struct Streams {
    slots: Vec<Option<Stream>>,
    free: Vec<u32>,      // indices of `slots`
    open: VecDeque<u32>, // the slots of the streams from `first_id` on, NONE for those that have ended
    first_id: u32,
    next_id: u32,
}

impl Streams {
    pub(super) fn new() -> Self {
        Streams { slots: Vec::new(), free: Vec::new(), open: VecDeque::new(), first_id: 1, next_id: 1 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is no number left.
    pub(super) fn are_used_up(&self) -> bool {
        self.next_id >= LAST_ID
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.slots.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slots.iter_mut().flatten()
    }

    /// Gives the new stream's number; numbers must not be used up.
    pub(super) fn open(&mut self, ticket: Ticket, unsent: Bytes, window: i64) -> u32 {
        let id = self.next_id;
        self.next_id += 2;
        let stream = Stream { id, ticket, unsent, window, answer: Answer::new(ticket.keep) };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                (self.slots.len() - 1) as u32
            }
        };
        self.slots[slot as usize] = Some(stream);
        self.open.push_back(slot);
        id
    }

    /// Whether a stream of this number was ever opened.
    pub(super) fn knows(&self, id: u32) -> bool {
        id % 2 == 1 && id < self.next_id
    }

    /// None for a stream that has ended, or never was.
    pub(super) fn get(&mut self, id: u32) -> Option<&mut Stream> {
        let slot = self.open[self.place(id)?];
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Stream> {
        let place = self.place(id)?;
        let slot = self.open[place];
        let stream = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        self.open[place] = NONE;
        while self.open.front() == Some(&NONE) {
            self.open.pop_front();
            self.first_id += 2;
        }
        Some(stream)
    }

    fn place(&self, id: u32) -> Option<usize> {
        let place = (id.checked_sub(self.first_id)? / 2) as usize;
        (id % 2 == 1 && place < self.open.len()).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: Ticket =
        Ticket { intended_ns: 0, started_ns: 0, kind: Kind::Plain, body: 0, measured: true, keep: false };

    #[test]
    fn streams_are_found_until_they_are_removed_in_whatever_order() {
        let mut streams = Streams::new();
        let ids: Vec<u32> = (0..6).map(|_| streams.open(TICKET, Bytes::new(), 9)).collect();
        assert_eq!(ids, [1, 3, 5, 7, 9, 11]);
        for (left, id) in [(5, 5), (4, 1), (3, 11), (2, 3)] {
            assert_eq!(streams.remove(id).unwrap().id, id);
            assert!(streams.remove(id).is_none() && streams.get(id).is_none());
            assert_eq!((streams.len(), streams.iter().count()), (left, left));
        }
        assert_eq!(streams.open.len(), 3, "those before the first that is open are forgotten");
        assert_eq!(streams.open(TICKET, Bytes::new(), 9), 13);
        assert_eq!(streams.slots.len(), 6, "slots are used again");
        assert!([7, 9, 13].into_iter().all(|id| streams.get(id).is_some_and(|stream| stream.id == id)));
    }

    #[test]
    fn numbers_that_were_never_opened_are_unknown() {
        let mut streams = Streams::new();
        let id = streams.open(TICKET, Bytes::new(), 9);
        streams.remove(id);
        assert!(streams.knows(1));
        for id in [0, 2, 3, u32::MAX] {
            assert!(!streams.knows(id) && streams.get(id).is_none() && streams.remove(id).is_none());
        }
    }
}
