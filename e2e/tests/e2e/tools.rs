//! The command's own broadcaster, against the services it comes with.

use aircheck_e2e::{
    capture::Capture, cluster::Cluster, oracle::archived_exactly, process::aircheck, wait::within,
};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};
use tokio::process::Command;

const DEADLINE: Duration = Duration::from_secs(25);

/// Runs `aircheck ARGUMENTS`, which must succeed; answers its standard output.
async fn run(arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(aircheck());
    command.args(arguments).env_clear().kill_on_drop(true);
    let output = within(
        DEADLINE,
        &format!("aircheck {arguments:?}"),
        command.output(),
    )
    .await;
    let output = output.expect("run aircheck");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "aircheck {arguments:?}: {} {complaints}",
        output.status
    );
    output.stdout
}

fn path_of(capture: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../core/tests/media");
    folder
        .join(format!("{capture}.bin"))
        .to_str()
        .expect("the tests' paths are text")
        .to_owned()
}

#[tokio::test]
async fn push_over_websocket_survives_its_own_drops_and_prints_the_recording() {
    let cluster = Cluster::up(&[]).await;
    let (capture, to) = (Capture::load("opus250"), format!("ws://{}", cluster.web));
    let file = path_of("opus250");
    let push = [
        "push",
        &file,
        "--show",
        "7",
        "--to",
        &to,
        "--speed",
        "10",
        "--drop-every",
        "1s",
    ];
    let said: Value = serde_json::from_slice(&run(&push).await).expect("JSON");
    let recording = archived_exactly(&cluster, "7", &capture).await;
    assert_eq!(
        (&said["id"], &said["status"]),
        (&recording["id"], &json!("archived")),
        "{said}"
    );
    assert!(recording["reconnects"].as_u64() >= Some(1), "{recording}");
}

#[tokio::test]
async fn push_over_grpc_and_a_verified_download_give_back_the_file() {
    let cluster = Cluster::up(&[]).await;
    let (capture, to) = (Capture::load("vp8"), format!("http://{}", cluster.ingest));
    let file = path_of("vp8");
    run(&["push", &file, "--show", "7", "--to", &to, "--speed", "0"]).await;
    let recording = archived_exactly(&cluster, "7", &capture).await;
    let id = recording["id"].as_str().expect("an id");
    let copy = cluster.folder().join("copy.webm");
    let copy_path = copy.to_str().expect("the tests' paths are text");
    let web = format!("http://{}", cluster.web);
    run(&["recordings", "download", id, "-o", copy_path, "--to", &web]).await;
    let key = recording["object_key"].as_str().expect("a key");
    let downloaded = std::fs::read(&copy).expect("a downloaded file");
    assert!(downloaded == cluster.bucket().object(key));
    let verdict: Value =
        serde_json::from_slice(&run(&["recordings", "verify", id, "--json", "--to", &web]).await)
            .expect("JSON");
    assert_eq!(verdict["ok"], true, "{verdict}");
    let repaired = run(&["recordings", "repair", id, "--to", &web]).await;
    let said = String::from_utf8(repaired).expect("text");
    assert!(said.contains("nothing to repair"), "{said}");
}
