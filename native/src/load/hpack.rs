//! HPACK (RFC 7541): one request's header block made once, answers' blocks read.
//!
//! The requests of a run all have the same header fields. The first block of a connection adds them to the peer's
//! dynamic table and every later one refers to them, as an ordinary client's would.

use std::collections::VecDeque;

/// RFC 7541, section 4.1: what an entry counts beyond its name and value.
const ENTRY_OVERHEAD: usize = 32;
/// The table size until a SETTINGS frame says otherwise, and the one that we allow the peer.
pub(super) const DEFAULT_TABLE_BYTES: usize = 4096;
/// A literal that the answers of no server need.
const MAX_LITERAL_BYTES: usize = 1 << 20;

/// The block breaks RFC 7541: a connection error of type COMPRESSION_ERROR.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed;

/// The same header fields for every request of a connection.
pub(super) struct RequestHeaders {
    first: Vec<u8>,
    rest: Vec<u8>,
    literal: Vec<u8>,
    /// What the fields take in the peer's dynamic table.
    table_bytes: usize,
    peer_table_bytes: usize,
    /// Whether the peer's table holds the fields.
    indexed: bool,
    /// The peer has changed the size of its table, and the next block must say that we know.
    resized: bool,
}

impl RequestHeaders {
    /// A POST to `path`; `fields` are lower-case names and values.
    pub(super) fn new(path: &str, authority: &str, fields: &[(String, Vec<u8>)]) -> Self {
        const METHOD_POST_SCHEME_HTTP: [u8; 2] = [0x83, 0x86];
        let pseudo = [(":path", path.as_bytes()), (":authority", authority.as_bytes())];
        let all: Vec<(&[u8], &[u8])> = pseudo
            .iter()
            .map(|(name, value)| (name.as_bytes(), *value))
            .chain(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())))
            .collect();
        let mut first = METHOD_POST_SCHEME_HTTP.to_vec();
        let (mut rest, mut literal) = (first.clone(), first.clone());
        for (at, (name, value)) in all.iter().enumerate() {
            put_literal(&mut first, 0x40, 6, name, value);
            put_literal(&mut literal, 0x00, 4, name, value);
            // what was added last has the lowest index
            put_integer(&mut rest, 0x80, 7, STATIC.len() + all.len() - at);
        }
        RequestHeaders {
            first,
            rest,
            literal,
            table_bytes: all.iter().map(|(n, v)| n.len() + v.len() + ENTRY_OVERHEAD).sum(),
            peer_table_bytes: DEFAULT_TABLE_BYTES,
            indexed: false,
            resized: false,
        }
    }

    /// Append the next request's block.
    pub(super) fn put(&mut self, target: &mut Vec<u8>) {
        if self.indexed && !self.resized {
            target.extend_from_slice(&self.rest);
            return;
        }
        if self.resized {
            self.resized = false;
            put_integer(target, 0x20, 5, 0); // drops all entries (RFC 7541, section 4.2)
            put_integer(target, 0x20, 5, self.peer_table_bytes);
        }
        self.indexed = self.table_bytes <= self.peer_table_bytes;
        target.extend_from_slice(if self.indexed { &self.first } else { &self.literal });
    }

    /// Take note of the peer's SETTINGS_HEADER_TABLE_SIZE; more than the default is not used.
    pub(super) fn resize(&mut self, peer_table_bytes: usize) {
        let size = peer_table_bytes.min(DEFAULT_TABLE_BYTES);
        if size != self.peer_table_bytes {
            self.peer_table_bytes = size;
            self.resized = true;
        }
    }
}

fn put_literal(target: &mut Vec<u8>, flag: u8, prefix_bits: u8, name: &[u8], value: &[u8]) {
    match STATIC.iter().position(|(known, _)| known.as_bytes() == name) {
        Some(at) => put_integer(target, flag, prefix_bits, at + 1),
        None => {
            target.push(flag);
            put_integer(target, 0, 7, name.len());
            target.extend_from_slice(name);
        }
    }
    put_integer(target, 0, 7, value.len());
    target.extend_from_slice(value);
}

