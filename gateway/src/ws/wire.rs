//! One WebSocket: reads and writes progress together, in one task, neither waiting for the other.
//!
//! Owns the socket, what waits to be written, and the closing handshake. Must never know what a
//! message means.

use super::outbox::Outbox;
use bytes::Bytes;
use futures::{Sink as _, StreamExt as _, future::poll_fn};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        protocol::{Role, WebSocketConfig},
    },
};

/// Enough for a usual chunk; thousands of sockets have one each.
const READ_BUFFER: usize = 16 << 10;
/// Text of ours is small, and pongs repeat at most 125 bytes.
const WRITE_BUFFER_MAX: usize = 256 << 10;
/// Longest wait for a client to take the last messages and to close.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// Read and thrown away after a fault at a time, in bytes.
const DISCARD: usize = 8 << 10;

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Text(Utf8Bytes),
    Binary(Bytes),
}

/// Why nothing more can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Closed or lost.
    Gone,
    /// A message beyond the limit; the rest of it is still on its way.
    TooLarge,
    /// Not WebSocket, or text that is not UTF-8.
    Malformed,
}

/// A stream that knows when it last brought bytes.
#[derive(Debug)]
struct Metered<S> {
    inner: S,
    heard: Instant,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.heard = Instant::now();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A broadcaster's socket after the upgrade.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    socket: WebSocketStream<Metered<S>>,
    /// What is to be written next.
    pub(crate) outbox: Outbox,
    /// Whether something was handed to the socket and not flushed yet.
    unflushed: bool,
    /// How reading ended, once it has.
    broken: Option<Broken>,
    ponged: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Takes over an upgraded connection; messages beyond `max_message` bytes are refused before
    /// they are read.
    pub(crate) async fn new(stream: S, max_message: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BUFFER_MAX)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let stream = Metered {
            inner: stream,
            heard: Instant::now(),
        };
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        Self {
            socket,
            outbox: Outbox::default(),
            unflushed: false,
            broken: None,
            ponged: None,
        }
    }

    /// When the last byte came.
    pub(crate) fn heard(&self) -> Instant {
        self.socket.get_ref().heard
    }

    /// When the latest pong came, if one came since this was asked.
    pub(crate) fn ponged(&mut self) -> Option<Instant> {
        self.ponged.take()
    }

    /// The next message; meanwhile writes what waits. With `read` false, only writes, and never
    /// ends but when the socket fails. Loses nothing when dropped.
    pub(crate) async fn next(&mut self, read: bool) -> Result<Incoming, Broken> {
        poll_fn(|cx| {
            if let Poll::Ready(Err(_lost)) = self.poll_write_out(cx) {
                self.broken = Some(Broken::Gone);
                return Poll::Ready(Err(Broken::Gone));
            }
            if read && !self.outbox.is_crowded() {
                self.poll_read(cx)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Ready once everything is flushed.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if self.unflushed {
                ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
                self.unflushed = false;
            }
            let Some(message) = self.outbox.pop() else {
                return Poll::Ready(Ok(()));
            };
            Pin::new(&mut self.socket).start_send(message)?;
            self.unflushed = true;
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, Broken>> {
        loop {
            let broken = match ready!(self.socket.poll_next_unpin(cx)) {
                Some(Ok(Message::Text(text))) => return Poll::Ready(Ok(Incoming::Text(text))),
                Some(Ok(Message::Binary(data))) => return Poll::Ready(Ok(Incoming::Binary(data))),
                Some(Ok(Message::Pong(_))) => {
                    self.ponged = Some(Instant::now());
                    continue;
                }
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => continue,
                Some(Err(Error::Capacity(_))) => Broken::TooLarge,
                Some(Err(Error::Utf8(_) | Error::Protocol(_))) => Broken::Malformed,
                Some(Ok(Message::Close(_)) | Err(_)) | None => Broken::Gone,
            };
            self.broken = Some(broken);
            return Poll::Ready(Err(broken));
        }
    }

    /// Writes what waits, then a close frame, and waits a moment for the client to close in turn:
    /// a socket closed over unread bytes is reset, and the client would never read why.
    pub(crate) async fn close(mut self, code: u16, reason: &'static str) {
        let closing = async {
            if self.broken != Some(Broken::Gone) {
                self.outbox.close(code, reason);
                poll_fn(|cx| self.poll_write_out(cx)).await?;
            }
            self.linger().await
        };
        match timeout(CLOSE_DEADLINE, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "client left before it was closed"),
            Err(_elapsed) => tracing::debug!("client did not close in time"),
        }
    }

    /// Reads until the client closes. After a fault of framing only raw bytes make sense.
    async fn linger(&mut self) -> Result<(), Error> {
        if self.broken.is_none_or(|broken| broken == Broken::Gone) {
            while let Some(message) = self.socket.next().await {
                message?;
            }
            return Ok(());
        }
        let mut discard = vec![0; DISCARD];
        while self.socket.get_mut().read(&mut discard).await? > 0 {}
        Ok(())
    }
}
