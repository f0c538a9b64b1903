//! Flags of the gateway.
//!
//! Owns names and defaults; must never read the environment by itself.

use crate::error::{Error, MAX_MESSAGE_LIMIT};
use aircheck_core::wire::GRACE_MAX_S;
use aircheck_runtime::args;
use clap::Args;
use std::{path::PathBuf, time::Duration};

/// How the gateway is set up. Every flag is also `AIRCHECK_<FLAG>` in the environment.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Ingest services, comma-separated
    #[arg(
        long,
        env = "AIRCHECK_INGEST",
        value_name = "URL",
        value_delimiter = ',',
        required = true
    )]
    pub ingest: Vec<String>,

    /// The archiver service
    #[arg(long, env = "AIRCHECK_ARCHIVER", value_name = "URL")]
    pub archiver: String,

    /// How long a session waits for a lost broadcaster, where its show says nothing else
    #[arg(long, env = "AIRCHECK_GRACE", value_parser = args::duration, default_value = "30s")]
    pub grace: Duration,

    /// Largest WebSocket message, at most 1MiB
    #[arg(long, env = "AIRCHECK_MAX_MESSAGE", value_parser = args::size, default_value = "1MiB")]
    pub max_message: u64,

    /// Silence after which a broadcaster is pinged
    #[arg(long, env = "AIRCHECK_PING_INTERVAL", value_parser = args::duration, default_value = "10s")]
    pub ping_interval: Duration,

    /// Silence after which a broadcaster is dropped, which begins grace
    #[arg(long, env = "AIRCHECK_IDLE_TIMEOUT", value_parser = args::duration, default_value = "30s")]
    pub idle_timeout: Duration,

    /// Time for the first message of an aircheck.v1 connection
    #[arg(long, env = "AIRCHECK_HELLO_TIMEOUT", value_parser = args::duration, default_value = "10s")]
    pub hello_timeout: Duration,

    /// Broadcasters at a time; other HTTP connections may be twice as many
    #[arg(long, env = "AIRCHECK_MAX_CONNECTIONS", default_value_t = 10_000)]
    pub max_connections: usize,

    /// Origins whose pages may broadcast, comma-separated, compared exactly. Without a list every
    /// origin may: no cookie identifies a broadcaster, so a foreign page gains nothing by asking.
    #[arg(
        long,
        env = "AIRCHECK_ALLOWED_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    pub allowed_origins: Vec<String>,

    /// Asks broadcasters and callers of the API for a JWT that verifies with the key in this file: a
    /// PEM public key (RSA, EC on P-256, Ed25519), or else an HS256 secret of at least 32 bytes
    #[arg(long, env = "AIRCHECK_AUTH_KEY_FILE", value_name = "FILE")]
    pub auth_key_file: Option<PathBuf>,

    /// The `iss` that tokens must have
    #[arg(
        long,
        env = "AIRCHECK_AUTH_ISSUER",
        value_name = "NAME",
        requires = "auth_key_file"
    )]
    pub auth_issuer: Option<String>,

    /// The `aud` that tokens must have. Without it, a token that has one is for somebody else.
    #[arg(
        long,
        env = "AIRCHECK_AUTH_AUDIENCE",
        value_name = "NAME",
        requires = "auth_key_file"
    )]
    pub auth_audience: Option<String>,
}

impl Config {
    /// The defaults, for these services.
    #[must_use]
    pub fn new(ingest: Vec<String>, archiver: String) -> Self {
        Self {
            ingest,
            archiver,
            grace: Duration::from_secs(30),
            max_message: 1 << 20,
            ping_interval: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            hello_timeout: Duration::from_secs(10),
            max_connections: 10_000,
            allowed_origins: Vec::new(),
            auth_key_file: None,
            auth_issuer: None,
            auth_audience: None,
        }
    }
}

impl Config {
    /// Finds what the flags' own syntax can't.
    ///
    /// # Errors
    /// The first setting that can't work.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.max_message > MAX_MESSAGE_LIMIT {
            return Err(Error::MaxMessage(self.max_message));
        }
        if self.grace > Duration::from_secs(GRACE_MAX_S) {
            return Err(Error::Grace(self.grace));
        }
        if self.ping_interval.is_zero() || self.ping_interval >= self.idle_timeout {
            return Err(Error::PingInterval);
        }
        Ok(())
    }
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

    #[test]
    fn settings_that_could_not_work_are_refused_at_the_start() {
        let good = Config::new(vec!["http://a".into()], "http://b".into());
        assert!(good.check().is_ok());
        for bad in [
            Config {
                max_message: MAX_MESSAGE_LIMIT + 1,
                ..good.clone()
            },
            Config {
                grace: Duration::from_secs(GRACE_MAX_S + 1),
                ..good.clone()
            },
            Config {
                ping_interval: Duration::ZERO,
                ..good.clone()
            },
            Config {
                ping_interval: good.idle_timeout,
                ..good
            },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn defaults_in_code_are_the_defaults_of_the_flags() {
        let parsed = Cli::parse_from([
            "x",
            "--ingest",
            "http://a,http://b",
            "--archiver",
            "http://c",
        ]);
        let built = Config::new(
            vec!["http://a".into(), "http://b".into()],
            "http://c".into(),
        );
        assert_eq!(format!("{:?}", parsed.config), format!("{built:?}"));
    }
}
