//! Somebody who listens to a show.
//!
//! Owns one `GET /live/...`; reads as fast as it comes.

use crate::{
    http,
    wait::{SOON, eventually, soon},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::task::JoinHandle;

/// A running listener.
#[derive(Debug)]
pub struct Listener {
    heard: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
    /// As the server named it.
    pub content_type: String,
}

impl Listener {
    /// Tunes in.
    ///
    /// # Errors
    /// Status and error code, if there is nothing to hear.
    ///
    /// # Panics
    /// If the server can't be reached.
    pub async fn tune_in(server: SocketAddr, show: &str) -> Result<Self, (u16, String)> {
        let request = Request::get(format!("/live/{show}")).header("host", "radio");
        let request = request
            .body(Full::new(Bytes::new()))
            .expect("a valid request");
        let response = soon("the live branch answers", http::open(server, request)).await;
        let (head, mut body) = response.expect("the server is there").into_parts();
        if head.status != 200 {
            let body = soon("a body", body.collect())
                .await
                .expect("a body")
                .to_bytes();
            let answer = http::Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body,
            };
            return Err(answer.error());
        }
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = heard.clone();
        let reading = tokio::spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(data) = frame.into_data() {
                    ears.lock()
                        .expect("nobody panics with it")
                        .extend_from_slice(&data);
                }
            }
        });
        let content_type = head
            .headers
            .get("content-type")
            .and_then(|kind| kind.to_str().ok());
        Ok(Self {
            heard,
            reading,
            content_type: content_type.unwrap_or_default().to_owned(),
        })
    }

    /// Everything so far.
    ///
    /// # Panics
    /// If the reading task did.
    #[must_use]
    pub fn heard(&self) -> Vec<u8> {
        self.heard.lock().expect("nobody panics with it").clone()
    }

    /// Waits until at least so many bytes were heard.
    pub async fn has_heard(&self, bytes: usize) {
        eventually(SOON, &format!("a listener hears {bytes} bytes"), || async {
            let heard = self.heard().len();
            if heard >= bytes { Ok(()) } else { Err(heard) }
        })
        .await;
    }

    /// Everything, once the server ends the stream.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn to_the_end(mut self) -> Vec<u8> {
        soon("the live stream ends", &mut self.reading)
            .await
            .expect("reading does not panic");
        self.heard()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
