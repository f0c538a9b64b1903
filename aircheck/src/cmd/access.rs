//! Who we are towards a server, and whose certificates we believe: flags of every command that asks one.
//!
//! Owns these flags. Must never tell the token to anybody but the server it is for.

use crate::{
    http::{Http, bearer, join},
    tls::Trust,
};
use anyhow::Context as _;
use clap::Args;
use std::path::{Path, PathBuf};

/// Flags of `push`, `bench` and `recordings`.
#[derive(Args, Debug)]
pub(super) struct Access {
    /// Token for a gateway that asks for one
    #[arg(
        long,
        global = true,
        env = "AIRCHECK_TOKEN",
        hide_env_values = true,
        conflicts_with = "token_file"
    )]
    token: Option<aircheck_archiver::Secret>,
    /// File that holds the token, so that it is no argument that others can see
    #[arg(long, global = true, env = "AIRCHECK_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM certificates to believe beside those of this machine, for wss:// and https://
    #[arg(long, global = true, env = "AIRCHECK_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl Access {
    /// The token, where there is one.
    ///
    /// # Errors
    /// If its file can't be read.
    pub(super) fn token(&self) -> anyhow::Result<Option<String>> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.expose().to_owned())),
            (None, None) => Ok(None),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("read {}", path.display()))?;
                Ok(Some(text.trim().to_owned()))
            }
        }
    }

    /// Certificates beside those of the machine.
    pub(super) fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// A client of the gateway at `base`, `http://` or `https://`, which is told who we are.
    ///
    /// # Errors
    /// If a file can't be read, or the token can be in no header.
    pub(super) fn http(&self, base: &str) -> anyhow::Result<Http> {
        let http = Http::with(&Trust::with_file(self.ca_file())?);
        Ok(match self.token()? {
            None => http,
            Some(token) => http.with_bearer(&join(base, "/")?, bearer(&token)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        access: Access,
    }

    fn parse(flags: &[&str]) -> Result<Access, clap::Error> {
        let flags = std::iter::once(&"aircheck").chain(flags);
        Cli::try_parse_from(flags).map(|cli| cli.access)
    }

    #[test]
    fn a_token_comes_from_its_flag_or_a_file_with_a_trailing_newline_and_not_from_both() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("token");
        std::fs::write(&file, "of-file\n").expect("write");
        let file = file.to_str().expect("text");
        let token = |flags: &[&str]| parse(flags).expect("flags").token();
        assert_eq!(token(&[]).expect("none"), None);
        let given = token(&["--token", "given"]).expect("a token");
        assert_eq!(given.as_deref(), Some("given"));
        let read = token(&["--token-file", file]).expect("a token");
        assert_eq!(read.as_deref(), Some("of-file"));
        assert!(token(&["--token-file", "/does/not/exist"]).is_err());
        assert!(parse(&["--token", "x", "--token-file", file]).is_err());
    }
}
