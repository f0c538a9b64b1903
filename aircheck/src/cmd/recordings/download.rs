//! Objects of a recording, from the store to files.
//!
//! Owns the way of their bytes; a file of the wanted name exists only once they are proven. Must never
//! leave a damaged file under that name.

use super::{
    objects::{Object, Source, next_piece},
    partial::{Partial, Proof},
};
use crate::http::refusal;
use aircheck_core::recording::Recording;
use anyhow::{Context as _, bail, ensure};
use http::{Response, StatusCode, header};
use hyper::body::Incoming;
use indicatif::{ProgressBar, ProgressDrawTarget};
use std::path::{Path, PathBuf};

/// What is wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Name of the file, where there is one object.
    pub(super) file: Option<PathBuf>,
    /// Number of the only object, from 1.
    pub(super) part: Option<usize>,
    pub(super) resume: bool,
}

/// Downloads and gives the files' names.
///
/// # Errors
/// If there is no archive, it can't be read or written, or what came is not what the recording says.
pub(super) async fn run(
    source: Source<'_>,
    recording: &Recording,
    wanted: Wanted,
) -> anyhow::Result<Vec<PathBuf>> {
    let all = source.objects(recording).await?;
    let objects = chosen(&all, wanted.part)?;
    ensure!(
        wanted.file.is_none() || objects.len() == 1,
        "the recording has {} objects: choose one with --part, or leave --output out",
        objects.len()
    );
    let mut paths = Vec::new();
    for object in objects {
        let path = wanted.file.clone();
        let path = path.unwrap_or_else(|| usual_name(recording, object.name()));
        one(source, object, &path, wanted.resume).await?;
        paths.push(path);
    }
    Ok(paths)
}

fn chosen(all: &[Object], part: Option<usize>) -> anyhow::Result<&[Object]> {
    let Some(part) = part else {
        // Raw takes follow the files of a recording that was repaired.
        return Ok(
            match all
                .iter()
                .take_while(|object| object.take.is_none())
                .count()
            {
                0 => all,
                files => &all[..files],
            },
        );
    };
    match part.checked_sub(1).and_then(|index| all.get(index..=index)) {
        Some(one) => Ok(one),
        None => bail!("there is no part {part}: the recording has {}", all.len()),
    }
}

async fn one(source: Source<'_>, object: &Object, path: &Path, resume: bool) -> anyhow::Result<()> {
    let mut partial = Partial::open(path, resume).await?;
    let answer = source.open(object.name(), partial.bytes()).await?;
    let proof = Proof {
        bytes: object.bytes,
        crc64nvme: object.crc64nvme.clone(),
    };
    match answer.status() {
        StatusCode::OK => partial.restart().await?,
        StatusCode::PARTIAL_CONTENT => check_range(&answer, partial.bytes())?,
        // Nothing is left to fetch.
        StatusCode::RANGE_NOT_SATISFIABLE => return Ok(partial.finish(&proof).await?),
        _ => return Err(refusal(answer).await.into()),
    }
    receive(answer, &mut partial, object.bytes)
        .await
        .with_context(|| {
            format!(
                "{} is incomplete; --resume goes on",
                partial.path().display()
            )
        })?;
    Ok(partial.finish(&proof).await?)
}

fn check_range(answer: &Response<Incoming>, offset: u64) -> anyhow::Result<()> {
    let range = answer.headers().get(header::CONTENT_RANGE);
    let range = range
        .and_then(|range| range.to_str().ok())
        .unwrap_or_default();
    ensure!(
        range.starts_with(&format!("bytes {offset}-")),
        "the store gave the range {range:?}, not what follows byte {offset}"
    );
    Ok(())
}

async fn receive(
    answer: Response<Incoming>,
    partial: &mut Partial,
    total: u64,
) -> anyhow::Result<()> {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let mut body = answer.into_body();
    while let Some(piece) = next_piece(&mut body).await? {
        partial.append(&piece).await?;
        bar.set_position(partial.bytes());
    }
    bar.finish_and_clear();
    Ok(())
}

/// 7-2026-11-23T20-15-00Z.webm of recording.webm
fn usual_name(recording: &Recording, name: &str) -> PathBuf {
    let end = name.strip_prefix("recording").unwrap_or(".bin");
    let safe = |text: &str| text.replace(['/', '\\'], "_");
    let (show, version) = (safe(&recording.show_id), safe(&recording.version));
    format!("{show}-{version}{}", safe(end)).into()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::recording, *};

    #[test]
    fn a_file_is_named_after_its_show_and_never_leaves_the_directory() {
        let mut recording = recording();
        let name = |recording: &Recording| usual_name(recording, "recording.webm");
        assert_eq!(name(&recording), Path::new("7-2026-11-23T20-15-00Z.webm"));
        recording.show_id = "../x".into();
        assert_eq!(
            name(&recording),
            Path::new(".._x-2026-11-23T20-15-00Z.webm")
        );
    }

    #[test]
    fn one_part_or_all_are_chosen() {
        let object = |key: &str| Object {
            key: key.to_owned(),
            bytes: 1,
            crc64nvme: None,
            take: None,
        };
        let all = [object("a/recording.webm"), object("a/recording.vol2.webm")];
        assert_eq!(chosen(&all, None).expect("all").len(), 2);
        let second = chosen(&all, Some(2)).expect("one");
        assert_eq!(second[0].name(), "recording.vol2.webm");
        let name = usual_name(&recording(), second[0].name());
        assert_eq!(name, Path::new("7-2026-11-23T20-15-00Z.vol2.webm"));
        for none in [0, 3, usize::MAX] {
            assert!(chosen(&all, Some(none)).is_err(), "{none}");
        }
    }
}
