//! How a request ended, and the answer as it comes in.

use std::fmt;

use super::frame;

const PREFIX_BYTES: usize = 5; // gRPC: the compressed flag and the message's length

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A grpc-status.
    Status(u32),
    /// An HTTP status other than 200.
    Http(u16),
    /// The server reset the stream, with this error code of HTTP/2.
    Reset(u32),
    /// An answer that breaks the protocol: what is wrong.
    Invalid(&'static str),
    /// The connection ended first.
    Connection,
    /// No answer within the limit.
    Unanswered,
    /// We cancelled it, as planned.
    Cancelled,
}

impl Outcome {
    pub const OK: Outcome = Outcome::Status(0);
    pub const INVALID_ARGUMENT: Outcome = Outcome::Status(3);
}

/// grpc-status codes go by their names, everything else in lower case.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        match *self {
            Outcome::Status(code) => match NAMES.get(code as usize) {
                Some(name) => f.write_str(name),
                None => write!(f, "status {code}"),
            },
            Outcome::Http(status) => write!(f, "http {status}"),
            Outcome::Reset(code) => write!(f, "reset {}", frame::reason(code)),
            Outcome::Invalid(what) => write!(f, "invalid answer: {what}"),
            Outcome::Connection => f.write_str("connection lost"),
            Outcome::Unanswered => f.write_str("no answer"),
            Outcome::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// What one header block of an answer says.
#[derive(Default)]
pub(super) struct Fields {
    http_status: Option<u16>,
    grpc_status: Option<u32>,
    grpc_message: Option<String>,
}

impl Fields {
    pub(super) fn take(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b":status" => self.http_status = number(value),
            b"grpc-status" => self.grpc_status = number(value),
            b"grpc-message" if !value.is_empty() => self.grpc_message = Some(unescaped(value)),
            _ => {}
        }
    }

    /// Whether this block only says that there will be another.
    fn informational(&self) -> bool {
        self.http_status.is_some_and(|status| (100..200).contains(&status))
    }
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Percent-decoded text, as gRPC's HTTP/2 protocol writes messages.
fn unescaped(value: &[u8]) -> String {
    let mut raw = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after
            .get(..2)
            .filter(|_| byte == b'%')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        raw.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&raw).into_owned()
}

/// One answer, as far as it has come.
#[derive(Default)]
pub(super) struct Answer {
    http_status: Option<u16>,
    prefix: [u8; PREFIX_BYTES],
    received_bytes: u64, // with the prefix
    kept: Option<Vec<u8>>,
}

/// A whole answer.
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) message_bytes: u64,
    pub(super) kept: Option<Vec<u8>>,
    pub(super) grpc_message: Option<String>,
}

impl Answer {
    /// `keep` says whether the message itself is wanted.
    pub(super) fn new(keep: bool) -> Self {
        Answer { kept: keep.then(Vec::new), ..Answer::default() }
    }

    /// Take a header block; `last` where it ends the stream. Gives the whole answer then.
    pub(super) fn headers(&mut self, fields: Fields, last: bool) -> Option<Ended> {
        if self.http_status.is_none() && !fields.informational() {
            self.http_status = fields.http_status;
        }
        if !last {
            return None;
        }
        let outcome = match (self.http_status, fields.grpc_status) {
            (Some(200), Some(0)) => self.message_outcome(),
            (Some(200), Some(status)) => Outcome::Status(status),
            (Some(200), None) => Outcome::Invalid("no grpc-status"),
            (Some(status), _) => Outcome::Http(status),
            (None, _) => Outcome::Invalid("no :status"),
        };
        Some(self.end(outcome, fields.grpc_message))
    }

