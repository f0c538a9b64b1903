//! The broadcasters of a run, a task each.
//!
//! Owns when each connects, sends, stops and gives up. Chunks are due at fixed times, whatever the
//! server does: a server that stalls is charged for the wait, not forgiven it.

use super::{figures::Figures, script::Script};
use crate::broadcast::{Credentials, Dialer, Heard, Hello, Line, Loss, Reach, Say, TargetError};
use aircheck_core::wire::Take;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// Connections that are opened at a time.
const OPENING: usize = 64;
/// Longest wait for `ready`.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(crate) struct Crowd {
    tasks: JoinSet<()>,
    start: watch::Sender<Option<Instant>>,
}

/// What all broadcasters of a run have in common.
struct Common {
    target: String,
    reach: Reach,
    token: Option<String>,
    prefix: String,
    broadcasters: u32,
    script: Arc<Script>,
    figures: Arc<Figures>,
    patience: Duration,
    opening: Semaphore,
}

/// What a run is made of.
#[derive(Debug)]
pub(crate) struct Run {
    /// As `push` takes it.
    pub(crate) target: String,
    pub(crate) reach: Reach,
    pub(crate) token: Option<String>,
    pub(crate) broadcasters: u32,
    pub(crate) script: Arc<Script>,
    pub(crate) figures: Arc<Figures>,
    /// Longest wait for an archive after stop.
    pub(crate) patience: Duration,
}

impl Crowd {
    /// Connects them all; they wait for [`Crowd::start`].
    ///
    /// # Errors
    /// If the target is none.
    pub(crate) fn gather(run: Run) -> Result<Self, TargetError> {
        let common = Arc::new(Common {
            target: run.target,
            reach: run.reach,
            token: run.token,
            // A session of an earlier run must not be taken up.
            prefix: format!("bench-{}", ulid::Ulid::new()),
            broadcasters: run.broadcasters,
            script: run.script,
            figures: run.figures,
            patience: run.patience,
            opening: Semaphore::new(OPENING),
        });
        let (start, _) = watch::channel(None);
        let mut tasks = JoinSet::new();
        for number in 0..run.broadcasters {
            let dialer = common.dialer(number)?;
            let (common, start) = (Arc::clone(&common), start.subscribe());
            tasks.spawn(async move { common.broadcast(number, dialer, start).await });
        }
        Ok(Self { tasks, start })
    }

    /// Lets them begin now.
    pub(crate) fn start(&self) {
        self.start.send_replace(Some(Instant::now()));
    }

    /// Waits until all are through.
    ///
    /// # Errors
    /// If one of them panicked.
    pub(crate) async fn through(&mut self) -> Result<(), tokio::task::JoinError> {
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}

impl Common {
    fn dialer(&self, number: u32) -> Result<Dialer, TargetError> {
        let credentials = Credentials {
            show: format!("{}-{number}", self.prefix),
            user: format!("bench-{number}"),
            token: self.token.clone(),
        };
        Dialer::new(&self.target, credentials, &self.reach)
    }

    async fn broadcast(
        &self,
        number: u32,
        dialer: Dialer,
        mut start: watch::Receiver<Option<Instant>>,
    ) {
        let line = match self.go_live(&dialer).await {
            Ok(line) => line,
            Err(loss) => return self.figures.refused(loss.to_string()),
        };
        self.figures.live();
        // The sender lives as long as the crowd, which aborts us when it goes.
        let Ok(Some(start)) = start.wait_for(Option::is_some).await.map(|start| *start) else {
            return;
        };
        // Spread over one chunk's length, as people are.
        let phase = self.script.every * number / self.broadcasters;
        let show = Show {
            line,
            script: &self.script,
            figures: &self.figures,
            start: start + phase,
            chunk: 0,
            sent: 0,
            durable: 0,
            due: VecDeque::new(),
        };
        if let Err(loss) = show.run(self.patience).await {
            self.figures.lost(loss.to_string());
        }
    }

