//! A network of its own for one process, and partitions between it and all others.
//!
//! Owns a network namespace, its link to the outside, and the packet filter inside. Must never touch
//! the filter or the links of the machine, but for its own end of the link.

use crate::{
    faults::{is_root, skipped},
    process::Process,
};
use std::{
    net::Ipv4Addr,
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// Which packets get lost between the inside and the outside. Nobody is told: no reset, no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// Those of clients outside, on their way to the port inside.
    Requests,
    /// Those of the port inside, on their way out.
    Answers,
    /// Both.
    Both,
}

/// A network with one link to the outside.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    /// The address of whatever runs inside.
    pub inside: Ipv4Addr,
    /// The address of the machine, as seen from inside.
    pub outside: Ipv4Addr,
}

static NUMBERS: AtomicU32 = AtomicU32::new(0);

impl Namespace {
    /// Makes one; `None`, with a message, where that is not possible.
    ///
    /// # Panics
    /// If the programs for it are missing (apt: iproute2, nftables).
    #[must_use]
    pub fn create() -> Option<Self> {
        if !is_root() {
            skipped("a network of its own needs root");
            return None;
        }
        // Several test processes may run on one machine: the number comes from the process's id.
        let number = process::id().wrapping_mul(16) + NUMBERS.fetch_add(1, Ordering::Relaxed);
        // Networks of four addresses, of which two are for use.
        let [_, _, subnet, host] = (number << 2).to_be_bytes();
        let namespace = Self {
            name: format!("ac{number:x}"),
            inside: Ipv4Addr::new(10, 251, subnet, host + 2),
            outside: Ipv4Addr::new(10, 251, subnet, host + 1),
        };
        if !ip(&["netns", "add", &namespace.name]) {
            skipped("this machine makes no network namespaces");
            return None;
        }
        namespace.link();
        Some(namespace)
    }

    fn link(&self) {
        let (name, outer) = (self.name.as_str(), self.outer());
        let within = |rest: &[&str]| {
            let mut all = vec!["-n", name];
            all.extend(rest);
            assert!(ip(&all), "ip {all:?}");
        };
        let link = [
            "link", "add", &outer, "type", "veth", "peer", "name", "inner", "netns", name,
        ];
        assert!(ip(&link), "ip {link:?}");
        let address = format!("{}/30", self.outside);
        assert!(ip(&["addr", "add", &address, "dev", &outer]), "{address}");
        assert!(ip(&["link", "set", &outer, "up"]), "{outer}");
        let address = format!("{}/30", self.inside);
        within(&["addr", "add", &address, "dev", "inner"]);
        within(&["link", "set", "inner", "up"]);
        within(&["link", "set", "lo", "up"]);
    }

    fn outer(&self) -> String {
        format!("{}o", self.name)
    }

    /// The process will run inside.
    #[must_use]
    pub fn hold(&self, process: Process) -> Process {
        process.under(&["ip", "netns", "exec", &self.name])
    }

    /// From now on these packets get lost, for this port inside.
    pub fn part(&self, partition: Partition, port: u16) {
        let chain = |hook: &str, packets: &str| {
            let head = format!("type filter hook {hook} priority 0;");
            format!("chain {hook} {{\n{head}\ntcp {packets} {port} drop\n}}\n")
        };
        let (requests, answers) = (chain("input", "dport"), chain("output", "sport"));
        let rules = match partition {
            Partition::Requests => requests,
            Partition::Answers => answers,
            Partition::Both => format!("{requests}{answers}"),
        };
        self.nft(&format!("table inet aircheck {{\n{rules}}}\n"));
    }

    /// Nothing gets lost any more.
    pub fn heal(&self) {
        self.nft("flush ruleset");
    }

    fn nft(&self, rules: &str) {
        let run = Command::new("ip")
            .args(["netns", "exec", &self.name, "nft", rules])
            .output();
        let output = run.expect("run ip (apt: iproute2)");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "nft (apt: nftables): {said}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The link goes with it.
        let gone = ip(&["netns", "del", &self.name]);
        assert!(gone || std::thread::panicking(), "remove {}", self.name);
    }
}

fn ip(arguments: &[&str]) -> bool {
    let run = Command::new("ip")
        .args(arguments)
        .stderr(Stdio::null())
        .status();
    run.expect("run ip (apt: iproute2)").success()
}
