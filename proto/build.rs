//! Compiles the .proto files with protox, so that no `protoc` is needed, and keeps the descriptor set
//! for gRPC reflection.

use prost::Message as _;
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let files = [
        "aircheck/archiver/v1/archiver.proto",
        "aircheck/ingest/v1/ingest.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("aircheck.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Chunks travel from socket to disk without a copy.
        .bytes(".")
        // Rare and large; boxed, the frequent acks stay small.
        .boxed(".aircheck.ingest.v1.PublishResponse.response.end")
        .compile_fds(descriptors)?;
    Ok(())
}
