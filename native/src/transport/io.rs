//! What lies between the HTTP/2 library and the socket: reads and writes in large pieces, and a look at every
//! frame's header.
//!
//! The library reads 8 KiB at a time and flushes after every frame of some size; here a wake-up of the connection
//! costs one read and one write. It also has no word for a received PING, SETTINGS or RST_STREAM, which is what
//! floods are made of and how cancellations come: their headers are seen here.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const READ_BYTES: usize = 64 << 10;
/// Where more than this is left of a frame, it is read to where the library wants it.
const DIRECT_BYTES: usize = 8 << 10;
/// More than this is not collected but written at once.
const WRITE_BYTES: usize = 256 << 10;
/// After so many frames the other connections have their turn: small ones cost more to read than to send.
const TURN_FRAMES: usize = 4096;
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;

/// How much of what costs us work and carries no request a peer may send in a second.
const MAX_PINGS_AND_SETTINGS: u32 = 200;
const MAX_RESETS: u32 = 10_000;
const MAX_OTHERS: u32 = 2_000;
const WINDOW: Duration = Duration::from_secs(1);

/// Looks at the headers of the frames that come in.
#[derive(Debug)]
struct Watch {
    skip: usize,
    header: [u8; FRAME_HEADER_BYTES],
    header_len: usize,
    resets: Vec<u32>,
    window_began: Instant,
    pings_and_settings: u32,
    reset_count: u32,
    others: u32,
    /// Seen since the connection was last polled.
    turn_frames: usize,
    flood: Option<&'static str>,
    heard: bool,
    /// gRPC's C core names the path of a Unix socket as the authority, percent-encoded, which the library takes for
    /// a malformed one and refuses. On such sockets, where nothing is concluded from it, it is mended.
    mends_authority: bool,
    in_head: bool,
}

impl Watch {
    fn new(mends_authority: bool) -> Self {
        Watch {
            mends_authority,
            in_head: false,
            skip: PREFACE_BYTES,
            header: [0; FRAME_HEADER_BYTES],
            header_len: 0,
            resets: Vec::new(),
            window_began: Instant::now(),
            pings_and_settings: 0,
            reset_count: 0,
            others: 0,
            turn_frames: 0,
            flood: None,
            heard: false,
        }
    }

    fn see(&mut self, mut bytes: &mut [u8]) {
        self.heard |= !bytes.is_empty();
        while !bytes.is_empty() {
            if self.skip > 0 {
                let size = self.skip.min(bytes.len());
                self.skip -= size;
                if self.in_head {
                    mend_authority(&mut bytes[..size]);
                }
                bytes = &mut bytes[size..];
                continue;
            }
            let size = (FRAME_HEADER_BYTES - self.header_len).min(bytes.len());
            self.header[self.header_len..self.header_len + size].copy_from_slice(&bytes[..size]);
            self.header_len += size;
            bytes = &mut bytes[size..];
            if self.header_len == FRAME_HEADER_BYTES {
                self.header_len = 0;
                let [a, b, c, kind, flags, d, e, f, g] = self.header;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                self.in_head = self.mends_authority && kind == HEADERS;
                self.frame(kind, flags, u32::from_be_bytes([d, e, f, g]) & 0x7fff_ffff);
            }
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32) {
        self.turn_frames += 1;
        match kind {
            HEADERS | WINDOW_UPDATE => return,
            DATA if self.skip > 0 || flags & END_STREAM != 0 => return,
            PING | SETTINGS if flags & ACK != 0 => return,
            PING | SETTINGS => self.pings_and_settings += 1,
            RST_STREAM => {
                self.resets.push(stream);
                self.reset_count += 1;
            }
            _ => self.others += 1,
        }
        if self.pings_and_settings <= MAX_PINGS_AND_SETTINGS
            && self.reset_count <= MAX_RESETS
            && self.others <= MAX_OTHERS
        {
            return;
        }
        if self.window_began.elapsed() < WINDOW {
            self.flood = Some(if self.reset_count > MAX_RESETS {
                "too many resets"
            } else if self.others > MAX_OTHERS {
                "too many frames that carry nothing"
            } else {
                "too_many_pings"
            });
        }
        self.window_began = Instant::now();
        (self.pings_and_settings, self.reset_count, self.others) = (0, 0, 0);
    }
}

/// Buffers that no connection needs at the moment: an idle connection has none.
struct Spare {
    read: Vec<Box<[u8]>>,
    written: Vec<Vec<u8>>,
}

const MAX_SPARE: usize = 16;

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare { read: Vec::new(), written: Vec::new() }) };
}

