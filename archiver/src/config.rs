//! Flags of the archiver.
//!
//! Owns their names, defaults and checks; must never print a secret.

use aircheck_core::rendition::Wish;
use aircheck_runtime::args;
use std::{fmt, fs, io, path::PathBuf, str::FromStr, time::Duration};
use thiserror::Error;

/// Smallest part S3 takes, bytes, but for the last one.
const PART_SIZE_MIN: u64 = 5 << 20;
/// Largest part S3 takes, bytes.
const PART_SIZE_MAX: u64 = 5 << 30;
/// Longest life that S3's signatures allow a presigned URL.
const PRESIGN_TTL_MAX: Duration = Duration::from_secs(7 * 86_400);
const CLAIM_LEASE_MIN: Duration = Duration::from_secs(1);
const SWEEP_EVERY_MIN: Duration = Duration::from_secs(1);

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where the archiver keeps rows and objects.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Database: `sqlite://path?mode=rwc` or `postgres://user:password@host/name`.
    #[arg(long, env = "AIRCHECK_DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,

    /// S3 endpoint; without it, AWS.
    #[arg(long, env = "AIRCHECK_S3_ENDPOINT")]
    pub s3_endpoint: Option<String>,

    /// Bucket of the archives. It must exist.
    #[arg(long, env = "AIRCHECK_S3_BUCKET")]
    pub s3_bucket: String,

    /// Region of the bucket.
    #[arg(long, env = "AIRCHECK_S3_REGION", default_value = "us-east-1")]
    pub s3_region: String,

    /// Put in front of every key; ends in a slash if it should be a folder.
    #[arg(long, env = "AIRCHECK_S3_PREFIX", default_value = "")]
    pub s3_prefix: String,

    /// Access key id; without it, `AWS_ACCESS_KEY_ID`.
    #[arg(long, env = "AIRCHECK_S3_ACCESS_KEY_ID")]
    pub s3_access_key_id: Option<String>,

    /// File that holds the access key id.
    #[arg(
        long,
        env = "AIRCHECK_S3_ACCESS_KEY_ID_FILE",
        conflicts_with = "s3_access_key_id"
    )]
    pub s3_access_key_id_file: Option<PathBuf>,

    /// Secret access key; without it, `AWS_SECRET_ACCESS_KEY`.
    #[arg(long, env = "AIRCHECK_S3_SECRET_ACCESS_KEY", hide_env_values = true)]
    pub s3_secret_access_key: Option<Secret>,

    /// File that holds the secret access key.
    #[arg(
        long,
        env = "AIRCHECK_S3_SECRET_ACCESS_KEY_FILE",
        conflicts_with = "s3_secret_access_key"
    )]
    pub s3_secret_access_key_file: Option<PathBuf>,

    /// Endpoint that download URLs name, where clients reach S3 by another address than we do.
    #[arg(long, env = "AIRCHECK_S3_PUBLIC_ENDPOINT")]
    pub s3_public_endpoint: Option<String>,

    /// Bucket in the path instead of the host name; by default where an endpoint is given.
    #[arg(long, env = "AIRCHECK_S3_PATH_STYLE")]
    pub s3_path_style: Option<bool>,

    /// Size of upload parts: 5MiB to 5GiB. Raised where a recording would need more than 10000.
    #[arg(long, env = "AIRCHECK_PART_SIZE", value_parser = args::size, default_value = "5MiB")]
    pub part_size: u64,

    /// How long download URLs live: at most 7 days.
    #[arg(long, env = "AIRCHECK_PRESIGN_TTL", value_parser = args::duration, default_value = "10m")]
    pub presign_ttl: Duration,

    /// How long a job's claim on a recording outlives an archiver that died: at least 1 s.
    #[arg(long, env = "AIRCHECK_CLAIM_LEASE", value_parser = args::duration, default_value = "30s")]
    pub claim_lease: Duration,

    /// How long rehearsals are kept after their end.
    #[arg(long, env = "AIRCHECK_REHEARSAL_RETENTION", value_parser = args::duration, default_value = "24h")]
    pub rehearsal_retention: Duration,

    /// Also make this of each archive: `mp3`, `opus` or `aac`, with bits a second. May be repeated, once
    /// a format.
    #[arg(
        long,
        env = "AIRCHECK_RENDITION",
        value_name = "FORMAT:BITRATE",
        value_delimiter = ','
    )]
    pub rendition: Vec<Wish>,

    /// Wait before a rendition that failed is tried again; doubled each time.
    #[arg(long, env = "AIRCHECK_RENDITION_RETRY", value_parser = args::duration, default_value = "30s")]
    pub rendition_retry: Duration,

    /// The ffmpeg that measures the level of rehearsals and makes renditions.
    #[arg(
        long,
        env = "AIRCHECK_FFMPEG",
        value_name = "PROGRAM",
        default_value = "ffmpeg"
    )]
    pub ffmpeg: PathBuf,

    /// How often to look for uploads that a crash left behind, and at start: at least 1 s.
    #[arg(long, env = "AIRCHECK_SWEEP_EVERY", value_parser = args::duration, default_value = "1h")]
    pub sweep_every: Duration,

    /// Youngest such upload that is dropped, once it is proved that nobody owns it.
    #[arg(long, env = "AIRCHECK_SWEEP_AGE", value_parser = args::duration, default_value = "24h")]
    pub sweep_age: Duration,

    /// Whether no other process can be at work on this database, because somebody holds a lock that
    /// says so: then the claims that a predecessor left are void at start.
    #[arg(skip)]
    pub is_alone: bool,
}

