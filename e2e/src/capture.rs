//! What real browsers sent, chunk by chunk.
//!
//! Owns reading the captures; must never change a byte of them.

use bytes::Bytes;
use serde_json::Value;
use std::{fs, path::PathBuf};

/// One run of a browser's encoder.
#[derive(Clone, Debug)]
pub struct Capture {
    /// All bytes.
    pub bytes: Bytes,
    /// Where each chunk ends, ascending; the last one is the length.
    pub ends: Vec<usize>,
    /// As the browser named it.
    pub mime: String,
}

impl Capture {
    /// The capture of that name, such as `opus250`.
    ///
    /// # Panics
    /// If it can't be read.
    #[must_use]
    pub fn load(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../core/tests/media");
        let read = |file: String| {
            let path = folder.join(file);
            fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
        };
        let bytes = Bytes::from(read(format!("{name}.bin")));
        let notes: Value = serde_json::from_slice(&read(format!("{name}.chunks.json")))
            .expect("notes of a capture are JSON");
        let chunks = notes["chunks"].as_array().expect("a capture has chunks");
        let mut end = 0;
        let ends: Vec<usize> = chunks
            .iter()
            .map(|chunk| {
                let size = chunk["size"].as_u64().expect("a chunk has a size");
                end += usize::try_from(size).expect("a chunk fits into memory");
                end
            })
            .filter(|&end| end > 0)
            .collect();
        assert_eq!(
            ends.last(),
            Some(&bytes.len()),
            "the chunks of {name} make up its bytes"
        );
        let mime = notes["mimeType"]
            .as_str()
            .expect("a capture has a type")
            .to_owned();
        Self { bytes, ends, mime }
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The first chunks, until `bytes` or more.
    #[must_use]
    pub fn prefix(&self, bytes: usize) -> Self {
        let count = self.ends.iter().take_while(|&&end| end < bytes).count() + 1;
        let ends: Vec<usize> = self.ends.iter().take(count).copied().collect();
        let len = ends.last().copied().unwrap_or_default();
        Self {
            bytes: self.bytes.slice(..len),
            ends,
            mime: self.mime.clone(),
        }
    }

    /// The chunk that begins at `offset`, or what is left of the one around it.
    #[must_use]
    pub fn chunk_at(&self, offset: usize) -> Option<Bytes> {
        let end = *self.ends.iter().find(|&&end| end > offset)?;
        Some(self.bytes.slice(offset..end))
    }

    /// The chunks in order.
    pub fn chunks(&self) -> impl Iterator<Item = Bytes> + '_ {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| self.bytes.slice(start..end))
    }
}
