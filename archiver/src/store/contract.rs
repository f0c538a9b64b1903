//! What every store must do for an archive, asked of each kind of store and of a real moto.
//!
//! Owns no knowledge of any store but what differs by its [`Profile`]: the archiver rests on nothing
//! that is not in here.

#[path = "../../tests/support/s3/mod.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the integration tests use the rest"
)]
mod s3;

use super::{
    Call, Crc64, Extent, Head, ObjectMeta, ObjectStore, PartTag, Precondition, S3Store, StoreError,
    UploadRef, s3::Patience,
};
use crate::config::Config;
use bytes::Bytes;
use clap::Parser as _;
use s3::{
    BUCKET, Fault, KEY_ID, Op, S3Server, SECRET,
    bucket::{AWS, PROFILES, Profile},
    moto::Moto,
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const PART: usize = 5 << 20;
/// Moto takes wrong checksums, and tells none.
const MOTO: Profile = Profile {
    name: "moto",
    whole_checksums: false,
    ..AWS
};

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

fn config(endpoint: &str) -> Config {
    let flags = [
        "archiver",
        "--database-url",
        "sqlite://unused",
        "--s3-endpoint",
        endpoint,
        "--s3-bucket",
        BUCKET,
        "--s3-access-key-id",
        KEY_ID,
        "--s3-secret-access-key",
        SECRET,
    ];
    Cli::try_parse_from(flags).expect("valid flags").config
}

fn open(endpoint: &str) -> S3Store {
    S3Store::new(&config(endpoint)).expect("credentials")
}

fn meta(session: &str, body: Option<&[u8]>) -> ObjectMeta {
    ObjectMeta {
        content_type: "audio/webm".to_owned(),
        disposition: "attachment; filename=\"7-v.webm\"".to_owned(),
        session: session.to_owned(),
        epoch: 3,
        crc: body.map(Crc64::of),
    }
}

/// One store, and what may be expected of it.
struct Peer<'a> {
    store: &'a S3Store,
    profile: Profile,
}

