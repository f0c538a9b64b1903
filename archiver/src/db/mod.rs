//! The database: rows of shows and recordings, on SQLite or PostgreSQL.
//!
//! Owns every SQL statement. Each change of a status is a compare-and-set, so that none ever goes
//! back; each call has a deadline. Must never retry a statement and never touch S3.

mod claims;
mod entity;
mod migration;
mod recordings;
mod renditions;
mod shows;

pub(crate) use claims::{Aim, Claim, Claimed, Finish};
pub(crate) use entity::{
    recording::{Gaps, Markers, Model as RecordingRow, Objects, StoredObject},
    rendition::{PlannedRendition, Renditions, StoredRendition},
    show::Model as ShowRow,
    work::{Facts, FileWork, SentPart, Work},
};
pub(crate) use recordings::{Lost, Page};
pub(crate) use renditions::REMOVAL;

use sea_orm::{
    ConnectOptions, Database, DatabaseConnection, DbBackend, DbErr, RuntimeErr,
    sea_query::{Expr, SimpleExpr},
    sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous},
};
use std::time::Duration;
use thiserror::Error;

/// Any call, waiting for a connection included.
const DEADLINE: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long SQLite waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two questions whether that process is done.
const BUSY_RETRY: Duration = Duration::from_millis(20);
const POSTGRES_CONNECTIONS: u32 = 16;
/// SQLite has one writer at a time anyway; one connection makes waiting for it a queue, not a race.
const SQLITE_CONNECTIONS: u32 = 1;

/// Why the database could not do what it was asked.
#[derive(Debug, Error)]
pub(crate) enum DbError {
    /// No answer in time: the statement may have taken effect.
    #[error("the database did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
    /// It answered with an error, or could not be reached.
    #[error(transparent)]
    Sql(#[from] DbErr),
    /// The row that was there a moment ago is not.
    #[error("recording {0} has no row")]
    NoRow(String),
}

/// A database whose schema is up to date.
#[derive(Clone, Debug)]
pub(crate) struct Db {
    connection: DatabaseConnection,
}

impl Db {
    /// Connects and brings the schema up to date.
    ///
    /// # Errors
    /// If either fails; a later try may succeed.
    pub(crate) async fn open(url: &str) -> Result<Self, DbError> {
        let connection = deadline(connect(url)).await?;
        migration::run(&connection).await?;
        Ok(Self { connection })
    }

    /// Milliseconds since 1970 by the database's clock, as SQL: leases must not depend on how well
    /// the clocks of archivers agree.
    fn now(&self) -> SimpleExpr {
        Expr::cust(match self.connection.get_database_backend() {
            DbBackend::Postgres => "(extract(epoch from clock_timestamp()) * 1000)::bigint",
            _ => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        })
    }
}

/// The change to the write-ahead log is the one step for which SQLite does not wait for others, whatever
/// its busy timeout: it might wait for ever for somebody who waits for it. So whoever finds another
/// process at it asks again.
async fn connect(url: &str) -> Result<DatabaseConnection, DbErr> {
    loop {
        match Database::connect(options(url)).await {
            Err(error) if is_busy(&error) => tokio::time::sleep(BUSY_RETRY).await,
            done => return done,
        }
    }
}

/// `SQLITE_BUSY`, which is 5 (<https://sqlite.org/rescode.html>).
fn is_busy(error: &DbErr) -> bool {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error)) => error
            .as_database_error()
            .is_some_and(|error| error.code().as_deref() == Some("5")),
        _ => false,
    }
}

fn options(url: &str) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .connect_timeout(CONNECT_TIMEOUT)
        .acquire_timeout(CONNECT_TIMEOUT)
        .sqlx_logging(false);
    if url.starts_with("sqlite:") {
        options
            .max_connections(SQLITE_CONNECTIONS)
            .map_sqlx_sqlite_opts(|sqlite| {
                sqlite
                    .journal_mode(SqliteJournalMode::Wal)
                    // A row that says "archived" lets local bytes go, so it must survive a power cut.
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(BUSY_TIMEOUT)
                    .foreign_keys(true)
            });
    } else {
        options.max_connections(POSTGRES_CONNECTIONS);
    }
    options
}

