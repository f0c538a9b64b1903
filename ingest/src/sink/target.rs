//! Where a sink goes: `--live-sink URL`, its syntax and its secrets.
//!
//! Owns the parsing of these URLs. Credentials and stream keys must never leave by `Debug`, `name` or
//! an error; only the code that speaks to the server takes them out.

use aircheck_core::id::ShowId;
use clap::{Arg, Command, builder::TypedValueParser, error::ErrorKind};
use percent_encoding::percent_decode_str;
use std::{ffi::OsStr, fmt, str::FromStr};
use thiserror::Error;
use url::Url;

/// What a template has where the show's id goes.
const SHOW_ID: &str = "{show_id}";
const ICECAST_PORT: u16 = 8000;

/// A URL that is no live sink. Texts hold nothing of the URL but its scheme.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LiveSinkError {
    /// Not a URL.
    #[error("not a URL: {0}")]
    Syntax(#[from] url::ParseError),
    /// Of no kind that is known.
    #[error("unknown scheme {0:?}; use icecast, rtmp or rtmps")]
    Scheme(String),
    /// Not built.
    #[error(
        "Icecast over TLS is not supported; let a TLS proxy on this machine (stunnel, nginx) carry it on"
    )]
    IcecastTls,
    /// No server.
    #[error("no host")]
    Host,
    /// Icecast asks for both.
    #[error("icecast needs user and password, as in icecast://source:PASSWORD@host:8000/show.mp3")]
    Credentials,
    /// The mount tells the format.
    #[error("an icecast mount ends in .mp3, .ogg or .webm")]
    Mount,
    /// Application and key.
    #[error("an rtmp URL has a path of application and key, as in rtmp://host/live/KEY")]
    Path,
    /// A user name in an RTMP URL would be seen in the list of processes.
    #[error("an rtmp URL has no user or password; what opens the door is the key")]
    RtmpUser,
    /// It would end somewhere else than one believes.
    #[error("{{show_id}} may only be in the path, and a URL has no control characters or blanks")]
    Template,
}

/// What an Icecast mount carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Mp3,
    Ogg,
    WebM,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Icecast {
        user: String,
        password: String,
        host: String,
        port: u16,
        format: Format,
    },
    Rtmp {
        /// Scheme, host and port.
        server: String,
    },
}

/// A live sink that every show has: a URL in which `{show_id}` stands for the show.
#[derive(Clone, PartialEq, Eq)]
pub struct LiveSink {
    url: String,
    kind: Kind,
}

/// The sink of one show.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    show_id: String,
    url: String,
    kind: Kind,
}

/// An Icecast mount and how to get in.
pub(crate) struct Mount<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    /// Beginning with a slash, percent-encoded.
    pub(crate) path: String,
    pub(crate) show_id: &'a str,
    pub(crate) format: Format,
}

/// A stream of an RTMP server.
pub(crate) struct Stream<'a> {
    /// Scheme, host, port and application: nothing secret.
    pub(crate) url: String,
    pub(crate) app: String,
    /// The key, with its query if it has one. Secret.
    pub(crate) key: String,
    pub(crate) show_id: &'a str,
}

/// How to speak to the server.
pub(crate) enum Way<'a> {
    Icecast(Mount<'a>),
    Rtmp(Stream<'a>),
}

impl FromStr for LiveSink {
    type Err = LiveSinkError;

    fn from_str(text: &str) -> Result<Self, LiveSinkError> {
        if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(LiveSinkError::Template);
        }
        // Braces are no characters of a URL; a show's id is, and no secret has them unescaped.
        let sample = Url::parse(&text.replace(SHOW_ID, "0"))?;
        let before_path = text.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        if before_path.contains(['{', '}']) {
            return Err(LiveSinkError::Template);
        }
        let host = sample.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or(LiveSinkError::Host)?.to_owned();
        let kind = match sample.scheme() {
            "icecast" => icecast(&sample, host)?,
            "rtmp" | "rtmps" => rtmp(&sample, &host)?,
            "icecasts" | "icecast+tls" => return Err(LiveSinkError::IcecastTls),
            other => return Err(LiveSinkError::Scheme(other.to_owned())),
        };
        let url = text.to_owned();
        Ok(Self { url, kind })
    }
}

