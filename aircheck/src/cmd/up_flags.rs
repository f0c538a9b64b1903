//! Flags of `aircheck up`, and the configurations of the services they make.
//!
//! Owns the defaults of the set-up in one process; must never open or start anything.

use crate::s3::{DEV_ACCESS_KEY_ID, DEV_SECRET_ACCESS_KEY};
use aircheck_archiver::Secret;
use aircheck_core::rendition::Wish;
use aircheck_runtime::args;
use clap::Args;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// Flags of `aircheck up`.
#[derive(Args, Debug)]
#[command(after_help = "\
Without --database-url, rows are kept in DATA-DIR/aircheck.db (SQLite). Without --s3-endpoint,
objects are kept in DATA-DIR/objects by a built-in S3 server meant for development.

Examples:
  aircheck up
  aircheck up --listen 0.0.0.0:8080 --grace 2m --data-dir /var/lib/aircheck
  aircheck up --database-url postgres://aircheck@db/aircheck --s3-endpoint http://s3:9000 \\
      --s3-bucket shows --s3-access-key-id-file id --s3-secret-access-key-file secret")]
pub(crate) struct Up {
    /// Directory of everything that lasts
    #[arg(long, env = "AIRCHECK_DATA_DIR", default_value = "./data")]
    pub(crate) data_dir: PathBuf,
    /// Address of WebSocket, HTTP API and page
    #[arg(long, env = "AIRCHECK_LISTEN", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Address of the ingest's gRPC service, for internal clients
    #[arg(long, env = "AIRCHECK_INGEST_LISTEN", default_value = "127.0.0.1:0")]
    pub(crate) ingest_listen: SocketAddr,
    /// Address of the archiver's gRPC service, for internal clients
    #[arg(long, env = "AIRCHECK_ARCHIVER_LISTEN", default_value = "127.0.0.1:0")]
    pub(crate) archiver_listen: SocketAddr,
    /// Address of the built-in S3 server; downloads come from here
    #[arg(long, env = "AIRCHECK_S3_LISTEN", default_value = "127.0.0.1:0")]
    pub(crate) s3_listen: SocketAddr,
    /// Origins whose pages may broadcast, comma-separated; without a list, every origin may
    #[arg(
        long,
        env = "AIRCHECK_ALLOWED_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    allowed_origins: Vec<String>,
    /// Key that tokens of broadcasters and operators are checked with; without it everybody may do
    /// everything
    #[arg(long, env = "AIRCHECK_AUTH_KEY_FILE", value_name = "FILE")]
    auth_key_file: Option<PathBuf>,
    /// The `iss` that tokens must have
    #[arg(
        long,
        env = "AIRCHECK_AUTH_ISSUER",
        value_name = "NAME",
        requires = "auth_key_file"
    )]
    auth_issuer: Option<String>,
    /// The `aud` that tokens must have; without it, a token that has one is for somebody else
    #[arg(
        long,
        env = "AIRCHECK_AUTH_AUDIENCE",
        value_name = "NAME",
        requires = "auth_key_file"
    )]
    auth_audience: Option<String>,
    /// Largest WebSocket message, at most 1MiB
    #[arg(long, env = "AIRCHECK_MAX_MESSAGE", value_parser = args::size, default_value = "1MiB")]
    max_message: u64,
    /// Silence after which a broadcaster is pinged
    #[arg(long, env = "AIRCHECK_PING_INTERVAL", value_parser = args::duration, default_value = "10s")]
    ping_interval: Duration,
    /// Silence after which a broadcaster is dropped, which begins grace
    #[arg(long, env = "AIRCHECK_IDLE_TIMEOUT", value_parser = args::duration, default_value = "30s")]
    idle_timeout: Duration,
    /// Time for the first message of an aircheck.v1 connection
    #[arg(long, env = "AIRCHECK_HELLO_TIMEOUT", value_parser = args::duration, default_value = "10s")]
    hello_timeout: Duration,
    /// Broadcasters at a time; other HTTP connections may be twice as many
    #[arg(long, env = "AIRCHECK_MAX_CONNECTIONS", default_value_t = 10_000)]
    max_connections: usize,
    #[command(flatten)]
    options: aircheck_ingest::Options,
    #[command(flatten)]
    pub(crate) store: StoreFlags,
}

