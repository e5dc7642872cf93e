//! The memory of the daemon in dom0 with many guests attached, each of which has had its store opened, and idles.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use regex::bytes::Regex;

use super::{FOLDER, Plan, Samples};
use crate::command;
use crate::dom0::Dom0;
use crate::guest::{Config, Guest, Kind};
use crate::host_program::Profile;
use crate::runner::unique_name;
use crate::variable_daemon::{self, STORES};

/// Memory of a guest, MiB: the firmware works in it.
pub const GUEST_MEMORY: u64 = 24;
/// What Xen needs beside it for a domain, MiB.
const DOMAIN_MEMORY: u64 = 12;
/// The daemon has closed all stores by then.
const IDLE: Duration = Duration::from_secs(17);
const START_TIMEOUT: Duration = Duration::from_secs(60);
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(50);

/// Memory for so many guests, MiB.
#[must_use]
pub fn machine_memory(guests: u32) -> u64 {
    u64::from(guests) * (GUEST_MEMORY + DOMAIN_MEMORY)
}

/// Attaches so many guests and measures. A guest is paused once it waits for a key.
///
/// # Errors
/// A guest does not start or is not served, or the lab itself failed.
pub fn run(dom0: &Dom0, plan: &Plan, guests: u32) -> Result<Samples> {
    variable_daemon::send(dom0, Profile::Release)?;
    let share = dom0.share("bench");
    std::fs::create_dir_all(&share)?;
    command::write(&share.join("firmware"), command::read(&plan.firmware)?)?;
    dom0.run_well(&format!("rm -rf {STORES}\nmkdir -p {FOLDER}\ncp /lab/bench/firmware {FOLDER}\n"), SCRIPT_TIMEOUT)?;
    variable_daemon::start(dom0)?;
    let mut samples = Samples::default();
    record(dom0, &mut samples, "daemon.without_guests")?;
    for number in 1..=guests {
        if number.is_multiple_of(10) || number == guests {
            eprintln!("bench: guest {number} of {guests}");
        }
        attach(dom0, plan, number).with_context(|| format!("guest {number}"))?;
    }
    let stores = dom0.run_well(&format!("ls {STORES}/*.fd | wc -l\n"), SCRIPT_TIMEOUT)?;
    ensure!(stores.trim() == guests.to_string(), "{guests} guests, and {} stores", stores.trim());
    let served = dom0.run_well(
        "for domain in $(xenstore-list /local/domain); do xenstore-read /local/domain/$domain/ovmf-xen-varstored; done \
         2>/dev/null | grep -c served\n",
        SCRIPT_TIMEOUT,
    )?;
    ensure!(served.trim() == guests.to_string(), "{guests} guests, of which {} are served", served.trim());
    samples.put("daemon.guests", "-", f64::from(guests));
    record(dom0, &mut samples, "daemon.with_guests")?;
    std::thread::sleep(IDLE);
    record(dom0, &mut samples, "daemon.idle")?;
    variable_daemon::stop(dom0)?;
    Ok(samples)
}

fn attach(dom0: &Dom0, plan: &Plan, number: u32) -> Result<()> {
    let config = Config {
        kernel: Some(Default::default()),
        // On a busy machine a guest may ask before the daemon has attached.
        command_line: Some("ovmf.wait ovmf.variables=daemon".to_owned()),
        ..Config::new(unique_name(&format!("idle-{number}"), 0), Kind::Pvh, GUEST_MEMORY)
    };
    let name = config.name.clone();
    command::write(&dom0.share("bench.cfg"), config.text())?;
    let prepare = format!("cp /lab/bench.cfg xl.cfg\nln -s {FOLDER}/firmware kernel\n");
    let mut guest = Guest::create_prepared(dom0, config, &prepare)?.map_err(anyhow::Error::msg)?;
    let (served, waits) = (Regex::new("Variables are kept by the host")?, Regex::new("Press a key")?);
    let started = Instant::now();
    while guest.console.contains(&waits).is_none() {
        if guest.poll()?.is_some() || started.elapsed() > START_TIMEOUT {
            guest.collect_logs(&plan.output.join(&name))?;
            bail!("it does not wait for a key: {}", guest.console.last_lines(1));
        }
        std::thread::sleep(POLL);
    }
    ensure!(guest.console.contains(&served).is_some(), "the daemon does not keep its variables");
    dom0.run_well(&format!("xl pause {name}\n"), SCRIPT_TIMEOUT).map(drop)
}

/// What the kernel says of the daemon's memory: all that is resident, what of it is the daemon's alone, and the most that
/// ever was resident.
fn record(dom0: &Dom0, samples: &mut Samples, name: &str) -> Result<()> {
    let status = dom0.run_well("cat /proc/$(cat /run/lab-varstored.pid)/status\n", SCRIPT_TIMEOUT)?;
    for (field, what) in [("VmRSS:", "resident"), ("RssAnon:", "own"), ("VmHWM:", "most_resident")] {
        let kilobytes =
            status.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok());
        let kilobytes: f64 = kilobytes.with_context(|| format!("no {field} in the daemon's status"))?;
        samples.put(&format!("{name}.{what}"), "bytes", kilobytes * 1024.0);
    }
    Ok(())
}