fn icecast(url: &Url, host: String) -> Result<Kind, LiveSinkError> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let user = decoded(url.username());
    let password = url
        .password()
        .map(decoded)
        .filter(|password| !password.is_empty());
    let password = password.ok_or(LiveSinkError::Credentials)?;
    if user.is_empty() || user.contains(':') {
        return Err(LiveSinkError::Credentials);
    }
    let format = match url.path().rsplit_once('.') {
        Some((mount, _)) if mount.ends_with('/') => return Err(LiveSinkError::Mount),
        Some((_, "mp3")) => Format::Mp3,
        Some((_, "ogg" | "opus")) => Format::Ogg,
        Some((_, "webm")) => Format::WebM,
        _ => return Err(LiveSinkError::Mount),
    };
    let port = url.port().unwrap_or(ICECAST_PORT);
    Ok(Kind::Icecast {
        user,
        password,
        host,
        port,
        format,
    })
}

fn rtmp(url: &Url, host: &str) -> Result<Kind, LiveSinkError> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(LiveSinkError::RtmpUser);
    }
    let (app, key) = stream(url);
    if app.is_empty() || app.starts_with('/') || key.is_empty() {
        return Err(LiveSinkError::Path);
    }
    let port = url
        .port()
        .map_or_else(String::new, |port| format!(":{port}"));
    let server = format!("{}://{host}{port}", url.scheme());
    Ok(Kind::Rtmp { server })
}

/// Application and key: the last part of the path, with the query.
fn stream(url: &Url) -> (String, String) {
    let path = url.path().trim_start_matches('/');
    let (app, key) = path.rsplit_once('/').unwrap_or((path, ""));
    let query = url
        .query()
        .map_or_else(String::new, |query| format!("?{query}"));
    let key = if key.is_empty() {
        String::new()
    } else {
        format!("{key}{query}")
    };
    (app.to_owned(), key)
}

impl LiveSink {
    /// The sink of a show.
    pub(crate) fn for_show(&self, show_id: &ShowId) -> Target {
        Target {
            show_id: show_id.to_string(),
            url: self.url.replace(SHOW_ID, show_id.as_str()),
            kind: self.kind.clone(),
        }
    }
}

impl Target {
    /// As a metric's label.
    pub(crate) fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Icecast { .. } => "icecast",
            Kind::Rtmp { .. } => "rtmp",
        }
    }

    /// The URL without what opens the door: user, password, stream key, query.
    pub(crate) fn name(&self) -> String {
        public(&self.url, &self.kind)
    }

    pub(crate) fn way(&self) -> Way<'_> {
        match &self.kind {
            Kind::Rtmp { server } => {
                let (app, key) = self.stream();
                Way::Rtmp(Stream {
                    url: format!("{server}/{app}"),
                    app,
                    key,
                    show_id: &self.show_id,
                })
            }
            Kind::Icecast {
                user,
                password,
                host,
                port,
                format,
            } => Way::Icecast(Mount {
                user,
                password,
                host,
                port: *port,
                path: Url::parse(&self.url)
                    .map_or_else(|_| "/".to_owned(), |u| u.path().to_owned()),
                show_id: &self.show_id,
                format: *format,
            }),
        }
    }

    /// Takes secrets out of what a program or server said.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = text.replace(&self.url, &self.name());
        for secret in self.secrets().iter().filter(|secret| secret.len() > 2) {
            text = text.replace(secret.as_str(), "***");
        }
        text
    }

    fn stream(&self) -> (String, String) {
        Url::parse(&self.url).map_or_else(|_| Default::default(), |url| stream(&url))
    }

    fn secrets(&self) -> Vec<String> {
        match &self.kind {
            Kind::Icecast { password, .. } => {
                let url = Url::parse(&self.url).ok();
                let raw = url.as_ref().and_then(Url::password).map(str::to_owned);
                raw.into_iter().chain([password.clone()]).collect()
            }
            Kind::Rtmp { .. } => {
                let (_, key) = self.stream();
                let (bare, query) = key.split_once('?').unwrap_or((&key, ""));
                let secrets = [key.as_str(), bare, query].into_iter();
                // A key that is the show's id opens no door, and everything is named after it.
                let secrets = secrets.filter(|key| *key != self.show_id);
                secrets.map(str::to_owned).collect()
            }
        }
    }
}

