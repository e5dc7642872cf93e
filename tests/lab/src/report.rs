//! How a run went: a line per scenario as it goes, a JSON file, and the last line with the counts.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use crate::command;
use crate::runner::last_lines;

/// How a scenario went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "reason")]
pub enum Verdict {
    /// The claim holds.
    Passed,
    /// The claim does not hold.
    Failed(String),
    /// It died of a known flake of the lab; never the last word, as it is then tried again.
    Flaked(String),
    /// The lab itself failed: nothing is known of the claim.
    LabFailed(String),
}

/// A scenario's line of the report.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The scenario.
    pub name: String,
    /// How it went.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How often it was started again because of a known flake.
    pub retries: u32,
    /// How long it took, all attempts together.
    pub seconds: f32,
    /// Where its logs are.
    pub logs: PathBuf,
}

/// A run's report.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Scenarios that passed.
    pub passed: usize,
    /// Scenarios that did not.
    pub failed: usize,
    /// Retries of all scenarios.
    pub retries: u32,
    /// Each scenario.
    pub scenarios: Vec<Outcome>,
}

impl Report {
    /// Takes a scenario in and prints its line; of a failure also what is known.
    pub fn add(&mut self, outcome: Outcome) {
        let retried = if outcome.retries == 0 { String::new() } else { format!(" (retries: {})", outcome.retries) };
        let (word, reason) = match &outcome.verdict {
            Verdict::Passed => ("ok", None),
            Verdict::Failed(reason) | Verdict::Flaked(reason) => ("FAILED", Some(reason)),
            Verdict::LabFailed(reason) => ("LAB FAILED", Some(reason)),
        };
        println!("{word:10} {:45} {:6.1} s{retried}", outcome.name, outcome.seconds);
        match reason {
            None => self.passed += 1,
            Some(reason) => {
                self.failed += 1;
                println!("    {reason}");
                for line in last_lines(&outcome.logs) {
                    println!("    {line}");
                }
                println!("    logs: {}", outcome.logs.display());
            }
        }
        self.retries += outcome.retries;
        self.scenarios.push(outcome);
    }

    /// Writes `report.json` to `folder` and prints the last line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&self, folder: &Path) -> Result<()> {
        command::write(&folder.join("report.json"), serde_json::to_vec_pretty(self)?)?;
        if self.retries != 0 {
            println!("retries because of known flakes of the lab: {}", self.retries);
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        Ok(())
    }
}
