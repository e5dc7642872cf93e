//! Builds with all variations at once; when the images differ, narrows it down.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::build::{Build, IMAGES, Images, timed};
use crate::difference;
use crate::inputs::{Inputs, copy_checkout};
use crate::narrow::narrow;
use crate::plant::Plant;
use crate::variation::{Applied, Variation, with_needs};

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// The variations.
    pub variations: Vec<Variation>,
    /// One build for each, instead of one for all.
    pub each: bool,
    /// A difference to be made on purpose.
    pub plant: Option<Plant>,
    /// Images to compare with; a build without variations where they are not given.
    pub reference: Option<Images>,
    /// Where logs and, of a difference, the images go.
    pub output: PathBuf,
}

/// Names and reasons.
pub type LeftOut = Vec<(&'static str, String)>;

/// How it went.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The variations that were built with.
    pub varied: Vec<&'static str>,
    /// Those that cannot be done here, with the reason.
    pub left_out: LeftOut,
    /// The differences.
    pub differences: Vec<Difference>,
}

/// A difference.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Difference {
    /// The fewest variations that make it.
    pub variations: Vec<&'static str>,
    /// What in the images tells of the machine, and where they differ: region, file, symbol.
    pub places: Vec<String>,
    /// What the build said, if it failed instead.
    pub failure: Option<String>,
    /// Folder of the images.
    pub images: Option<PathBuf>,
}

struct Runner<'a> {
    inputs: &'a Inputs,
    source: PathBuf,
    reference: Images,
    output: &'a Path,
    builds: u32,
}

/// How a varied build ended.
enum Ending {
    Same,
    Other(Images, Vec<String>),
    Failed(String),
}

/// Builds and compares.
///
/// # Errors
/// Something that a build takes cannot be had, or the build without variations fails.
pub fn run(inputs: &Inputs, plan: Plan) -> Result<Report> {
    fs::create_dir_all(&plan.output).with_context(|| format!("cannot make {}", plan.output.display()))?;
    let mut source = inputs.root.clone();
    if let Some(plant) = plan.plant {
        source = inputs.scratch.join("planted");
        copy_checkout(&inputs.root, &source)?;
        plant.put_into(&source)?;
    }
    let (variations, left_out) = possible(inputs, &source, &plan.variations)?;
    let reference = match plan.reference {
        Some(images) => images,
        None => {
            let build = Build::new(inputs.scratch.join("reference"), source.clone())?;
            let images = timed("building without variations", || build.run(&plan.output.join("reference.log")))?;
            if !images.traces.is_empty() {
                bail!("a build without variations already tells of this machine:\n{}", images.traces.join("\n"));
            }
            images
        }
    };
    let mut runner = Runner { inputs, source, reference, output: &plan.output, builds: 0 };
    let mut report = Report { varied: names(&variations), left_out, differences: Vec::new() };
    if plan.each {
        for variation in variations {
            let ending = runner.build(&[variation])?;
            report.differences.extend(runner.describe(&[variation], ending)?);
        }
    } else if !variations.is_empty() {
        let ending = runner.build(&variations)?;
        if !matches!(ending, Ending::Same) {
            eprintln!("repro: not the same; looking for the variation that makes the difference");
            let mut last = None;
            let culprits = narrow(&variations, |tried| {
                let ending = runner.build(tried)?;
                let differs = !matches!(ending, Ending::Same);
                if differs {
                    last = Some(ending);
                }
                Ok(differs)
            })?;
            // The last build that differed is the one with just these.
            report.differences.extend(runner.describe(&culprits, last.unwrap_or(ending))?);
        }
    }
    Ok(report)
}

/// Sorts out what cannot be done here, by doing it to a build that is not run.
fn possible(inputs: &Inputs, source: &Path, wanted: &[Variation]) -> Result<(Vec<Variation>, LeftOut)> {
    let mut build = Build::new(inputs.scratch.join("tried"), source.to_owned())?;
    let mut left_out = LeftOut::new();
    let mut possible = Vec::new();
    for variation in with_needs(wanted) {
        let lacking = variation.needs.iter().find(|need| left_out.iter().any(|(name, _)| name == *need));
        let applied = match lacking {
            Some(need) => Applied::LeftOut(format!("it takes {need}")),
            None => variation.apply(inputs, &mut build).with_context(|| format!("variation {}", variation.name))?,
        };
        match applied {
            Applied::Yes => possible.push(variation),
            Applied::LeftOut(reason) => left_out.push((variation.name, reason)),
        }
    }
    fs::remove_dir_all(&build.folder)?;
    possible.retain(|variation| wanted.iter().any(|wanted| wanted.name == variation.name));
    Ok((possible, left_out))
}

fn names(variations: &[Variation]) -> Vec<&'static str> {
    variations.iter().map(|variation| variation.name).collect()
}

impl Runner<'_> {
    fn build(&mut self, variations: &[Variation]) -> Result<Ending> {
        self.builds += 1;
        let all = with_needs(variations);
        let mut build = Build::new(self.inputs.scratch.join(format!("build{}", self.builds)), self.source.clone())?;
        for variation in &all {
            variation.apply(self.inputs, &mut build).with_context(|| format!("variation {}", variation.name))?;
        }
        let folder = build.folder.clone();
        let log = self.output.join(format!("build{}.log", self.builds));
        let what = format!("building with {}", names(&all).join(", "));
        let ending = match timed(&what, || Ok(build.run(&log)))? {
            Err(error) => Ending::Failed(format!("{error:#}")),
            Ok(images) => {
                let differences = difference::between(&self.reference, &images)?;
                let places: Vec<_> = images.traces.iter().cloned().chain(differences).collect();
                if places.is_empty() { Ending::Same } else { Ending::Other(images, places) }
            }
        };
        if !matches!(ending, Ending::Other(..)) {
            fs::remove_dir_all(folder)?;
        }
        Ok(ending)
    }

    fn describe(&self, culprits: &[Variation], ending: Ending) -> Result<Option<Difference>> {
        let variations = names(culprits);
        Ok(match ending {
            Ending::Same => None,
            Ending::Failed(failure) => {
                Some(Difference { variations, places: Vec::new(), failure: Some(failure), images: None })
            }
            Ending::Other(images, mut places) => {
                let folder = self.output.join(variations.join("+"));
                fs::create_dir_all(&folder)?;
                for name in IMAGES {
                    fs::copy(images.folder.join(name), folder.join(name))?;
                }
                let report = difference::diffoscope(&self.reference, &images, &folder);
                places.extend(report.map(|report| format!("diffoscope's report: {}", report.display())));
                Some(Difference { variations, places, failure: None, images: Some(folder) })
            }
        })
    }
}