/// The URL without credentials; braces of a template stay readable.
fn public(url: &str, kind: &Kind) -> String {
    let Ok(parsed) = Url::parse(url) else {
        return "unreadable".to_owned();
    };
    let public = match kind {
        Kind::Rtmp { server } => format!("{server}/{}", stream(&parsed).0),
        Kind::Icecast { host, port, .. } => format!("icecast://{host}:{port}{}", parsed.path()),
    };
    public.replace("%7Bshow_id%7D", SHOW_ID)
}

impl fmt::Debug for LiveSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let public = public(&self.url, &self.kind);
        f.debug_tuple("LiveSink").field(&public).finish()
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.name()).finish()
    }
}

/// Reads a [`LiveSink`] from a flag. Unlike clap's own parsers it never repeats the value, for that
/// has a password.
#[derive(Clone, Debug)]
pub struct LiveSinkParser;

impl TypedValueParser for LiveSinkParser {
    type Value = LiveSink;

    fn parse_ref(
        &self,
        command: &Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<LiveSink, clap::Error> {
        let text = value.to_str().unwrap_or_default();
        text.parse().map_err(|error: LiveSinkError| {
            let message = format!("invalid value for '--live-sink <URL>': {error}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        let show = "morning-7".parse().expect("a show");
        url.parse::<LiveSink>().expect("a sink").for_show(&show)
    }

    #[test]
    fn an_icecast_url_names_mount_format_and_credentials() {
        let target = target("icecast://source:h%40ck%3Ame@radio.example:8001/live/{show_id}.mp3");
        let Way::Icecast(mount) = target.way() else {
            panic!("icecast");
        };
        assert_eq!((mount.user, mount.password), ("source", "h@ck:me"));
        assert_eq!((mount.host, mount.port), ("radio.example", 8001));
        assert_eq!(
            (mount.path.as_str(), mount.format),
            ("/live/morning-7.mp3", Format::Mp3)
        );
        assert_eq!(
            target.name(),
            "icecast://radio.example:8001/live/morning-7.mp3"
        );
    }

    #[test]
    fn no_secret_is_shown() {
        let icecast: LiveSink = "icecast://source:sesame@h/{show_id}.ogg"
            .parse()
            .expect("ok");
        assert_eq!(
            format!("{icecast:?}"),
            "LiveSink(\"icecast://h:8000/{show_id}.ogg\")"
        );
        let rtmp = target("rtmps://h/app/sesame-key?token=sesame2");
        assert_eq!(format!("{rtmp:?}"), "Target(\"rtmps://h/app\")");
        let said = "rtmps://h/app/sesame-key?token=sesame2: refused, key sesame-key, token=sesame2";
        assert_eq!(rtmp.redact(said), "rtmps://h/app: refused, key ***, ***");
    }

    #[test]
    fn an_rtmp_key_is_the_last_part_of_the_path_with_the_query() {
        let target = target("rtmp://h:1936/app/inst/{show_id}?token=1");
        let Way::Rtmp(stream) = target.way() else {
            panic!("rtmp");
        };
        assert_eq!(stream.url, "rtmp://h:1936/app/inst");
        assert_eq!(
            (stream.app.as_str(), stream.key.as_str()),
            ("app/inst", "morning-7?token=1")
        );
    }

    #[test]
    fn what_is_no_sink_is_refused_without_repeating_it() {
        let bad = [
            "",
            "sesame",
            "http://a:sesame@h/x.mp3",
            "file:///etc/sesame",
            "icecast://h/sesame.mp3",
            "icecasts://source:sesame@h/x.mp3",
            "icecast://source:@h/x.mp3",
            "icecast://source:sesame@h/x.flac",
            "icecast://source:sesame@h/.mp3",
            "icecast://source:sesame@{show_id}/x.mp3",
            "icecast://source:sesame@h/x y.mp3",
            "icecast://source:sesame@h/x\r\n.mp3",
            "rtmp:///app/sesame",
            "rtmp://h/sesame",
            "rtmp://h//sesame",
            "rtmp://u:sesame@h/app/sesame",
        ];
        for url in bad {
            let error = url.parse::<LiveSink>().expect_err(url).to_string();
            assert!(!error.contains("sesame"), "{error}");
        }
    }
}
