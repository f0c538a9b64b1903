//! The task of one sink: starts it, notices that it has failed, and starts it again.
//!
//! Owns the encoder and the connection to the server. Must never give up while the show lasts, nor
//! outlive it by more than the time the last words need.

use super::{
    encoder::{Codecs, Encoder, Encoding, Order},
    feed::{Cluster, Media},
    flow::{self, FlowError, Progress},
    icecast::{self, OpenError},
    levels::Ears,
    report::{Board, State},
    target::{Format, Mount, Target, Way},
};
use aircheck_runtime::{backoff::Backoff, program::Pipes};
use bytes::Bytes;
use std::{error::Error as _, io, path::PathBuf, process::ExitStatus, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{net::TcpStream, time::Instant};
use tracing::Instrument as _;

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Once up for so long, a failure is news and not a series.
const STABLE: Duration = Duration::from_secs(20);
/// How long the encoder and the server may take for the rest when the show is over.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Why a sink is down.
#[derive(Debug, Error)]
enum Failure {
    #[error("there is no {program:?} on this machine")]
    NoEncoder { program: PathBuf },
    #[error("start the encoder")]
    Start(#[source] io::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Flow(#[from] FlowError),
    #[error("the encoder ended ({}): {words}", status.map_or_else(|| "killed".to_owned(), |s| s.to_string()))]
    Encoder {
        status: Option<ExitStatus>,
        words: String,
    },
}

/// What a sink is for.
#[derive(Clone, Debug)]
pub(crate) enum Goal {
    /// Media goes to a server.
    Server(Target),
    /// It is decoded, and its level goes to whoever watches.
    Levels(Arc<Ears>),
}

impl Goal {
    fn redact(&self, text: &str) -> String {
        match self {
            Self::Server(target) => target.redact(text),
            Self::Levels(_) => text.to_owned(),
        }
    }
}

/// Where what the encoder makes goes.
#[derive(Debug)]
enum Outlet<'a> {
    /// To a server.
    Server(TcpStream),
    /// The encoder speaks to the server.
    Itself,
    /// To whoever watches.
    Ears(&'a Ears),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Supervisor {
    show_id: String,
    goal: Goal,
    encoding: Encoding,
    media: Media,
    board: Arc<Board>,
}

impl Supervisor {
    pub(crate) fn new(
        show_id: String,
        goal: Goal,
        encoding: Encoding,
        media: Media,
        board: Arc<Board>,
    ) -> Self {
        Self {
            show_id,
            goal,
            encoding,
            media,
            board,
        }
    }

    /// Runs until the show is over.
    pub(crate) async fn run(self) {
        let span = tracing::info_span!("sink", show_id = self.show_id, sink = self.board.name());
        self.keep_up().instrument(span).await;
    }

    async fn keep_up(mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            // Without media there is nothing to try: it is down until then.
            let Some(beginning) = self.media.beginning().await else {
                return;
            };
            self.board.set(State::Starting);
            let Err(failure) = self.carry(beginning).await else {
                tracing::info!("sink ended with its show");
                return;
            };
            let retry_in = match failure {
                Failure::NoEncoder { .. } => RETRY_MAX,
                _ => backoff.delay(),
            };
            let error = self.goal.redact(&with_causes(&failure));
            tracing::warn!(error, ?retry_in, "sink down");
            let before = self.board.set(State::Down { error, retry_in });
            if matches!(before, State::Up { since } if since.elapsed() > STABLE) {
                backoff.reset();
            }
            tokio::select! {
                () = tokio::time::sleep(retry_in) => self.board.restarted(),
                () = self.media.discard() => return,
            }
        }
    }

    /// One attempt, from a cluster on that a decoder can begin with.
    async fn carry(&mut self, beginning: (Bytes, Cluster)) -> Result<(), Failure> {
        let codecs = Codecs::of(&beginning.0);
        let goal = self.goal.clone();
        let (order, outlet) = match &goal {
            Goal::Server(target) => match target.way() {
                Way::Icecast(mount) => return self.feed_icecast(beginning, &mount, codecs).await,
                Way::Rtmp(stream) => (
                    Order::rtmp(&stream, codecs, self.encoding.ca_file.as_deref())
                        .map_err(Failure::Start)?,
                    Outlet::Itself,
                ),
            },
            Goal::Levels(ears) => (Order::levels(), Outlet::Ears(ears)),
        };
        let (encoder, pipes) = self.start(order)?;
        self.encode(beginning, encoder, pipes, outlet).await
    }

    async fn feed_icecast(
        &mut self,
        beginning: (Bytes, Cluster),
        mount: &Mount<'_>,
        codecs: Codecs,
    ) -> Result<(), Failure> {
        let server = icecast::open(mount, codecs.has_video()).await?;
        if mount.format == Format::WebM {
            return self.forward(beginning, server).await;
        }
        let order = Order::pipe(mount.format, codecs, mount.show_id);
        let (encoder, pipes) = self.start(order)?;
        self.encode(beginning, encoder, pipes, Outlet::Server(server))
            .await
    }

    fn start(&self, order: Order) -> Result<(Encoder, Pipes), Failure> {
        Encoder::start(&self.encoding.ffmpeg, order).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::NoEncoder {
                program: self.encoding.ffmpeg.clone(),
            },
            _ => Failure::Start(error),
        })
    }

    /// The live branch is what the mount takes: nothing needs to be made of it.
    async fn forward(
        &mut self,
        beginning: (Bytes, Cluster),
        server: TcpStream,
    ) -> Result<(), Failure> {
        let (answers, server) = server.into_split();
        let board = Arc::clone(&self.board);
        let up = move || is_up(&board);
        tokio::select! {
            sent = flow::send(beginning, &mut self.media, server, up) => Ok(sent?),
            error = flow::hung_up(answers) => Err(error.into()),
        }
    }

    /// Through the encoder, to a server or to where the encoder itself goes.
    async fn encode(
        &mut self,
        beginning: (Bytes, Cluster),
        mut encoder: Encoder,
        pipes: Pipes,
        outlet: Outlet<'_>,
    ) -> Result<(), Failure> {
        let carried = self
            .run_encoder(beginning, &mut encoder, pipes, outlet)
            .await;
        let end = encoder.finish().await;
        match (carried, end.status) {
            (Ok(()), _) => Ok(()),
            // Its pipes break because it died, and it knows best why.
            (
                Err(FlowError::EncoderEnded | FlowError::Encoder(_) | FlowError::Encoded(_)),
                status,
            ) => {
                let words = end.words;
                Err(Failure::Encoder { status, words })
            }
            (Err(error), _) => {
                if !end.words.is_empty() {
                    let words = self.goal.redact(&end.words);
                    tracing::info!(words, "the encoder's last words");
                }
                Err(error.into())
            }
        }
    }

    async fn run_encoder(
        &mut self,
        beginning: (Bytes, Cluster),
        encoder: &mut Encoder,
        pipes: Pipes,
        outlet: Outlet<'_>,
    ) -> Result<(), FlowError> {
        let Pipes { stdin, stdout } = pipes;
        let progress = Progress::default();
        let board = Arc::clone(&self.board);
        let up = move || is_up(&board);
        let output = async {
            match outlet {
                Outlet::Itself => flow::follow(stdout, &progress, up).await,
                Outlet::Ears(ears) => flow::measure(stdout, &progress, up, ears).await,
                Outlet::Server(server) => {
                    let (answers, server) = server.into_split();
                    tokio::select! {
                        relayed = flow::relay(stdout, server, &progress, up) => relayed,
                        error = flow::hung_up(answers) => Err(error),
                    }
                }
            }
        };
        let mut output = std::pin::pin!(output);
        tokio::select! {
            // Closing its standard input is how the encoder learns of the end.
            fed = flow::feed(beginning, &mut self.media, stdin, &progress) => fed?,
            out = &mut output => return out.and(Err(FlowError::EncoderEnded)),
            error = flow::watch(&progress) => return Err(error),
            () = encoder.ended() => return Err(FlowError::EncoderEnded),
        }
        let rest = async {
            output.await?;
            encoder.ended().await;
            Ok(())
        };
        let rest = tokio::time::timeout(LAST_WORDS, rest).await;
        rest.unwrap_or(Err(FlowError::Stalled))
    }
}

fn is_up(board: &Board) {
    tracing::info!("sink up");
    let since = Instant::now();
    board.set(State::Up { since });
}

/// An error and what caused it, in one line.
fn with_causes(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
