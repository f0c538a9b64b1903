//! More broadcasters on one ingest connection than HTTP/2 allows by default.

mod support;

use futures::future::join_all;
use support::{
    Scene,
    client::{Broadcaster, resumable},
    soon,
};

const CROWD: u64 = 1200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_a_thousand_broadcasters_share_one_ingest() {
    let mut scene = Scene::new().await;
    let address = scene.address;
    let clients = join_all((0..CROWD).map(async |show| {
        let mut client = resumable(address, &format!("?show_id={show}")).await;
        client.hello("t1").await;
        assert_eq!(client.json().await["type"], "ready");
        client.binary(show.to_string()).await;
        client
    }));
    // Nobody leaves before everybody is in.
    let ingest = async {
        let mut broadcasts = Vec::new();
        for _ in 0..CROWD {
            let broadcast = scene.broadcasts.next().await;
            broadcast.ready(0).await;
            broadcasts.push(broadcast);
        }
        for broadcast in &mut broadcasts {
            let chunk = broadcast.chunk().await;
            assert_eq!(
                chunk.data, broadcast.open.show_id,
                "media of one show never reach another"
            );
        }
        broadcasts
    };
    let (mut clients, broadcasts) = tokio::join!(clients, ingest);
    assert_eq!((clients.len(), broadcasts.len()), (1200, 1200));
    // And all are told to come back, each in its turn.
    scene.shutdown.trigger();
    let closes = join_all(clients.iter_mut().map(Broadcaster::refused)).await;
    assert!(closes.iter().all(|(_, close)| *close == 1001));
    drop((clients, broadcasts));
    soon(scene.served)
        .await
        .expect("no panic")
        .expect("no fault");
}
