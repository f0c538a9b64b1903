//! Media on its way through a sink: into the encoder, and out of it.
//!
//! Owns the deadlines of every write and the watch over progress. Must never keep a cluster that could
//! not be delivered: where something is stuck the whole run ends, and begins anew with fresh media.

use super::{
    feed::{Cluster, Media},
    levels::Ears,
};
use aircheck_runtime::{levels::Reading, program::lines};
use bytes::Bytes;
use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

/// How long nothing may move although there is media.
pub(crate) const STALL: Duration = Duration::from_secs(10);
/// Clusters that an encoder may hold back for good reasons.
const HELD: u64 = 8;
const READ_BYTES: usize = 16 << 10;

/// Why media does not flow.
#[derive(Debug, Error)]
pub(crate) enum FlowError {
    #[error("no progress for {} s", STALL.as_secs())]
    Stalled,
    #[error("write to the encoder")]
    Encoder(#[source] io::Error),
    #[error("read from the encoder")]
    Encoded(#[source] io::Error),
    #[error("the encoder ended")]
    EncoderEnded,
    #[error("write to the server")]
    Server(#[source] io::Error),
    #[error("the server hung up")]
    HungUp,
}

/// What has moved so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    fed: AtomicU64,
    sent: AtomicU64,
}

impl Progress {
    /// Media that has left for the server; answers whether it is the first.
    fn sent(&self, amount: u64) -> bool {
        self.sent.fetch_add(amount, Ordering::Relaxed) == 0
    }
}

async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
) -> Result<(), Option<io::Error>> {
    match timeout(STALL, writer.write_all(bytes)).await {
        Ok(written) => written.map_err(Some),
        Err(_) => Err(None),
    }
}

/// Writes the beginning and then every cluster, until the show is over.
pub(crate) async fn feed(
    beginning: (Bytes, Cluster),
    media: &mut Media,
    mut encoder: impl AsyncWrite + Unpin,
    progress: &Progress,
) -> Result<(), FlowError> {
    let failed = |error: Option<io::Error>| error.map_or(FlowError::Stalled, FlowError::Encoder);
    let (init, first) = beginning;
    write(&mut encoder, &init).await.map_err(failed)?;
    let mut next = Some(first);
    while let Some(cluster) = next {
        write(&mut encoder, &cluster.bytes).await.map_err(failed)?;
        progress.fed.fetch_add(1, Ordering::Relaxed);
        next = media.next().await;
    }
    Ok(())
}

/// The same, to a server that takes the stream as it is. `first` is called once it took something.
pub(crate) async fn send(
    beginning: (Bytes, Cluster),
    media: &mut Media,
    mut server: impl AsyncWrite + Unpin,
    first: impl FnOnce(),
) -> Result<(), FlowError> {
    let failed = |error: Option<io::Error>| error.map_or(FlowError::Stalled, FlowError::Server);
    let (init, cluster) = beginning;
    write(&mut server, &init).await.map_err(failed)?;
    write(&mut server, &cluster.bytes).await.map_err(failed)?;
    first();
    while let Some(cluster) = media.next().await {
        write(&mut server, &cluster.bytes).await.map_err(failed)?;
    }
    finish(&mut server).await
}

async fn finish(server: &mut (impl AsyncWrite + Unpin)) -> Result<(), FlowError> {
    match timeout(STALL, server.shutdown()).await {
        Ok(ended) => ended.map_err(FlowError::Server),
        Err(_) => Err(FlowError::Stalled),
    }
}

/// Carries what the encoder made to the server, until the encoder has ended.
pub(crate) async fn relay(
    mut encoded: impl AsyncRead + Unpin,
    mut server: impl AsyncWrite + Unpin,
    progress: &Progress,
    first: impl FnOnce(),
) -> Result<(), FlowError> {
    let failed = |error: Option<io::Error>| error.map_or(FlowError::Stalled, FlowError::Server);
    let mut first = Some(first);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = encoded
            .read(&mut buffer)
            .await
            .map_err(FlowError::Encoded)?;
        if read == 0 {
            return finish(&mut server).await;
        }
        write(&mut server, &buffer[..read]).await.map_err(failed)?;
        if progress.sent(read as u64)
            && let Some(first) = first.take()
        {
            first();
        }
    }
}

