//! Column `work` of table `recording`: archives in the making.

use sea_orm_migration::prelude::*;

/// This migration. Its name is the file's, and is kept in the database.
#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum Recording {
    Table,
    Work,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let added = Table::alter()
            .table(Recording::Table)
            .add_column(ColumnDef::new(Recording::Work).json_binary())
            .take();
        manager.alter_table(added).await
    }
}
