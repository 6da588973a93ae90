//! Makes the byte stream: name, address, TCP, TLS, pins.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_native_tls::{Certificate, Protocol, TlsConnector};
use rustix::net::{Shutdown, shutdown, sockopt};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use super::der::{public_key, valid_until};
use super::wire::Stream;
use super::{Error, Quirks};
use crate::model::Digest;

/// Where the server is, and how to talk to it.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Name or address; also what the certificate must be for.
    pub host: String,
    /// Other names of the same service, tried in order where the first cannot be reached; certificates must be for them.
    pub other_hosts: Vec<String>,
    /// TCP port.
    pub port: u16,
    /// Encryption.
    pub tls: Tls,
    /// Where bodies above 512 KiB wait, in files without a name; on the file system with the room for them.
    pub spool_dir: PathBuf,
    /// The largest message that is accepted, in bytes. A larger one breaks the connection, so sizes are asked first.
    pub max_literal: u64,
    /// How long no byte may come or go while an answer is awaited.
    pub timeout: Duration,
    /// How long all of name, address, TCP and TLS may take together.
    pub connect_timeout: Duration,
    /// What the provider does differently.
    pub quirks: Quirks,
    /// What was learned about the way there; shared by all clones.
    pub route: Route,
}

/// What was learned about the way to a server: that it works over IPv4 only.
#[derive(Clone, Debug, Default)]
pub struct Route(Arc<AtomicBool>);

impl Route {
    /// Tells whether only IPv4 is used.
    #[must_use]
    pub fn is_ipv4_only(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Says whether only IPv4 is to be used from now on.
    pub fn set_ipv4_only(&self, ipv4_only: bool) {
        self.0.store(ipv4_only, Ordering::Relaxed);
    }
}

/// The way that a connection took.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    /// Which name of the service led there.
    pub host: String,
    /// It goes over IPv6.
    pub over_ipv6: bool,
    /// Until when the server's certificate is valid, in seconds since 1970; none without TLS, and for one that cannot be
    /// read.
    pub certificate_until: Option<i64>,
}

/// A stream to a server, by which way it goes, and what breaks it from outside.
pub(super) struct Dialed {
    pub(super) stream: Stream,
    pub(super) way: Way,
    pub(super) cutter: Cutter,
}

/// Encryption of the connection. There is no STARTTLS: what is said before it can be forged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tls {
    /// TLS from the first byte (RFC 8314 §3), 1.2 or later; chain and host name are always verified.
    Implicit {
        /// A PEM file with CAs that are trusted besides those of the system.
        ca_file: Option<PathBuf>,
        /// If there are any, the server's public key must have one of these SHA-256 of its SPKI (RFC 7469 §2.4).
        pins: Vec<Digest>,
    },
    /// None; only to addresses of this machine.
    None,
}

/// Breaks a connection from outside: whoever waits for it is told at once that it ended.
#[derive(Debug)]
pub struct Cutter(OwnedFd);

impl Cutter {
    /// Breaks the connection.
    pub fn cut(&self) {
        if let Err(error) = shutdown(&self.0, Shutdown::Both) {
            debug!(%error, "a connection that was to be broken had ended already");
        }
    }
}

/// One address of several is given up after this time, so that a dead one (often IPv6) does not use up the whole.
const ONE_ADDRESS: Duration = Duration::from_secs(10);
/// A connection that carried nothing for this long is probed; NAT gateways forget silent ones after few minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_COUNT: u32 = 3;
/// Bytes that nobody acknowledges for this long, in milliseconds, went nowhere.
const UNACKNOWLEDGED: u32 = 60_000;

impl Connect {
    /// Returns a stream to the server that is safe to send a password over.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Certificate`], or [`Error::Configuration`] for no TLS to another machine.
    pub(super) async fn dial(&self, ipv4_only: bool) -> Result<Dialed, Error> {
        let mut first = None;
        for host in std::iter::once(&self.host).chain(&self.other_hosts) {
            let late = |_| self.unreachable(format!("no connection within {} seconds", self.connect_timeout.as_secs()));
            let at = Self { host: host.clone(), ..self.clone() };
            match timeout(self.connect_timeout, at.dial_at_leisure(ipv4_only)).await.map_err(late).flatten() {
                Err(error @ Error::Unreachable { .. }) => {
                    debug!(%error, "one of the names of the server did not lead there");
                    first.get_or_insert(error);
                }
                other => return other,
            }
        }
        Err(first.unwrap_or_else(|| self.unreachable("it has no name".to_owned())))
    }