/// Where rows and objects go.
#[derive(Args, Debug)]
pub(crate) struct StoreFlags {
    #[arg(
        long,
        env = "AIRCHECK_DATABASE_URL",
        hide_env_values = true,
        help = "Database: sqlite://path?mode=rwc or postgres://user:password@host/name"
    )]
    database_url: Option<Secret>,
    /// S3 endpoint; without it, the built-in server
    #[arg(long, env = "AIRCHECK_S3_ENDPOINT")]
    s3_endpoint: Option<String>,
    /// Bucket of the archives; it must exist unless the built-in server makes it
    #[arg(long, env = "AIRCHECK_S3_BUCKET", default_value = "aircheck")]
    s3_bucket: String,
    /// Region of the bucket
    #[arg(long, env = "AIRCHECK_S3_REGION", default_value = "us-east-1")]
    s3_region: String,
    /// Put in front of every key; ends in a slash if it should be a folder
    #[arg(long, env = "AIRCHECK_S3_PREFIX", default_value = "")]
    s3_prefix: String,
    /// Access key id
    #[arg(long, env = "AIRCHECK_S3_ACCESS_KEY_ID")]
    s3_access_key_id: Option<String>,
    /// File that holds the access key id
    #[arg(
        long,
        env = "AIRCHECK_S3_ACCESS_KEY_ID_FILE",
        conflicts_with = "s3_access_key_id"
    )]
    s3_access_key_id_file: Option<PathBuf>,
    /// Secret access key
    #[arg(long, env = "AIRCHECK_S3_SECRET_ACCESS_KEY", hide_env_values = true)]
    s3_secret_access_key: Option<Secret>,
    /// File that holds the secret access key
    #[arg(
        long,
        env = "AIRCHECK_S3_SECRET_ACCESS_KEY_FILE",
        conflicts_with = "s3_secret_access_key"
    )]
    s3_secret_access_key_file: Option<PathBuf>,
    /// Endpoint that download URLs name, where browsers reach S3 by another address
    #[arg(long, env = "AIRCHECK_S3_PUBLIC_ENDPOINT")]
    s3_public_endpoint: Option<String>,
    /// Bucket in the path instead of the host name; by default where an endpoint is given
    #[arg(long, env = "AIRCHECK_S3_PATH_STYLE")]
    s3_path_style: Option<bool>,
    /// Size of upload parts: 5MiB to 5GiB
    #[arg(long, env = "AIRCHECK_PART_SIZE", value_parser = args::size, default_value = "5MiB")]
    part_size: u64,
    /// How long download URLs live: at most 7 days
    #[arg(long, env = "AIRCHECK_PRESIGN_TTL", value_parser = args::duration, default_value = "10m")]
    presign_ttl: Duration,
    /// How long a job's claim on a recording outlives an archiver that died
    #[arg(long, env = "AIRCHECK_CLAIM_LEASE", value_parser = args::duration, default_value = "30s")]
    claim_lease: Duration,
    /// How long rehearsals are kept after their end
    #[arg(long, env = "AIRCHECK_REHEARSAL_RETENTION", value_parser = args::duration, default_value = "24h")]
    rehearsal_retention: Duration,
    /// How often to look for uploads that a crash left behind, and at start
    #[arg(long, env = "AIRCHECK_SWEEP_EVERY", value_parser = args::duration, default_value = "1h")]
    sweep_every: Duration,
    /// Youngest such upload that is dropped, once it is proved that nobody owns it
    #[arg(long, env = "AIRCHECK_SWEEP_AGE", value_parser = args::duration, default_value = "24h")]
    sweep_age: Duration,
    /// Also make this of each archive: `mp3`, `opus` or `aac`, with bits a second
    #[arg(
        long,
        env = "AIRCHECK_RENDITION",
        value_name = "FORMAT:BITRATE",
        value_delimiter = ','
    )]
    rendition: Vec<Wish>,
    /// Wait before a rendition that failed is tried again; doubled each time
    #[arg(long, env = "AIRCHECK_RENDITION_RETRY", value_parser = args::duration, default_value = "30s")]
    rendition_retry: Duration,
}

impl StoreFlags {
    /// Whether S3 is the built-in server.
    pub(crate) fn is_ours(&self) -> bool {
        self.s3_endpoint.is_none()
    }
}

