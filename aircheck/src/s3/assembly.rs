//! Objects that are put together while their parts come in, so that completing one moves a file
//! instead of copying all parts.
//!
//! Owns the file of each upload under way and what is known of its parts. It lives in memory: what a
//! restart forgets, or parts of unequal lengths, are put together by s3s-fs. Must never be the only
//! copy of a part before the object is in its place.

use super::files;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crc_fast::{CrcAlgorithm::Crc64Nvme, Digest, checksum_combine};
use s3s::crypto::{Checksum as _, Md5};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Uploads that are followed at one time; beyond, the oldest are left to s3s-fs.
const OPEN_MAX: usize = 1024;
/// Bytes read at a time.
const BLOCK: usize = 256 << 10;

/// What is known of a part.
#[derive(Clone, Copy, Debug)]
struct Part {
    bytes: u64,
    crc: u64,
    md5: [u8; 16],
}

/// An upload under way.
#[derive(Debug)]
struct Assembly {
    /// Length of every part but the last.
    part_bytes: u64,
    parts: BTreeMap<i32, Part>,
}

/// A whole object, beside its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) file: PathBuf,
    /// As S3 writes it.
    pub(super) crc64nvme: String,
    /// Of the form that S3 gives to what came in parts.
    pub(super) e_tag: String,
}

/// All uploads that are followed. Calls block.
#[derive(Debug)]
pub(super) struct Assemblies {
    open: Mutex<BTreeMap<String, Assembly>>,
    part_min: u64,
}

impl Assemblies {
    /// `part_min`: least bytes of a part that is not the last.
    pub(super) const fn new(part_min: u64) -> Self {
        Self {
            open: Mutex::new(BTreeMap::new()),
            part_min,
        }
    }

    /// Adds a part, whose bytes are in `path`, and gives its checksum as S3 writes it.
    ///
    /// # Errors
    /// If a file can't be read or written; the part counts as never added then.
    pub(super) fn add(
        &self,
        root: &Path,
        id: &str,
        number: i32,
        path: &Path,
    ) -> io::Result<String> {
        let mut open = self.open();
        if open.len() >= OPEN_MAX && !open.contains_key(id) {
            // Upload ids are random: this is any of them.
            open.pop_first();
        }
        let mut file = File::open(path)?;
        let part_bytes = open.get(id).map(|assembly| assembly.part_bytes);
        let part_bytes = part_bytes.map_or_else(|| file.metadata().map(|data| data.len()), Ok)?;
        let assembly = open.entry(id.to_owned()).or_insert_with(|| Assembly {
            part_bytes,
            parts: BTreeMap::new(),
        });
        assembly.parts.remove(&number);
        let begins = u64::try_from(number - 1).unwrap_or(0) * assembly.part_bytes;
        let mut whole = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(files::whole(root, id))?;
        whole.seek(SeekFrom::Start(begins))?;
        let part = copy(&mut file, &mut whole)?;
        // Now, so that little is left to write when the object is completed.
        whole.sync_data()?;
        assembly.parts.insert(number, part);
        Ok(spelled(part.crc))
    }

    /// The object of these parts, if they came one after the other and were all followed.
    ///
    /// # Errors
    /// If its file can't be written.
    pub(super) fn whole(
        &self,
        root: &Path,
        id: &str,
        numbers: &[i32],
    ) -> io::Result<Option<Whole>> {
        let open = self.open();
        let Some(assembly) = open.get(id) else {
            return Ok(None);
        };
        let is_small = numbers.len() > 1 && assembly.part_bytes < self.part_min;
        let Some(parts) = assembly.parts_of(numbers).filter(|_| !is_small) else {
            return Ok(None);
        };
        let bytes = parts.iter().map(|part| part.bytes).sum();
        let crc = parts.iter().fold(0, |crc, part| {
            checksum_combine(Crc64Nvme, crc, part.crc, part.bytes)
        });
        let md5s: Vec<u8> = parts.iter().flat_map(|part| part.md5).collect();
        let file = files::whole(root, id);
        let written = OpenOptions::new().write(true).open(&file)?;
        // A part that is there no more may have been longer.
        written.set_len(bytes)?;
        written.sync_all()?;
        Ok(Some(Whole {
            file,
            crc64nvme: spelled(crc),
            e_tag: format!("{}-{}", hex(&md5(&md5s)), parts.len()),
        }))
    }

