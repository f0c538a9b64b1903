//! Columns `rehearsal` and `sheet` of table `recording`.

use sea_orm_migration::prelude::*;

/// This migration. Its name is the file's, and is kept in the database.
#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum Recording {
    Table,
    Rehearsal,
    Sheet,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // The program before writes no such column.
        let mut rehearsal = ColumnDef::new(Recording::Rehearsal);
        rehearsal.boolean().not_null().default(false);
        let mut sheet = ColumnDef::new(Recording::Sheet);
        sheet.json_binary();
        // SQLite adds one column at a time.
        for column in [rehearsal, sheet] {
            let added = Table::alter()
                .table(Recording::Table)
                .add_column(column)
                .take();
            manager.alter_table(added).await?;
        }
        Ok(())
    }
}
