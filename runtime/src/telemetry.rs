//! Logs and metrics of a process.
//!
//! Owns their set-up, once per process; must never be called by a library or a test.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::{io::IsTerminal as _, sync::OnceLock};
use tracing_subscriber::{EnvFilter, fmt};

static PROMETHEUS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Upper bounds of histogram buckets, in seconds: from a sync of an idle disk to a slow upload.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Begins to log to standard error and to collect metrics. `RUST_LOG` filters; the default is `info`.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn,sea_orm=warn,h2=warn"));
    let ansi = std::io::stderr().is_terminal();
    let log = fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    if let Err(error) = installed {
        tracing::warn!(%error, "a log subscriber is installed already");
    }
    metrics();
}

/// The process's metrics in the Prometheus text format.
#[must_use]
pub fn render_metrics() -> String {
    metrics().map(PrometheusHandle::render).unwrap_or_default()
}

/// Installs the recorder at first use. `None` when somebody else's recorder is installed.
fn metrics() -> Option<&'static PrometheusHandle> {
    if PROMETHEUS.get().is_none()
        && let Ok(builder) = PrometheusBuilder::new().set_buckets(SECONDS)
        && let Ok(handle) = builder.install_recorder()
    {
        return Some(PROMETHEUS.get_or_init(|| handle));
    }
    PROMETHEUS.get()
}
