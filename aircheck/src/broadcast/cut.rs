//! A TCP connection that can be torn from outside, as a dead network tears it.
//!
//! Owns the reset; must never let the protocol above say goodbye before.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Fails with a reset as soon as its token is cancelled, and resets the peer when dropped after that.
#[derive(Debug)]
pub(super) struct Cuttable {
    stream: TcpStream,
    state: State,
}

#[derive(Debug)]
enum State {
    Whole(Pin<Box<WaitForCancellationFutureOwned>>),
    Cut,
}

impl Cuttable {
    pub(super) fn new(stream: TcpStream, cut: CancellationToken) -> Self {
        Self {
            stream,
            state: State::Whole(Box::pin(cut.cancelled_owned())),
        }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let State::Whole(cut) = &mut self.state {
            if cut.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            // What is unsent is thrown away, and the peer gets RST instead of FIN.
            self.stream.set_zero_linger()?;
            self.state = State::Cut;
        }
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    #[tokio::test]
    async fn the_peer_of_a_cut_connection_sees_a_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("bound");
        let stream = TcpStream::connect(address).await.expect("connect");
        let (mut peer, _) = listener.accept().await.expect("accept");
        let cut = CancellationToken::new();
        let mut stream = Cuttable::new(stream, cut.clone());
        stream.write_all(b"x").await.expect("whole");
        assert_eq!(peer.read_u8().await.expect("whole"), b'x');
        let reading = tokio::spawn(async move { stream.read_u8().await.map_err(|e| e.kind()) });
        cut.cancel();
        let seen = reading.await.expect("no panic");
        assert_eq!(seen, Err(io::ErrorKind::ConnectionReset));
        let seen = peer.read_u8().await.map_err(|error| error.kind());
        assert_eq!(seen, Err(io::ErrorKind::ConnectionReset));
    }
}
