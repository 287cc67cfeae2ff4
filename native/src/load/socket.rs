//! A connected stream socket, of either family, that never blocks.

use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::config::Target;

pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connect, blocking: all addresses of a name are tried.
    fn connect(target: &Target, limit: Duration) -> io::Result<Socket> {
        match target {
            Target::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Ok(Socket::Unix(stream))
            }
            Target::Tcp(address) => {
                let mut failure = io::Error::other("the name has no address");
                for each in address.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&each, limit) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            stream.set_nonblocking(true)?;
                            return Ok(Socket::Tcp(stream));
                        }
                        Err(error) => failure = error,
                    }
                }
                Err(failure)
            }
        }
    }

    /// Connect in a thread, because resolving a name cannot be bounded or interrupted.
    pub(super) fn connecting(target: &Target, limit: Duration) -> mpsc::Receiver<io::Result<Socket>> {
        let (sender, receiver) = mpsc::channel();
        let target = target.clone();
        thread::spawn(move || {
            let _ = sender.send(Socket::connect(&target, limit)); // nobody waits any more: the socket closes
        });
        receiver
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Socket::Tcp(stream) => stream.as_raw_fd(),
            Socket::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(target),
            Socket::Unix(stream) => stream.read(target),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write_vectored(slices),
            Socket::Unix(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