impl Peer<'_> {
    async fn head(&self, key: &str) -> Option<Head> {
        self.store.head(key).await.expect("an answer")
    }

    async fn put(&self, key: &str, body: &[u8], precondition: Precondition) -> bool {
        let meta = meta("ours", Some(body));
        let body = Bytes::copy_from_slice(body);
        match self.store.put(key, &meta, body, &precondition).await {
            Ok(()) => true,
            Err(StoreError::Precondition { call: Call::Put }) => false,
            Err(error) => panic!("{}: {error:?}", self.profile.name),
        }
    }

    async fn begin(&self, key: &str) -> UploadRef {
        let begun = self.store.create_upload(key, &meta("ours", None)).await;
        begun.expect("an upload")
    }

    async fn send(&self, upload: &UploadRef, number: i32, body: &[u8]) -> PartTag {
        let (body, crc) = (Bytes::copy_from_slice(body), Crc64::of(body));
        let sent = self.store.upload_part(upload, number, body, crc).await;
        sent.expect("a part")
    }

    /// An upload whose parts are all there, with their bytes: `head` bytes and some more.
    async fn filled(&self, key: &str, head: usize) -> (UploadRef, Vec<PartTag>, Vec<u8>) {
        let body: Vec<u8> = (0..251).cycle().take(head + 17).collect();
        let upload = self.begin(key).await;
        let parts: Vec<_> = body.chunks(PART).collect();
        let mut tags = Vec::new();
        // The first part last, and the last one twice.
        for index in (0..parts.len()).rev().chain([parts.len() - 1]) {
            let number = i32::try_from(index + 1).expect("few parts");
            let tag = self.send(&upload, number, parts[index]).await;
            tags.retain(|known: &PartTag| known.number != tag.number);
            tags.push(tag);
        }
        tags.sort_by_key(|tag| tag.number);
        (upload, tags, body)
    }

    async fn complete(
        &self,
        upload: &UploadRef,
        tags: &[PartTag],
        body: &[u8],
    ) -> Result<(), StoreError> {
        let absent = Precondition::Absent;
        self.store
            .complete(upload, tags, extent(body), &absent)
            .await
    }

    async fn open_uploads(&self, prefix: &str) -> Vec<UploadRef> {
        let open = self.store.list_uploads(prefix).await.expect("a list");
        open.into_iter().map(|open| open.upload).collect()
    }

    async fn an_object_is_written_once_and_tells_whose_it_is(&self) {
        let (key, body) = ("once/object", b"a live show".as_slice());
        assert_eq!(self.head(key).await, None);
        assert!(self.put(key, body, Precondition::Absent).await);
        let head = self.head(key).await.expect("an object");
        assert_eq!(head.session.as_deref(), Some("ours"));
        assert_eq!(head.bytes, body.len() as u64);
        let told = self.profile.whole_checksums.then(|| Crc64::of(body));
        assert_eq!(head.crc, told);

        let honours = self.profile.honours_conditions;
        let other = b"another show".as_slice();
        assert_eq!(self.put(key, other, Precondition::Absent).await, !honours);
        let expected = if honours { body } else { other };
        let read = self.store.read_back(key).await.expect("bytes");
        assert_eq!(read, Some(extent(expected)));

        let etag = self.head(key).await.and_then(|head| head.etag);
        let seen = |etag: Option<String>| Precondition::Unchanged {
            etag: etag.expect("a tag"),
        };
        let unseen = seen(Some("\"0123456789abcdef\"".to_owned()));
        assert_eq!(self.put(key, b"third", unseen).await, !honours);
        let etag = if honours {
            etag
        } else {
            self.head(key).await.and_then(|h| h.etag)
        };
        assert!(self.put(key, b"fourth", seen(etag)).await);
        let read = self.store.read(key, 100).await.expect("bytes");
        assert_eq!(read.as_deref(), Some(b"fourth".as_slice()));
    }

    async fn parts_become_one_object_with_our_token(&self) {
        let key = "parts/object";
        let (upload, tags, body) = self.filled(key, PART).await;
        assert_eq!(self.head(key).await, None);
        self.complete(&upload, &tags, &body)
            .await
            .expect("an object");
        let head = self.head(key).await.expect("an object");
        assert_eq!(head.session.as_deref(), Some("ours"));
        assert_eq!(head.bytes, body.len() as u64);
        let told = self.profile.whole_checksums.then(|| Crc64::of(&body));
        assert_eq!(head.crc, told);
        let read = self.store.read_back(key).await.expect("bytes");
        assert_eq!(read, Some(extent(&body)));
        assert_eq!(self.open_uploads("parts/").await, []);

        // What a second Complete answers differs; that it changes nothing does not.
        match self.complete(&upload, &tags, &body).await {
            Ok(()) => assert!(self.profile.replays_complete),
            Err(StoreError::NoSuchUpload { .. }) => assert!(!self.profile.replays_complete),
            // The condition is looked at first by some.
            Err(StoreError::Precondition { .. }) => assert!(self.profile.honours_conditions),
            Err(error) => panic!("{error:?}"),
        }
        assert_eq!(self.head(key).await, Some(head));
    }

    async fn a_complete_that_is_wrong_makes_nothing(&self) {
        let key = "wrong/object";
        let (upload, tags, body) = self.filled(key, PART).await;
        let mut others = tags.clone();
        others[1].etag = others[0].etag.clone();
        others[1].number = 7;
        let refused = self.complete(&upload, &others, &body).await;
        assert!(
            matches!(refused, Err(StoreError::Refused { .. })),
            "{refused:?}"
        );
        if self.profile.whole_checksums {
            let mut other = body.clone();
            other[0] ^= 1;
            let refused = self.complete(&upload, &tags, &other).await;
            assert!(
                matches!(refused, Err(StoreError::Refused { .. })),
                "{refused:?}"
            );
        }
        assert_eq!(self.head(key).await, None);
        self.complete(&upload, &tags, &body)
            .await
            .expect("it was kept");
    }

    async fn an_upload_to_a_key_that_is_taken_is_refused_and_can_be_dropped(&self) {
        let key = "taken/object";
        let (upload, tags, body) = self.filled(key, 0).await;
        assert!(self.put(key, b"first", Precondition::Absent).await);
        let late = self.complete(&upload, &tags, &body).await;
        if !self.profile.honours_conditions {
            return late.expect("it is overwritten");
        }
        assert!(
            matches!(late, Err(StoreError::Precondition { .. })),
            "{late:?}"
        );
        let head = self.head(key).await.expect("an object");
        assert_eq!(head.bytes, 5);
        self.store.abort(&upload).await.expect("dropped");
        assert_eq!(self.open_uploads("taken/").await, []);
    }

    async fn what_is_aborted_is_gone_and_may_be_aborted_again(&self) {
        let (upload, tags, body) = self.filled("aborted/object", 0).await;
        for _ in 0..2 {
            self.store.abort(&upload).await.expect("dropped");
        }
        let part = Bytes::from_static(b"late");
        let crc = Crc64::of(&part);
        let late = self.store.upload_part(&upload, 1, part, crc).await;
        self.assert_gone(late);
        let late = self.complete(&upload, &tags, &body).await;
        self.assert_gone(late);
        assert_eq!(self.head("aborted/object").await, None);
    }

    fn assert_gone<T: std::fmt::Debug>(&self, late: Result<T, StoreError>) {
        match late {
            Err(StoreError::NoSuchUpload { .. }) => {}
            // It answers with a fault of its own.
            Err(StoreError::Unknown { .. }) if self.profile == MOTO => {}
            late => panic!("{late:?}"),
        }
    }

    async fn lists_are_whole_and_of_one_prefix(&self) {
        let mut keys = Vec::new();
        for nth in 0..5 {
            keys.push(format!("list/{nth}/object"));
            assert!(self.put(&keys[nth], b"x", Precondition::Absent).await);
        }
        assert!(self.put("lists/no", b"x", Precondition::Absent).await);
        let mut found: Vec<String> = Vec::new();
        loop {
            let after = found.last().map(String::as_str);
            let page = self.store.list("list/", after).await.expect("a page");
            if page.is_empty() {
                break;
            }
            assert!(page.iter().all(|listed| listed.written_unix_ms.is_some()));
            found.extend(page.into_iter().map(|listed| listed.key));
        }
        assert_eq!(found, keys);

        let mut begun = Vec::new();
        for key in ["list/0/a", "list/0/a", "list/1/a", "lists/no"] {
            begun.push(self.begin(key).await);
        }
        let elsewhere = begun.pop().expect("four");
        let mut open = self.open_uploads("list/").await;
        open.sort_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
        begun.sort_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
        assert_eq!(open, begun);
        let listed = self.store.list_uploads("list/").await.expect("a list");
        assert!(listed.iter().all(|open| open.begun_unix_ms.is_some()));
        for upload in begun.iter().chain([&elsewhere]) {
            self.store.abort(upload).await.expect("dropped");
        }
    }

    async fn what_is_deleted_or_was_never_there_is_no_error(&self) {
        assert!(self.put("gone/object", b"x", Precondition::Absent).await);
        for _ in 0..2 {
            self.store.delete("gone/object").await.expect("deleted");
            assert_eq!(self.head("gone/object").await, None);
        }
        let read = self
            .store
            .read_back("gone/object")
            .await
            .expect("an answer");
        assert_eq!(read, None);
        let read = self
            .store
            .read("gone/object", 100)
            .await
            .expect("an answer");
        assert_eq!(read, None);
    }

    async fn a_signed_url_serves_ranges_under_the_name_it_says(&self) {
        assert!(
            self.put("signed/object", b"0123456789", Precondition::Absent)
                .await
        );
        let minute = Duration::from_secs(60);
        let name = "attachment; filename=\"x.webm\"";
        let url = self
            .store
            .presign("signed/object", name, "audio/webm", minute)
            .await;
        let answer = get_range(&url.expect("a url"), "bytes=2-4").await;
        assert!(answer.starts_with("HTTP/1.1 206"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n234"), "{answer}");
        assert!(
            answer
                .to_lowercase()
                .contains("content-range: bytes 2-4/10"),
            "{answer}"
        );
    }

    async fn keeps_the_contract(&self) {
        self.an_object_is_written_once_and_tells_whose_it_is().await;
        self.parts_become_one_object_with_our_token().await;
        self.a_complete_that_is_wrong_makes_nothing().await;
        self.an_upload_to_a_key_that_is_taken_is_refused_and_can_be_dropped()
            .await;
        self.what_is_aborted_is_gone_and_may_be_aborted_again()
            .await;
        self.lists_are_whole_and_of_one_prefix().await;
        self.what_is_deleted_or_was_never_there_is_no_error().await;
        self.a_signed_url_serves_ranges_under_the_name_it_says()
            .await;
        assert_eq!(self.open_uploads("").await, []);
    }
}

fn extent(body: &[u8]) -> Extent {
    Extent {
        bytes: body.len() as u64,
        crc: Crc64::of(body),
    }
}

/// As a player would ask, without any SDK.
async fn get_range(url: &str, range: &str) -> String {
    let (host, path) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .expect("a url with a path");
    let mut socket = TcpStream::connect(host).await.expect("connect");
    let request = format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nRange: {range}\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("ask");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn every_kind_of_store_keeps_the_contract() {
    for profile in PROFILES {
        let server = S3Server::start_as(profile).await;
        let store = &open(&server.endpoint);
        Peer { store, profile }.keeps_the_contract().await;
    }
}

#[tokio::test]
async fn moto_keeps_the_contract() {
    let server = Moto::start(BUCKET);
    let store = &open(&server.endpoint);
    let peer = Peer {
        store,
        profile: MOTO,
    };
    peer.keeps_the_contract().await;
}

#[tokio::test]
async fn a_store_that_stalls_or_trickles_is_given_up_and_the_outcome_is_unknown() {
    let patience = Patience {
        quick: Duration::from_millis(300),
        bulk: Duration::from_millis(300),
        rate: u64::MAX,
    };
    let server = S3Server::start().await;
    let store = S3Store::with(&config(&server.endpoint), patience).expect("credentials");
    let (meta, part) = (meta("ours", None), Bytes::from_static(b"part"));
    let crc = Crc64::of(&part);
    let put = store.put("k", &meta, part.clone(), &Precondition::Absent);
    put.await.expect("an object");
    let upload = store.create_upload("u", &meta).await.expect("an upload");
    let tag = store.upload_part(&upload, 1, part.clone(), crc).await;
    let tags = [tag.expect("a part")];
    let ops = [
        Op::Put,
        Op::CreateUpload,
        Op::UploadPart,
        Op::Head,
        Op::Get,
        Op::List,
        Op::ListUploads,
        Op::Abort,
        Op::Delete,
        Op::Complete,
    ];
    for op in ops {
        let faults = match op {
            // Answers without a body can't trickle.
            Op::CreateUpload | Op::Get | Op::List | Op::ListUploads | Op::Complete => {
                vec![Fault::Stall, Fault::Trickle]
            }
            _ => vec![Fault::Stall],
        };
        for fault in faults {
            server.fail(op, fault.clone());
            let absent = Precondition::Absent;
            let failed = match op {
                Op::Put => store.put("p", &meta, part.clone(), &absent).await.err(),
                Op::CreateUpload => store.create_upload("u", &meta).await.err(),
                Op::UploadPart => store.upload_part(&upload, 2, part.clone(), crc).await.err(),
                Op::Head => store.head("k").await.err(),
                Op::Get => store.read_back("k").await.err(),
                Op::List => store.list("", None).await.err(),
                Op::ListUploads => store.list_uploads("").await.err(),
                Op::Abort => store.abort(&upload).await.err(),
                Op::Delete => store.delete("k").await.err(),
                _ => {
                    let whole = extent(&part);
                    store.complete(&upload, &tags, whole, &absent).await.err()
                }
            };
            assert!(
                matches!(failed, Some(StoreError::Unknown { .. })),
                "{op:?} {fault:?}: {failed:?}"
            );
            assert_eq!(server.pending_faults(), 0);
        }
    }
}