    async fn dial_at_leisure(&self, ipv4_only: bool) -> Result<Dialed, Error> {
        let tcp = self.tcp(ipv4_only).await?;
        let cutter = tcp.as_fd().try_clone_to_owned().map(Cutter).map_err(|e| self.unreachable(e.to_string()))?;
        let over_ipv6 = tcp.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_ipv6());
        let (stream, certificate_until) = self.secured(tcp).await?;
        let way = Way { host: self.host.clone(), over_ipv6, certificate_until };
        Ok(Dialed { stream, way, cutter })
    }

    /// Returns the stream, and until when the server's certificate is valid.
    async fn secured(&self, tcp: TcpStream) -> Result<(Stream, Option<i64>), Error> {
        match &self.tls {
            Tls::None => {
                let peer = tcp.peer_addr().map_err(|e| self.unreachable(e.to_string()))?;
                if !peer.ip().to_canonical().is_loopback() {
                    let (host, address) = (&self.host, peer.ip());
                    let text = format!("tls = \"none\" is for this machine only, but {host} is {address}");
                    return Err(Error::Configuration(text));
                }
                Ok((Box::new(tcp), None))
            }
            Tls::Implicit { ca_file, pins } => self.tls(tcp, ca_file.as_deref(), pins).await,
        }
    }

    async fn tcp(&self, ipv4_only: bool) -> Result<TcpStream, Error> {
        let addresses = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let addresses = addresses.map_err(|e| self.unreachable(e.to_string()))?;
        let addresses: Vec<SocketAddr> = addresses.filter(|a| !ipv4_only || a.is_ipv4()).collect();
        let mut tried = Vec::new();
        for address in addresses {
            let result = timeout(ONE_ADDRESS, TcpStream::connect(address)).await;
            match result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(tcp) => {
                    // Without these it works too, only slower, and a dead connection is noticed later.
                    if let Err(error) = tune(&tcp) {
                        debug!(%error, "could not set socket options");
                    }
                    return Ok(tcp);
                }
                Err(error) => tried.push(format!("{}: {error}", address.ip())),
            }
        }
        Err(self.unreachable(if tried.is_empty() { "the name has no address".to_owned() } else { tried.join("; ") }))
    }

    async fn tls(
        &self,
        tcp: TcpStream,
        ca_file: Option<&Path>,
        pins: &[Digest],
    ) -> Result<(Stream, Option<i64>), Error> {
        let mut connector = TlsConnector::new().min_protocol_version(Some(Protocol::Tlsv12));
        if let Some(path) = ca_file {
            for certificate in read_certificates(path)? {
                connector = connector.add_root_certificate(certificate);
            }
        }
        let distrust = |reason: String| Error::Certificate { host: self.host.clone(), reason };
        let stream = connector.connect(&self.host, tcp).await.map_err(|error| {
            // A connection that breaks during the handshake says nothing about the certificate.
            let mut source: Option<&dyn std::error::Error> = Some(&error);
            while let Some(inner) = source {
                if inner.is::<io::Error>() {
                    return self.unreachable(format!("during the TLS handshake: {inner}"));
                }
                source = inner.source();
            }
            distrust(error.to_string())
        })?;
        let der = stream.peer_certificate().ok().flatten().and_then(|c| c.to_der().ok()).unwrap_or_default();
        if !pins.is_empty() {
            let key = public_key(&der).ok_or_else(|| distrust("its certificate cannot be read".to_owned()))?;
            let digest = Digest(Sha256::digest(key).into());
            if !pins.contains(&digest) {
                return Err(distrust(format!("its public key has the SHA-256 {digest}, which is not in tls_pin")));
            }
        }
        Ok((Box::new(stream), valid_until(&der)))
    }

    fn unreachable(&self, reason: String) -> Error {
        Error::Unreachable { host: self.host.clone(), port: self.port, reason }
    }
}

fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_COUNT)?;
    sockopt::set_tcp_user_timeout(tcp, UNACKNOWLEDGED)?;
    Ok(())
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate>, Error> {
    const END: &str = "-----END CERTIFICATE-----";
    let what = || format!("could not read tls_ca_file {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| Error::local(what(), e))?;
    let blocks = text.split_inclusive(END).filter(|block| block.contains(END));
    let found: Result<Vec<_>, _> = blocks.map(|block| Certificate::from_pem(block.as_bytes())).collect();
    let found = found.map_err(|e| Error::Configuration(format!("{}: {e}", what())))?;
    if found.is_empty() {
        return Err(Error::Configuration(format!("{}: it holds no PEM certificate", what())));
    }
    Ok(found)
}
