//! Samples of a benchmark run, what they say together, and the project's targets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bytes of a megabyte.
const MEGABYTE: f64 = 1e6;
/// What the Linux guests read in one go, bytes.
const LINUX_READ: f64 = 67_108_864.0;
/// What the test program reads through BlockIo in one call, bytes.
const BLOCK_READ: f64 = 16_777_216.0;

/// What was measured, by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples(BTreeMap<String, Series>);

/// One quantity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Unit of the values.
    pub unit: String,
    /// One for each time it was measured.
    pub values: Vec<f64>,
}

/// A quantity of the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// The least of its values.
    pub min: f64,
    /// The middle one.
    pub median: f64,
    /// The greatest.
    pub max: f64,
    /// What OvmfXen needed, where that was recorded.
    pub ovmfxen: Option<f64>,
}

/// A ratio of two medians of the same run, or of a median and OvmfXen's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// What is compared.
    pub name: &'static str,
    /// The quotient of the medians.
    pub value: f64,
}

/// A target and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// What was aimed at.
    pub target: &'static str,
    /// The limit.
    pub limit: f64,
    /// What was measured: the median.
    pub median: f64,
    /// The best value.
    pub best: f64,
    /// Whether the median keeps the limit.
    pub met: bool,
}

/// All that is reported.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Every quantity.
    pub figures: Vec<Figure>,
    /// Ratios.
    pub ratios: Vec<Ratio>,
    /// Targets.
    pub targets: Vec<Verdict>,
}

/// OvmfXen's medians, or the middle of their range: EDK2 2025.02, PVH, 512 MiB, one vCPU, in this lab on a quiet machine.
const OVMFXEN: [(&str, f64); 13] = [
    ("program.start_to_boot_program", 5.5e9),
    ("program.file_rate", 65.0),
    ("program.block_16mib", 6.5e8),
    ("program.block_4kib", 1.15e6),
    ("program.pool_pair", 24_500.0),
    ("program.pages_pair_loader_data", 163_000.0),
    ("program.pages_pair_boot_services_data", 163_000.0),
    ("program.memory_kept", 1.15e6),
    ("program.handles", 144.0),
    ("program.protocols", 431.0),
    ("program.configuration_tables", 9.0),
    ("loader.create_to_poweroff", 23.5),
    ("build.clean", 142.0),
];

/// Whether less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    AtMost,
    AtLeast,
}

/// The targets: text, quantity, limit.
const TARGETS: [(&str, &str, Wanted, f64); 17] = [
    ("first instruction to BOOTX64.EFI, ticks", "program.start_to_boot_program", Wanted::AtMost, 0.5e9),
    ("64 MiB file, MB/s: 3 times OvmfXen", "program.file_rate", Wanted::AtLeast, 195.0),
    ("64 MiB file, in Linux's rates", "ratio.file_to_blkfront", Wanted::AtLeast, 0.7),
    ("4 KiB read, ticks: a third of OvmfXen's median", "program.block_4kib", Wanted::AtMost, 383_000.0),
    ("AllocatePool + FreePool, ticks", "program.pool_pair", Wanted::AtMost, 2_500.0),
    ("8 pages of LoaderData, ticks", "program.pages_pair_loader_data", Wanted::AtMost, 15_000.0),
    ("8 pages of BootServicesData, ticks", "program.pages_pair_boot_services_data", Wanted::AtMost, 15_000.0),
    ("memory kept from the OS, bytes", "program.memory_kept", Wanted::AtMost, 700_000.0),
    ("HVM, create to userspace, PV disk, s", "hvm-loader.create_to_userspace", Wanted::AtMost, 30.0),
    ("HVM, create to userspace, emulated disk, s", "hvm-emulated.create_to_userspace", Wanted::AtMost, 90.0),
    ("HVM, scroll of 1280 x 800, ms", "hvm-program.screen_scroll_time", Wanted::AtMost, 40.0),
    ("firmware build from clean, s", "build.clean", Wanted::AtMost, 90.0),
    ("PVH, full store / empty one, start to BOOTX64.EFI", "ratio.pvh-memory-full", Wanted::AtMost, 1.05),
    ("the same, kept by the daemon", "ratio.pvh-daemon-full", Wanted::AtMost, 1.05),
    ("HVM, full store / empty one, start to BOOTX64.EFI", "ratio.hvm-memory-full", Wanted::AtMost, 1.05),
    ("the same, kept by the daemon", "ratio.hvm-daemon-full", Wanted::AtMost, 1.05),
    ("memory of the daemon with its guests, bytes", "daemon.with_guests.most_resident", Wanted::AtMost, 30e6),
];

/// Guests with a full store, and the same with an empty one.
const FULL_STORES: [(&str, &str); 4] = [
    ("pvh-memory-full", "pvh-memory-empty"),
    ("pvh-daemon-full", "pvh-daemon-empty"),
    ("hvm-memory-full", "hvm-memory-empty"),
    ("hvm-daemon-full", "hvm-daemon-empty"),
];

