//! Where s3s-fs keeps an object and what belongs to it, and how that becomes durable.
//!
//! Owns the knowledge of its file names and of the checksum in its notes, both as of version 0.14,
//! which a test here holds. Must never take a path from a client that s3s-fs has not accepted.

use super::assembly::Whole;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use crc_fast::{CrcAlgorithm::Crc64Nvme, Digest};
use serde_json::{Map, Value, json};
use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Bytes read at a time.
const BLOCK: usize = 256 << 10;
const CHECKSUM: &str = "checksum_crc64nvme";

/// The files of one object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    root: PathBuf,
    data: PathBuf,
    stem: String,
    attributes: PathBuf,
    notes: PathBuf,
}

impl Object {
    pub(super) fn new(root: &Path, bucket: &str, key: &str) -> Self {
        let name = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let stem = format!(".bucket-{}.object-{}", name(bucket), name(key));
        Self {
            root: root.to_owned(),
            data: root.join(bucket).join(key),
            attributes: root.join(format!("{stem}.metadata.json")),
            notes: root.join(format!("{stem}.internal.json")),
            stem,
        }
    }

    /// Makes the object and its names durable.
    ///
    /// # Errors
    /// If a sync fails: then nobody may be told that the object is there.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.data)?.sync_all()?;
        self.sync_beside()?;
        for dir in self.data.ancestors().skip(1) {
            File::open(dir)?.sync_all()?;
            if dir == self.root {
                break;
            }
        }
        Ok(())
    }

    fn sync_beside(&self) -> io::Result<()> {
        for beside in [&self.attributes, &self.notes] {
            match File::open(beside) {
                Ok(file) => file.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether it is there.
    pub(super) fn exists(&self) -> bool {
        self.data.exists()
    }

    /// Puts a whole object into its place, with the attributes that its upload was begun with.
    ///
    /// # Errors
    /// If a file can't be written or moved: then the upload is still whole.
    #[expect(
        clippy::disallowed_methods,
        reason = "what is moved was synced, and directories are right after"
    )]
    pub(super) fn place(&self, upload_id: &str, whole: &Whole) -> io::Result<()> {
        let begun = format!("{}.upload-{upload_id}.metadata.json", self.stem);
        match fs::rename(self.root.join(begun), &self.attributes) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let notes = json!({ "e_tag": whole.e_tag, CHECKSUM: whole.crc64nvme });
        fs::write(&self.notes, notes.to_string())?;
        // First what tells whose the object is: an object without it would be nobody's.
        self.sync_beside()?;
        File::open(&self.root)?.sync_all()?;
        if let Some(folder) = self.data.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::rename(&whole.file, &self.data)?;
        self.sync()
    }

    /// Takes the object away.
    ///
    /// # Errors
    /// If it can't be.
    pub(super) fn remove(&self) -> io::Result<()> {
        for path in [&self.data, &self.attributes, &self.notes] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        // Up to the bucket, as far as nothing else is in them.
        let folders = self.data.ancestors().skip(1);
        for folder in folders.take_while(|folder| folder.parent() != Some(&self.root)) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Notes the checksum of an object that was put together of parts, in place of one that an
    /// earlier object of this name may have left.
    ///
    /// # Errors
    /// If the notes can't be written.
    #[expect(
        clippy::disallowed_methods,
        reason = "durable after `sync`, which always follows"
    )]
    pub(super) fn note_checksum(&self, crc: &str) -> io::Result<()> {
        let mut notes: Map<String, Value> = serde_json::from_slice(&fs::read(&self.notes)?)?;
        notes.retain(|name, _| !name.starts_with("checksum_"));
        notes.insert(CHECKSUM.to_owned(), Value::String(crc.to_owned()));
        let new = self.notes.with_extension("json.new");
        fs::write(&new, serde_json::to_vec(&notes)?)?;
        fs::rename(new, &self.notes)
    }
}

/// Whether an upload is under way.
pub(super) fn upload_exists(root: &Path, upload_id: &str) -> bool {
    is_upload_id(upload_id) && upload(root, upload_id).exists()
}

/// The file that says that an upload is under way.
fn upload(root: &Path, upload_id: &str) -> PathBuf {
    root.join(format!(".upload-{upload_id}.json"))
}

/// Removes what is left of an upload whose object is in its place.
///
/// # Errors
/// If something can't be removed: then the upload is still there, and may be aborted.
pub(super) fn end_upload(root: &Path, upload_id: &str) -> io::Result<()> {
    let parts = format!(".upload_id-{upload_id}.");
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(&parts)) {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_file(upload(root, upload_id))
}