/// Replace '%' in a literal `:authority`, which is written without Huffman coding by those who need this.
fn mend_authority(head: &mut [u8]) {
    const NAME: &[u8] = b":authority";
    let Some(at) = head.windows(NAME.len()).position(|part| part == NAME) else {
        return;
    };
    if let Some((&mut size, value)) = head[at + NAME.len()..].split_first_mut() {
        if size < 0x7f {
            let end = value.len().min(size as usize);
            value[..end].iter_mut().filter(|byte| **byte == b'%').for_each(|byte| *byte = b'-');
        }
    }
}

struct State<S> {
    socket: S,
    /// Read and not yet taken by the library: from `read_from` to `read_to`. None when there is nothing.
    read: Option<Box<[u8]>>,
    read_from: usize,
    read_to: usize,
    /// Collected and not yet written: from `written_from`. Without capacity when there is nothing.
    written: Vec<u8>,
    written_from: usize,
    watch: Watch,
    read_bytes: u64,
    written_bytes: u64,
}

/// The library's side; `Watched::flush` is the connection's.
pub struct Io<S>(Rc<RefCell<State<S>>>);

/// The connection's side of an `Io`.
pub struct Watched<S>(Rc<RefCell<State<S>>>);

/// What was seen since the last look.
#[derive(Default)]
pub struct Seen {
    pub resets: Vec<u32>,
    pub flood: Option<&'static str>,
    pub heard: bool,
}