/// The store as the archiver reaches it.
#[derive(Debug)]
pub(crate) struct S3Place {
    pub(crate) endpoint: Option<String>,
    pub(crate) bucket: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Secret,
}

impl S3Place {
    /// The built-in server at `endpoint`. Its keys are those of the flags, if there are any.
    pub(crate) fn ours(flags: &StoreFlags, endpoint: &str) -> Self {
        Self {
            endpoint: Some(endpoint.to_owned()),
            bucket: flags.s3_bucket.clone(),
            access_key_id: DEV_ACCESS_KEY_ID.to_owned(),
            secret_access_key: Secret::from(DEV_SECRET_ACCESS_KEY.to_owned()),
        }
    }

    /// A server that somebody else runs; its keys stay with the flags.
    pub(crate) fn theirs(flags: &StoreFlags) -> Self {
        Self {
            endpoint: flags.s3_endpoint.clone(),
            bucket: flags.s3_bucket.clone(),
            access_key_id: String::new(),
            secret_access_key: Secret::from(String::new()),
        }
    }
}

impl Up {
    pub(crate) fn spool_dir(&self) -> PathBuf {
        self.data_dir.join("spool")
    }

    pub(crate) fn objects_dir(&self) -> PathBuf {
        self.data_dir.join("objects")
    }

    /// The database in the data directory, unless another one is named.
    pub(crate) fn database_url(&self) -> Secret {
        self.store.database_url.clone().unwrap_or_else(|| {
            let path = self.data_dir.join("aircheck.db");
            Secret::from(format!(
                "sqlite://{}?mode=rwc",
                encoded(&path.to_string_lossy())
            ))
        })
    }

    pub(crate) fn gateway(&self, ingest: &str, archiver: &str) -> aircheck_gateway::Config {
        aircheck_gateway::Config {
            grace: self.options.grace,
            allowed_origins: self.allowed_origins.clone(),
            auth_key_file: self.auth_key_file.clone(),
            auth_issuer: self.auth_issuer.clone(),
            auth_audience: self.auth_audience.clone(),
            max_message: self.max_message,
            ping_interval: self.ping_interval,
            idle_timeout: self.idle_timeout,
            hello_timeout: self.hello_timeout,
            max_connections: self.max_connections,
            ingest: vec![ingest.to_owned()],
            archiver: archiver.to_owned(),
        }
    }

    pub(crate) fn ingest(&self, ingest: &str, archiver: &str) -> aircheck_ingest::Config {
        aircheck_ingest::Config {
            listen: self.ingest_listen,
            // Unused: the gateway answers for the process.
            http_listen: self.ingest_listen,
            options: self.options.clone(),
            advertise: ingest.to_owned(),
            spool_dir: self.spool_dir(),
            archiver: archiver.to_owned(),
        }
    }

    pub(crate) fn archiver(&self, place: &S3Place) -> aircheck_archiver::Config {
        let store = &self.store;
        let ours = store.is_ours();
        let own = |text: &str| ours.then(|| text.to_owned());
        aircheck_archiver::Config {
            database_url: self.database_url(),
            s3_endpoint: place.endpoint.clone(),
            s3_bucket: place.bucket.clone(),
            s3_region: store.s3_region.clone(),
            s3_prefix: store.s3_prefix.clone(),
            s3_access_key_id: own(&place.access_key_id).or_else(|| store.s3_access_key_id.clone()),
            s3_access_key_id_file: store.s3_access_key_id_file.clone(),
            s3_secret_access_key: ours
                .then(|| place.secret_access_key.clone())
                .or_else(|| store.s3_secret_access_key.clone()),
            s3_secret_access_key_file: store.s3_secret_access_key_file.clone(),
            s3_public_endpoint: store.s3_public_endpoint.clone(),
            s3_path_style: store.s3_path_style,
            part_size: store.part_size,
            presign_ttl: store.presign_ttl,
            claim_lease: store.claim_lease,
            rehearsal_retention: store.rehearsal_retention,
            rendition: store.rendition.clone(),
            rendition_retry: store.rendition_retry,
            ffmpeg: self.options.ffmpeg.clone(),
            sweep_every: store.sweep_every,
            sweep_age: store.sweep_age,
            // The default database lies in the data directory, which one process has locked.
            is_alone: store.database_url.is_none(),
        }
    }
}