fn is_upload_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// Removes the file that an upload was put together in, if it was.
///
/// # Errors
/// If it can't be removed.
pub(super) fn remove_whole(root: &Path, upload_id: &str) -> io::Result<()> {
    match fs::remove_file(whole(root, upload_id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The file that an upload is put together in. Begins with what s3s-fs gives to parts, so that an
/// abort takes it along.
pub(super) fn whole(root: &Path, upload_id: &str) -> PathBuf {
    root.join(format!(".upload_id-{upload_id}.whole"))
}

/// An upload under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OpenUpload {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) begun: SystemTime,
}

/// Uploads under way that were begun with metadata, as all of ours are, sorted.
///
/// # Errors
/// If the directory can't be read.
pub(super) fn open_uploads(root: &Path, bucket: &str) -> io::Result<Vec<OpenUpload>> {
    let head = format!(".bucket-{}.object-", URL_SAFE_NO_PAD.encode(bucket));
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let parts = name
            .to_str()
            .and_then(|name| name.strip_prefix(&head)?.strip_suffix(".metadata.json"))
            .and_then(|middle| middle.split_once(".upload-"));
        let Some((key, id)) = parts.filter(|(_, id)| upload_exists(root, id)) else {
            continue;
        };
        let key = URL_SAFE_NO_PAD.decode(key).ok();
        let Some(key) = key.and_then(|key| String::from_utf8(key).ok()) else {
            continue;
        };
        found.push(OpenUpload {
            key,
            id: id.to_owned(),
            begun: entry.metadata()?.modified()?,
        });
    }
    found.sort();
    Ok(found)
}

/// The file of a part.
pub(super) fn part(root: &Path, upload_id: &str, number: i32) -> PathBuf {
    root.join(format!(".upload_id-{upload_id}.part-{number}"))
}

/// The checksum of all parts together; `None` if one is missing.
///
/// # Errors
/// If one can't be read.
pub(super) fn checksum(parts: &[PathBuf]) -> io::Result<Option<String>> {
    let mut digest = Digest::new(Crc64Nvme);
    for path in parts {
        match add(path, &mut digest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            done => done?,
        }
    }
    Ok(Some(spelled(&digest)))
}

fn add(path: &Path, digest: &mut Digest) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(()),
            read => digest.update(&block[..read]),
        }
    }
}

/// As S3 writes it.
fn spelled(digest: &Digest) -> String {
    STANDARD.encode(digest.finalize().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_checked_together() {
        let dir = tempfile::tempdir().expect("tempdir");
        let paths = [part(dir.path(), "a-1", 1), part(dir.path(), "a-1", 2)];
        fs::write(&paths[0], b"12345").expect("write");
        assert_eq!(checksum(&paths).expect("read"), None);
        fs::write(&paths[1], b"6789").expect("write");
        assert_eq!(
            checksum(&paths).expect("read").as_deref(),
            Some("rosUhgp5mIg=")
        );
    }

    #[test]
    fn an_object_goes_with_its_folders_but_not_with_its_neighbours() {
        let dir = tempfile::tempdir().expect("tempdir");
        let objects = ["a/b/one", "a/two"].map(|key| Object::new(dir.path(), "bucket", key));
        fs::create_dir_all(dir.path().join("bucket/a/b")).expect("folders");
        for object in &objects {
            fs::write(&object.data, b"x").expect("write");
            fs::write(&object.notes, b"{}").expect("write");
            object.sync().expect("syncs");
        }
        objects[0].remove().expect("removes");
        assert!(!dir.path().join("bucket/a/b").exists() && objects[1].data.exists());
        objects[1].remove().expect("removes");
        assert_eq!(
            fs::read_dir(dir.path().join("bucket"))
                .expect("bucket")
                .count(),
            0
        );
        assert_eq!(fs::read_dir(dir.path()).expect("root").count(), 1);
        objects[1].remove().expect("nothing to do");
    }

    #[test]
    fn uploads_under_way_are_found_and_only_those_of_the_bucket() {
        let dir = tempfile::tempdir().expect("tempdir");
        let name = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let begin = |bucket: &str, id: &str| {
            let (bucket, key) = (name(bucket), name("a/key"));
            let file = format!(".bucket-{bucket}.object-{key}.upload-{id}.metadata.json");
            fs::write(dir.path().join(file), "{}").expect("write");
            fs::write(dir.path().join(format!(".upload-{id}.json")), "null").expect("write");
        };
        begin("shows", "12-ab");
        begin("shows", "12-ac");
        begin("other", "12-ad");
        fs::remove_file(dir.path().join(".upload-12-ac.json")).expect("remove");
        let open = open_uploads(dir.path(), "shows").expect("read");
        let open: Vec<_> = open.iter().map(|open| (&*open.key, &*open.id)).collect();
        assert_eq!(open, [("a/key", "12-ab")]);
    }

    #[test]
    fn an_upload_id_is_never_a_path() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::write(dir.path().join(".upload-12-ab.json"), "null").expect("write");
        assert!(upload_exists(dir.path(), "12-ab"));
        for bad in ["", "12-ac", "../12-ab", "x/../12-ab"] {
            assert!(!upload_exists(dir.path(), bad), "{bad}");
        }
    }

    #[test]
    fn a_new_checksum_takes_the_place_of_every_old_one() {
        let dir = tempfile::tempdir().expect("tempdir");
        let object = Object::new(dir.path(), "b", "k");
        fs::write(&object.notes, r#"{"e_tag":"t","checksum_crc32":"old"}"#).expect("write");
        object.note_checksum("new").expect("note");
        let notes = fs::read_to_string(&object.notes).expect("read");
        assert_eq!(notes, r#"{"checksum_crc64nvme":"new","e_tag":"t"}"#);
    }
}
