//! Broadcasting over WebSocket, in the dialect `aircheck.v1`.
//!
//! Owns how words become frames, and what a close means; must never hold bytes of a show longer than
//! it takes to send them.

use super::{
    line::{
        CONNECT_TIMEOUT, Credentials, Heard, Hello, IN, Line, Loss, OUT, Reach, Ready, Say,
        Settled, TargetError,
    },
    route::{Route, Stream},
};
use crate::http::{Http, HttpError, bearer, escaped, join, web};
use aircheck_core::{
    code::Code,
    recording::Recording,
    wire::{FromClient, FromServer},
};
use aircheck_proto::Fault;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, StatusCode, Uri, header};
use serde_json::Value;
use std::time::Duration;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error as WsError, Message,
        client::IntoClientRequest as _,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

const SUBPROTOCOL: &str = "aircheck.v1";
/// Longest wait for one message to be taken by the network.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// The server pings every 10 s: after this much silence it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const WRITE_BUFFER_MAX: usize = 4 << 20;

/// A gateway and who we are to it.
#[derive(Debug)]
pub(crate) struct Dialer {
    /// With http for ws, for its API.
    base: String,
    route: Route,
    show: String,
    bearer: Option<HeaderValue>,
    http: Http,
}

impl Dialer {
    pub(super) fn new(
        target: &str,
        credentials: Credentials,
        reach: &Reach,
    ) -> Result<Self, TargetError> {
        let base = web(target);
        let malformed = |_| TargetError::Malformed(target.to_owned());
        let url: Uri = base.parse().map_err(malformed)?;
        let bearer = credentials.token.as_deref().map(bearer).transpose();
        let bearer = bearer.map_err(|_| TargetError::Token)?;
        let http = reach.http.clone();
        Ok(Self {
            route: Route::new(&url, &reach.trust, "http/1.1")?,
            base,
            show: credentials.show,
            http: match &bearer {
                Some(bearer) => http.with_bearer(&url, bearer.clone()),
                None => http,
            },
            bearer,
        })
    }

    pub(super) async fn dial(&self, hello: Hello) -> Result<Line, Loss> {
        let cut = CancellationToken::new();
        let stream = self.route.open_in_time(cut.clone()).await?;
        let mut socket = self.upgrade(stream, &hello).await?;
        let first = FromClient::Hello {
            session: hello.session,
            take: hello.take,
        };
        send(&mut socket, text(&first)).await?;
        let (say, queue) = mpsc::channel(OUT);
        let (ear, heard) = mpsc::channel(IN);
        let pump = AbortOnDropHandle::new(tokio::spawn(async move {
            let Some(loss) = pump(&mut socket, queue, &ear).await else {
                return;
            };
            if ear.send(Err(loss)).await.is_err() {
                tracing::debug!("nobody listens to how the connection ended");
            }
        }));
        Ok(Line {
            say,
            heard,
            cut,
            pump,
        })
    }

