//! Broadcasting through servers that speak TLS, as installations put in front of gateway and ingest.

use crate::support::House;
use aircheck_e2e::authority::Authority;
use std::path::Path;
use tokio::process::Command;

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
    let (house, authority) = (House::start(), Authority::generate());
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
