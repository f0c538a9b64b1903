//! TLS in front of a server that speaks none.
//!
//! Owns an authority that nobody knows. Must never be believed by anything but a test.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;

/// An authority that nobody knows, and a server's certificate of it.
#[derive(Debug)]
pub struct Authority {
    /// Its own certificate.
    pub pem: String,
    server: Arc<ServerConfig>,
}

impl Authority {
    /// One of its own kind, for `localhost`.
    ///
    /// # Panics
    /// If there is no randomness.
    #[must_use]
    pub fn generate() -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(["localhost".to_owned()])
            .and_then(|params| params.signed_by(&key, &issuer))
            .expect("a certificate");
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .expect("key and certificate fit");
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self {
            pem: issuer.pem(),
            server: Arc::new(server),
        }
    }

    /// Speaks TLS in front of `behind`, as `host:port`; gives the port.
    ///
    /// # Panics
    /// If that is no address, or there is no free port.
    pub async fn guard(&self, behind: &str) -> (u16, AbortHandle) {
        let behind: SocketAddr = behind
            .trim_start_matches("http://")
            .parse()
            .expect("host:port");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let acceptor = TlsAcceptor::from(Arc::clone(&self.server));
        let serving = tokio::spawn(async move {
            loop {
                let (outer, _) = listener.accept().await.expect("accept");
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut outer) = acceptor.accept(outer).await else {
                        return;
                    };
                    let mut inner = TcpStream::connect(behind).await.expect("it serves");
                    drop(copy_bidirectional(&mut outer, &mut inner).await);
                });
            }
        });
        (port, serving.abort_handle())
    }
}
