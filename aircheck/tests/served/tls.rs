//! Broadcasting through servers that speak TLS, as installations put in front of gateway and ingest.

use crate::support::House;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use std::{net::SocketAddr, path::Path, sync::Arc};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::Command,
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;

/// An authority that nobody knows, and a server's certificate of it.
struct Authority {
    pem: String,
    server: Arc<ServerConfig>,
}

impl Authority {
    fn new() -> Self {
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

    /// Speaks TLS in front of `behind`; gives the port.
    async fn guard(&self, behind: &str) -> (u16, AbortHandle) {
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

async fn push(to: &str, show: &str, more: &[&str]) -> (bool, String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/media/silence.bin");
    let output = Command::new(env!("CARGO_BIN_EXE_aircheck"))
        .arg("push")
        .arg(file)
        .args(["--show", show, "--speed", "0", "--to", to])
        .args(more)
        .output()
        .await
        .expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_show_goes_through_tls_to_gateway_and_ingest_and_only_to_whom_is_believed() {
    let (house, authority) = (House::start(), Authority::new());
    let dir = tempfile::tempdir().expect("tempdir");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).expect("write");
    let believe = ["--ca-file", ca.to_str().expect("utf-8")];

    let (gateway, gateway_guard) = authority.guard(&house.page).await;
    let (ingest, ingest_guard) = authority.guard(&house.ingest).await;
    let (ok, said) = push(&format!("wss://localhost:{gateway}"), "a", &believe).await;
    assert!(ok && said.contains(r#""status": "archived""#), "{said}");
    let (ok, said) = push(&format!("https://localhost:{ingest}"), "b", &believe).await;
    assert!(ok && said.contains(r#""status": "archived""#), "{said}");

    let unknown = ["--retry-for", "0"];
    let (ok, said) = push(&format!("wss://localhost:{gateway}"), "c", &unknown).await;
    assert!(!ok && said.contains("invalid peer certificate"), "{said}");
    // The certificate is another name's.
    let (ok, said) = push(
        &format!("https://127.0.0.1:{ingest}"),
        "d",
        &[&believe[..], &unknown].concat(),
    )
    .await;
    assert!(!ok && said.contains("invalid peer certificate"), "{said}");
    gateway_guard.abort();
    ingest_guard.abort();
}