/// An address under which this machine reaches a listener, as a URL.
pub(crate) fn reachable(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// A database URL without its password.
pub(crate) fn displayed(url: &Secret) -> String {
    let url = url.expose();
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority
        .rsplit_once('@')
        .and_then(|(user, _)| user.split_once(':').map(|(u, _)| u))
    {
        Some(user) => {
            let at = authority.rfind('@').unwrap_or_default();
            format!("{scheme}://{user}:***{}", &rest[at..])
        }
        None => url.to_owned(),
    }
}

/// A path within a URL.
fn encoded(path: &str) -> String {
    path.replace('%', "%25")
        .replace('?', "%3F")
        .replace('#', "%23")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        up: Up,
    }

    fn parse(more: &[&str]) -> Up {
        Cli::parse_from(std::iter::once(&"up").chain(more)).up
    }

    #[test]
    fn by_default_everything_is_below_the_data_directory() {
        let up = parse(&["--data-dir", "/d #1"]);
        assert_eq!(
            up.database_url().expose(),
            "sqlite:///d %231/aircheck.db?mode=rwc"
        );
        assert_eq!(up.spool_dir(), PathBuf::from("/d #1/spool"));
        let place = S3Place::ours(&up.store, "http://127.0.0.1:1");
        let config = up.archiver(&place);
        assert_eq!(config.s3_endpoint.as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(config.s3_access_key_id.as_deref(), Some(DEV_ACCESS_KEY_ID));
    }

    #[test]
    fn a_store_of_somebody_else_gets_the_keys_of_the_flags_only() {
        let up = parse(&[
            "--s3-endpoint",
            "http://s3:9000",
            "--s3-access-key-id",
            "me",
        ]);
        let config = up.archiver(&S3Place::theirs(&up.store));
        assert_eq!(config.s3_endpoint.as_deref(), Some("http://s3:9000"));
        assert_eq!(config.s3_access_key_id.as_deref(), Some("me"));
        assert_eq!(config.s3_secret_access_key, None);
    }

    #[test]
    fn grace_reaches_gateway_and_ingest() {
        let up = parse(&["--grace", "5s"]);
        assert_eq!(
            up.gateway("http://i", "http://a").grace,
            Duration::from_secs(5)
        );
        assert_eq!(
            up.ingest("http://i", "http://a").options.grace,
            Duration::from_secs(5)
        );
    }

    #[test]
    fn what_the_gateway_takes_reaches_it() {
        let up = parse(&[
            "--auth-key-file",
            "key",
            "--auth-issuer",
            "me",
            "--auth-audience",
            "us",
            "--hello-timeout",
            "1s",
            "--ping-interval",
            "2s",
            "--idle-timeout",
            "3s",
            "--max-connections",
            "4",
            "--max-message",
            "5KiB",
        ]);
        let config = up.gateway("http://i", "http://a");
        assert_eq!(config.auth_issuer.as_deref(), Some("me"));
        assert_eq!(config.auth_audience.as_deref(), Some("us"));
        let seconds = [
            config.hello_timeout,
            config.ping_interval,
            config.idle_timeout,
        ];
        assert_eq!(seconds.map(|time| time.as_secs()), [1, 2, 3]);
        assert_eq!((config.max_connections, config.max_message), (4, 5 << 10));
    }

    #[test]
    fn a_listener_on_every_interface_is_reached_on_loopback() {
        assert_eq!(reachable(([0, 0, 0, 0], 80).into()), "http://127.0.0.1:80");
        assert_eq!(
            reachable((Ipv6Addr::UNSPECIFIED, 80).into()),
            "http://[::1]:80"
        );
        assert_eq!(reachable(([10, 0, 0, 1], 80).into()), "http://10.0.0.1:80");
    }

    #[test]
    fn passwords_are_not_printed() {
        let shown = |url: &str| displayed(&Secret::from(url.to_owned()));
        assert_eq!(shown("postgres://u:p@h:5/d"), "postgres://u:***@h:5/d");
        assert_eq!(shown("postgres://u@h/d"), "postgres://u@h/d");
        assert_eq!(shown("sqlite://./data/a@b.db"), "sqlite://./data/a@b.db");
    }
}
