//! The schema's history, oldest first.
//!
//! Owns every change of the schema. A migration that was released is never edited, and only ever
//! adds: the program before must go on working on the schema after.

mod m0001_show_and_recording;
mod m0002_work;
mod m0003_rehearsal;
mod m0004_rendition;

use super::DbError;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use sea_orm_migration::prelude::*;
use std::time::Duration;

/// Key of the advisory lock that one migrating process holds: "aircheck" in ASCII.
const LOCK: i64 = i64::from_be_bytes(*b"aircheck");
/// How long a process waits for another one's migration, and its own may take.
const DEADLINE: Duration = Duration::from_secs(60);

struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_show_and_recording::Migration),
            Box::new(m0002_work::Migration),
            Box::new(m0003_rehearsal::Migration),
            Box::new(m0004_rendition::Migration),
        ]
    }
}

/// Brings the schema up to date. Safe when several processes do so at once: one works while the
/// others wait, all in one transaction each.
///
/// # Errors
/// If a statement fails; then nothing has changed.
pub(super) async fn run(db: &DatabaseConnection) -> Result<(), DbError> {
    tokio::time::timeout(DEADLINE, locked(db))
        .await
        .map_err(|_| DbError::Timeout)??;
    Ok(())
}

async fn locked(db: &DatabaseConnection) -> Result<(), DbErr> {
    // SQLite's own lock: no second writer may even begin.
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let transaction: DatabaseTransaction = db.begin_with_options(options).await?;
    if db.get_database_backend() == DbBackend::Postgres {
        let lock = format!("SELECT pg_advisory_xact_lock({LOCK})");
        transaction.execute_unprepared(&lock).await?;
    }
    Migrator::up(&transaction, None).await?;
    transaction.commit().await
}