/// RFC 7541, section 5.1.
fn put_integer(target: &mut Vec<u8>, flag: u8, prefix_bits: u8, value: usize) {
    let limit = (1usize << prefix_bits) - 1;
    if value < limit {
        target.push(flag | value as u8);
        return;
    }
    target.push(flag | limit as u8);
    let mut rest = value - limit;
    while rest >= 0x80 {
        target.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    target.push(rest as u8);
}

/// Reads the blocks of one connection, in their order.
pub(super) struct Decoder {
    entries: VecDeque<(Vec<u8>, Vec<u8>)>, // names and values, the newest first
    used_bytes: usize,
    limit_bytes: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Decoder { entries: VecDeque::new(), used_bytes: 0, limit_bytes: DEFAULT_TABLE_BYTES }
    }

    /// Call `field` with each name and value of a whole block.
    pub(super) fn read(
        &mut self,
        mut block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Malformed> {
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let (name, value) = self.entry(take_integer(&mut block, 7)?)?;
                field(name, value);
            } else if first & 0x40 != 0 {
                let (name, value) = self.literal(&mut block, 6)?;
                field(&name, &value);
                self.insert(name, value);
            } else if first & 0x20 != 0 {
                let size = take_integer(&mut block, 5)?;
                if size > DEFAULT_TABLE_BYTES {
                    return Err(Malformed);
                }
                self.limit_bytes = size;
                self.evict(0);
            } else {
                let (name, value) = self.literal(&mut block, 4)?;
                field(&name, &value);
            }
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), Malformed> {
        let at = index.checked_sub(1).ok_or(Malformed)?;
        if let Some((name, value)) = STATIC.get(at) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let (name, value) = self.entries.get(at - STATIC.len()).ok_or(Malformed)?;
        Ok((name, value))
    }

    fn literal(&self, block: &mut &[u8], prefix_bits: u8) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
        let name = match take_integer(block, prefix_bits)? {
            0 => take_string(block)?,
            index => self.entry(index)?.0.to_vec(),
        };
        Ok((name, take_string(block)?))
    }

    fn insert(&mut self, name: Vec<u8>, value: Vec<u8>) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        self.evict(size);
        if size <= self.limit_bytes {
            self.used_bytes += size;
            self.entries.push_front((name, value));
        }
    }

    /// Drop the oldest entries until `room` bytes fit, or nothing is left.
    fn evict(&mut self, room: usize) {
        while self.used_bytes + room > self.limit_bytes {
            let Some((name, value)) = self.entries.pop_back() else { return };
            self.used_bytes -= name.len() + value.len() + ENTRY_OVERHEAD;
        }
    }
}

fn take_byte(block: &mut &[u8]) -> Result<u8, Malformed> {
    let (&byte, rest) = block.split_first().ok_or(Malformed)?;
    *block = rest;
    Ok(byte)
}

