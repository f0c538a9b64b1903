//! `aircheck recordings`: what the gateway's HTTP API knows of recordings.
//!
//! Owns flags and tables; must never ask anybody but the gateway and the store it points to. Only
//! `rebuild`, which the gateway can't help with, opens bucket and database.

mod download;
mod objects;
mod partial;
mod rebuild;
mod repair;
pub(super) mod verify;

use super::access::Access;
use crate::{
    http::{Http, escaped, join, web},
    output,
};
use aircheck_core::{
    id::ShowId,
    recording::{Recording, Status},
};
use clap::{Args, Subcommand};
use objects::Source;
use serde::Deserialize;
use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

/// Exit status of a verification that failed.
const DIFFERS: u8 = 3;
/// Most recordings the gateway gives at a time.
const PAGE_MAX: usize = 200;

/// Flags of `aircheck recordings`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  aircheck recordings list --show 7 --status archived
  aircheck recordings list --to https://radio.example --token-file token --rehearsals
  aircheck recordings show 01JD0K3V7C6X5W4N2M1B0A9Z8Y
  aircheck recordings verify 01JD0K3V7C6X5W4N2M1B0A9Z8Y
  aircheck recordings repair 01JD0K3V7C6X5W4N2M1B0A9Z8Y
  aircheck recordings download 01JD0K3V7C6X5W4N2M1B0A9Z8Y -o show.webm --resume")]
pub(crate) struct Recordings {
    /// The gateway
    #[arg(
        long,
        global = true,
        env = "AIRCHECK_TO",
        default_value = "http://127.0.0.1:8080"
    )]
    to: String,
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List recordings, newest first
    List(List),
    /// Print one recording as JSON
    Show {
        /// Id of the recording
        id: String,
    },
    /// Download all objects of a recording and check them; raw takes beside stitched files only by --part
    Download(Download),
    /// Stitch a recording whose takes were archived as they came, from its own objects, which stay
    Repair {
        /// Id of the recording
        id: String,
    },
    /// Read all objects of a recording and compare them with its manifest; exit status 3 if they differ
    Verify {
        /// Id of the recording
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the rows that the database lost of the manifests in the bucket; exit status 1 if one of
    /// them proves nothing
    Rebuild(Box<rebuild::Rebuild>),
}

#[derive(Args, Debug)]
struct List {
    /// Of this show only
    #[arg(long)]
    show: Option<ShowId>,
    /// With this status only: recording, finalizing, archived or failed
    #[arg(long, value_parser = status)]
    status: Option<Status>,
    /// With rehearsals
    #[arg(long)]
    rehearsals: bool,
    /// Most recordings
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// As a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Download {
    /// Id of the recording
    id: String,
    /// Where to, for a single object; by default SHOW-VERSION.EXTENSION in the current directory
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only the object of this number, from 1, in the order of the recording's `objects`
    #[arg(long, value_name = "N")]
    part: Option<usize>,
    /// Go on with what an earlier download left
    #[arg(long)]
    resume: bool,
}

fn status(text: &str) -> Result<Status, &'static str> {
    Status::parse(text).ok_or("expected recording, finalizing, archived or failed")
}

#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Recording>,
    next: Option<String>,
}