    /// Forgets an upload that is over.
    pub(super) fn forget(&self, id: &str) {
        self.open().remove(id);
    }

    /// The map is whole between any two statements.
    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Assembly>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Assembly {
    /// The parts of these numbers, if the file holds them one after the other.
    fn parts_of(&self, numbers: &[i32]) -> Option<Vec<Part>> {
        let last = numbers.len().checked_sub(1)?;
        let found = numbers
            .iter()
            .zip(0..)
            .zip(1..)
            .map(|((number, index), from_one)| {
                let part = self.parts.get(number).filter(|_| *number == from_one)?;
                let fits = if index == last {
                    part.bytes <= self.part_bytes
                } else {
                    part.bytes == self.part_bytes
                };
                fits.then_some(*part)
            });
        found.collect()
    }
}

fn copy(from: &mut File, to: &mut File) -> io::Result<Part> {
    let (mut bytes, mut digest, mut hash) = (0, Digest::new(Crc64Nvme), Md5::new());
    let mut block = vec![0; BLOCK];
    loop {
        let read = from.read(&mut block)?;
        if read == 0 {
            return Ok(Part {
                bytes,
                crc: digest.finalize(),
                md5: hash.finalize(),
            });
        }
        digest.update(&block[..read]);
        hash.update(&block[..read]);
        to.write_all(&block[..read])?;
        bytes += read as u64;
    }
}

fn md5(bytes: &[u8]) -> [u8; 16] {
    let mut hash = Md5::new();
    hash.update(bytes);
    hash.finalize()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As S3 writes it.
fn spelled(crc: u64) -> String {
    STANDARD.encode(crc.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const ID: &str = "12-ab";

    struct Bench {
        assemblies: Assemblies,
        root: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                assemblies: Assemblies::new(4),
                root: tempfile::tempdir().expect("a folder"),
            }
        }

        fn add(&self, number: i32, bytes: &[u8]) {
            let path = self.root.path().join("part");
            fs::write(&path, bytes).expect("write a part");
            let added = self.assemblies.add(self.root.path(), ID, number, &path);
            added.expect("a checksum");
        }

        /// Bytes and checksum.
        fn whole(&self, numbers: &[i32]) -> Option<(Vec<u8>, String)> {
            let whole = self.assemblies.whole(self.root.path(), ID, numbers);
            let whole = whole.expect("readable files")?;
            Some((fs::read(whole.file).expect("the object"), whole.crc64nvme))
        }
    }

    #[test]
    fn parts_in_any_order_are_the_object_they_make_up() {
        let bench = Bench::new();
        bench.add(2, b"4567");
        bench.add(1, b"????");
        bench.add(3, b"89");
        bench.add(1, b"0123");
        let (bytes, crc) = bench.whole(&[1, 2, 3]).expect("a whole");
        assert_eq!(bytes, b"0123456789");
        assert_eq!(crc, spelled(crc_fast::checksum(Crc64Nvme, b"0123456789")));
    }

    #[test]
    fn an_object_is_as_long_as_its_listed_parts() {
        let bench = Bench::new();
        for number in 1..=3 {
            bench.add(number, b"0123");
        }
        bench.add(2, b"45");
        assert_eq!(bench.whole(&[1, 2]).expect("a whole").0, b"012345");
    }

    #[test]
    fn parts_that_are_unequal_missing_or_in_another_order_are_left_to_others() {
        let bench = Bench::new();
        bench.add(1, b"0123");
        bench.add(2, b"45");
        bench.add(3, b"6789");
        assert_eq!(bench.whole(&[1, 2, 3]), None, "unequal");
        assert_eq!(bench.whole(&[1, 4]), None, "missing");
        assert_eq!(bench.whole(&[2, 1]), None, "out of order");
        assert_eq!(bench.whole(&[1, 3]), None, "with a hole");
        assert_eq!(bench.whole(&[]), None, "nothing");
        let small = Bench::new();
        small.add(1, b"012");
        small.add(2, b"345");
        assert_eq!(small.whole(&[1, 2]), None, "too small");
        bench.assemblies.forget(ID);
        assert_eq!(bench.whole(&[1, 2]), None, "forgotten");
    }
}