/// Ratios: text, numerator, denominator.
const RATIOS: [(&str, &str, &str); 8] = [
    ("file read through the firmware / Linux's blkfront", "program.file_rate", "direct.blkfront_rate"),
    ("block read through the firmware / Linux's blkfront", "program.block_rate", "direct.blkfront_rate"),
    ("Linux's blkfront after the firmware / without it", "loader.blkfront_rate", "direct.blkfront_rate"),
    ("create to power-off: firmware and systemd-boot / none", "loader.create_to_poweroff", "direct.create_to_poweroff"),
    (
        "create to userspace: firmware and systemd-boot / none",
        "loader.create_to_userspace",
        "direct.create_to_userspace",
    ),
    (
        "create to userspace: HVM / PVH, firmware and systemd-boot",
        "hvm-loader.create_to_userspace",
        "loader.create_to_userspace",
    ),
    (
        "create to userspace: HVM, firmware / SeaBIOS, GRUB",
        "hvm-grub.create_to_userspace",
        "seabios-grub.create_to_userspace",
    ),
    (
        "create to userspace: HVM, emulated disk / PV disk",
        "hvm-emulated.create_to_userspace",
        "hvm-loader.create_to_userspace",
    ),
];

impl Samples {
    /// Adds a value.
    pub fn put(&mut self, name: &str, unit: &str, value: f64) {
        let series = self.0.entry(name.to_owned()).or_default();
        unit.clone_into(&mut series.unit);
        series.values.push(value);
    }

    /// Adds another set's values.
    pub fn add(&mut self, other: Self) {
        for (name, series) in other.0 {
            let mine = self.0.entry(name).or_default();
            mine.unit = series.unit;
            mine.values.extend(series.values);
        }
    }

    /// Whether there was something of that name, which is no more.
    pub fn take(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// Takes a guest's console in: lines `BENCH name value unit`, and the firmware's timeline, whose ticks count from its
    /// first instruction. Names get `prefix`.
    pub fn read(&mut self, prefix: &str, console: &str) {
        let mut last = None;
        for line in console.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["BENCH", name, value, unit] => {
                    if let Ok(value) = value.parse() {
                        self.put(&format!("{prefix}.{name}"), unit, value);
                    }
                }
                ["timeline:", ticks, step @ ..] => {
                    let Ok(ticks) = ticks.parse::<f64>() else { continue };
                    let phase = ticks - last.unwrap_or(0.0);
                    self.put(&format!("{prefix}.phase.{}", step.join("_")), "ticks", phase);
                    last = Some(ticks);
                }
                _ => {}
            }
        }
        if let Some(ticks) = last {
            self.put(&format!("{prefix}.start_to_boot_program"), "ticks", ticks);
        }
    }

    /// The report.
    #[must_use]
    pub fn report(&self) -> Report {
        let all = self.with_rates();
        let figures = all.0.iter().filter_map(|(name, series)| series.figure(name)).collect();
        let ratios = RATIOS
            .iter()
            .filter_map(|(text, over, under)| Some(Ratio { name: text, value: all.median(over)? / all.median(under)? }))
            .collect();
        let targets = TARGETS.iter().filter_map(|(text, name, wanted, limit)| all.judge(text, name, *wanted, *limit));
        Report { figures, ratios, targets: targets.collect() }
    }

    /// With rates made from times.
    fn with_rates(&self) -> Self {
        let mut all = self.clone();
        let empty = Series::default();
        let get = |name: &str| self.0.get(name).unwrap_or(&empty).values.clone();
        let frequency = get("program.tsc_frequency");
        let per_second = |ticks: f64, frequency: f64, bytes: f64| bytes / MEGABYTE / (ticks / frequency);
        for ((ticks, hz), size) in get("program.file_read").into_iter().zip(&frequency).zip(get("program.file_size")) {
            all.put("program.file_rate", "MB/s", per_second(ticks, *hz, size));
        }
        for name in ["screen_fill", "screen_clear", "screen_scroll"] {
            for (ticks, hz) in get(&format!("hvm-program.{name}")).into_iter().zip(get("hvm-program.tsc_frequency")) {
                all.put(&format!("hvm-program.{name}_time"), "ms", ticks / hz * 1e3);
            }
        }
        for (ticks, hz) in get("program.block_16mib").into_iter().zip(&frequency) {
            all.put("program.block_rate", "MB/s", per_second(ticks, *hz, BLOCK_READ));
        }
        for (from, to) in
            [("direct.blkfront_read", "direct.blkfront_rate"), ("loader.blkfront_read", "loader.blkfront_rate")]
        {
            for nanoseconds in get(from) {
                all.put(to, "MB/s", LINUX_READ / MEGABYTE / (nanoseconds / 1e9));
            }
        }
        if let (Some(file), Some(linux)) = (all.median("program.file_rate"), all.median("direct.blkfront_rate")) {
            all.put("ratio.file_to_blkfront", "-", file / linux);
        }
        for (full, empty) in FULL_STORES {
            let median = |name: &str| all.median(&format!("{name}.start_to_boot_program"));
            if let (Some(with_full), Some(with_empty)) = (median(full), median(empty)) {
                all.put(&format!("ratio.{full}"), "-", with_full / with_empty);
            }
        }
        all
    }

    fn judge(&self, target: &'static str, name: &str, wanted: Wanted, limit: f64) -> Option<Verdict> {
        let Figure { min, median, max, .. } = self.0.get(name)?.figure(name)?;
        let (best, met) = match wanted {
            Wanted::AtMost => (min, median <= limit),
            Wanted::AtLeast => (max, median >= limit),
        };
        Some(Verdict { target, limit, median, best, met })
    }

    fn median(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.figure(name).map(|figure| figure.median)
    }
}

