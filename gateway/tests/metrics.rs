//! What operators see. Alone in its process, because the recorder is the process's.

mod support;

use support::{
    Scene,
    client::{http, resumable},
    soon,
};

#[tokio::test]
async fn connections_bytes_and_closes_are_counted() {
    let mut scene = Scene::new().await;
    let metrics = async |address| {
        let answer = http(address, "GET", "/metrics", "").await;
        String::from_utf8(answer.body).expect("text")
    };
    // The first look installs the recorder.
    metrics(scene.address).await;
    let mut client = resumable(scene.address, "?show_id=7").await;
    client.hello("t1").await;
    let mut broadcast = scene.broadcasts.next().await;
    broadcast.ready(0).await;
    client.said().await;
    client.binary(vec![7; 1000]).await;
    broadcast.chunk().await;
    let text = metrics(scene.address).await;
    assert!(text.contains("aircheck_ws_connections 1\n"), "{text}");
    assert!(
        text.contains("aircheck_ws_received_bytes_total 1000\n"),
        "{text}"
    );
    client.text("nonsense").await;
    assert_eq!(client.refused().await.1, 4400);
    drop((client, broadcast));
    scene.shutdown.trigger();
    soon(scene.served)
        .await
        .expect("no panic")
        .expect("no fault");
    let text = aircheck_runtime::telemetry::render_metrics();
    assert!(text.contains("aircheck_ws_connections 0\n"), "{text}");
    assert!(
        text.contains(r#"aircheck_ws_closes_total{code="4400"} 1"#),
        "{text}"
    );
    assert!(
        text.contains(r#"aircheck_http_responses_total{status="101"} 1"#),
        "{text}"
    );
}
