//! Two broadcasters want one show, and a real ingest decides.

mod support;

use aircheck_runtime::{
    health::{Health, Phase},
    shutdown::Shutdown,
};
use clap::Parser;
use serde_json::Value;
use support::{
    Scene,
    archiver::{self, FakeArchiver},
    client::{Broadcaster, plain, resumable},
    soon, token,
};
use tokio::{net::TcpListener, task::JoinHandle};

const CAPTURE: &[u8] = include_bytes!("../../core/tests/media/opus250.bin");

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    config: aircheck_ingest::Config,
}

/// A real ingest before an archiver that takes everything.
struct Ingest {
    archiver: FakeArchiver,
    url: String,
    shutdown: Shutdown,
    served: JoinHandle<Result<(), aircheck_ingest::Error>>,
    _spool: tempfile::TempDir,
}

impl Ingest {
    async fn start() -> Self {
        let spool = tempfile::tempdir().expect("a folder");
        let (archiver, archiver_url) = archiver::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let path = spool.path().to_str().expect("UTF-8");
        let flags = ["ingest", "--spool-dir", path, "--advertise", &url];
        let more = ["--archiver", &archiver_url, "--segment-size", "1MiB"];
        let config = Flags::parse_from(flags.into_iter().chain(more)).config;
        let (shutdown, health) = (Shutdown::new(), Health::new());
        let mut phases = health.watch();
        let serving = aircheck_ingest::serve(config, listener, shutdown.clone(), health);
        let served = tokio::spawn(serving);
        soon(phases.wait_for(|phase| *phase == Phase::Ready))
            .await
            .expect("ready");
        Self {
            archiver,
            url,
            shutdown,
            served,
            _spool: spool,
        }
    }
}

async fn live(scene: &Scene, user: &str, more: &str) -> (Broadcaster, Value) {
    let query = format!("?show_id=7{more}&token={}", token::of(user));
    let mut client = resumable(scene.address, &query).await;
    client.hello("t1").await;
    let ready = client.json().await;
    (client, ready)
}

/// The next message of a type; acks and states come when they will.
async fn until(client: &mut Broadcaster, kind: &str) -> Value {
    loop {
        let message = client.json().await;
        if message["type"] == kind {
            return message;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_show_changes_hands_by_force_only() {
    let ingest = Ingest::start().await;
    let key = token::key_file();
    let scene = Scene::with(|config| {
        config.ingest = vec![ingest.url.clone()];
        config.auth_key_file = Some(key.path().to_owned());
    })
    .await;
    let (mut ann, ready) = live(&scene, "ann", "").await;
    assert_eq!(ready["type"], "ready", "{ready}");
    ann.binary(CAPTURE).await;
    until(&mut ann, "ack").await;

    let refused = plain(
        scene.address,
        &format!("?show_id=7&token={}", token::of("bob")),
    )
    .await;
    assert_eq!(refused.map(|_| ()), Err((409, "AC_CONFLICT".to_owned())));
    let (mut bob, refused) = live(&scene, "bob", "").await;
    assert_eq!(refused["code"], "AC_CONFLICT");
    assert_eq!(bob.closed().await, 4409);

    let (_bob, taken) = live(&scene, "bob", "&force=true").await;
    assert_eq!(taken["type"], "ready", "{taken}");
    assert_ne!(taken["session"], ready["session"], "a session has one user");
    let error = until(&mut ann, "error").await;
    assert_eq!(error["code"], "AC_SUPERSEDED");
    assert_eq!(ann.closed().await, 4410);
    let mut finalized = ingest.archiver.finalized.subscribe();
    let ended = soon(finalized.wait_for(|all| !all.is_empty())).await;
    let ended = ended.expect("the archiver lives")[0].clone();
    assert_eq!(ended["session"], ready["session"]);
    assert_eq!(ended["user"], "ann");
    assert!(ended.to_string().contains(r#""superseded""#), "{ended}");

    let (mut ann, refused) = live(&scene, "ann", "").await;
    assert_eq!(refused["code"], "AC_CONFLICT");
    assert_eq!(ann.closed().await, 4409);
    scene.shutdown.trigger();
    soon(scene.served)
        .await
        .expect("no panic")
        .expect("no fault");
    ingest.shutdown.trigger();
    soon(ingest.served)
        .await
        .expect("no panic")
        .expect("no fault");
}
