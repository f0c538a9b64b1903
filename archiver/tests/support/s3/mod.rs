//! An S3 server in this process that fails on request.
//!
//! Faults are scripted by operation: each entry strikes the next call of its kind, once. They act on
//! the HTTP layer, so that a client sees what a broken network or a strict store would show it. What
//! lies behind is a [`Bucket`] of one [`Profile`], or s3s-fs on a folder.

pub mod bucket;
pub mod moto;

use bucket::{AWS, Bucket, Profile};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Method, Request, Response,
    body::{Frame, Incoming},
};
use hyper_util::rt::TokioIo;
use s3s::{Body, S3, auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
    time::sleep,
};

pub const BUCKET: &str = "archives";
pub const KEY_ID: &str = "test-key";
pub const SECRET: &str = "test-secret";

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Put,
    CreateUpload,
    UploadPart,
    Complete,
    Abort,
    Head,
    Get,
    Delete,
    List,
    ListUploads,
    Other,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection breaks before anything happened.
    ResetBefore,
    /// It takes effect, then the connection breaks.
    ResetAfter,
    /// Nothing happens but an error answer.
    Refuse(u16, &'static str),
    /// It takes effect, then an error answer.
    RefuseAfter(u16, &'static str),
    /// It takes effect, then the answer breaks off in the middle.
    CutAfter,
    /// Nothing happens, and no answer comes either.
    Stall,
    /// It takes effect, but the answer comes a byte a second.
    Trickle,
    /// It waits at the gate, then goes on as usual.
    Hold(Arc<Gate>),
}

/// Where a request can be held.
#[derive(Debug, Default)]
pub struct Gate {
    pub arrived: Notify,
    pub open: Notify,
}

/// A request that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub op: Op,
    pub path: String,
    /// Number of the part, of an upload of one.
    pub part: Option<u32>,
    /// Content-Length.
    pub bytes: u64,
    /// How long the store took; zero while it is not done.
    pub took: Duration,
    pub headers: hyper::HeaderMap,
}

impl Seen {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[derive(Debug, Default)]
struct Script {
    faults: Mutex<VecDeque<(Op, Fault)>>,
    seen: Mutex<Vec<Seen>>,
    /// Changes with every answer.
    answered: watch::Sender<()>,
    done: Mutex<Vec<Seen>>,
}

impl Script {
    fn strike(&self, op: Op) -> Option<Fault> {
        let mut faults = self.faults.lock().expect("no panic while locked");
        let at = faults.iter().position(|(on, _)| *on == op)?;
        faults.remove(at).map(|(_, fault)| fault)
    }
}

/// The server. It ends with this value.
#[derive(Debug)]
pub struct S3Server {
    pub endpoint: String,
    pub bucket: Bucket,
    _folder: Option<TempDir>,
    script: Arc<Script>,
    task: JoinHandle<()>,
}

impl S3Server {
    /// As AWS does it, in memory.
    pub async fn start() -> Self {
        Self::start_as(AWS).await
    }

    /// As this kind of store does it, in memory.
    pub async fn start_as(profile: Profile) -> Self {
        let bucket = Bucket::new(profile);
        Self::serve(bucket.clone(), bucket, None).await
    }

    /// As s3s-fs does it, on a temporary folder. Only its calls can be looked at, not its objects.
    pub async fn on_disk() -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("make the bucket");
        let files = FileSystem::new(folder.path()).expect("open the folder");
        Self::serve(files, Bucket::new(AWS), Some(folder)).await
    }

    async fn serve(store: impl S3, bucket: Bucket, folder: Option<TempDir>) -> Self {
        let mut builder = S3ServiceBuilder::new(store);
        builder.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let script = Arc::new(Script::default());
        let task = tokio::spawn({
            let script = Arc::clone(&script);
            async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let (service, script) = (service.clone(), Arc::clone(&script));
                    let serve = hyper::service::service_fn(move |request| {
                        let answered = answer(service.clone(), Arc::clone(&script), request);
                        // In a task of its own: a client that goes away ends no call of a real store.
                        let answered = tokio::spawn(answered);
                        async { answered.await.expect("no panic in the store") }
                    });
                    let socket = TokioIo::new(socket);
                    tokio::spawn(
                        hyper::server::conn::http1::Builder::new().serve_connection(socket, serve),
                    );
                }
            }
        });
        Self {
            endpoint,
            bucket,
            _folder: folder,
            script,
            task,
        }
    }

    /// Lets the next call of this kind fail.
    pub fn fail(&self, op: Op, fault: Fault) {
        self.script
            .faults
            .lock()
            .expect("no panic while locked")
            .push_back((op, fault));
    }

    /// Holds the next call of this kind until the gate is opened.
    pub fn hold(&self, op: Op) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        self.fail(op, Fault::Hold(Arc::clone(&gate)));
        gate
    }

    /// Calls of this kind so far.
    pub fn seen(&self, op: Op) -> Vec<Seen> {
        let seen = self.script.seen.lock().expect("no panic while locked");
        seen.iter().filter(|seen| seen.op == op).cloned().collect()
    }

    /// How long calls of this kind that took effect took together.
    pub fn took(&self, op: Op) -> Duration {
        let done = self.script.done.lock().expect("no panic while locked");
        let done = done.iter().filter(|seen| seen.op == op);
        done.map(|seen| seen.took).sum()
    }

    /// Waits until calls of this kind that took effect satisfy a condition.
    pub async fn until(&self, op: Op, met: impl Fn(&[Seen]) -> bool) {
        let mut answered = self.script.answered.subscribe();
        loop {
            answered.borrow_and_update();
            let done: Vec<_> = {
                let done = self.script.done.lock().expect("no panic while locked");
                done.iter().filter(|seen| seen.op == op).cloned().collect()
            };
            if met(&done) {
                return;
            }
            let changed = tokio::time::timeout(Duration::from_secs(240), answered.changed());
            changed.await.expect("it never happens").expect("a store");
        }
    }

    /// Scripted faults that have not struck yet.
    pub fn pending_faults(&self) -> usize {
        self.script
            .faults
            .lock()
            .expect("no panic while locked")
            .len()
    }

    /// Keys of all objects, sorted.
    pub fn keys(&self) -> Vec<String> {
        self.bucket.keys()
    }

    /// The bytes of an object.
    pub fn object(&self, key: &str) -> Vec<u8> {
        let object = self.bucket.object(key);
        object.unwrap_or_else(|| panic!("there is no {key}"))
    }

    /// Puts an object there behind everybody's back, as somebody without our token.
    pub fn plant(&self, key: &str, bytes: &[u8]) {
        self.bucket.plant(key, bytes);
    }

    /// Removes an object behind everybody's back.
    pub fn lose(&self, key: &str) {
        self.bucket.lose(key);
    }

    /// Keys of uploads that were neither completed nor aborted.
    pub fn open_uploads(&self) -> Vec<String> {
        let open = self.bucket.uploads().into_iter();
        open.map(|(_, key)| key).collect()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
        if !std::thread::panicking() {
            // R2 takes no other plan, so no test may come by with another one.
            let broken = self.bucket.broken_rules();
            assert!(broken.is_empty(), "{broken:?}");
        }
    }
}

