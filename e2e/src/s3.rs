//! The bucket, seen from its disk.
//!
//! Owns looking into the folder of the development S3 server; must never write there.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folder in which an S3 server keeps its objects.
#[derive(Clone, Debug)]
pub struct Bucket(PathBuf);

impl Bucket {
    /// The bucket in that folder.
    #[must_use]
    pub fn at(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Keys of all objects of a show, sorted.
    #[must_use]
    pub fn keys(&self, show: &str) -> Vec<String> {
        let part = format!("recordings/{show}/");
        let mut keys: Vec<String> = self
            .files()
            .into_iter()
            .filter_map(|path| {
                let text = path.to_str()?.to_owned();
                text.find(&part).map(|at| text[at..].to_owned())
            })
            .collect();
        keys.sort();
        keys
    }

    /// Keys of media objects of a show: everything but manifests.
    #[must_use]
    pub fn media_keys(&self, show: &str) -> Vec<String> {
        self.keys(show)
            .into_iter()
            .filter(|key| !key.ends_with("/manifest.json"))
            .collect()
    }

    /// An object's bytes.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn object(&self, key: &str) -> Vec<u8> {
        let path = self.files().into_iter().find(|path| path.ends_with(key));
        let path = path.unwrap_or_else(|| panic!("no object {key} in {:?}", self.files()));
        fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
    }

    /// Whether there is such an object.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.files().iter().any(|path| path.ends_with(key))
    }

    /// Uploads that were begun and neither completed nor aborted, and stray parts.
    #[must_use]
    pub fn open_uploads(&self) -> Vec<String> {
        let is_upload =
            |name: &str| name.starts_with(".upload-") || name.starts_with(".upload_id-");
        let names = self.files().into_iter().filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            is_upload(&name).then_some(name)
        });
        names.collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        files_below(&self.0)
    }
}

/// All files of a folder and of those in it.
#[must_use]
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(folder, &mut files);
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    // Files come and go under our eyes: what vanished is not there.
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
