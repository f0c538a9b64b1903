//! A gateway between a scripted ingest, a scripted archiver and a client.
//!
//! Owns the scene; must never assert, which is what tests are for.

#![expect(unreachable_pub, reason = "a scene for the tests beside it")]
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::allow_attributes,
    reason = "expect would fail where everything is used"
)]

pub mod archiver;
pub mod client;
pub mod ingest;
pub mod token;

use aircheck_gateway::{Config, serve};
use aircheck_runtime::{
    health::{Health, Phase},
    shutdown::Shutdown,
};
use archiver::FakeArchiver;
use ingest::{Broadcasts, FakeIngest};
use std::{future::Future, net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};

/// Far beyond what any step takes; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .expect("this should have happened by now")
}

pub struct Scene {
    pub address: SocketAddr,
    pub shutdown: Shutdown,
    pub health: Health,
    pub ingest: FakeIngest,
    pub broadcasts: Broadcasts,
    pub archiver: FakeArchiver,
    pub served: JoinHandle<Result<(), aircheck_gateway::Error>>,
}

impl Scene {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A gateway that asks for the tokens of [`token`].
    pub async fn keyed() -> Self {
        let key = token::key_file();
        // Read once, at the start.
        let scene = Self::with(|config| config.auth_key_file = Some(key.path().to_owned())).await;
        let mut phases = scene.health.watch();
        let ready = |phase: &Phase| *phase == Phase::Ready;
        soon(phases.wait_for(ready)).await.expect("ready");
        scene
    }

    /// A gateway whose configuration is changed before it starts.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let (ingest, broadcasts, ingest_url) = ingest::start().await;
        let (archiver, archiver_url) = archiver::start().await;
        let mut config = Config::new(vec![ingest_url], archiver_url);
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (shutdown, health) = (Shutdown::new(), Health::new());
        let served = tokio::spawn(serve(config, listener, shutdown.clone(), health.clone()));
        Self {
            address,
            shutdown,
            health,
            ingest,
            broadcasts,
            archiver,
            served,
        }
    }
}

/// An address where nobody listens.
pub async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    format!("http://{}", listener.local_addr().expect("address"))
}