async fn answer(
    service: s3s::service::S3Service,
    script: Arc<Script>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    let op = classify(&request);
    let length = request.headers().get(hyper::header::CONTENT_LENGTH);
    let bytes = length
        .and_then(|v| v.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    let path = request.uri().path().to_owned();
    let number = request.uri().query().and_then(|query| {
        let mut pairs = query.split('&');
        pairs.find_map(|pair| pair.strip_prefix("partNumber=")?.parse().ok())
    });
    let seen = Seen {
        op,
        path,
        part: number,
        bytes,
        took: Duration::ZERO,
        headers: request.headers().clone(),
    };
    script
        .seen
        .lock()
        .expect("no panic while locked")
        .push(seen.clone());
    let begun = Instant::now();
    let answer = act(service, &script, request, op).await;
    let seen = Seen {
        took: begun.elapsed(),
        ..seen
    };
    if answer
        .as_ref()
        .is_ok_and(|answer| answer.status().is_success())
    {
        script
            .done
            .lock()
            .expect("no panic while locked")
            .push(seen);
    }
    script.answered.send_replace(());
    answer
}

async fn act(
    service: s3s::service::S3Service,
    script: &Script,
    request: Request<Incoming>,
    op: Op,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    match script.strike(op) {
        None => Ok(service.call(request.map(Body::from)).await?),
        Some(Fault::ResetBefore) => Err("reset before".into()),
        Some(Fault::ResetAfter) => {
            service.call(request.map(Body::from)).await?;
            Err("reset after".into())
        }
        Some(Fault::Refuse(status, code)) => Ok(refusal(status, code)),
        Some(Fault::RefuseAfter(status, code)) => {
            service.call(request.map(Body::from)).await?;
            Ok(refusal(status, code))
        }
        Some(Fault::CutAfter) => {
            let (mut head, body) = service.call(request.map(Body::from)).await?.into_parts();
            let body = BodyExt::collect(body).await?.to_bytes();
            head.headers.remove(hyper::header::CONTENT_LENGTH);
            let half = body.slice(..body.len() / 2);
            Ok(Response::from_parts(head, Body::from(half)))
        }
        Some(Fault::Stall) => std::future::pending().await,
        Some(Fault::Trickle) => {
            let (mut head, body) = service.call(request.map(Body::from)).await?.into_parts();
            let body = BodyExt::collect(body).await?.to_bytes();
            head.headers.remove(hyper::header::CONTENT_LENGTH);
            let drops = stream::iter(body).then(|byte| async move {
                sleep(Duration::from_secs(1)).await;
                Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![byte])))
            });
            Ok(Response::from_parts(
                head,
                Body::http_body_unsync(StreamBody::new(drops)),
            ))
        }
        Some(Fault::Hold(gate)) => {
            gate.arrived.notify_one();
            gate.open.notified().await;
            Ok(service.call(request.map(Body::from)).await?)
        }
    }
}

fn classify(request: &Request<Incoming>) -> Op {
    let query = request.uri().query().unwrap_or("");
    let has = |name: &str| {
        query
            .split('&')
            .any(|pair| pair == name || pair.starts_with(&format!("{name}=")))
    };
    match *request.method() {
        Method::PUT if has("partNumber") => Op::UploadPart,
        Method::PUT => Op::Put,
        Method::POST if has("uploads") => Op::CreateUpload,
        Method::POST if has("uploadId") => Op::Complete,
        Method::DELETE if has("uploadId") => Op::Abort,
        Method::DELETE => Op::Delete,
        Method::HEAD => Op::Head,
        Method::GET if has("list-type") => Op::List,
        Method::GET if has("uploads") => Op::ListUploads,
        Method::GET => Op::Get,
        _ => Op::Other,
    }
}

fn refusal(status: u16, code: &str) -> Response<Body> {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code>\
         <Message>scripted</Message><RequestId>0</RequestId></Error>"
    );
    Response::builder()
        .status(status)
        .header("content-type", "application/xml")
        .body(Body::from(xml))
        .expect("a valid response")
}
