//! The source side of Icecast: HTTP PUT with a body that ends with the show.
//!
//! Owns the connection until the server has said that it takes media, which Icecast does since 2.4.
//! Must never wait for the server without a deadline.

use super::target::{Format, Mount};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{io, time::Duration};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};

/// For the name alone.
const LOOKUP: Duration = Duration::from_secs(4);
/// For the name, the connection and the answer together.
const OPENING: Duration = Duration::from_secs(8);
/// Bytes an answer's head may have.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Small, so that a server that has stopped reading is noticed in seconds rather than minutes.
const SEND_BUFFER: u32 = 64 << 10;

/// Why the server does not take media.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    #[error("find the host")]
    Lookup(#[source] io::Error),
    #[error("connect")]
    Connect(#[source] io::Error),
    #[error("speak to the server")]
    Speak(#[source] io::Error),
    #[error("no answer in {} s", OPENING.as_secs())]
    NoAnswer,
    #[error("the server hung up")]
    HungUp,
    #[error("the server does not speak HTTP")]
    Foreign,
    #[error("the server refused: {0}")]
    Refused(Status),
}

/// A status line: number and reason, as the server wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    code: u16,
    reason: String,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.reason)
    }
}

/// Connects to a mount and asks to be its source. `video` matters to a `WebM` mount only.
pub(crate) async fn open(mount: &Mount<'_>, video: bool) -> Result<TcpStream, OpenError> {
    let opening = async {
        let mut stream = connect(mount.host, mount.port).await?;
        let request = request(mount, video);
        let written = stream.write_all(request.as_bytes()).await;
        written.map_err(OpenError::Speak)?;
        loop {
            let status = answer(&mut stream).await?;
            match status.code {
                // The body may begin. What comes later is the end of the request.
                100 | 200..=299 => return Ok(stream),
                101..=199 => {}
                _ => return Err(OpenError::Refused(status)),
            }
        }
    };
    let opened = timeout(OPENING, opening).await;
    opened.unwrap_or(Err(OpenError::NoAnswer))
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, OpenError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = timeout(LOOKUP, lookup_host((host, port))).await;
    let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let addresses = found.map_err(OpenError::Lookup)?;
    let mut failure = io::ErrorKind::NotFound.into();
    for address in addresses {
        let connected = async {
            let socket = match address.is_ipv4() {
                true => TcpSocket::new_v4()?,
                false => TcpSocket::new_v6()?,
            };
            socket.set_send_buffer_size(SEND_BUFFER)?;
            socket.connect(address).await
        };
        match connected.await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(OpenError::Connect)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(OpenError::Connect(failure))
}

fn request(mount: &Mount<'_>, video: bool) -> String {
    let credentials = STANDARD.encode(format!("{}:{}", mount.user, mount.password));
    let content_type = match (mount.format, video) {
        (Format::Mp3, _) => "audio/mpeg",
        (Format::Ogg, _) => "audio/ogg",
        (Format::WebM, true) => "video/webm",
        (Format::WebM, false) => "audio/webm",
    };
    let Mount {
        path,
        host,
        port,
        show_id,
        ..
    } = mount;
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "PUT {path} HTTP/1.1\r\n\
         Host: {host}:{port}\r\n\
         Authorization: Basic {credentials}\r\n\
         User-Agent: aircheck/{version}\r\n\
         Content-Type: {content_type}\r\n\
         Ice-Name: {show_id}\r\n\
         Ice-Public: 0\r\n\
         Expect: 100-continue\r\n\
         Connection: close\r\n\
         \r\n"
    )
}

/// Reads the head of one answer, to its empty line and not a byte further.
async fn answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<Status, OpenError> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        if head.len() >= HEAD_BYTES_MAX {
            return Err(OpenError::Foreign);
        }
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(OpenError::HungUp);
            }
            Err(error) => return Err(OpenError::Speak(error)),
        }
    }
    status(&String::from_utf8_lossy(&head)).ok_or(OpenError::Foreign)
}

fn status(head: &str) -> Option<Status> {
    let (version, rest) = head.lines().next()?.split_once(' ')?;
    if !version.starts_with("HTTP/") && version != "ICY" {
        return None;
    }
    let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let reason = reason.chars().filter(|c| !c.is_control()).take(80);
    Some(Status {
        code: code.parse().ok()?,
        reason: reason.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn asked(answer: &'static str) -> (Result<TcpStream, OpenError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.expect("a request"));
            }
            stream.write_all(answer.as_bytes()).await.expect("answer");
            String::from_utf8(request).expect("text")
        });
        let mount = Mount {
            user: "source",
            password: "sesame",
            host: "127.0.0.1",
            port,
            path: "/7.mp3".to_owned(),
            show_id: "7",
            format: Format::Mp3,
        };
        let opened = open(&mount, false).await;
        (opened, server.await.expect("served"))
    }

    #[tokio::test]
    async fn a_source_may_begin_after_continue_or_ok() {
        for answer in [
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.0 200 OK\r\nServer: x\r\n\r\n",
        ] {
            let (opened, request) = asked(answer).await;
            assert!(opened.is_ok());
            assert!(request.starts_with("PUT /7.mp3 HTTP/1.1\r\n"));
            assert!(request.contains("Authorization: Basic c291cmNlOnNlc2FtZQ==\r\n"));
        }
    }

    #[tokio::test]
    async fn a_refusal_says_what_the_server_said_and_a_stranger_is_no_icecast() {
        let (refused, _) = asked("HTTP/1.0 403 Mountpoint in use\r\n\r\n").await;
        let error = refused.expect_err("refused").to_string();
        assert_eq!(error, "the server refused: 403 Mountpoint in use");
        let (foreign, _) = asked("220 smtp ready\r\n\r\n").await;
        assert!(matches!(foreign, Err(OpenError::Foreign)));
        let (hung_up, _) = asked("").await;
        assert!(matches!(hung_up, Err(OpenError::HungUp)));
    }
}