impl Series {
    fn figure(&self, name: &str) -> Option<Figure> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] };
        let ovmfxen = OVMFXEN.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        Some(Figure { name: name.to_owned(), unit: self.unit.clone(), min, median, max, ovmfxen })
    }
}

impl Report {
    /// The report as a text for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:44} {:>5} {:>13} {:>13} {:>13} {:>13} {:>7}",
            "", "unit", "min", "median", "max", "OvmfXen", "ratio"
        )];
        for Figure { name, unit, min, median, max, ovmfxen } in &self.figures {
            let mut line = format!("{name:44} {unit:>5} {} {} {}", number(*min), number(*median), number(*max));
            if let Some(known) = ovmfxen {
                line.push_str(&format!(" {} {:7.3}", number(*known), median / known));
            }
            lines.push(line);
        }
        lines.push(String::new());
        lines.extend(self.ratios.iter().map(|ratio| format!("{:60} {:7.3}", ratio.name, ratio.value)));
        lines.push(String::new());
        for Verdict { target, limit, median, best, met } in &self.targets {
            let word = if *met { "met" } else { "missed" };
            let by = 100.0 * (median - limit).abs() / limit;
            lines.push(format!(
                "{target:52} target {} median {} best {} {word} by {by:.0} %",
                number(*limit),
                number(*median),
                number(*best)
            ));
        }
        lines.join("\n") + "\n"
    }
}

/// Thirteen columns: whole numbers grouped, small ones with three digits behind the point.
fn number(value: f64) -> String {
    if value.abs() < 1000.0 && value.fract() != 0.0 {
        return format!("{value:>13.3}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    format!("{text:>13}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "ovmf-xen 0.1\ntimeline:            0 start\ntimeline:          100 image moved\n\
                           timeline:          250 starting\nBENCH file_read 500 ticks\r\nBENCH file_size 1000000 bytes\n\
                           BENCH tsc_frequency 1000 hz\nBENCH end 0 -\n";

    fn samples() -> Samples {
        let mut samples = Samples::default();
        samples.read("program", CONSOLE);
        samples
    }

    fn value(samples: &Samples, name: &str) -> f64 {
        samples.report().figures.into_iter().find(|figure| figure.name == name).unwrap().median
    }

    #[test]
    fn phases_are_the_time_since_the_one_before() {
        assert_eq!(value(&samples(), "program.phase.image_moved"), 100.0);
        assert_eq!(value(&samples(), "program.phase.starting"), 150.0);
        assert_eq!(value(&samples(), "program.start_to_boot_program"), 250.0);
    }

    #[test]
    fn a_rate_comes_from_size_ticks_and_frequency() {
        assert_eq!(value(&samples(), "program.file_rate"), 2.0);
    }

    #[test]
    fn times_of_the_screen_are_in_milliseconds() {
        let mut samples = Samples::default();
        samples.read("hvm-program", "BENCH tsc_frequency 2000 hz\nBENCH screen_scroll 4 ticks\n");
        assert_eq!(value(&samples, "hvm-program.screen_scroll_time"), 2.0);
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        let series = Series { unit: "s".into(), values: vec![4.0, 1.0, 2.0, 3.0] };
        assert_eq!(series.figure("a").unwrap().median, 2.5);
    }

    #[test]
    fn targets_know_which_way_is_better() {
        let verdicts = samples().report().targets;
        let met = |start: &str| verdicts.iter().find(|verdict| verdict.target.starts_with(start)).unwrap().met;
        assert!(met("first instruction"));
        assert!(!met("64 MiB file, MB/s"));
    }

    #[test]
    fn a_full_store_is_compared_with_an_empty_one() {
        let mut samples = Samples::default();
        for (full, empty) in [(110.0, 100.0), (104.0, 100.0), (90.0, 99.0)] {
            samples.put("pvh-daemon-full.start_to_boot_program", "ticks", full);
            samples.put("pvh-daemon-empty.start_to_boot_program", "ticks", empty);
        }
        let verdicts = samples.report().targets;
        assert_eq!(verdicts.iter().map(|verdict| (verdict.median, verdict.met)).collect::<Vec<_>>(), [(1.04, true)]);
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!(number(1_234_567.0), "    1 234 567");
    }
}