/// Does what was asked.
///
/// # Errors
/// If the gateway does not answer or refuses, or a download is damaged.
pub(crate) async fn run(flags: Recordings) -> anyhow::Result<ExitCode> {
    let Recordings { to, access, action } = flags;
    let to = web(&to);
    let http = access.http(&to)?;
    match action {
        Action::List(list) => {
            let items = collect(&http, &to, &list).await?;
            let text = if list.json {
                serde_json::to_string_pretty(&items)?
            } else {
                table(&items)
            };
            output::print(text.trim_end())?;
        }
        Action::Show { id } => {
            let recording = one(&http, &to, &id).await?;
            output::print(&serde_json::to_string_pretty(&recording)?)?;
        }
        Action::Download(flags) => {
            let recording = one(&http, &to, &flags.id).await?;
            let source = Source {
                http: &http,
                to: &to,
                id: &recording.id,
            };
            let wanted = download::Wanted {
                file: flags.output,
                part: flags.part,
                resume: flags.resume,
            };
            for path in download::run(source, &recording, wanted).await? {
                output::print(&path.display().to_string())?;
            }
        }
        Action::Rebuild(flags) => return rebuild::run(*flags).await,
        Action::Repair { id } => output::print(&repair::run(&http, &to, &id).await?)?,
        Action::Verify { id, json } => {
            let recording = one(&http, &to, &id).await?;
            let verdict = verify::run(&http, &to, &recording).await?;
            let text = if json {
                serde_json::to_string_pretty(&verdict)?
            } else {
                verdict.table()
            };
            output::print(&text)?;
            if !verdict.ok {
                return Ok(ExitCode::from(DIFFERS));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn one(http: &Http, to: &str, id: &str) -> anyhow::Result<Recording> {
    Ok(http
        .json(&join(to, &format!("/api/recordings/{}", escaped(id)))?)
        .await?)
}

async fn collect(http: &Http, to: &str, list: &List) -> anyhow::Result<Vec<Recording>> {
    let mut items: Vec<Recording> = Vec::new();
    let mut after: Option<String> = None;
    while items.len() < list.limit {
        let wanted = (list.limit - items.len()).min(PAGE_MAX);
        let page: Page = http
            .json(&join(to, &list.path(after.as_deref(), wanted))?)
            .await?;
        items.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    Ok(items)
}

impl List {
    fn path(&self, after: Option<&str>, limit: usize) -> String {
        let place = match &self.show {
            Some(show) => format!("shows/{}/recordings", escaped(show.as_str())),
            None => "recordings".to_owned(),
        };
        let status = self
            .status
            .map(|status| format!("&status={}", status.as_str()));
        let after = after.map(|after| format!("&after={}", escaped(after)));
        format!(
            "/api/{place}?limit={limit}{}{}{}",
            status.unwrap_or_default(),
            if self.rehearsals {
                "&rehearsals=true"
            } else {
                ""
            },
            after.unwrap_or_default()
        )
    }
}

fn table(items: &[Recording]) -> String {
    let head = [
        "ID", "SHOW", "VERSION", "STATUS", "BYTES", "DURATION", "TAKES", "GAPS",
    ];
    let head = std::iter::once(head.map(str::to_owned));
    aligned(&head.chain(items.iter().map(row)).collect::<Vec<_>>())
}

/// Columns as wide as their widest cell.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            write!(line, "{cell:width$}  ").expect("a string takes everything");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(recording: &Recording) -> [String; 8] {
    [
        recording.id.clone(),
        if recording.rehearsal {
            format!("{} (rehearsal)", recording.show_id)
        } else {
            recording.show_id.clone()
        },
        recording.version.clone(),
        recording.status.as_str().to_owned(),
        recording.bytes.to_string(),
        recording
            .duration_ms
            .map_or_else(|| "-".to_owned(), duration),
        recording.takes.to_string(),
        recording.gaps.len().to_string(),
    ]
}

/// As 1:02:03.
fn duration(ms: u64) -> String {
    let s = ms / 1000;
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn recording() -> Recording {
        Recording {
            id: "01JD".into(),
            show_id: "7".into(),
            version: "2026-11-23T20-15-00Z".into(),
            status: Status::Archived,
            error: None,
            started_at: "2026-11-23T20:15:00Z".into(),
            ended_at: None,
            archived_at: None,
            end_reason: None,
            mime: "audio/webm".into(),
            bytes: 9,
            duration_ms: Some(3_723_000),
            takes: 1,
            reconnects: 0,
            gaps: Vec::new(),
            object_key: Some("recordings/7/2026-11-23T20-15-00Z/recording.webm".into()),
            sha256: None,
            crc64nvme: Some("rosUhgp5mIg=".into()),
            markers: Vec::new(),
            rehearsal: false,
            sheet: None,
            objects: Vec::new(),
            renditions: Vec::new(),
        }
    }

    #[test]
    fn a_table_lines_up() {
        let other = Recording {
            id: "longer-id".into(),
            duration_ms: None,
            ..recording()
        };
        let text = table(&[recording(), other]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let column = lines[0].find("SHOW").expect("head");
        assert!(
            lines[1..]
                .iter()
                .all(|line| line[column..].starts_with('7'))
        );
        assert!(lines[1].contains("1:02:03"));
    }

    #[test]
    fn a_list_asks_for_what_was_wanted() {
        let mut list = List {
            show: None,
            status: None,
            rehearsals: false,
            limit: 5,
            json: false,
        };
        assert_eq!(list.path(None, 5), "/api/recordings?limit=5");
        list.show = Some("7".parse().expect("id"));
        list.status = Some(Status::Failed);
        let path = "/api/shows/7/recordings?limit=5&status=failed&after=a%26b";
        assert_eq!(list.path(Some("a&b"), 5), path);
        list.status = None;
        list.rehearsals = true;
        let path = "/api/shows/7/recordings?limit=5&rehearsals=true";
        assert_eq!(list.path(None, 5), path);
    }
}
