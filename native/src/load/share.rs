//! What one thread does of a run.

use super::config::{Mode, Plan};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Share {
    pub(super) thread: usize,
    pub(super) connections: usize,
    /// 0 in a closed loop.
    pub(super) rate_per_s: f64,
    pub(super) max_in_flight: usize,
    /// Of the requests that count; without end where a duration ends the run.
    pub(super) requests: u64,
    pub(super) samples: usize,
}

impl Share {
    pub(super) fn of(plan: &Plan, thread: usize) -> Share {
        let config = &plan.config;
        let part = |whole: u64| {
            let threads = config.threads as u64;
            whole / threads + u64::from((thread as u64) < whole % threads)
        };
        let (rate_per_s, max_in_flight) = match config.mode {
            Mode::Open { rate_per_s, max_in_flight } => (rate_per_s, max_in_flight),
            Mode::Closed { .. } => (0.0, usize::MAX),
        };
        Share {
            thread,
            connections: part(config.connections as u64) as usize,
            rate_per_s: rate_per_s / config.threads as f64,
            max_in_flight: part(max_in_flight as u64) as usize,
            requests: config.requests.map_or(u64::MAX, part),
            samples: part(config.sample as u64) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_shares_of_all_threads_are_the_whole() {
        let json = r#"{"target": "a:1", "mode": {"open": {"rate_per_s": 900, "max_in_flight": 20}}, "requests": 100,
            "connections": 5, "threads": 3, "sample": 4}"#;
        let plan = Plan::new(serde_json::from_str(json).unwrap(), &[Bytes::from_static(b"x")]).unwrap();
        let shares: Vec<Share> = (0..3).map(|thread| Share::of(&plan, thread)).collect();
        assert_eq!(shares.iter().map(|share| share.connections).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(shares.iter().map(|share| share.max_in_flight).collect::<Vec<_>>(), [7, 7, 6]);
        assert_eq!(shares.iter().map(|share| share.requests).collect::<Vec<_>>(), [34, 33, 33]);
        assert_eq!(shares.iter().map(|share| share.samples).collect::<Vec<_>>(), [2, 1, 1]);
        assert!(shares.iter().all(|share| share.rate_per_s == 300.0));
    }
}