    /// Take a part of the body; `last` where the stream ends with it.
    pub(super) fn data(&mut self, mut part: &[u8], last: bool) -> Option<Ended> {
        if self.received_bytes < PREFIX_BYTES as u64 {
            let at = self.received_bytes as usize;
            let taken = part.len().min(PREFIX_BYTES - at);
            let (head, rest) = part.split_at(taken);
            self.prefix[at..at + taken].copy_from_slice(head);
            self.received_bytes += taken as u64;
            part = rest;
        }
        self.received_bytes += part.len() as u64;
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(part);
        }
        last.then(|| self.end(Outcome::Invalid("no trailers"), None))
    }

    /// The stream ended without an answer, or without the rest of it.
    pub(super) fn end(&mut self, outcome: Outcome, grpc_message: Option<String>) -> Ended {
        Ended {
            outcome,
            message_bytes: self.received_bytes.saturating_sub(PREFIX_BYTES as u64),
            kept: self.kept.take().filter(|_| outcome == Outcome::OK),
            grpc_message,
        }
    }

    /// A unary answer is exactly one message, and we offered no compression.
    fn message_outcome(&self) -> Outcome {
        let [compressed, length @ ..] = self.prefix;
        let announced = u64::from(u32::from_be_bytes(length));
        match self.received_bytes.checked_sub(PREFIX_BYTES as u64) {
            None => Outcome::Invalid("no message"),
            Some(_) if compressed != 0 => Outcome::Invalid("a compressed message"),
            Some(got) if got < announced => Outcome::Invalid("a message that is cut off"),
            Some(got) if got > announced => Outcome::Invalid("more than one message"),
            Some(_) => Outcome::OK,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in pairs {
            fields.take(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    const OK: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];

    #[test]
    fn an_answer_is_ok_only_with_one_whole_message() {
        let cases: [(&[&[u8]], Outcome); 7] = [
            (&[b"\0\0\0\0\x03abc"], Outcome::OK),
            (&[b"\0\0", b"\0\0\x03", b"a", b"bc"], Outcome::OK),
            (&[b"\0\0\0\0\0"], Outcome::OK),
            (&[], Outcome::Invalid("no message")),
            (&[b"\x01\0\0\0\x03abc"], Outcome::Invalid("a compressed message")),
            (&[b"\0\0\0\0\x03ab"], Outcome::Invalid("a message that is cut off")),
            (&[b"\0\0\0\0\x03abc\0\0\0\0\0"], Outcome::Invalid("more than one message")),
        ];
        for (parts, wanted) in cases {
            let mut answer = Answer::new(true);
            assert!(answer.headers(fields(&OK), false).is_none());
            for part in parts {
                assert!(answer.data(part, false).is_none());
            }
            let ended = answer.headers(fields(&[("grpc-status", "0")]), true).unwrap();
            assert_eq!(ended.outcome, wanted);
            assert_eq!(ended.kept.is_some(), wanted == Outcome::OK);
            if let Some(kept) = ended.kept {
                assert_eq!(kept, parts.concat()[5..]);
            }
        }
    }

    #[test]
    fn statuses_come_from_where_grpc_puts_them() {
        let only = |pairs: &[(&str, &str)]| Answer::new(false).headers(fields(pairs), true).unwrap();
        let ended =
            only(&[(":status", "200"), ("grpc-status", "5"), ("grpc-message", "no%20model %e2%82%ac%")]);
        assert_eq!(ended.outcome.to_string(), "NOT_FOUND");
        assert_eq!(ended.grpc_message.as_deref(), Some("no model \u{20ac}%"));
        assert_eq!(only(&[(":status", "503")]).outcome.to_string(), "http 503");
        assert_eq!(only(&[(":status", "200")]).outcome, Outcome::Invalid("no grpc-status"));
        assert_eq!(
            only(&[(":status", "200"), ("grpc-status", "x")]).outcome,
            Outcome::Invalid("no grpc-status")
        );
        assert_eq!(only(&[("grpc-status", "0")]).outcome, Outcome::Invalid("no :status"));
        assert_eq!(only(&[(":status", "200"), ("grpc-status", "77")]).outcome.to_string(), "status 77");
    }

    #[test]
    fn an_informational_block_is_not_the_answer() {
        let mut answer = Answer::new(false);
        assert!(answer.headers(fields(&[(":status", "103")]), false).is_none());
        assert!(answer.headers(fields(&OK), false).is_none());
        answer.data(b"\0\0\0\0\0", false);
        assert_eq!(answer.headers(fields(&[("grpc-status", "0")]), true).unwrap().outcome, Outcome::OK);
    }

    #[test]
    fn a_stream_that_ends_with_data_has_no_status() {
        let mut answer = Answer::new(false);
        answer.headers(fields(&OK), false);
        assert_eq!(answer.data(b"\0\0\0\0\0", true).unwrap().outcome, Outcome::Invalid("no trailers"));
    }
}