/// RFC 7541, section 5.1; no number of an honest peer needs more than four further bytes.
fn take_integer(block: &mut &[u8], prefix_bits: u8) -> Result<usize, Malformed> {
    let limit = (1usize << prefix_bits) - 1;
    let mut value = usize::from(take_byte(block)?) & limit;
    if value < limit {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = take_byte(block)?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn take_string(block: &mut &[u8]) -> Result<Vec<u8>, Malformed> {
    let huffman = block.first().ok_or(Malformed)? & 0x80 != 0;
    let length = take_integer(block, 7)?;
    if length > block.len() || length > MAX_LITERAL_BYTES {
        return Err(Malformed);
    }
    let (raw, rest) = block.split_at(length);
    *block = rest;
    if huffman {
        HUFFMAN.decode(raw)
    } else {
        Ok(raw.to_vec())
    }
}

/// The code of RFC 7541, appendix B. It is canonical: within a length, codes follow the symbols' order, so the
/// lengths say all.
struct Huffman {
    symbols: [u16; 257],    // by code length, then by symbol
    first_code: [u32; 31],  // by length
    first_place: [u16; 31], // by length: where its symbols begin
    counts: [u16; 31],      // by length
}

const END_OF_STRING: u16 = 256;
const LONGEST_CODE: u32 = 30;
static HUFFMAN: Huffman = Huffman::new();

impl Huffman {
    const fn new() -> Self {
        let mut made =
            Huffman { symbols: [0; 257], first_code: [0; 31], first_place: [0; 31], counts: [0; 31] };
        let (mut place, mut code, mut length) = (0, 0u32, 1);
        while length <= LONGEST_CODE as usize {
            code <<= 1;
            made.first_code[length] = code;
            made.first_place[length] = place;
            let mut symbol = 0;
            while symbol < CODE_LENGTHS.len() {
                if CODE_LENGTHS[symbol] as usize == length {
                    made.symbols[place as usize] = symbol as u16;
                    place += 1;
                    code += 1;
                }
                symbol += 1;
            }
            made.counts[length] = place - made.first_place[length];
            length += 1;
        }
        made
    }

    fn decode(&self, raw: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut text = Vec::with_capacity(raw.len() * 8 / 5);
        let (mut code, mut length) = (0u32, 0usize);
        for bit in raw.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
            code = code << 1 | u32::from(bit);
            length += 1;
            if length > LONGEST_CODE as usize {
                return Err(Malformed);
            }
            let Some(offset) = code.checked_sub(self.first_code[length]) else { continue };
            if offset >= u32::from(self.counts[length]) {
                continue;
            }
            let symbol = self.symbols[usize::from(self.first_place[length]) + offset as usize];
            if symbol == END_OF_STRING {
                return Err(Malformed);
            }
            text.push(symbol as u8);
            (code, length) = (0, 0);
        }
        // the last byte is filled up with at most seven ones (section 5.2)
        if length > 7 || code != (1 << length) - 1 {
            return Err(Malformed);
        }
        Ok(text)
    }
}

#[rustfmt::skip]
const CODE_LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// RFC 7541, appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""),
    ("cache-control", ""), ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""),
    ("content-length", ""), ("content-location", ""), ("content-range", ""), ("content-type", ""),
    ("cookie", ""), ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""),
    ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""),
    ("retry-after", ""), ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""),
    ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: String = hex.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
        let mut found = Vec::new();
        let text = |raw: &[u8]| String::from_utf8(raw.to_vec()).unwrap();
        decoder.read(block, |name, value| found.push((text(name), text(value))))?;
        Ok(found)
    }

    #[test]
    fn reads_the_examples_of_the_rfc() {
        // RFC 7541, C.6: three answers with Huffman codes, of which later ones evict entries of earlier ones
        let mut decoder = Decoder::new();
        let limit = bytes("3f e1 01"); // the examples' table holds 256 bytes
        let blocks = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
             2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
             77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
             9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ];
        assert_eq!(fields(&mut decoder, &limit), Ok(vec![]));
        let first = fields(&mut decoder, &bytes(blocks[0])).unwrap();
        assert_eq!(first[0], (":status".into(), "302".into()));
        assert_eq!(first[3], ("location".into(), "https://www.example.com".into()));
        let second = fields(&mut decoder, &bytes(blocks[1])).unwrap();
        assert_eq!(second[0], (":status".into(), "307".into()));
        assert_eq!(second[1..], first[1..]);
        let third = fields(&mut decoder, &bytes(blocks[2])).unwrap();
        assert_eq!(third[0], (":status".into(), "200".into()));
        assert_eq!(third[4], ("content-encoding".into(), "gzip".into()));
        let cookie = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
        assert_eq!(third[5], ("set-cookie".into(), cookie.into()));
        assert_eq!(decoder.used_bytes, 215);
    }

    #[test]
    fn every_request_block_has_the_same_fields() {
        let extra = vec![("te".to_string(), b"trailers".to_vec()), ("x-user".to_string(), b"7".to_vec())];
        let mut headers = RequestHeaders::new("/a.B/C", "host:1", &extra);
        let mut decoder = Decoder::new();
        let wanted = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/a.B/C"),
            (":authority", "host:1"),
            ("te", "trailers"),
            ("x-user", "7"),
        ];
        let wanted: Vec<(String, String)> = wanted.map(|(n, v)| (n.into(), v.into())).to_vec();
        let mut lengths = Vec::new();
        let sizes = [None, None, Some(0), None, Some(1 << 16), None, Some(300), None];
        for size in sizes {
            if let Some(size) = size {
                headers.resize(size);
            }
            let mut block = Vec::new();
            headers.put(&mut block);
            assert_eq!(fields(&mut decoder, &block).unwrap(), wanted);
            assert!(decoder.used_bytes <= headers.peer_table_bytes);
            lengths.push(block.len());
        }
        assert_eq!(lengths[1], 6, "all fields are in the table");
        assert!(lengths[3] > 20, "nothing is in a table of no size");
        assert_eq!([lengths[5], lengths[7]], [6, 6]);
    }

    #[test]
    fn every_symbol_of_the_huffman_code_is_read() {
        for symbol in 0..=255u16 {
            let at = HUFFMAN.symbols.iter().position(|each| *each == symbol).unwrap();
            let length = u32::from(CODE_LENGTHS[usize::from(symbol)]);
            let first = usize::from(HUFFMAN.first_place[length as usize]);
            let code = u64::from(HUFFMAN.first_code[length as usize]) + (at - first) as u64;
            let filled = length.div_ceil(8) * 8;
            let padded = code << (filled - length) | ((1 << (filled - length)) - 1);
            let raw = &padded.to_be_bytes()[8 - filled as usize / 8..];
            assert_eq!(HUFFMAN.decode(raw), Ok(vec![symbol as u8]));
        }
    }

    #[test]
    fn broken_blocks_are_refused() {
        let broken: [&[u8]; 9] = [
            &[0x80],                               // index 0
            &[0xff, 0x80, 0x80, 0x80, 0x80],       // a number without an end
            &[0xbe],                               // an entry that is not there
            &[0x40],                               // no name
            &[0x40, 0x01],                         // a name that is cut off
            &[0x48],                               // no value
            &[0x48, 0x82, 0x64],                   // a value that is cut off
            &[0x3f, 0xe2, 0x1f],                   // a table of more than was allowed
            &[0x48, 0x84, 0xff, 0xff, 0xff, 0xff], // the end of the string inside of it
        ];
        for block in broken {
            assert_eq!(fields(&mut Decoder::new(), block), Err(Malformed), "{block:?}");
        }
        assert_eq!(HUFFMAN.decode(&[0xff]), Err(Malformed), "eight bits of filling");
        assert_eq!(HUFFMAN.decode(&[0x06]), Err(Malformed), "filled with zeros");
    }
}
