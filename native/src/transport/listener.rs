//! Listening sockets: opened here or taken over, TCP and Unix.

use std::io;
use std::net::ToSocketAddrs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpSocket, UnixStream};

use super::connection;
use super::server::{Arrived, Config, Thread};
use super::socket::Socket;
use super::tls::Tls;

const BACKLOG: u32 = 1024;
/// Between two looks at an error of `accept`, which is nearly always a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two connections where other processes accept from the same socket, so that they get some too.
const POLITE_PAUSE: Duration = Duration::from_micros(200);

pub struct Bound {
    pub listeners: Vec<Listener>,
    pub address: String,
}

pub struct Listener {
    kind: Kind,
    shared: bool,
}

enum Kind {
    Tcp(TcpListener, Option<Rc<Tls>>),
    Unix(AsyncFd<UnixListener>, #[allow(dead_code)] Option<Unlink>),
}

/// Removes the socket's path at the end.
struct Unlink(String);

impl Drop for Unlink {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Open what the configuration asks for.
pub fn bind(config: &Config) -> io::Result<Bound> {
    let tls = match &config.tls {
        Some(files) => Some(Rc::new(Tls::load(files)?)),
        None => None,
    };
    let shared = !config.fds.is_empty();
    let mut kinds = Vec::new();
    for &fd in &config.fds {
        kinds.push(adopt(fd, &tls)?);
    }
    if !shared {
        kinds.push(Kind::Tcp(bind_tcp(&config.host, config.port)?, tls));
    }
    if !config.unix.is_empty() {
        let socket = bind_path(&config.unix)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", config.unix)))?;
        kinds.push(Kind::Unix(ready(socket)?, Some(Unlink(config.unix.clone()))));
    }
    let port = kinds.iter().find_map(|kind| match kind {
        Kind::Tcp(socket, _) => socket.local_addr().ok().map(|address| address.port()),
        Kind::Unix(..) => None,
    });
    Ok(Bound {
        listeners: kinds.into_iter().map(|kind| Listener { kind, shared }).collect(),
        address: format!("{}:{}", config.host, port.unwrap_or_default()),
    })
}

/// Take over a listening socket, of TCP or a Unix one.
fn adopt(fd: RawFd, tls: &Option<Rc<Tls>>) -> io::Result<Kind> {
    // SAFETY: the caller gives us this descriptor; it is used nowhere else in this process.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let socket = std::net::TcpListener::from(fd);
    if socket.local_addr().is_ok() {
        socket.set_nonblocking(true)?;
        return Ok(Kind::Tcp(TcpListener::from_std(socket)?, tls.clone()));
    }
    Ok(Kind::Unix(ready(UnixListener::from(OwnedFd::from(socket)))?, None))
}

fn ready(socket: UnixListener) -> io::Result<AsyncFd<UnixListener>> {
    socket.set_nonblocking(true)?;
    // SAFETY: the listener owns its descriptor and gives out the same one as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

fn bind_tcp(host: &str, port: u16) -> io::Result<TcpListener> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        let opened = (|| {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        })();
        match opened {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Take a connection without asking for its address, which nobody needs and not every system gives.
async fn accept_unix(socket: &AsyncFd<UnixListener>) -> io::Result<UnixStream> {
    let accepted = socket
        .async_io(Interest::READABLE, |socket| {
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            // SAFETY: without a place for the address there are no memory arguments; the result is checked
            // before it is owned.
            let fd = unsafe {
                libc::accept4(socket.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags)
            };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: just opened, and nobody else knows of it.
            Ok(unsafe { std::os::unix::net::UnixStream::from_raw_fd(fd) })
        })
        .await?;
    UnixStream::from_std(accepted)
}

fn bind_path(path: &str) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() || !is_socket(Path::new(path)) {
                return Err(error);
            }
            std::fs::remove_file(path)?; // of a gateway that is gone
            UnixListener::bind(path)
        }
        other => other,
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

impl Listener {
    /// Take connections until the task is aborted, which loses none.
    pub async fn accept_forever(self, thread: Rc<Thread>) {
        let shared = thread.shared.clone();
        let mut complained = false;
        loop {
            let accepted = match &self.kind {
                Kind::Tcp(socket, tls) => socket.accept().await.map(|(stream, peer)| {
                    let _ = stream.set_nodelay(true);
                    let family = if peer.is_ipv4() { "ipv4" } else { "ipv6" };
                    (Socket::Tcp(stream), format!("{family}:{peer}"), tls.clone())
                }),
                Kind::Unix(socket, _) => {
                    let accepted = accept_unix(socket).await;
                    accepted.map(|stream| (Socket::Unix(stream), "unix:".to_owned(), None))
                }
            };
            match accepted {
                Ok((socket, peer, tls)) => {
                    complained = false;
                    shared.accepted.fetch_add(1, Ordering::Relaxed);
                    let peer: Arc<str> = Arc::from(peer);
                    tokio::task::spawn_local(connection::serve(thread.clone(), socket, peer, tls));
                    if self.shared {
                        tokio::time::sleep(POLITE_PAUSE).await;
                    }
                }
                Err(error) => {
                    if !complained {
                        complained = true;
                        shared.deliver(&mut Arrived {
                            warnings: vec![format!("connections cannot be accepted: {error}")],
                            ..Arrived::default()
                        });
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
