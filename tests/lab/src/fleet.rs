//! Scenarios on several machines at once, each of which takes the next one when it is through with one.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Result;

use crate::machine::{Machine, Wanted};
use crate::report::{Outcome, Report, Verdict};
use crate::runner;
use crate::scenario::Scenario;
use crate::session::Lab;

/// A machine that died is replaced once, so that one crash of QEMU does not hide what the other scenarios show.
const LIVES: u32 = 2;

/// Plays `scenarios` on `machines` machines, or on the one that is up. Logs go to `output`.
///
/// # Errors
/// No machine could be started.
pub fn play(lab: &Lab, scenarios: &[&Scenario], machines: usize, output: &Path, report: &mut Report) -> Result<()> {
    let Some(guest_memory) = scenarios.iter().map(|scenario| scenario.memory).max() else { return Ok(()) };
    let has_tpm = scenarios.iter().any(|scenario| scenario.tpm);
    let machines = if Machine::left_up(&lab.cache).is_some() { 1 } else { machines.clamp(1, scenarios.len()) };
    let queue = Mutex::new(scenarios.iter().copied().collect());
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let (sender, outcomes) = mpsc::channel();
        let workers: Vec<_> = (0..machines)
            .map(|number| {
                let wanted = Wanted { guest_memory, has_tpm, stays_up: false, number };
                let worker = Worker { lab, wanted, queue: &queue, output, outcomes: sender.clone() };
                scope.spawn(move || worker.work())
            })
            .collect();
        drop(sender);
        outcomes.into_iter().for_each(|outcome| report.add(outcome));
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    let left = lock(&queue);
    if !left.is_empty() {
        results.into_iter().collect::<Result<Vec<_>>>()?;
    }
    for scenario in left.iter() {
        let verdict = Verdict::LabFailed("not run: the machines died".to_owned());
        let logs = output.join(&scenario.name);
        report.add(Outcome { name: scenario.name.clone(), verdict, retries: 0, seconds: 0.0, logs });
    }
    Ok(())
}

type Queue<'a> = Mutex<VecDeque<&'a Scenario>>;

fn lock<'a, 'b>(queue: &'b Queue<'a>) -> MutexGuard<'b, VecDeque<&'a Scenario>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker<'a> {
    lab: &'a Lab,
    wanted: Wanted,
    queue: &'a Queue<'a>,
    output: &'a Path,
    outcomes: Sender<Outcome>,
}

impl Worker<'_> {
    fn work(self) -> Result<()> {
        let Self { lab, wanted, output, .. } = self;
        let mut sources = lab.sources.clone();
        sources.scratch = sources.scratch.join(wanted.number.to_string());
        std::fs::create_dir_all(&sources.scratch)?;
        for _ in 0..LIVES {
            if lock(self.queue).is_empty() {
                break;
            }
            let (dom0, _lock) = lab.connect(lab.machine(wanted)?)?;
            // The queue is not held while a scenario is played.
            while let Some(scenario) = { lock(self.queue).pop_front() } {
                self.outcomes.send(runner::play(scenario, &sources, Some(&dom0), output)).ok();
                if dom0.check().is_err() {
                    break;
                }
            }
            std::fs::copy(dom0.hypervisor_log(), output.join(format!("serial{}.log", wanted.number))).ok();
        }
        Ok(())
    }
}
