//! What the database does.
//!
//! Owns a few statements; must never change a row that is not its own.

use super::{Findings, Weight};
use aircheck_archiver::Secret;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, Statement,
    TransactionTrait,
};
use std::time::Duration;

/// Any call.
const DEADLINE: Duration = Duration::from_secs(10);

/// Asks everything.
pub(super) async fn examine(url: &Secret, findings: &mut Findings) {
    let mut options = ConnectOptions::new(url.expose());
    options
        .max_connections(1)
        .connect_timeout(DEADLINE)
        .acquire_timeout(DEADLINE);
    options.sqlx_logging(false);
    let connected = within(Database::connect(options)).await;
    let Some(db) = findings.tried(Weight::Needed, "database: connects", connected) else {
        return;
    };
    let postgres = db.get_database_backend() == DbBackend::Postgres;
    let version = if postgres {
        "SHOW server_version"
    } else {
        "SELECT sqlite_version()"
    };
    let engine = if postgres { "PostgreSQL" } else { "SQLite" };
    match within(text(&db, version)).await {
        Ok(version) => {
            let new = recent(&version, if postgres { (13, 0) } else { (3, 35) });
            findings.add(
                Weight::Needed,
                "database: version",
                new,
                format!("{engine} {version}"),
            );
        }
        Err(error) => findings.add(Weight::Needed, "database: version", false, error),
    }
    let durable = if postgres {
        "SHOW fsync"
    } else {
        "PRAGMA journal_mode"
    };
    let what = "database: survives a power cut";
    match within(text(&db, durable)).await {
        Ok(found) if postgres => {
            findings.add(
                Weight::Useful,
                what,
                found == "on",
                format!("fsync is {found}"),
            );
        }
        // Other journals are as safe, and slower; the archiver turns WAL on.
        Ok(found) => {
            let kept = !matches!(found.as_str(), "off" | "memory");
            findings.add(
                Weight::Useful,
                what,
                kept,
                format!("journal mode is {found}"),
            );
        }
        Err(error) => findings.add(Weight::Useful, what, false, error),
    }
    findings.tried(
        Weight::Needed,
        "database: can write",
        within(write(&db)).await,
    );
}

async fn within<T>(call: impl Future<Output = Result<T, DbErr>>) -> Result<T, String> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("no answer within 10 s".to_owned()),
    }
}

async fn text(db: &DatabaseConnection, sql: &str) -> Result<String, DbErr> {
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let row = db.query_one_raw(statement).await?;
    row.ok_or_else(|| DbErr::RecordNotFound(sql.to_owned()))?
        .try_get_by_index(0)
}

/// In a transaction that is rolled back.
async fn write(db: &DatabaseConnection) -> Result<(), DbErr> {
    let transaction = db.begin().await?;
    transaction
        .execute_unprepared("CREATE TABLE aircheck_doctor (n INTEGER)")
        .await?;
    transaction
        .execute_unprepared("INSERT INTO aircheck_doctor VALUES (1)")
        .await?;
    transaction.rollback().await
}

/// Whether `version` begins with at least these two numbers.
fn recent(version: &str, least: (u32, u32)) -> bool {
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(recent("3.45.1", (3, 35)));
        assert!(recent("17.2 (Debian 17.2-1)", (13, 0)));
        assert!(!recent("3.8.11", (3, 35)));
        assert!(!recent("", (3, 35)));
    }

    #[tokio::test]
    async fn a_database_in_a_file_passes_and_is_left_as_it_was() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("x.db");
        let url = Secret::from(format!("sqlite://{}?mode=rwc", path.display()));
        let mut findings = Findings::default();
        examine(&url, &mut findings).await;
        assert_eq!(findings.0.len(), 4);
        assert_eq!(findings.lacking(), 0, "{findings:?}");
        examine(&url, &mut findings).await;
        assert_eq!(
            findings.lacking(),
            0,
            "the table is gone again: {findings:?}"
        );
    }

    #[tokio::test]
    async fn a_database_that_is_not_there_is_missing() {
        let mut findings = Findings::default();
        let url = Secret::from("sqlite:///nowhere/at/all.db".to_owned());
        examine(&url, &mut findings).await;
        assert_eq!(findings.lacking(), 1);
    }
}
