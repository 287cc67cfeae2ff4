//! Status codes that the transport itself answers with, and how a status message is written in a header.

use std::fmt::Write;

pub const OK: u8 = 0;
pub const INVALID_ARGUMENT: u8 = 3;
pub const RESOURCE_EXHAUSTED: u8 = 8;
pub const UNIMPLEMENTED: u8 = 12;
pub const INTERNAL: u8 = 13;
pub const UNAVAILABLE: u8 = 14;

/// Clients refuse a status of more than 8 KiB of trailing metadata, where a byte may take three.
pub const MAX_MESSAGE_BYTES: usize = 2048;

/// An answer that is no message: the code, and what the caller is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub code: u8,
    pub message: String,
    /// When the caller may try again; None where a retry makes no sense.
    pub pushback_ms: Option<u32>,
}

impl Status {
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Status { code, message: message.into(), pushback_ms: None }
    }
}

/// Percent-encode a message as gRPC's PROTOCOL-HTTP2 says: everything but printable ASCII, and '%'.
/// It is cut to `MAX_MESSAGE_BYTES` of UTF-8 first.
pub fn percent_encoded(message: &str) -> String {
    let mut end = message.len();
    let cut = end > MAX_MESSAGE_BYTES;
    if cut {
        end = MAX_MESSAGE_BYTES - 3;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
    }
    let mut encoded = String::with_capacity(end + 8);
    let dots = if cut { "..." } else { "" };
    for byte in message[..end].bytes().chain(dots.bytes()) {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            encoded.push(byte as char);
        } else {
            // writing to a string cannot fail
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encoded("a b%c\n\u{e9}"), "a b%25c%0A%C3%A9");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let encoded = percent_encoded(&"\u{e9}".repeat(2000));
        assert!(encoded.ends_with("%A9..."));
        assert!(encoded.len() <= 3 * MAX_MESSAGE_BYTES);
    }
}