/// A configuration that can't work.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Part size out of bounds.
    #[error("part size is {0} bytes, and S3 takes 5 MiB to 5 GiB")]
    PartSize(u64),
    /// Presigned URLs can't live that long, or not at all.
    #[error("presigned URLs live 1 s to 7 days")]
    PresignTtl,
    /// Claims would run out between two renewals.
    #[error("claims live at least 1 s")]
    ClaimLease,
    /// Looking for abandoned uploads would never rest.
    #[error("abandoned uploads are looked for every 1 s at most")]
    SweepEvery,
    /// Their objects would have the same key.
    #[error("one rendition of each format, not two of {0}")]
    Renditions(&'static str),
    /// No key to sign requests with.
    #[error("no {0}: give the flag, its -file variant, or {1}")]
    NoCredentials(&'static str, &'static str),
    /// A file of the configuration can't be read.
    #[error("read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither SQLite nor PostgreSQL.
    #[error("database URL begins neither with sqlite: nor with postgres://")]
    Database,
}

/// What signs requests.
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    /// Of temporary credentials.
    pub(crate) token: Option<String>,
}

impl Config {
    /// Whether the bucket goes into the path.
    pub(crate) fn path_style(&self) -> bool {
        self.s3_path_style
            .unwrap_or_else(|| self.s3_endpoint.is_some())
    }

    /// Checks what the types don't.
    ///
    /// # Errors
    /// The first thing that can't work.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if !(PART_SIZE_MIN..=PART_SIZE_MAX).contains(&self.part_size) {
            return Err(ConfigError::PartSize(self.part_size));
        }
        if self.presign_ttl < Duration::from_secs(1) || self.presign_ttl > PRESIGN_TTL_MAX {
            return Err(ConfigError::PresignTtl);
        }
        if self.claim_lease < CLAIM_LEASE_MIN {
            return Err(ConfigError::ClaimLease);
        }
        if self.sweep_every < SWEEP_EVERY_MIN {
            return Err(ConfigError::SweepEvery);
        }
        for (index, wish) in self.rendition.iter().enumerate() {
            let before = self.rendition.iter().take(index);
            if before.into_iter().any(|other| other.format == wish.format) {
                return Err(ConfigError::Renditions(wish.format.as_str()));
            }
        }
        let url = self.database_url.expose();
        if !["sqlite:", "postgres://", "postgresql://"]
            .iter()
            .any(|kind| url.starts_with(kind))
        {
            return Err(ConfigError::Database);
        }
        Ok(())
    }

    /// The keys, from flags, files or the environment as AWS names it.
    ///
    /// # Errors
    /// If there are none, or a file can't be read.
    pub(crate) fn credentials(&self) -> Result<Keys, ConfigError> {
        let id = match (&self.s3_access_key_id, &self.s3_access_key_id_file) {
            (Some(id), _) => Some(id.clone()),
            (None, Some(path)) => Some(read(path)?),
            (None, None) => variable("AWS_ACCESS_KEY_ID"),
        };
        let secret = match (&self.s3_secret_access_key, &self.s3_secret_access_key_file) {
            (Some(secret), _) => Some(secret.expose().to_owned()),
            (None, Some(path)) => Some(read(path)?),
            (None, None) => variable("AWS_SECRET_ACCESS_KEY"),
        };
        let missing = ConfigError::NoCredentials;
        Ok(Keys {
            id: id.ok_or_else(|| missing("--s3-access-key-id", "AWS_ACCESS_KEY_ID"))?,
            secret: secret
                .ok_or_else(|| missing("--s3-secret-access-key", "AWS_SECRET_ACCESS_KEY"))?,
            token: variable("AWS_SESSION_TOKEN"),
        })
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn read(path: &PathBuf) -> Result<String, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::File {
        path: path.clone(),
        source,
    })?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    fn parse(more: &[&str]) -> Config {
        let fixed = [
            "archiver",
            "--database-url",
            "sqlite://x",
            "--s3-bucket",
            "b",
        ];
        Cli::try_parse_from(fixed.iter().chain(more))
            .expect("valid flags")
            .config
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = parse(&["--s3-secret-access-key", "hush", "--s3-access-key-id", "id"]);
        let printed = format!("{config:?}");
        assert!(
            !printed.contains("hush") && !printed.contains("sqlite://x"),
            "{printed}"
        );
        assert_eq!(
            config.credentials().map(|keys| keys.secret).ok().as_deref(),
            Some("hush")
        );
    }

    #[test]
    fn the_secret_can_come_from_a_file_with_a_trailing_newline() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("secret");
        fs::write(&path, "from-file\n").expect("write");
        let path = path.to_str().expect("utf-8");
        let config = parse(&[
            "--s3-access-key-id",
            "id",
            "--s3-secret-access-key-file",
            path,
        ]);
        assert_eq!(config.credentials().expect("keys").secret, "from-file");
    }

    #[test]
    fn what_s3_would_refuse_later_is_refused_at_start() {
        assert!(parse(&[]).validate().is_ok());
        for bad in [
            ["--part-size", "4MiB"],
            ["--presign-ttl", "0"],
            ["--presign-ttl", "200h"],
            ["--rendition", "mp3:192k,mp3:64k"],
        ] {
            assert!(parse(&bad).validate().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn path_style_follows_the_endpoint_unless_told() {
        assert!(!parse(&[]).path_style());
        assert!(parse(&["--s3-endpoint", "http://s3"]).path_style());
        assert!(!parse(&["--s3-endpoint", "http://s3", "--s3-path-style", "false"]).path_style());
    }
}
