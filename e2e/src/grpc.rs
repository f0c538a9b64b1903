//! A broadcaster inside the house: gRPC, with a user of its own choice.
//!
//! Owns a `Publish` stream; must never hide a status.

use crate::wait::soon;
use aircheck_proto::ingest::{
    Chunk, Dialect, Open, PublishRequest, PublishResponse, Ready, Stop, Take,
    ingest_service_client::IngestServiceClient, publish_request::Request,
    publish_response::Response,
};
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

/// A client of the ingest service.
///
/// # Panics
/// If it can't be reached.
pub async fn ingest(address: SocketAddr) -> IngestServiceClient<Channel> {
    let client = IngestServiceClient::connect(format!("http://{address}"));
    soon("the ingest accepts", client)
        .await
        .expect("the ingest is there")
}

/// A publication that is live.
#[derive(Debug)]
pub struct Publisher {
    requests: mpsc::Sender<PublishRequest>,
    responses: Streaming<PublishResponse>,
    /// How the ingest answered.
    pub ready: Ready,
    offset: u64,
}

impl Publisher {
    /// Opens a show as `user`.
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Panics
    /// If the ingest can't be reached or answers something else first.
    pub async fn open(
        ingest_address: SocketAddr,
        show: &str,
        user: &str,
        force: bool,
    ) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(64);
        let take = Take {
            id: format!("{user}-take"),
            mime: "audio/webm;codecs=opus".to_owned(),
            first: 0,
            next: 0,
        };
        let open = Open {
            show_id: show.to_owned(),
            user: user.to_owned(),
            force,
            dialect: Dialect::Resumable.into(),
            take: Some(take),
            ..Open::default()
        };
        send(&requests, Request::Open(open)).await;
        let mut client = ingest(ingest_address).await;
        let mut responses = soon(
            "publish answers",
            client.publish(ReceiverStream::new(receiver)),
        )
        .await?
        .into_inner();
        match soon("ready", responses.message()).await? {
            Some(PublishResponse {
                response: Some(Response::Ready(ready)),
            }) => Ok(Self {
                requests,
                responses,
                offset: ready.offset,
                ready,
            }),
            other => panic!("the first response is ready, not {other:?}"),
        }
    }

    /// Sends media.
    pub async fn send(&mut self, data: Bytes) {
        let chunk = Chunk {
            offset: self.offset,
            data,
        };
        self.offset += chunk.data.len() as u64;
        send(&self.requests, Request::Chunk(chunk)).await;
    }

    /// Says stop.
    pub async fn stop(&self) {
        send(&self.requests, Request::Stop(Stop {})).await;
    }

    /// The next response but acks, states and progress.
    ///
    /// # Errors
    /// How the ingest ended the stream.
    pub async fn next(&mut self) -> Result<Option<Response>, Status> {
        loop {
            let message = soon("the ingest says something", self.responses.message()).await?;
            match message.and_then(|message| message.response) {
                Some(Response::Ack(_) | Response::State(_) | Response::Progress(_)) => {}
                other => return Ok(other),
            }
        }
    }

    /// Waits until everything sent so far is durable.
    ///
    /// # Panics
    /// If the stream ends first.
    pub async fn acked(&mut self) {
        loop {
            let message = soon("an ack", self.responses.message())
                .await
                .expect("the stream goes on");
            if let Some(PublishResponse {
                response: Some(Response::Ack(ack)),
            }) = message
                && ack.offset == self.offset
            {
                return;
            }
        }
    }
}

async fn send(requests: &mpsc::Sender<PublishRequest>, request: Request) {
    // A stream that has ended says why when it is read.
    drop(
        requests
            .send(PublishRequest {
                request: Some(request),
            })
            .await,
    );
}
