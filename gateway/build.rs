//! Embeds the studio: writes a table of every page, script and style sheet directly in `../studio`.
//!
//! Owns which files are served; must never embed a subfolder, where tests and tools live.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    let studio = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../studio");
    println!("cargo:rerun-if-changed={}", studio.display());
    let mut files = servable(&studio)?;
    files.sort();
    let mut table = String::from("&[\n");
    for (name, path) in files {
        println!("cargo:rerun-if-changed={}", path.display());
        let mut hasher = DefaultHasher::new();
        fs::read(&path)?.hash(&mut hasher);
        let tag = format!("\"{:016x}\"", hasher.finish());
        writeln!(
            table,
            "({name:?}, {tag:?}, include_bytes!({path:?}).as_slice()),"
        )?;
    }
    table.push(']');
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("studio.rs"), table)?;
    Ok(())
}

/// Names and paths of what browsers may load; none where the folder is missing.
fn servable(studio: &Path) -> Result<Vec<(String, PathBuf)>, Box<dyn Error>> {
    let mut files = Vec::new();
    if !studio.is_dir() {
        return Ok(files);
    }
    for entry in fs::read_dir(studio)? {
        let entry = entry?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|_| "a file name that is not UTF-8")?;
        let path = entry.path();
        let served = matches!(
            path.extension().and_then(|e| e.to_str()),
            Some("html" | "js" | "css")
        );
        if served && entry.file_type()?.is_file() {
            files.push((name, path.canonicalize()?));
        }
    }
    Ok(files)
}