    async fn upgrade(
        &self,
        stream: Stream,
        hello: &Hello,
    ) -> Result<WebSocketStream<Stream>, Loss> {
        let force = if hello.force { "&force=true" } else { "" };
        let test = if hello.rehearse { "&test=true" } else { "" };
        let path = format!("/ws/stream?show_id={}{force}{test}", escaped(&self.show));
        let url = join(&self.base, &path).map_err(Loss::retry)?.to_string();
        let mut request = url
            .replacen("http", "ws", 1)
            .into_client_request()
            .map_err(Loss::retry)?;
        let headers = request.headers_mut();
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        );
        if let Some(bearer) = &self.bearer {
            headers.insert(header::AUTHORIZATION, bearer.clone());
        }
        let config = WebSocketConfig::default().max_write_buffer_size(WRITE_BUFFER_MAX);
        let upgrading = client_async_with_config(request, stream, Some(config));
        match timeout(CONNECT_TIMEOUT, upgrading).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(WsError::Http(answer))) => {
                Err(refused(answer.status(), answer.body().as_deref()))
            }
            Ok(Err(error)) => Err(Loss::retry(error)),
            Err(_) => Err(Loss::retry("no upgrade in time")),
        }
    }

    /// Asks the HTTP API.
    pub(super) async fn settle(&self, session: &str) -> Result<Settled, Loss> {
        let path = format!("/api/stream/status?show_id={}", escaped(&self.show));
        let url = join(&self.base, &path).map_err(Loss::retry)?;
        let status: Value = self.http.json(&url).await.map_err(Loss::retry)?;
        if status["session"] == session
            && matches!(status["state"].as_str(), Some("live" | "grace"))
        {
            return Ok(Settled::Live);
        }
        let path = format!("/api/recordings/{}", escaped(session));
        let url = join(&self.base, &path).map_err(Loss::retry)?;
        match self.http.json::<Box<Recording>>(&url).await {
            Ok(recording) if recording.status.is_final() => Ok(Settled::Ended(recording)),
            Ok(_)
            | Err(HttpError::Status {
                status: StatusCode::NOT_FOUND,
                ..
            }) => Ok(Settled::Pending),
            Err(error) => Err(Loss::retry(error)),
        }
    }
}

/// A refusal before the upgrade, as proxies and the plain dialect's rules give it.
fn refused(status: StatusCode, body: Option<&[u8]>) -> Loss {
    let json: Value = body
        .and_then(|body| serde_json::from_slice(body).ok())
        .unwrap_or_default();
    let message = json["error"]["message"].as_str().unwrap_or_default();
    let code = json["error"]["code"].as_str().and_then(Code::parse);
    let passes = status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        );
    if passes {
        return Loss::retry(format!("{status} {message}").trim_end());
    }
    let message = if message.is_empty() {
        status.to_string()
    } else {
        message.to_owned()
    };
    Loss::Refused(Fault::new(code.unwrap_or(Code::BadMessage), message))
}

fn text(message: &FromClient) -> Message {
    let json = serde_json::to_string(message).expect("a message of strings and numbers");
    Message::text(json)
}

async fn send(socket: &mut WebSocketStream<Stream>, message: Message) -> Result<(), Loss> {
    match timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(sent) => sent.map_err(Loss::retry),
        Err(_) => Err(Loss::retry("the server takes no bytes")),
    }
}

/// Carries words both ways. `None`: we left.
async fn pump(
    socket: &mut WebSocketStream<Stream>,
    mut queue: mpsc::Receiver<Say>,
    ear: &mpsc::Sender<Result<Heard, Loss>>,
) -> Option<Loss> {
    let (mut silent, mut fault) = (Instant::now() + SILENCE_MAX, None);
    loop {
        tokio::select! {
            message = socket.next() => {
                silent = Instant::now() + SILENCE_MAX;
                match heard(message, &mut fault) {
                    Ok(Some(heard)) => ear.send(Ok(heard)).await.ok()?,
                    Ok(None) => {}
                    Err(loss) => return Some(loss),
                }
            }
            say = queue.recv() => {
                let message = match say {
                    Some(Say::Take(take)) => text(&FromClient::Take { take }),
                    Some(Say::Chunk { data, .. }) => Message::Binary(data),
                    Some(Say::Stop) => text(&FromClient::Stop),
                    None => {
                        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                        if let Err(error) = socket.close(Some(goodbye)).await {
                            tracing::debug!(%error, "say goodbye");
                        }
                        return None;
                    }
                };
                if let Err(loss) = send(socket, message).await {
                    return Some(loss);
                }
            }
            () = sleep_until(silent) => return Some(Loss::retry("the server fell silent")),
        }
    }
}

