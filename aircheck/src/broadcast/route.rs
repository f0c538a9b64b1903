//! The way to a server: TCP, TLS above it where the address says so.
//!
//! Owns host, port and certificates; must never know what is spoken on top.

use super::{
    cut::Cuttable,
    line::{CONNECT_TIMEOUT, Loss, TargetError},
};
use crate::tls::Trust;
use http::Uri;
use rustls::pki_types::ServerName;
use std::{fmt, io};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// What bytes go over.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug> Duplex for T {}

/// A connection, open.
pub(super) type Stream = Box<dyn Duplex>;

/// Where to, and how.
#[derive(Clone)]
pub(super) struct Route {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, tls } = self;
        write!(f, "{host}:{port} tls={}", tls.is_some())
    }
}

impl Route {
    /// To `url`, an http:// or https:// one, for one application protocol (as ALPN names it).
    ///
    /// # Errors
    /// If it names no host.
    pub(super) fn new(url: &Uri, trust: &Trust, protocol: &str) -> Result<Self, TargetError> {
        let malformed = || TargetError::Malformed(url.to_string());
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(malformed());
        }
        let secure = url.scheme_str() == Some("https");
        let tls = secure.then(|| {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| malformed())?;
            Ok((trust.connector(protocol), name))
        });
        Ok(Self {
            host: host.to_owned(),
            port: url.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            tls: tls.transpose()?,
        })
    }

    /// Connects; cancelling `cut` resets the connection.
    pub(super) async fn open(&self, cut: CancellationToken) -> io::Result<Stream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let stream = Cuttable::new(stream, cut);
        Ok(match &self.tls {
            None => Box::new(stream),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
        })
    }

    /// Connects in time, or says why not.
    pub(super) async fn open_in_time(&self, cut: CancellationToken) -> Result<Stream, Loss> {
        match timeout(CONNECT_TIMEOUT, self.open(cut)).await {
            Ok(opened) => opened.map_err(Loss::retry),
            Err(_) => Err(Loss::retry("no connection in time")),
        }
    }
}
