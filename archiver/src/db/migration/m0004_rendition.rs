//! Columns `renditions` and `rendition_at` of table `recording`.

use sea_orm_migration::prelude::*;

/// This migration. Its name is the file's, and is kept in the database.
#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum Recording {
    Table,
    Renditions,
    RenditionAt,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut renditions = ColumnDef::new(Recording::Renditions);
        renditions.json_binary();
        let mut rendition_at = ColumnDef::new(Recording::RenditionAt);
        rendition_at.big_integer();
        // SQLite adds one column at a time.
        for column in [renditions, rendition_at] {
            let added = Table::alter()
                .table(Recording::Table)
                .add_column(column)
                .take();
            manager.alter_table(added).await?;
        }
        // Looked for every few seconds, and hardly any row has one.
        let index = Index::create()
            .name("recording_rendition_at")
            .table(Recording::Table)
            .col(Recording::RenditionAt)
            .take();
        manager.create_index(index).await
    }
}