/// Follows what the encoder says about media it sent by itself, until it has ended.
pub(crate) async fn follow(
    said: impl AsyncRead + Unpin,
    progress: &Progress,
    first: impl FnOnce(),
) -> Result<(), FlowError> {
    let (mut first, mut seen) = (Some(first), 0);
    let heard = |line: &[u8]| {
        let size = total_size(line).unwrap_or(seen);
        if size > seen {
            let is_first = progress.sent(size - seen);
            seen = size;
            if is_first && let Some(first) = first.take() {
                first();
            }
        }
    };
    lines(said, heard).await.map_err(FlowError::Encoded)
}

/// Listens to the levels that ffmpeg measures, until it has ended.
pub(crate) async fn measure(
    said: impl AsyncRead + Unpin,
    progress: &Progress,
    first: impl FnOnce(),
    ears: &Ears,
) -> Result<(), FlowError> {
    let (mut first, mut reading) = (Some(first), Reading::default());
    let heard = |line: &[u8]| {
        if let Some(level) = reading.line(line) {
            if progress.sent(1)
                && let Some(first) = first.take()
            {
                first();
            }
            ears.hear(level);
        }
    };
    lines(said, heard).await.map_err(FlowError::Encoded)
}

fn total_size(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?;
    text.strip_prefix("total_size=")?.trim().parse().ok()
}

/// Ends when media went in for a while and nothing came out.
pub(crate) async fn watch(progress: &Progress) -> FlowError {
    let mut tick = interval(STALL / 10);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut fed, mut sent, mut moved) = (0, 0, Instant::now());
    loop {
        tick.tick().await;
        let now = (
            progress.fed.load(Ordering::Relaxed),
            progress.sent.load(Ordering::Relaxed),
        );
        if now.1 != sent || now.0 < fed + HELD {
            if now.1 != sent {
                (fed, sent) = now;
            }
            moved = Instant::now();
        } else if moved.elapsed() >= STALL {
            return FlowError::Stalled;
        }
    }
}

/// Ends when the server hangs up. What it says meanwhile is of no use.
pub(crate) async fn hung_up(mut server: impl AsyncRead + Unpin) -> FlowError {
    let mut buffer = [0; 1024];
    loop {
        match server.read(&mut buffer).await {
            Ok(0) | Err(_) => return FlowError::HungUp,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn media_without_progress_is_a_stall_and_silence_is_none() {
        let progress = Progress::default();
        progress.fed.store(HELD - 1, Ordering::Relaxed);
        let quiet = timeout(STALL * 5, watch(&progress)).await;
        assert!(quiet.is_err(), "nothing to complain about");
        progress.fed.store(100, Ordering::Relaxed);
        let begun = Instant::now();
        assert!(matches!(watch(&progress).await, FlowError::Stalled));
        assert!(begun.elapsed() >= STALL);
    }

    #[tokio::test]
    async fn what_ffmpeg_says_of_its_output_is_progress() {
        let progress = Progress::default();
        let mut up = 0;
        let said = "out_time_us=0\ntotal_size=0\ntotal_size=N/A\ntotal_size=700\ntotal_size=900\n";
        follow(said.as_bytes(), &progress, || up += 1)
            .await
            .expect("read");
        assert_eq!((up, progress.sent.load(Ordering::Relaxed)), (1, 900));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_read_ends_the_relay() {
        let (server, _stuck) = tokio::io::duplex(1000);
        let encoded = tokio::io::repeat(0);
        let ended = relay(encoded, server, &Progress::default(), || ()).await;
        assert!(matches!(ended, Err(FlowError::Stalled)));
    }
}
