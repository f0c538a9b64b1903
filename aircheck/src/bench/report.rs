//! What a run found, for people and for programs.
//!
//! Owns the JSON's names and the table; must never compute anything but ratios.

use super::{figures::Counts, histogram::Quantiles, usage::Usage};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Load {
    pub(crate) broadcasters: u32,
    pub(crate) bits_per_s: u64,
    pub(crate) chunk_ms: u64,
    pub(crate) duration_ms: u64,
    /// Where to.
    pub(crate) to: String,
}

/// What the server used while all were live.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Server {
    /// CPU time divided by time: 0.5 is half a core.
    pub(crate) cores: f64,
    /// How many broadcasters one core would carry at this rate.
    pub(crate) broadcasters_per_core: f64,
    /// Memory that came with the broadcasters, each.
    pub(crate) bytes_per_broadcaster: f64,
    /// All its memory, in bytes.
    pub(crate) resident: u64,
}

impl Server {
    /// From before they came, when they began to send, and before they stopped.
    pub(crate) fn between(
        idle: Usage,
        begin: Usage,
        end: Usage,
        elapsed: Duration,
        broadcasters: u32,
    ) -> Self {
        let many = f64::from(broadcasters.max(1));
        let cpu = end.cpu.saturating_sub(begin.cpu);
        // The kernel counts in hundredths of a second: less than one is not nothing.
        let cores = cpu.as_secs_f64().max(0.01) / elapsed.as_secs_f64().max(0.001);
        Self {
            cores,
            broadcasters_per_core: many / cores,
            bytes_per_broadcaster: end.resident.saturating_sub(idle.resident) as f64 / many,
            resident: end.resident,
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) load: Load,
    pub(crate) live: u32,
    pub(crate) refused: u32,
    pub(crate) lost: u32,
    pub(crate) reasons: BTreeMap<String, u32>,
    pub(crate) sent_bytes: u64,
    pub(crate) durable_bytes: u64,
    /// From when a chunk is recorded to its acknowledgement.
    pub(crate) ack: Option<Quantiles>,
    /// From stop to the final recording; all stop within one chunk's length.
    pub(crate) archive: Option<Quantiles>,
    /// Recordings that hold the whole show.
    pub(crate) archived: u32,
    /// Those whose object was read back and has their length and checksum; absent: not read.
    pub(crate) verified: Option<u32>,
    pub(crate) server: Option<Server>,
    /// Lines of the server's log that are errors, where it is ours.
    pub(crate) server_errors: Option<usize>,
}

impl Report {
    pub(crate) fn new(load: Load, counts: Counts, archived: u32) -> Self {
        Self {
            load,
            live: counts.live,
            refused: counts.refused,
            lost: counts.lost,
            reasons: counts.reasons,
            sent_bytes: counts.sent_bytes,
            durable_bytes: counts.durable_bytes,
            ack: counts.acks.quantiles(),
            archive: counts.archives.quantiles(),
            archived,
            verified: None,
            server: None,
            server_errors: None,
        }
    }

    /// Nothing was lost: every broadcaster's show is in its archive.
    pub(crate) fn is_good(&self) -> bool {
        let all = self.load.broadcasters;
        self.archived == all
            && self.durable_bytes == self.sent_bytes
            && self.verified.is_none_or(|verified| verified == all)
            && self.server_errors.is_none_or(|errors| errors == 0)
    }

    /// As a table.
    pub(crate) fn table(&self) -> String {
        let Load {
            broadcasters,
            bits_per_s,
            chunk_ms,
            duration_ms,
            to,
        } = &self.load;
        let mut out = format!(
            "load      {broadcasters} broadcasters, {} kb/s, chunks of {chunk_ms} ms, {} s, to {to}\n\
             sessions  {} live, {} refused, {} lost\n\
             bytes     {:.1} MB sent, {:.1} MB durable\n",
            bits_per_s / 1000,
            duration_ms / 1000,
            self.live,
            self.refused,
            self.lost,
            mb(self.sent_bytes),
            mb(self.durable_bytes),
        );
        let mut row = |name: &str, text: String| {
            if let Err(error) = writeln!(out, "{name:<10}{text}") {
                tracing::debug!(%error, "write to a string");
            }
        };
        row("ack", quantiles(self.ack));
        if let Some(server) = &self.server {
            row(
                "server",
                format!(
                    "{:.2} cores: {:.0} broadcasters a core; {:.0} KiB a broadcaster, {:.0} MB in all",
                    server.cores,
                    server.broadcasters_per_core,
                    server.bytes_per_broadcaster / 1024.0,
                    mb(server.resident),
                ),
            );
        }
        row(
            "archived",
            format!("{} of {broadcasters} whole", self.archived),
        );
        if let Some(verified) = self.verified {
            row(
                "verified",
                format!("{verified} read back, length and checksum right"),
            );
        }
        row("from stop", quantiles(self.archive));
        for (why, count) in &self.reasons {
            row("why", format!("{count} x {why}"));
        }
        if let Some(errors) = self.server_errors.filter(|errors| *errors > 0) {
            row("log", format!("{errors} lines of the server are errors"));
        }
        out
    }
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn quantiles(found: Option<Quantiles>) -> String {
    found.map_or_else(
        || "none".to_owned(),
        |found| {
            format!(
                "p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms",
                found.p50_ms, found.p99_ms, found.p999_ms, found.max_ms
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_tells_how_many_a_core_carries() {
        let usage = |cpu_s, mib: u64| Usage {
            cpu: Duration::from_secs(cpu_s),
            resident: mib << 20,
        };
        let elapsed = Duration::from_secs(20);
        let server = Server::between(usage(1, 50), usage(2, 90), usage(12, 150), elapsed, 1000);
        assert!((server.cores - 0.5).abs() < 1e-9);
        assert!((server.broadcasters_per_core - 2000.0).abs() < 1e-6);
        assert!((server.bytes_per_broadcaster - f64::from(100 << 20) / 1000.0).abs() < 1e-6);
    }
}