/// `local`: the socket is a Unix one.
pub fn watched<S>(socket: S, local: bool) -> (Io<S>, Watched<S>) {
    let state = Rc::new(RefCell::new(State {
        socket,
        read: None,
        read_from: 0,
        read_to: 0,
        written: Vec::new(),
        written_from: 0,
        watch: Watch::new(local),
        read_bytes: 0,
        written_bytes: 0,
    }));
    (Io(state.clone()), Watched(state))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    /// Let the library read again as much as is fair.
    pub fn begin_turn(&self) {
        self.0.borrow_mut().watch.turn_frames = 0;
    }

    /// Write what was collected.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_write_out(cx)
    }

    /// Write what is left, say that nothing follows, and read on until the peer has closed too: to close while bytes
    /// of the peer's are unread would make its system throw away what we have sent.
    pub fn poll_close(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        match state.poll_write_out(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
        if Pin::new(&mut state.socket).poll_shutdown(cx).is_pending() {
            return Poll::Pending;
        }
        loop {
            let mut scratch = [0u8; 4096];
            let mut target = ReadBuf::new(&mut scratch);
            match Pin::new(&mut state.socket).poll_read(cx, &mut target) {
                Poll::Ready(Ok(())) if !target.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    pub fn take_seen(&self) -> Seen {
        let watch = &mut self.0.borrow_mut().watch;
        Seen {
            resets: std::mem::take(&mut watch.resets),
            flood: watch.flood.take(),
            heard: std::mem::take(&mut watch.heard),
        }
    }

    /// Bytes read and written so far.
    pub fn transferred(&self) -> (u64, u64) {
        let state = self.0.borrow();
        (state.read_bytes, state.written_bytes)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> State<S> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written_from < self.written.len() {
            match Pin::new(&mut self.socket).poll_write(cx, &self.written[self.written_from..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(size)) => {
                    self.written_from += size;
                    self.written_bytes += size as u64;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.written.capacity() > 0 {
            let mut empty = std::mem::take(&mut self.written);
            self.written_from = 0;
            empty.clear();
            SPARE.with_borrow_mut(|spare| {
                if spare.written.len() < MAX_SPARE && empty.capacity() <= 2 * WRITE_BYTES {
                    spare.written.push(empty);
                }
            });
        }
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn unwritten(&self) -> usize {
        self.written.len() - self.written_from
    }

    /// Fill the read buffer, which is empty. `Ready` without bytes is the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = self.read.take().unwrap_or_else(|| {
            let spare = SPARE.with_borrow_mut(|spare| spare.read.pop());
            spare.unwrap_or_else(|| vec![0; READ_BYTES].into_boxed_slice())
        });
        let mut target = ReadBuf::new(&mut buffer);
        let polled = Pin::new(&mut self.socket).poll_read(cx, &mut target);
        let size = target.filled().len();
        if polled.is_pending() {
            SPARE.with_borrow_mut(|spare| {
                if spare.read.len() < MAX_SPARE {
                    spare.read.push(buffer);
                }
            });
            return Poll::Pending;
        }
        self.read_bytes += size as u64;
        self.watch.see(&mut buffer[..size]);
        (self.read_from, self.read_to) = (0, size);
        self.read = Some(buffer);
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Io<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        if state.read_from == state.read_to {
            if state.watch.turn_frames >= TURN_FRAMES {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if buf.remaining() >= READ_BYTES / 2 || state.watch.skip >= DIRECT_BYTES {
                // a large piece follows, or there is room for one: no copy in between
                let before = buf.filled().len();
                let polled = Pin::new(&mut state.socket).poll_read(cx, buf);
                let fresh = &mut buf.filled_mut()[before..];
                state.read_bytes += fresh.len() as u64;
                state.watch.see(fresh);
                return polled;
            }
            match state.poll_fill(cx) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
        if let Some(buffer) = &state.read {
            let size = buf.remaining().min(state.read_to - state.read_from);
            buf.put_slice(&buffer[state.read_from..state.read_from + size]);
            state.read_from += size;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Io<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.borrow_mut();
        if state.unwritten() >= WRITE_BYTES {
            match state.poll_write_out(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if state.unwritten() >= WRITE_BYTES => return Poll::Pending,
                Poll::Pending => {
                    let written_from = std::mem::take(&mut state.written_from);
                    state.written.drain(..written_from);
                }
            }
        }
        if state.written.capacity() == 0 {
            state.written = SPARE.with_borrow_mut(|spare| spare.written.pop()).unwrap_or_default();
        }
        state.written.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn is_write_vectored(&self) -> bool {
        false
    }

    /// Does nothing: the connection flushes when it has nothing more to write.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        match state.poll_write_out(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut state.socket).poll_shutdown(cx),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn see(frames: &[Vec<u8>], piece: usize) -> Watch {
        let mut watch = Watch::new(false);
        let mut bytes = [vec![0; PREFACE_BYTES], frames.concat()].concat();
        for part in bytes.chunks_mut(piece) {
            watch.see(part);
        }
        watch
    }

    #[test]
    fn resets_are_seen_however_the_bytes_are_cut() {
        let frames = [
            frame(HEADERS, 4, 1, &[3; 20]),
            frame(RST_STREAM, 0, 1, &[0; 4]),
            frame(DATA, 0, 3, &[3; 300]),
            frame(RST_STREAM, 0, 0x8000_0003, &[0; 4]),
        ];
        for piece in [1, 7, 9, 10, 1000] {
            assert_eq!(see(&frames, piece).resets, [1, 3]);
        }
    }

    #[test]
    fn floods_are_noticed_and_ordinary_traffic_is_not() {
        let pings = vec![frame(PING, 0, 0, &[0; 8]); 1000];
        assert_eq!(see(&pings, 100).flood, Some("too_many_pings"));
        let answers = vec![frame(PING, ACK, 0, &[0; 8]); 1000];
        assert_eq!(see(&answers, 100).flood, None);
        let empty = vec![frame(DATA, 0, 1, &[]); 5000];
        assert!(see(&empty, 100).flood.is_some());
        let ended = vec![frame(DATA, END_STREAM, 1, &[]); 50_000];
        assert_eq!(see(&ended, 100).flood, None);
        let unknown = vec![frame(99, 0, 1, &[0; 5]); 5000];
        assert!(see(&unknown, 100).flood.is_some());
    }

    #[test]
    fn the_authority_of_a_unix_socket_is_mended_and_nothing_else() {
        let mut watch = Watch::new(true);
        let head = b"\x83@\x0a:authority\x05t%2Fx@\x01a\x01%".to_vec();
        let frames = [frame(HEADERS, 4, 1, &head), frame(DATA, 1, 1, b":authority\x05t%2Fx")];
        let mut bytes = [vec![0; PREFACE_BYTES], frames.concat()].concat();
        watch.see(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("t-2Fx@\x01a\x01%"));
        assert!(text.ends_with("t%2Fx"));
    }
}
