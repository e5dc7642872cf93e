//! What variables cost: the services in the firmware's memory and through the daemon in dom0, and a start with a full store
//! beside one with an empty store. The guests are [the same program](../../../guest/src/bin/variables.rs); what differs
//! is who keeps their variables and what is in the store.

use anyhow::Result;

use super::{FOLDER, Plan, SEND_TIMEOUT, Samples, attempt, full_store, measure};
use crate::command;
use crate::disk::Disk;
use crate::dom0::Dom0;
use crate::file::Content;
use crate::guest::{Config, DiskFile, Kind, send_disk};
use crate::host_program::Profile;
use crate::runner::unique_name;
use crate::session::Lab;
use crate::variable_daemon::{self, STORES};

/// One of the guests of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Subject {
    kind: Kind,
    /// The daemon keeps its variables, or nobody.
    has_daemon: bool,
    /// What is in its store; where it is not said that is nothing.
    is_full: Option<bool>,
}

impl Subject {
    /// What its figures' names begin with.
    fn prefix(self) -> String {
        let kind = if self.kind == Kind::Hvm { "hvm" } else { "pvh" };
        let keeper = if self.has_daemon { "daemon" } else { "memory" };
        let store = match self.is_full {
            None => "",
            Some(false) => "-empty",
            Some(true) => "-full",
        };
        format!("{kind}-{keeper}{store}")
    }
}

/// Measures SetVariable and GetVariable in memory and through the daemon.
///
/// # Errors
/// A guest failed twice, or the lab itself failed.
pub fn services(lab: &Lab, dom0: &Dom0, plan: &Plan) -> Result<Samples> {
    run(lab, dom0, plan, |_| vec![None])
}

/// Measures starts with a full store and with an empty one, by turns, and each time the other one first.
///
/// # Errors
/// As [`services`].
pub fn starts_with_full_store(lab: &Lab, dom0: &Dom0, plan: &Plan) -> Result<Samples> {
    run(lab, dom0, plan, |start| {
        let full_first = start.is_multiple_of(2);
        vec![Some(full_first), Some(!full_first)]
    })
}

fn run(lab: &Lab, dom0: &Dom0, plan: &Plan, stores: impl Fn(u32) -> Vec<Option<bool>>) -> Result<Samples> {
    eprintln!("bench: building the daemon, making images and disk");
    variable_daemon::send(dom0, Profile::Release)?;
    send_files(lab, dom0, plan)?;
    let kinds = if plan.hvm { vec![Kind::Pvh, Kind::Hvm] } else { vec![Kind::Pvh] };
    let mut samples = Samples::default();
    for start in 1..=plan.starts {
        for has_daemon in [false, true] {
            if has_daemon {
                variable_daemon::start(dom0)?;
            }
            for &kind in &kinds {
                for is_full in stores(start) {
                    samples.add(guest(dom0, plan, Subject { kind, has_daemon, is_full }, start)?);
                }
            }
            if has_daemon {
                variable_daemon::stop(dom0)?;
            }
        }
    }
    dom0.run(&format!("rm -rf {FOLDER} {STORES}\n"), SEND_TIMEOUT)?;
    Ok(samples)
}

/// Images with either store, the stores themselves for the daemon, and the disk.
fn send_files(lab: &Lab, dom0: &Dom0, plan: &Plan) -> Result<()> {
    let sources = &lab.sources;
    let share = dom0.share("bench");
    std::fs::create_dir_all(&share)?;
    let (code, empty) = image::join::split(&command::read(&plan.firmware)?)?;
    let full = full_store::fill(&empty)?;
    for (name, store) in [("empty", &empty), ("full", &full)] {
        command::write(&share.join(name), image::join::join(&code, store)?)?;
        command::write(&share.join(format!("{name}.fd")), store)?;
    }
    let path = sources.scratch.join("bench.img");
    let program = Content::Source(format!("host:{}", plan.program.display()));
    let disk = Disk { files: [("EFI/BOOT/BOOTX64.EFI".to_owned(), program)].into(), ..Disk::default() };
    disk.write(&path, sources)?;
    let file = DiskFile::new(path);
    let script = format!(
        "set -e\nmkdir -p {FOLDER}\ncd {FOLDER}\nfrom=/lab/bench\ncp $from/empty $from/full $from/*.fd .\n{}sync\n",
        send_disk(&file, 0, &share)?
    );
    dom0.run_well(&script, SEND_TIMEOUT)?;
    std::fs::remove_dir_all(&share)?;
    Ok(())
}

/// Starts one guest; with who keeps its variables checked.
fn guest(dom0: &Dom0, plan: &Plan, subject: Subject, start: u32) -> Result<Samples> {
    let prefix = subject.prefix();
    eprintln!("bench: start {start} of {}: {prefix}", plan.starts);
    let (samples, _) = measure(&prefix, &plan.output, |retry| {
        let config = config(plan, subject, start, retry);
        let prepare = prepare(dom0, subject, &config)?;
        let logs = plan.output.join(format!("{prefix}-{start}"));
        let samples = match attempt(dom0, config, &prepare, &prefix, &logs)? {
            Ok(samples) => samples,
            Err(reason) => return Ok(Err(reason)),
        };
        let said = std::fs::read_to_string(logs.join("console.log"))?;
        Ok(match said.contains("Variables are kept by the host.") == subject.has_daemon {
            true => Ok(samples),
            false => Err("its variables are not kept by whom they should be".to_owned()),
        })
    })?;
    Ok(samples)
}

fn config(plan: &Plan, subject: Subject, start: u32, retry: u32) -> Config {
    let is_hvm = subject.kind == Kind::Hvm;
    let name = unique_name(&format!("bench-{}-{start}", subject.prefix()), retry);
    Config {
        firmware: is_hvm.then(Default::default),
        kernel: (!is_hvm).then(Default::default),
        // On a busy machine a guest may ask before the daemon has attached.
        command_line: Some(match subject.has_daemon {
            true => format!("{} ovmf.variables=daemon", plan.command_line),
            false => plan.command_line.clone(),
        }),
        disks: vec![DiskFile::new(Default::default())],
        ..Config::new(name, subject.kind, plan.memory)
    }
}

/// The guest's folder in dom0 has links to the files that are there already; with the daemon the store is its own.
fn prepare(dom0: &Dom0, subject: Subject, config: &Config) -> Result<String> {
    command::write(&dom0.share("bench.cfg"), config.text())?;
    let is_full = subject.is_full == Some(true);
    let image = if is_full && !subject.has_daemon { "full" } else { "empty" };
    let mut script = format!(
        "cp /lab/bench.cfg xl.cfg\nln -s {FOLDER}/{image} kernel\nln -s {FOLDER}/{image} firmware\n\
         ln -s {FOLDER}/disk0.img disk0.img\n"
    );
    if subject.has_daemon {
        // A store for each start, so that no start finds what another one left.
        let store = if is_full { "full" } else { "empty" };
        script.push_str(&format!("install -o nobody -m 600 {FOLDER}/{store}.fd {STORES}/{}.fd\nsync\n", config.name));
    }
    Ok(script)
}
