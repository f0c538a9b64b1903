//! `aircheck doctor`: what the configured store and database really do.
//!
//! Owns the questions and the table of answers. Must leave nothing behind, and never believe a name:
//! every row is the outcome of a call.

mod database;
mod store;

use crate::output;
use clap::Args;
use std::{fmt::Write as _, process::ExitCode};

/// Flags of `aircheck doctor`.
#[derive(Args, Debug)]
#[command(after_help = "\
Writes, reads and deletes objects under a key of its own below --s3-prefix, and a row that is rolled
back. Exit code 1 if something is missing without which shows can't be archived.

Example:
  aircheck doctor --database-url postgres://aircheck@db/aircheck --s3-endpoint http://s3:9000 \\
      --s3-bucket shows")]
pub(crate) struct Doctor {
    #[command(flatten)]
    config: aircheck_archiver::Config,
}

/// How much depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// Shows can't be archived without it.
    Needed,
    /// Archives are safer or cheaper with it.
    Useful,
    /// Good to know.
    Known,
}

/// One row.
#[derive(Clone, Debug)]
struct Finding {
    what: &'static str,
    weight: Weight,
    holds: bool,
    detail: String,
}

/// The rows of one table.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, weight: Weight, what: &'static str, holds: bool, detail: impl Into<String>) {
        self.0.push(Finding {
            what,
            weight,
            holds,
            detail: detail.into(),
        });
    }

    /// A row whose call failed for the reason given. Gives what the call gave.
    fn tried<T, E: std::fmt::Display>(
        &mut self,
        weight: Weight,
        what: &'static str,
        done: Result<T, E>,
    ) -> Option<T> {
        match done {
            Ok(value) => {
                self.add(weight, what, true, "");
                Some(value)
            }
            Err(error) => {
                self.add(weight, what, false, error.to_string());
                None
            }
        }
    }

    fn lacking(&self) -> usize {
        self.0
            .iter()
            .filter(|row| row.weight == Weight::Needed && !row.holds)
            .count()
    }
}

/// Asks everything and prints the answers.
///
/// # Errors
/// If the configuration can't be used at all.
pub(crate) async fn run(doctor: Doctor) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    Box::pin(database::examine(
        &doctor.config.database_url,
        &mut findings,
    ))
    .await;
    let store = store::Patient::new(&doctor.config)?;
    Box::pin(store.examine(&mut findings)).await;
    output::print(table(&findings).trim_end())?;
    let lacking = findings.lacking();
    if lacking == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    output::note(&format!("{lacking} of what is needed is missing"));
    Ok(ExitCode::FAILURE)
}

fn table(findings: &Findings) -> String {
    let width = findings
        .0
        .iter()
        .map(|row| row.what.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for Finding {
        what,
        weight,
        holds,
        detail,
    } in &findings.0
    {
        let verdict = match (holds, weight) {
            (true, _) => "yes",
            (false, Weight::Needed) => "MISSING",
            (false, Weight::Useful | Weight::Known) => "no",
        };
        let line = format!("{what:width$}  {verdict:7}  {detail}");
        writeln!(text, "{}", line.trim_end()).expect("a string takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_and_missing_counts() {
        let mut findings = Findings::default();
        findings.add(Weight::Needed, "a", true, "");
        findings.add(Weight::Useful, "b", false, "");
        findings.add(Weight::Known, "c", false, "");
        assert_eq!(findings.lacking(), 0);
        assert!(
            findings
                .tried(Weight::Needed, "d", Err::<(), _>("refused"))
                .is_none()
        );
        assert_eq!(findings.lacking(), 1);
        let text = table(&findings);
        assert!(text.contains("MISSING  refused"), "{text}");
    }
}
