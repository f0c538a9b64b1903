//! What a process uses, as the kernel counts it.
//!
//! Owns reading `/proc` and the limit of open files; must never guess where the kernel says nothing.

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{fs, time::Duration};

/// Linux counts in these towards programs, whatever its own clock does.
const TICKS_PER_S: u64 = 100;
/// Files a process needs beside its connections.
const FILES_BESIDE: u64 = 200;

/// A process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU time of all its threads since it began.
    pub(crate) cpu: Duration,
    /// Memory in RAM, in bytes.
    pub(crate) resident: u64,
}

impl Usage {
    /// Of a process that runs.
    ///
    /// # Errors
    /// If there is no such process, or no `/proc`.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("read {path}"))
        };
        let ticks = ticks(&read("stat")?).context("/proc/PID/stat is not understood")?;
        let resident = resident(&read("status")?).context("/proc/PID/status is not understood")?;
        Ok(Self {
            cpu: Duration::from_millis(ticks * (1000 / TICKS_PER_S)),
            resident,
        })
    }
}

/// User and system time. The second field, the name, may hold anything up to the last parenthesis.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Raises the limit of open files, of this process and those it starts, as far as `connections` need.
///
/// # Errors
/// If the machine does not allow so many.
pub(crate) fn allow_files(connections: u32) -> anyhow::Result<()> {
    let needed = u64::from(connections) + FILES_BESIDE;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if maximum.is_some_and(|maximum| maximum < needed) {
        bail!(
            "{connections} broadcasters need {needed} open files, and only {} are allowed here; raise \
             the limit, for example by: ulimit -n {needed}",
            maximum.unwrap_or_default()
        );
    }
    let raised = Rlimit {
        current: Some(needed),
        maximum,
    };
    setrlimit(Resource::Nofile, raised).context("raise the limit of open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(resident("Name:\tx\nVmRSS:\t  2048 kB\n"), Some(2 << 20));
    }

    #[test]
    fn this_process_uses_memory_and_a_gone_one_is_an_error() {
        let own = Usage::of(std::process::id()).expect("it runs");
        assert!(own.resident > 0);
        assert!(Usage::of(u32::MAX).is_err());
    }

    #[test]
    fn more_connections_than_the_machine_allows_are_refused_with_the_way_out() {
        allow_files(1).expect("a few files");
        if let Err(error) = allow_files(u32::MAX) {
            assert!(error.to_string().contains("ulimit -n"), "{error}");
        }
    }
}
