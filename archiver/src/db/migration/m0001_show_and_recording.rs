//! Tables `show` and `recording`.

use sea_orm_migration::prelude::*;

/// This migration. Its name is the file's, and is kept in the database.
#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum Show {
    Table,
    Id,
    Title,
    GraceS,
    GapPolicy,
    CreatedAt,
    UpdatedAt,
}

#[derive(DeriveIden)]
enum Recording {
    Table,
    Id,
    ShowId,
    Version,
    Status,
    Error,
    StartedAt,
    EndedAt,
    ArchivedAt,
    EndReason,
    Mime,
    Bytes,
    DurationMs,
    Takes,
    Reconnects,
    Gaps,
    Markers,
    Objects,
    Manifest,
    ObjectKey,
    ManifestKey,
    Sha256,
    Crc64nvme,
    ClaimOwner,
    ClaimEpoch,
    ClaimUntil,
    CreatedAt,
    UpdatedAt,
    DeletedAt,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(show()).await?;
        manager.create_table(recording()).await?;
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

fn text(name: impl IntoIden) -> ColumnDef {
    ColumnDef::new(name).text().not_null().take()
}

fn number(name: impl IntoIden) -> ColumnDef {
    ColumnDef::new(name).big_integer().not_null().take()
}

fn json(name: impl IntoIden) -> ColumnDef {
    ColumnDef::new(name).json_binary().not_null().take()
}

fn show() -> TableCreateStatement {
    Table::create()
        .table(Show::Table)
        .col(text(Show::Id).primary_key())
        .col(text(Show::Title))
        .col(ColumnDef::new(Show::GraceS).big_integer())
        .col(text(Show::GapPolicy))
        .col(number(Show::CreatedAt))
        .col(number(Show::UpdatedAt))
        .take()
}

fn recording() -> TableCreateStatement {
    Table::create()
        .table(Recording::Table)
        .col(text(Recording::Id).primary_key())
        .col(text(Recording::ShowId))
        .col(text(Recording::Version))
        .col(text(Recording::Status))
        .col(ColumnDef::new(Recording::Error).text())
        .col(number(Recording::StartedAt))
        .col(ColumnDef::new(Recording::EndedAt).big_integer())
        .col(ColumnDef::new(Recording::ArchivedAt).big_integer())
        .col(ColumnDef::new(Recording::EndReason).text())
        .col(text(Recording::Mime))
        .col(number(Recording::Bytes))
        .col(ColumnDef::new(Recording::DurationMs).big_integer())
        .col(ColumnDef::new(Recording::Takes).integer().not_null())
        .col(ColumnDef::new(Recording::Reconnects).integer().not_null())
        .col(json(Recording::Gaps))
        .col(json(Recording::Markers))
        .col(json(Recording::Objects))
        .col(json(Recording::Manifest))
        .col(ColumnDef::new(Recording::ObjectKey).text())
        .col(ColumnDef::new(Recording::ManifestKey).text())
        .col(ColumnDef::new(Recording::Sha256).text())
        .col(ColumnDef::new(Recording::Crc64nvme).text())
        .col(ColumnDef::new(Recording::ClaimOwner).text())
        .col(number(Recording::ClaimEpoch))
        .col(number(Recording::ClaimUntil))
        .col(number(Recording::CreatedAt))
        .col(number(Recording::UpdatedAt))
        .col(ColumnDef::new(Recording::DeletedAt).big_integer())
        .foreign_key(
            ForeignKey::create()
                .name("recording_show")
                .from(Recording::Table, Recording::ShowId)
                .to(Show::Table, Show::Id),
        )
        .take()
}

fn indexes() -> [IndexCreateStatement; 3] {
    let on = |name: &str| Index::create().name(name).table(Recording::Table).take();
    [
        on("recording_show_version")
            .col(Recording::ShowId)
            .col(Recording::Version)
            .unique()
            .take(),
        on("recording_newest")
            .col(Recording::StartedAt)
            .col(Recording::Id)
            .take(),
        on("recording_show_newest")
            .col(Recording::ShowId)
            .col(Recording::StartedAt)
            .col(Recording::Id)
            .take(),
    ]
}
