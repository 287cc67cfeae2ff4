//! How many bytes requests may hold together, and what holds them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// A bound on bytes that several holders share. Never exceeded.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    held: AtomicUsize,
}

impl Budget {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Budget { limit, held: AtomicUsize::new(0) })
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Take `bytes` of it, given back when the result is dropped; None where they are not left.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.limit {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        Some(Held { budget: self.clone(), bytes })
    }
}

/// Bytes taken of a budget.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Held {
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_exceeded_and_comes_back() {
        let budget = Budget::new(10);
        let first = budget.take(6);
        assert!(first.is_some() && budget.take(5).is_none());
        assert!(budget.take(4).is_some());
        drop(first);
        assert_eq!(budget.held(), 0);
    }
}
