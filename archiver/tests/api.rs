//! Rows as clients see them: recordings, shows, downloads; on SQLite and on PostgreSQL.

mod support;

use aircheck_core::{code::Code, spool::Manifest};
use aircheck_e2e::postgres::Postgres;
use aircheck_proto::{
    Fault,
    archiver::{
        AdvanceRecordingRequest, BeginRecordingRequest, DeleteRecordingRequest,
        GetRecordingRequest, GetShowRequest, ListRecordingsRequest, ListRecordingsResponse,
        ListShowsRequest, PresignRecordingRequest, PutShowRequest, Recording, RecordingStatus,
        Show,
    },
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use support::{
    archiver::Archiver,
    ingest::IngestServer,
    s3::{Op, S3Server},
    session::{STARTED, VERSION, message, sealed, webm},
};
use tempfile::TempDir;

/// Where a bench keeps its rows; lives as long as it.
enum Database {
    Sqlite(TempDir),
    Postgres(Box<Postgres>),
}

impl Database {
    fn url(&self) -> String {
        match self {
            Self::Sqlite(dir) => {
                format!(
                    "sqlite://{}?mode=rwc",
                    dir.path().join("aircheck.db").display()
                )
            }
            Self::Postgres(postgres) => postgres.url(),
        }
    }
}

struct Bench {
    s3: S3Server,
    ingest: IngestServer,
    archiver: Archiver,
    _database: Database,
}

impl Bench {
    async fn on(database: Database) -> Self {
        let (s3, ingest) = (S3Server::start().await, IngestServer::start().await);
        let archiver = Archiver::start(&database.url(), &s3).await;
        Self {
            s3,
            ingest,
            archiver,
            _database: database,
        }
    }

    async fn sqlite() -> Self {
        Self::on(Database::Sqlite(
            tempfile::tempdir().expect("make a folder"),
        ))
        .await
    }

    async fn both() -> [Self; 2] {
        [
            Self::sqlite().await,
            Self::on(Database::Postgres(Box::new(Postgres::start().await))).await,
        ]
    }

    async fn archived(&self, nth: u64, media: &[u8]) -> Recording {
        let manifest = sealed(nth, &[media.len() as u64]);
        self.ingest
            .spool(&manifest.session.to_string(), 0, vec![(0, media.to_vec())]);
        self.archiver
            .finalize(&manifest, &self.ingest)
            .await
            .expect("a recording")
    }

    async fn begin(&self, manifest: &Manifest) -> Recording {
        let request = BeginRecordingRequest {
            manifest: Some(message(manifest, "")),
        };
        let mut client = self.archiver.client.clone();
        let answer = client.begin_recording(request).await.expect("a row");
        answer.into_inner().recording.expect("a recording")
    }

    async fn advance(&self, manifest: &Manifest) -> Vec<u64> {
        let request = AdvanceRecordingRequest {
            manifest: Some(message(manifest, "")),
        };
        let mut client = self.archiver.client.clone();
        client
            .advance_recording(request)
            .await
            .expect("a row")
            .into_inner()
            .archived
    }

    async fn find(&self, id: &str) -> Result<Recording, Code> {
        let mut client = self.archiver.client.clone();
        let answer = client
            .get_recording(GetRecordingRequest { id: id.to_owned() })
            .await;
        answer
            .map_err(|s| code(&s))
            .map(|a| a.into_inner().recording.expect("a recording"))
    }

    async fn list(&self, request: ListRecordingsRequest) -> Result<ListRecordingsResponse, Code> {
        let mut client = self.archiver.client.clone();
        let answer = client.list_recordings(request).await;
        answer
            .map_err(|s| code(&s))
            .map(tonic::Response::into_inner)
    }

    async fn delete(&self, id: &str) -> Result<(), Code> {
        let mut client = self.archiver.client.clone();
        let answer = client
            .delete_recording(DeleteRecordingRequest { id: id.to_owned() })
            .await;
        answer.map_err(|s| code(&s)).map(|_| ())
    }

    async fn presign(&self, id: &str) -> Result<String, Code> {
        self.presign_object(id, None).await
    }

    async fn presign_object(&self, id: &str, object: Option<&str>) -> Result<String, Code> {
        let mut client = self.archiver.client.clone();
        let answer = client
            .presign_recording(PresignRecordingRequest {
                id: id.to_owned(),
                object: object.map(str::to_owned),
            })
            .await;
        answer.map_err(|s| code(&s)).map(|a| a.into_inner().url)
    }

    async fn put_show(&self, show: Show) -> Result<Show, Code> {
        let mut client = self.archiver.client.clone();
        let answer = client.put_show(PutShowRequest { show: Some(show) }).await;
        answer
            .map_err(|s| code(&s))
            .map(|a| a.into_inner().show.expect("a show"))
    }
}

fn code(status: &tonic::Status) -> Code {
    Fault::from_status(status).code
}

/// Live since [`STARTED`], with so many bytes.
fn live(nth: u64, bytes: u64) -> Manifest {
    let sealed = sealed(nth, &[bytes]);
    Manifest {
        stage: aircheck_core::spool::Stage::Live,
        ..sealed
    }
}

#[tokio::test]
async fn a_row_exists_from_going_live_on_and_grows_with_the_session() {
    for bench in Bench::both().await {
        let manifest = live(1, 0);
        let row = bench.begin(&manifest).await;
        assert_eq!(row.status(), RecordingStatus::Recording);
        assert_eq!((row.version.as_str(), row.bytes), (VERSION, 0));
        assert_eq!(bench.begin(&manifest).await, row, "begin is idempotent");
        assert_eq!(bench.advance(&live(1, 500)).await, [0]);
        // A call that was overtaken.
        bench.advance(&live(1, 300)).await;
        assert_eq!(bench.find(&row.id).await.expect("a row").bytes, 500);

        let mut client = bench.archiver.client.clone();
        let shows = client
            .list_shows(ListShowsRequest {})
            .await
            .expect("shows")
            .into_inner()
            .shows;
        let show = Show {
            id: "7".into(),
            title: "7".into(),
            grace_s: None,
            gap_policy: "silence".into(),
        };
        assert_eq!(shows, [show]);
    }
}

#[tokio::test]
async fn nothing_changes_a_row_that_is_final_or_takes_it_back() {
    for bench in Bench::both().await {
        let recording = bench.archived(1, &webm(1, 1000)).await;
        assert_eq!(bench.begin(&live(1, 5)).await, recording);
        bench.advance(&live(1, 5000)).await;
        assert_eq!(bench.find(&recording.id).await, Ok(recording));
    }
}

#[tokio::test]
async fn sessions_that_begin_within_one_second_get_versions_of_their_own() {
    for bench in Bench::both().await {
        let versions = futures::future::join_all((1..=4).map(|nth| {
            let bench = &bench;
            async move { bench.begin(&live(nth, 0)).await.version }
        }));
        let mut versions = versions.await;
        versions.sort();
        let suffixed = |n| format!("{VERSION}-{n}");
        assert_eq!(
            versions,
            [VERSION.to_owned(), suffixed(2), suffixed(3), suffixed(4)]
        );
    }
}

#[tokio::test]
async fn lists_are_newest_first_and_stay_right_while_rows_come_and_go() {
    for bench in Bench::both().await {
        for nth in 1..=7 {
            let mut manifest = live(nth, 0);
            // Pairs that began within one millisecond.
            manifest.started_unix_ms = STARTED + nth / 2 * 1000;
            if nth == 4 {
                manifest.show_id = "other".parse().expect("a show id");
            }
            bench.begin(&manifest).await;
        }
        let ids = |n: &[u64]| -> Vec<String> {
            n.iter().map(|&n| live(n, 0).session.to_string()).collect()
        };
        let mut request = ListRecordingsRequest {
            limit: 3,
            ..ListRecordingsRequest::default()
        };
        let first = bench.list(request.clone()).await.expect("a page");
        let found: Vec<_> = first.items.iter().map(|item| item.id.clone()).collect();
        assert_eq!(found, ids(&[7, 6, 5]));
        // A newer one appears between two pages.
        let mut newer = live(9, 0);
        newer.started_unix_ms = STARTED + 60_000;
        bench.begin(&newer).await;
        let mut rest = Vec::new();
        request.after = first.next;
        while request.after.is_some() {
            let page = bench.list(request.clone()).await.expect("a page");
            rest.extend(page.items.into_iter().map(|item| item.id));
            request.after = page.next;
        }
        assert_eq!(rest, ids(&[4, 3, 2, 1]));

        let of_show = ListRecordingsRequest {
            show_id: Some("other".into()),
            ..ListRecordingsRequest::default()
        };
        let page = bench.list(of_show).await.expect("a page");
        assert_eq!((page.items.len(), page.next), (1, None));
        let archived = ListRecordingsRequest {
            status: RecordingStatus::Archived.into(),
            ..ListRecordingsRequest::default()
        };
        assert!(bench.list(archived).await.expect("a page").items.is_empty());
        for bad in [
            ListRecordingsRequest {
                limit: 201,
                ..ListRecordingsRequest::default()
            },
            ListRecordingsRequest {
                after: Some("x".into()),
                ..ListRecordingsRequest::default()
            },
        ] {
            assert_eq!(bench.list(bad).await, Err(Code::BadMessage));
        }
    }
}

#[tokio::test]
async fn a_deleted_recording_is_gone_and_no_late_finalize_brings_it_back() {
    for bench in Bench::both().await {
        let media = webm(1, 1000);
        let recording = bench.archived(1, &media).await;
        let running = bench.begin(&live(2, 0)).await;
        assert_eq!(bench.delete(&running.id).await, Err(Code::NotEnded));
        assert_eq!(bench.s3.keys().len(), 2);
        assert_eq!(bench.delete(&recording.id).await, Ok(()));
        assert!(bench.s3.keys().is_empty());
        for gone in [recording.id.as_str(), "01JDA0000000000000000000AB"] {
            assert_eq!(bench.find(gone).await, Err(Code::NotFound));
            assert_eq!(bench.delete(gone).await, Err(Code::NotFound));
            assert_eq!(bench.presign(gone).await, Err(Code::NotFound));
        }
        let again = bench.archived(1, &media).await;
        assert_eq!(again.status(), RecordingStatus::Archived);
        assert!(bench.s3.keys().is_empty(), "it is back");
        let all = bench
            .list(ListRecordingsRequest::default())
            .await
            .expect("a page");
        assert_eq!(all.items.len(), 1);
    }
}

/// A plain HTTP GET, as a browser would.
async fn fetch(url: &str, range: Option<&str>) -> (StatusCode, HeaderMap, Bytes) {
    let uri: hyper::Uri = url.parse().expect("a URL");
    let authority = uri.authority().expect("an authority").clone();
    let socket = tokio::net::TcpStream::connect(authority.as_str())
        .await
        .expect("connect");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .expect("handshake");
    tokio::spawn(connection);
    let mut request = Request::get(uri).header("host", authority.as_str());
    if let Some(range) = range {
        request = request.header("range", range);
    }
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let (head, body) = sender
        .send_request(request)
        .await
        .expect("an answer")
        .into_parts();
    (
        head.status,
        head.headers,
        body.collect().await.expect("a body").to_bytes(),
    )
}

#[tokio::test]
async fn a_presigned_url_downloads_the_archive_with_ranges_and_a_good_name() {
    let bench = Bench::sqlite().await;
    let media = webm(1, 300_000);
    let recording = bench.archived(1, &media).await;
    let url = bench.presign(&recording.id).await.expect("a URL");
    assert!(url.contains("response-content-disposition="), "{url}");
    assert!(url.contains("X-Amz-Expires=600"), "{url}");

    let (status, headers, body) = fetch(&url, None).await;
    assert_eq!((status, body.len()), (StatusCode::OK, media.len()));
    assert!(body == media, "other bytes");
    assert_eq!(headers["content-type"], "audio/webm");
    let name = format!("attachment; filename=\"7-{VERSION}.webm\"");
    assert_eq!(headers["content-disposition"], name.as_str());

    let (status, headers, body) = fetch(&url, Some("bytes=1000-1999")).await;
    assert_eq!(status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(headers["content-range"], "bytes 1000-1999/300000");
    assert!(body == media[1000..2000]);

    let forged = url.replace("X-Amz-Expires=600", "X-Amz-Expires=6000");
    assert_eq!(fetch(&forged, None).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn there_is_nothing_to_download_before_there_is_an_archive() {
    let bench = Bench::sqlite().await;
    let running = bench.begin(&live(1, 0)).await;
    assert_eq!(bench.presign(&running.id).await, Err(Code::NoArchive));
    let empty = bench
        .archiver
        .finalize(&sealed(2, &[]), &bench.ingest)
        .await
        .expect("a row");
    assert_eq!(bench.presign(&empty.id).await, Err(Code::NoArchive));
}

#[tokio::test]
async fn shows_are_described_within_limits() {
    for bench in Bench::both().await {
        let show = |title: &str, grace_s, gap_policy: &str| Show {
            id: "morning".into(),
            title: title.into(),
            grace_s,
            gap_policy: gap_policy.into(),
        };
        let put = bench.put_show(show("Morning", Some(1800), "close")).await;
        assert_eq!(put, Ok(show("Morning", Some(1800), "close")));
        let changed = bench.put_show(show("Early", None, "")).await;
        assert_eq!(changed, Ok(show("Early", None, "silence")));
        let mut client = bench.archiver.client.clone();
        let found = client
            .get_show(GetShowRequest {
                id: "morning".into(),
            })
            .await;
        assert_eq!(
            found.expect("a show").into_inner().show,
            Some(show("Early", None, "silence"))
        );
        let missing = client
            .get_show(GetShowRequest {
                id: "nobody".into(),
            })
            .await;
        assert_eq!(missing.map_err(|s| code(&s)).err(), Some(Code::NotFound));

        for bad in [
            show("x", Some(1801), "close"),
            show("x", None, "loop"),
            show(&"x".repeat(201), None, ""),
        ] {
            assert_eq!(bench.put_show(bad).await, Err(Code::BadMessage));
        }
        let bad_id = Show {
            id: "../x".into(),
            ..show("x", None, "")
        };
        assert_eq!(bench.put_show(bad_id).await, Err(Code::BadShowId));
    }
}

#[tokio::test]
async fn only_sealed_sessions_are_finalized() {
    let bench = Bench::sqlite().await;
    let refused = bench.archiver.finalize(&live(1, 100), &bench.ingest).await;
    assert_eq!(refused.map_err(|fault| fault.code), Err(Code::NotEnded));
}

#[tokio::test]
async fn every_write_says_whose_it_is_and_what_it_must_hold() {
    let bench = Bench::sqlite().await;
    let recording = bench.archived(1, &webm(1, 1000)).await;
    let put = bench.s3.seen(Op::Put).swap_remove(0);
    assert_eq!(put.header("if-none-match"), Some("*"));
    assert_eq!(
        put.header("x-amz-meta-aircheck-session"),
        Some(recording.id.as_str())
    );
    assert_eq!(put.header("x-amz-meta-aircheck-epoch"), Some("1"));
    for name in ["x-amz-checksum-crc64nvme", "x-amz-meta-aircheck-crc64nvme"] {
        assert_eq!(put.header(name), recording.crc64nvme.as_deref(), "{name}");
    }
    assert_eq!(put.header("content-type"), Some("audio/webm"));

    let recording = bench.archived(2, &webm(2, 6 << 20)).await;
    let create = bench.s3.seen(Op::CreateUpload).swap_remove(0);
    assert_eq!(create.header("x-amz-checksum-algorithm"), Some("CRC64NVME"));
    assert_eq!(create.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
    assert_eq!(
        create.header("x-amz-meta-aircheck-session"),
        Some(recording.id.as_str())
    );
    let parts = bench.s3.seen(Op::UploadPart);
    assert!(
        parts
            .iter()
            .all(|part| part.header("x-amz-checksum-crc64nvme").is_some())
    );
    assert!(
        parts
            .iter()
            .all(|part| part.header("x-amz-checksum-crc32").is_none())
    );
    let complete = bench.s3.seen(Op::Complete).swap_remove(0);
    assert_eq!(complete.header("if-none-match"), Some("*"));
    assert_eq!(complete.header("x-amz-mp-object-size"), Some("6291456"));
    assert_eq!(
        complete.header("x-amz-checksum-crc64nvme"),
        recording.crc64nvme.as_deref()
    );
}
