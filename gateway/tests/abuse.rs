//! Clients that want to hurt: slowly, by the thousand, or through a name. Others notice nothing.

mod support;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use std::time::Duration;
use support::{
    Scene,
    client::{Broadcaster, http, plain, plain_live, resumable},
    soon,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};
use tokio_tungstenite::tungstenite::Message;

/// Longest head of a request that never ends, as it is promised.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

async fn somebody_else_goes_live(scene: &mut Scene) {
    let (mut client, mut broadcast) = plain_live(scene, "?show_id=else").await;
    client.binary("heard").await;
    assert_eq!(broadcast.chunk().await.data, "heard");
}

#[tokio::test]
async fn an_upgrade_of_one_byte_a_second_is_closed_in_time() {
    let mut scene = Scene::new().await;
    let mut stream = soon(TcpStream::connect(scene.address))
        .await
        .expect("connect");
    let head = b"GET /ws/stream?show_id=7 HTTP/1.1\r\nHost: x\r\nX: ";
    stream.write_all(head).await.expect("write");
    let begun = Instant::now();
    let (mut read, mut write) = stream.split();
    let dripping = async {
        while write.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = dripping => {}
        read = soon(read.read_to_end(&mut answer)) => drop(read),
    }
    assert!(
        begun.elapsed() >= HEAD_DEADLINE / 2,
        "it was given a chance"
    );
    assert!(!answer.starts_with(b"HTTP/1.1 101"));
    assert!(scene.broadcasts.is_empty());
    somebody_else_goes_live(&mut scene).await;
}

#[tokio::test]
async fn a_hundred_thousand_messages_of_one_byte_are_all_heard_in_order() {
    const MESSAGES: u64 = 100_000;
    let mut scene = Scene::new().await;
    let (client, mut broadcast) = plain_live(&mut scene, "?show_id=7").await;
    let (mut sink, _stream) = client.0.split();
    let sending = async {
        for n in 0..MESSAGES {
            let [.., byte] = n.to_be_bytes();
            let message = Message::Binary(Bytes::copy_from_slice(&[byte]));
            soon(sink.feed(message)).await.expect("send");
        }
        soon(sink.flush()).await.expect("flush");
    };
    let hearing = async {
        let mut next = 0;
        while next < MESSAGES {
            let chunk = broadcast.chunk().await;
            assert_eq!(chunk.offset, next);
            for byte in &chunk.data {
                let [.., expected] = next.to_be_bytes();
                assert_eq!(*byte, expected, "byte {next}");
                next += 1;
            }
        }
    };
    tokio::join!(sending, hearing);
    somebody_else_goes_live(&mut scene).await;
}

#[tokio::test]
async fn a_flood_of_pings_that_nobody_reads_the_answers_of_ends_in_a_closed_connection_or_none() {
    const PINGS: usize = 50_000;
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = plain_live(&mut scene, "?show_id=7").await;
    // The answers fill the sockets' buffers, and then the gateway must stop reading, not hoard.
    let flood = async {
        for _ in 0..PINGS {
            let ping = Message::Ping(Bytes::from_static(&[7; 125]));
            if client.0.send(ping).await.is_err() {
                return;
            }
        }
    };
    let stalled = tokio::time::timeout(Duration::from_secs(3), flood).await;
    drop(stalled);
    somebody_else_goes_live(&mut scene).await;
    // Whoever reads again is still on air.
    let Broadcaster(socket) = client;
    let (mut sink, mut stream) = socket.split();
    let reading = tokio::spawn(async move { while let Some(Ok(_)) = stream.next().await {} });
    soon(sink.send(Message::Binary(Bytes::from_static(b"on air"))))
        .await
        .expect("send");
    assert_eq!(broadcast.chunk().await.data, "on air");
    reading.abort();
}

#[tokio::test]
async fn control_frames_that_break_the_protocol_close_the_connection() {
    let long_ping = [b"\x89\xfe\x00\x7e\0\0\0\0".as_slice(), &[7; 126]].concat();
    for nonsense in [
        b"\x8b\x80\0\0\0\0".as_slice(),        // an opcode that does not exist
        b"\x83\x80\0\0\0\0",                   // another, among those of data
        b"\x09\x80\0\0\0\0",                   // a ping in pieces
        &long_ping,                            // of 126 bytes
        b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0", // a message of 2^63 bytes
    ] {
        let mut scene = Scene::new().await;
        let (mut client, mut broadcast) = plain_live(&mut scene, "?show_id=7").await;
        soon(client.0.get_mut().write_all(nonsense))
            .await
            .expect("write");
        assert!(broadcast.ended_in_order().await, "{nonsense:?}");
        assert!(
            client
                .next()
                .await
                .is_ok_and(|said| said.starts_with("error: "))
        );
        somebody_else_goes_live(&mut scene).await;
    }
}

#[tokio::test]
async fn a_name_that_is_a_path_or_worse_reaches_no_ingest_and_no_archiver() {
    let scene = Scene::new().await;
    let digits = "9".repeat(10_000);
    for name in [
        "../7",
        "..%2f7",
        "%2e%2e%2f7",
        "7%00",
        "7/8",
        "7%2f8",
        "7%5c8",
        "%ff",
        ".",
        "-7",
        &digits,
    ] {
        let query = format!("?show_id={name}");
        let refused = plain(scene.address, &query).await.err();
        let (status, code) = refused.expect("refused");
        assert_eq!(status, 400, "{name}");
        assert!(
            matches!(&*code, "AC_BAD_SHOW_ID" | "AC_BAD_MESSAGE"),
            "{name}: {code}"
        );
        let mut client = resumable(scene.address, &query).await;
        assert_eq!(client.refused().await.1, 4400, "{name}");
        for (method, path) in [
            ("POST", format!("/api/stream/stop?show_id={name}")),
            ("GET", format!("/api/stream/status?show_id={name}")),
            ("GET", format!("/api/shows/{name}/recordings")),
            ("GET", format!("/live/{name}")),
        ] {
            let status = http(scene.address, method, &path, "").await.status;
            assert!(matches!(status, 400 | 404), "{method} {path}: {status}");
        }
    }
    assert!(scene.broadcasts.is_empty());
}
