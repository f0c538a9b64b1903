//! What operators must never see. Alone in its process, because the subscriber is the process's.

mod support;

use serde_json::json;
use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};
use support::{
    Scene,
    client::{http, http_with, plain, plain_live},
    soon, token,
};
use tracing_subscriber::fmt::MakeWriter;

const ID: &str = "01JDAR0Q8ZK4N6V3T7W9X1Y2Z3";

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("log").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn tokens_are_never_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).expect("nobody else logs");
    let mut scene = Scene::keyed().await;
    let expired = json!({"sub": "ann", "exp": token::now() - 90});
    let (good, bad) = (token::of("ann"), token::signed(&expired));
    for token in [&good, &bad] {
        let path = format!("/api/recordings/{ID}/download?token={token}");
        http(scene.address, "GET", &path, "").await;
        let header = format!("Authorization: Bearer {token}\r\n");
        http_with(scene.address, "GET", "/api/shows", &header, "").await;
    }
    let refused = plain(scene.address, &format!("?show_id=7&token={bad}")).await;
    assert!(refused.is_err());
    let (client, broadcast) = plain_live(&mut scene, &format!("?show_id=7&token={good}")).await;
    drop((client, broadcast));
    scene.shutdown.trigger();
    soon(scene.served)
        .await
        .expect("no panic")
        .expect("no fault");
    let log = String::from_utf8(log.0.lock().expect("log").clone()).expect("text");
    assert!(log.contains("not authenticated"), "{log}");
    assert!(log.contains("broadcaster is live"), "{log}");
    for token in [good, bad] {
        let (_, claims) = token.split_once('.').expect("three parts");
        let leak = log.lines().find(|line| line.contains(claims));
        assert_eq!(leak, None);
    }
}