async fn deadline<T>(call: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(DbError::Timeout),
    }
}

/// As a column; what is beyond any real number of bytes or milliseconds stays at the limit.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// As the column's meaning; columns never hold a negative number.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aircheck_core::{
        id::SessionId,
        recording::{EndReason, Status},
        spool::{Manifest, Stage},
    };
    use sea_orm::ConnectionTrait as _;
    use ulid::Ulid;

    fn session(nth: u128) -> Manifest {
        let show = "7".parse().expect("a show id");
        let mut manifest = Manifest::new(SessionId(Ulid::from(nth)), show, 1000, 30_000);
        // More than what is left of a page.
        manifest.user = "ann".repeat(10_000);
        manifest
    }

    #[tokio::test]
    async fn a_database_that_is_locked_or_full_takes_the_same_call_later() {
        let folder = tempfile::tempdir().expect("make a folder");
        let path = folder.path().join("aircheck.db");
        let url = format!("sqlite://{}?mode=rwc", path.display());
        let db = Db::open(&url).await.expect("open");

        let mut other = ConnectOptions::new(&url);
        other.max_connections(1);
        let other = Database::connect(other).await.expect("connect");
        let sql = |text: &'static str| other.execute_unprepared(text);
        sql("BEGIN IMMEDIATE").await.expect("the lock");
        let locked = db.advance(&session(1)).await;
        assert!(matches!(locked, Err(DbError::Sql(_))), "{locked:?}");
        sql("ROLLBACK").await.expect("the lock is free");
        db.advance(&session(1)).await.expect("a row");

        let limit = |pages: &'static str| db.connection.execute_unprepared(pages);
        limit("PRAGMA max_page_count = 1").await.expect("no room");
        let full = db.advance(&session(2)).await;
        assert!(matches!(full, Err(DbError::Sql(_))), "{full:?}");
        limit("PRAGMA max_page_count = 1000000")
            .await
            .expect("room");
        db.advance(&session(2)).await.expect("a row");
        assert_eq!(
            db.recordings(&Page {
                limit: 9,
                ..Page::default()
            })
            .await
            .expect("rows")
            .len(),
            2
        );
    }

    #[tokio::test]
    async fn a_row_that_is_made_while_its_session_is_sealed_is_sealed() {
        let postgres = aircheck_e2e::postgres::Postgres::start().await;
        let db = Db::open(&postgres.url()).await.expect("open");
        for nth in 1..300 {
            let live = Manifest {
                user: String::new(),
                started_unix_ms: nth * 1000,
                ..session(u128::from(nth))
            };
            let sealed = Manifest {
                stage: Stage::Sealed {
                    reason: EndReason::Stop,
                    ended_unix_ms: nth * 1000 + 1,
                },
                ..live.clone()
            };
            let (begun, row) = tokio::join!(db.advance(&live), db.seal(&sealed));
            begun.expect("a row");
            if let Some(row) = row.expect("an answer") {
                assert_eq!(row.status, Status::Finalizing.as_str(), "{nth}");
            }
        }
    }

    #[tokio::test]
    async fn processes_that_migrate_at_once_take_turns() {
        let folder = tempfile::tempdir().expect("make a folder");
        // The race for a new file's write-ahead log is lost about once in so many.
        let files = (0..100).map(|nth| {
            let path = folder.path().join(format!("{nth}.db"));
            format!("sqlite://{}?mode=rwc", path.display())
        });
        let postgres = aircheck_e2e::postgres::Postgres::start().await;
        for url in files.chain([postgres.url()]) {
            let opened = futures::future::join_all((0..4).map(|_| Db::open(&url))).await;
            for db in opened {
                db.expect("open").advance(&session(1)).await.expect("a row");
            }
        }
    }
}
