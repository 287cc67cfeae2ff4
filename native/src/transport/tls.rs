//! TLS: certificates from files, read again when they have changed.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::server::TlsFiles;

/// The files are looked at for a new connection, at most this often.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Makes TLS connections with the certificate that the files hold now. Files that cannot be used change nothing:
/// the last good ones stay.
pub struct Tls {
    files: TlsFiles,
    current: RefCell<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    stamp: Vec<(SystemTime, u64)>,
    looked: Instant,
}

impl Tls {
    pub fn load(files: &TlsFiles) -> io::Result<Self> {
        let stamp = stamp(files);
        Ok(Tls {
            files: files.clone(),
            current: RefCell::new(Current {
                config: Arc::new(config(files)?),
                stamp,
                looked: Instant::now(),
            }),
        })
    }

    /// Return what accepts a connection, and what is wrong with files that have changed.
    pub fn acceptor(&self) -> (TlsAcceptor, Option<String>) {
        let mut current = self.current.borrow_mut();
        let mut warning = None;
        if current.looked.elapsed() >= LOOK_AGAIN {
            current.looked = Instant::now();
            let stamp = stamp(&self.files);
            if stamp != current.stamp {
                match config(&self.files) {
                    Ok(config) => current.config = Arc::new(config),
                    Err(error) => warning = Some(format!("the changed TLS files are not used: {error}")),
                }
                current.stamp = stamp;
            }
        }
        (TlsAcceptor::from(current.config.clone()), warning)
    }
}

fn stamp(files: &TlsFiles) -> Vec<(SystemTime, u64)> {
    [&files.certificate, &files.key, &files.client_ca]
        .into_iter()
        .filter_map(|path| std::fs::metadata(path).ok())
        .map(|found| (found.modified().unwrap_or(SystemTime::UNIX_EPOCH), found.len()))
        .collect()
}

fn wrong(path: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{path}: {error}"))
}

fn certificates(path: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, error))?.collect();
    let found = found.map_err(|error| wrong(path, error))?;
    if found.is_empty() {
        return Err(wrong(path, "holds no certificate in PEM"));
    }
    Ok(found)
}

fn config(files: &TlsFiles) -> io::Result<ServerConfig> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = if files.client_ca.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.client_ca)? {
            roots.add(certificate).map_err(|error| wrong(&files.client_ca, error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| wrong(&files.client_ca, error))?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut config =
        builder.with_single_cert(chain, key).map_err(|error| wrong(&files.certificate, error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