    async fn go_live(&self, dialer: &Dialer) -> Result<Line, Loss> {
        let closed = |_| Loss::retry("the run is over");
        let _turn = self.opening.acquire().await.map_err(closed)?;
        let take = Take {
            id: "bench".to_owned(),
            mime: Script::MIME.to_owned(),
            first: 0,
            next: 0,
        };
        let hello = Hello {
            session: None,
            take,
            force: false,
            rehearse: false,
        };
        let mut line = dialer.dial(hello).await?;
        let ready = async {
            loop {
                match line.heard.recv().await {
                    Some(Ok(Heard::Ready(_))) => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(loss)) => return Err(loss),
                    None => return Err(Loss::retry("closed without a word")),
                }
            }
        };
        match timeout(READY_TIMEOUT, ready).await {
            Ok(ready) => ready.map(|()| line),
            Err(_) => Err(Loss::retry("no ready in time")),
        }
    }
}

/// One show, live.
struct Show<'a> {
    line: Line,
    script: &'a Script,
    figures: &'a Figures,
    /// When recording began; a chunk is due when it is recorded.
    start: Instant,
    /// The next one; one beyond the last: stop.
    chunk: u32,
    sent: u64,
    durable: u64,
    /// Where chunks that are not acknowledged end, and when they were due.
    due: VecDeque<(u64, Instant)>,
}

impl Show<'_> {
    async fn run(mut self, patience: Duration) -> Result<(), Loss> {
        let stop_at = self.due_at(self.chunks());
        let deadline = stop_at + patience;
        let say = self.line.say.clone();
        let recording = loop {
            let (due, left) = (self.due_at(self.chunk), self.chunk <= self.chunks());
            let place = async {
                sleep_until(due).await;
                say.reserve().await
            };
            let heard = tokio::select! {
                heard = self.line.heard.recv() => heard,
                place = place, if left => {
                    let place = place.map_err(|_| Loss::retry("the connection is gone"))?;
                    place.send(self.next(due));
                    continue;
                }
                () = sleep_until(deadline) => return Err(Loss::retry("no archive in time")),
            };
            match heard.ok_or_else(|| Loss::retry("closed without a word"))?? {
                Heard::Ack { durable, .. } => self.acknowledged(durable),
                Heard::End(recording) => break recording,
                Heard::State { error: Some(error) } => return Err(Loss::retry(error)),
                Heard::Ready(_) | Heard::State { error: None } | Heard::Finalizing { .. } => {}
            }
        };
        self.figures.ended(*recording, stop_at.elapsed());
        // The line ends with its last speaker.
        drop(say);
        self.line.leave().await;
        Ok(())
    }

    /// What is said now: the chunk that is due, or stop after the last.
    fn next(&mut self, due: Instant) -> Say {
        let said = match self.script.chunks().get(self.chunk as usize) {
            Some(data) => {
                let offset = self.sent;
                self.sent += data.len() as u64;
                self.due.push_back((self.sent, due));
                self.figures.sent(data.len() as u64);
                Say::Chunk {
                    offset,
                    data: data.clone(),
                }
            }
            None => Say::Stop,
        };
        self.chunk += 1;
        said
    }

    fn chunks(&self) -> u32 {
        u32::try_from(self.script.chunks().len()).unwrap_or(u32::MAX)
    }

    /// The stop is due together with the last chunk.
    fn due_at(&self, chunk: u32) -> Instant {
        self.start + self.script.every * chunk.saturating_add(1).min(self.chunks())
    }

    fn acknowledged(&mut self, durable: u64) {
        let now = Instant::now();
        let passed = self.due.partition_point(|(end, _)| *end <= durable);
        let latencies = self.due.drain(..passed).map(|(_, due)| now - due);
        let more = durable.saturating_sub(self.durable);
        self.figures.durable(more, latencies);
        self.durable = self.durable.max(durable);
    }
}
