//! HTTP/2 frames (RFC 9113): their heads, read and written.

pub(super) const HEAD_BYTES: usize = 9;
/// SETTINGS_MAX_FRAME_SIZE until it is changed; we leave it, so no frame of the peer may be larger.
pub(super) const MAX_PAYLOAD_BYTES: usize = 16_384;
pub(super) const DEFAULT_WINDOW_BYTES: i64 = 65_535;
pub(super) const MAX_WINDOW_BYTES: i64 = (1 << 31) - 1;
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const PRIORITY: u8 = 32;

pub(super) const HEADER_TABLE_SIZE: u16 = 1;
pub(super) const ENABLE_PUSH: u16 = 2;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(super) const MAX_FRAME_SIZE: u16 = 5;

pub(super) const CANCEL: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    pub(super) fn read(raw: &[u8; HEAD_BYTES]) -> Head {
        let [a, b, c, kind, flags, d, e, f, g] = *raw;
        Head {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([d, e, f, g]) & 0x7fff_ffff,
        }
    }

    pub(super) fn put(self, target: &mut Vec<u8>) {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        target.extend_from_slice(&[a, b, c, self.kind, self.flags, d, e, f, g]);
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The content of a DATA or HEADERS frame without its padding and priority; None where they do not fit.
pub(super) fn content(head: Head, payload: &[u8]) -> Option<&[u8]> {
    let mut content = payload;
    let mut padding = 0;
    if head.has(PADDED) {
        let (&length, rest) = content.split_first()?;
        (padding, content) = (usize::from(length), rest);
    }
    if head.kind == HEADERS && head.has(PRIORITY) {
        content = content.get(5..)?;
    }
    content.get(..content.len().checked_sub(padding)?)
}

/// The first four bytes as a number.
pub(super) fn number(payload: &[u8]) -> Option<u32> {
    payload.first_chunk::<4>().map(|raw| u32::from_be_bytes(*raw))
}

/// RFC 9113, section 7.
pub(super) fn reason(code: u32) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(code as usize).map_or_else(|| code.to_string(), |name| (*name).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let head = Head { length: 70_000, kind: DATA, flags: END_STREAM, stream: 0x1234_5677 };
        let mut raw = Vec::new();
        head.put(&mut raw);
        assert_eq!(Head::read(raw.first_chunk().unwrap()), head);
        raw[5] |= 0x80; // reserved, to be ignored
        assert_eq!(Head::read(raw.first_chunk().unwrap()), head);
    }

    #[test]
    fn padding_and_priority_are_no_content() {
        let head = |kind, flags| Head { length: 0, kind, flags, stream: 1 };
        type Case<'a> = (u8, u8, &'a [u8], Option<&'a [u8]>); // kind, flags, payload, content
        let cases: [Case; 8] = [
            (DATA, 0, b"abc", Some(b"abc")),
            (DATA, PADDED, b"\x02abc", Some(b"a")),
            (DATA, PADDED, b"\x03abc", Some(b"")),
            (DATA, PADDED, b"\x04abc", None),
            (DATA, PADDED, b"", None),
            (DATA, PRIORITY, b"abc", Some(b"abc")),
            (HEADERS, PRIORITY | PADDED, b"\x01.....ab", Some(b"a")),
            (HEADERS, PRIORITY, b"....", None),
        ];
        for (kind, flags, payload, wanted) in cases {
            assert_eq!(content(head(kind, flags), payload), wanted, "{kind} {flags} {payload:?}");
        }
    }
}
