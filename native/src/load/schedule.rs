//! Which request comes next, and when: the same for the same seed.

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0 and less than 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What is done with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Plain,
    /// It is not what the server accepts; INVALID_ARGUMENT is wanted.
    Malformed,
    /// It is cancelled so long after its start, unless its answer comes first.
    Cancelled {
        after_ns: u64,
    },
}

/// One of so many cancellations follows its request at once.
const AT_ONCE: f64 = 0.25;

/// What requests are made of. Bodies are numbered: first the good ones, then the malformed.
#[derive(Clone, Debug)]
pub(super) struct Mix {
    pub(super) cancel_share: f64,
    pub(super) cancel_within_ns: u64,
    pub(super) malformed_share: f64,
    pub(super) good: usize,
    pub(super) malformed: usize,
    /// The running sums of the good bodies' weights, up to 1; empty: in rotation.
    pub(super) weights: Vec<f64>,
}

/// The endless sequence of requests of one thread.
pub(super) struct Requests {
    mix: Mix,
    random: Random,
    good_turn: usize,
    malformed_turn: usize,
}

impl Requests {
    pub(super) fn new(mix: Mix, seed: u64) -> Self {
        Requests { mix, random: Random::new(seed), good_turn: 0, malformed_turn: 0 }
    }

    /// The kind of the next request, and its body.
    pub(super) fn next(&mut self) -> (Kind, usize) {
        let kind = self.kind();
        if kind == Kind::Malformed {
            let turn = self.malformed_turn;
            self.malformed_turn = (turn + 1) % self.mix.malformed.max(1);
            return (kind, self.mix.good + turn);
        }
        if !self.mix.weights.is_empty() {
            let drawn = self.random.unit();
            let body = self.mix.weights.partition_point(|sum| *sum <= drawn);
            return (kind, body.min(self.mix.good - 1));
        }
        let turn = self.good_turn;
        self.good_turn = (turn + 1) % self.mix.good;
        (kind, turn)
    }

    fn kind(&mut self) -> Kind {
        let Mix { cancel_share, malformed_share, cancel_within_ns, .. } = self.mix;
        if cancel_share + malformed_share <= 0.0 {
            return Kind::Plain;
        }
        let drawn = self.random.unit();
        if drawn < malformed_share {
            return Kind::Malformed;
        }
        if drawn - malformed_share >= cancel_share {
            return Kind::Plain;
        }
        let at_once = self.random.unit() < AT_ONCE;
        let after = self.random.unit() * cancel_within_ns as f64;
        Kind::Cancelled { after_ns: if at_once { 0 } else { after as u64 } }
    }
}

/// Poisson arrivals: exponential gaps.
pub(super) struct Arrivals {
    random: Random,
    mean_gap_ns: f64,
    next_ns: f64,
}

impl Arrivals {
    pub(super) fn new(rate_per_s: f64, seed: u64) -> Self {
        let mut arrivals =
            Arrivals { random: Random::new(seed), mean_gap_ns: 1e9 / rate_per_s, next_ns: 0.0 };
        arrivals.advance();
        arrivals
    }

    /// When the next one is due.
    pub(super) fn next_ns(&self) -> u64 {
        self.next_ns as u64
    }

    pub(super) fn advance(&mut self) {
        self.next_ns -= (1.0 - self.random.unit()).ln() * self.mean_gap_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix() -> Mix {
        Mix {
            cancel_share: 0.05,
            cancel_within_ns: 1_000_000,
            malformed_share: 0.01,
            good: 3,
            malformed: 2,
            weights: Vec::new(),
        }
    }

    fn sequence(mix: Mix, seed: u64, count: usize) -> Vec<(Kind, usize)> {
        let mut requests = Requests::new(mix, seed);
        (0..count).map(|_| requests.next()).collect()
    }

    #[test]
    fn a_seed_gives_one_sequence() {
        assert_eq!(sequence(mix(), 7, 5000), sequence(mix(), 7, 5000));
        assert_ne!(sequence(mix(), 7, 5000), sequence(mix(), 8, 5000));
    }

    #[test]
    fn shares_are_kept() {
        let count = 100_000;
        let made = sequence(mix(), 1, count);
        let share =
            |is: fn(&Kind) -> bool| made.iter().filter(|(kind, _)| is(kind)).count() as f64 / count as f64;
        assert!((share(|kind| *kind == Kind::Malformed) - 0.01).abs() < 0.002);
        assert!((share(|kind| matches!(kind, Kind::Cancelled { .. })) - 0.05).abs() < 0.004);
        assert!((share(|kind| *kind == Kind::Cancelled { after_ns: 0 }) - 0.0125).abs() < 0.002);
        assert!(made
            .iter()
            .all(|(kind, _)| !matches!(kind, Kind::Cancelled { after_ns } if *after_ns >= 1_000_000)));
    }

    #[test]
    fn malformed_requests_have_bodies_of_their_own_and_the_others_take_turns() {
        let made = sequence(mix(), 3, 10_000);
        let good: Vec<usize> =
            made.iter().filter(|(kind, _)| *kind != Kind::Malformed).map(|(_, body)| *body).collect();
        assert!(good.iter().enumerate().all(|(at, body)| *body == at % 3));
        assert!(made.iter().all(|(kind, body)| (*kind == Kind::Malformed) == (*body >= 3) && *body < 5));
    }

    #[test]
    fn weights_say_how_often_a_body_is_sent() {
        let weighted = Mix { weights: vec![0.5, 0.5, 1.0], cancel_share: 0.0, malformed_share: 0.0, ..mix() };
        let mut counts = [0; 3];
        for (_, body) in sequence(weighted, 5, 100_000) {
            counts[body] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((counts[0] as f64 / 1e5 - 0.5).abs() < 0.01);
    }

    #[test]
    fn gaps_are_exponential() {
        let mut arrivals = Arrivals::new(1000.0, 11);
        let mut gaps = Vec::new();
        for _ in 0..100_000 {
            let before = arrivals.next_ns;
            arrivals.advance();
            gaps.push((arrivals.next_ns - before) / 1e6);
        }
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
        assert!(gaps.iter().all(|gap| *gap >= 0.0));
    }
}