/// `fault` is what the server said went wrong, until it closes.
fn heard(
    message: Option<Result<Message, WsError>>,
    fault: &mut Option<Fault>,
) -> Result<Option<Heard>, Loss> {
    let text = match message {
        Some(Ok(Message::Text(text))) => text,
        Some(Ok(Message::Close(frame))) => {
            return Err(closed(frame.map(|f| f.code.into()), fault.take()));
        }
        Some(Ok(_)) => return Ok(None),
        Some(Err(error)) => {
            return Err(fault.take().map_or_else(|| Loss::retry(error), Loss::from));
        }
        None => return Err(closed(None, fault.take())),
    };
    let message: FromServer = serde_json::from_str(&text)
        .map_err(|error| Fault::new(Code::BadMessage, format!("not understood: {error}")))?;
    Ok(Some(match message {
        FromServer::Ready {
            session,
            take,
            offset,
            max_frame,
            previous,
            ..
        } => {
            let max_frame = usize::try_from(max_frame).unwrap_or(usize::MAX);
            Heard::Ready(Ready {
                session,
                take,
                offset,
                max_frame,
                previous,
            })
        }
        FromServer::Ack {
            take,
            offset,
            archived,
        } => Heard::Ack {
            take,
            durable: offset,
            archived,
        },
        FromServer::State { error, .. } => Heard::State { error },
        // The recording has it, too.
        FromServer::Sheet(_) => return Ok(None),
        FromServer::Finalizing { archived, .. } => Heard::Finalizing { archived },
        FromServer::Archived { recording } | FromServer::Failed { recording } => {
            Heard::End(recording)
        }
        FromServer::Error {
            code,
            message,
            retry_ms,
        } => {
            let code = Code::parse(&code).unwrap_or(Code::Internal);
            *fault = Some(Fault {
                code,
                message,
                retry_ms,
            });
            return Ok(None);
        }
    }))
}

/// What a close means: the close code decides, the error before it explains.
fn closed(code: Option<u16>, fault: Option<Fault>) -> Loss {
    // 1011 stands for every fault of the server's, and says nothing about the next attempt.
    let known = Code::ALL
        .into_iter()
        .find(|known| Some(known.close_code()) == code && code != Some(1011));
    match (fault, known) {
        (Some(fault), _) => fault.into(),
        (None, Some(known)) => Fault::new(known, "the server closed").into(),
        (None, None) => match code {
            Some(code) => Loss::retry(format!("closed with {code}")),
            None => Loss::retry("closed without a word"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(loss: &Loss) -> bool {
        matches!(loss, Loss::Retry { .. })
    }

    #[test]
    fn close_codes_say_whether_to_come_back() {
        for code in [
            None,
            Some(1001),
            Some(1006),
            Some(1011),
            Some(1012),
            Some(4408),
            Some(4429),
            Some(4503),
        ] {
            assert!(passes(&closed(code, None)), "{code:?}");
        }
        for code in [4400, 4401, 4403, 4409, 4410, 4413, 4415] {
            assert!(!passes(&closed(Some(code), None)), "{code}");
        }
    }

    #[test]
    fn the_error_before_a_close_explains_it() {
        let mut fault = None;
        let error = r#"{"type":"error","code":"AC_CONFLICT","message":"why","retry_ms":null}"#;
        assert!(matches!(
            heard(Some(Ok(Message::text(error))), &mut fault),
            Ok(None)
        ));
        let close = CloseFrame {
            code: CloseCode::from(4409),
            reason: "".into(),
        };
        match heard(Some(Ok(Message::Close(Some(close)))), &mut fault) {
            Err(Loss::Refused(fault)) => assert_eq!(fault, Fault::new(Code::Conflict, "why")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refusals_before_the_upgrade_are_told_apart() {
        assert!(passes(&refused(StatusCode::SERVICE_UNAVAILABLE, None)));
        assert!(passes(&refused(StatusCode::BAD_GATEWAY, Some(b"<html>"))));
        let body = br#"{"error":{"code":"AC_UNAUTHENTICATED","message":"no token"}}"#;
        match refused(StatusCode::UNAUTHORIZED, Some(body)) {
            Loss::Refused(fault) => {
                assert_eq!(fault, Fault::new(Code::Unauthenticated, "no token"));
            }
            Loss::Retry { why, .. } => panic!("{why}"),
        }
    }
}
