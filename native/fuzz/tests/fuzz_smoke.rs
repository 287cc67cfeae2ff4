//! The fuzz targets' checks over their corpora and over mutations of them, on any toolchain. `FUZZ_SECONDS` says
//! for how long, `FUZZ_SEED` with which random numbers.

use std::path::Path;
use std::time::{Duration, Instant};

use crossgate_native_fuzz::{check_framing, check_request};

/// A small generator of random numbers, splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % limit.max(1) as u64) as usize
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the corpus is committed")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("it can be read")).collect()
}

fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("a whole number"),
        Err(_) => otherwise,
    }
}

/// Change a message a little, in one of the ways in which libFuzzer does.
fn mutate(message: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    let at = random.below(message.len() + 1);
    let count = random.below(12).min(message.len() - at);
    match random.below(8) {
        0 if at < message.len() => message[at] = random.below(256) as u8,
        1 if at < message.len() => message[at] ^= 1 << random.below(8),
        2 if at < message.len() => message[at] = message[at].wrapping_add(random.below(5) as u8),
        3 => {
            message.drain(at..at + count);
        }
        4 => message.insert(at, random.below(256) as u8),
        5 => {
            let piece = message[at..at + count].to_vec();
            let to = random.below(message.len() + 1);
            message.splice(to..to, piece);
        }
        6 => {
            let other = &others[random.below(others.len())];
            let from = random.below(other.len() + 1);
            let piece = other[from..].iter().take(random.below(200)).copied();
            message.splice(at..at, piece);
        }
        _ => message.truncate(at.max(message.len() / 2)),
    }
}

fn check_corpus(target: &str, check: fn(&[u8])) {
    let corpus = corpus(target);
    assert!(corpus.len() > 5);
    for message in &corpus {
        check(message);
        for end in 0..message.len().min(2000) {
            check(&message[..end]);
        }
    }
}

fn check_mutations(target: &str, check: fn(&[u8])) {
    let corpus = corpus(target);
    let until = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS", 5));
    let mut random = Random(number("FUZZ_SEED", 1));
    let mut checked = 0_u64;
    while Instant::now() < until {
        for _ in 0..100 {
            let mut message = corpus[random.below(corpus.len())].clone();
            for _ in 0..1 + random.below(4) {
                mutate(&mut message, &corpus, &mut random);
            }
            check(&message);
            checked += 1;
        }
    }
    println!("{target}: {checked} inputs checked");
    assert!(checked > 0);
}

#[test]
fn the_corpora_hold() {
    check_corpus("request", check_request);
    check_corpus("framing", check_framing);
}

#[test]
fn mutations_of_requests_hold() {
    check_mutations("request", check_request);
}

#[test]
fn mutations_of_framed_streams_hold() {
    check_mutations("framing", check_framing);
}
