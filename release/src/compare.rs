//! What differs between two images, place by place: region, file and nearest symbol.

use std::ops::Range;

use image::dissect::volume::File;
use image::dissect::{Content, Dissection};
use serde::Serialize;

use crate::digest::sha256;
use crate::guids;
use crate::symbols::{self, Symbols};

/// Differing bytes with no more equal ones than this between them are one difference.
const GAP: usize = 16;
/// More differences are counted and not listed.
const LIST_LIMIT: usize = 10_000;

/// The outcome of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Bytes of the two files.
    pub sizes: [u64; 2],
    /// Their SHA-256.
    pub sha256: [String; 2],
    /// How many bytes differ, those that only one of the files has included.
    pub differing_bytes: u64,
    /// How many differences there are.
    pub count: usize,
    /// The differences in their order; not all of them where there are very many.
    pub differences: Vec<Difference>,
}

/// A stretch of bytes that differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// First byte.
    pub offset: u64,
    /// Length.
    pub size: u64,
    /// The region, as the layout calls it.
    pub region: String,
    /// The file in the code volume.
    pub file: Option<String>,
    /// The nearest symbol of the core, or the section of a PE file.
    pub symbol: Option<String>,
}

impl Comparison {
    /// Whether the images are the same, byte for byte.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.count == 0
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#010x} {:>7} bytes  {}", self.offset, self.size, self.region)?;
        for part in [&self.file, &self.symbol].into_iter().flatten() {
            write!(f, " > {part}")?;
        }
        Ok(())
    }
}

/// Compares two images. Places are named as the first one has them. `core` gives the names inside the core.
#[must_use]
pub fn compare(one: &[u8], other: &[u8], core: Option<&Symbols>) -> Comparison {
    let mut comparison = Comparison {
        sizes: [one.len() as u64, other.len() as u64],
        sha256: [sha256(one), sha256(other)],
        differing_bytes: 0,
        count: 0,
        differences: Vec::new(),
    };
    if one == other {
        return comparison;
    }
    let places = Places::of(one, core);
    for range in runs(one, other) {
        for part in places.split(range) {
            let differ = part.clone().filter(|&at| one.get(at) != other.get(at)).count();
            if differ == 0 {
                continue;
            }
            comparison.differing_bytes += differ as u64;
            comparison.count += 1;
            if comparison.differences.len() < LIST_LIMIT {
                comparison.differences.push(places.difference(one, part));
            }
        }
    }
    comparison
}

/// The stretches that differ. What only one of them has is the last one.
fn runs(one: &[u8], other: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut differ = |range: Range<usize>| match runs.last_mut() {
        Some(last) if range.start - last.end <= GAP => last.end = range.end,
        _ => runs.push(range),
    };
    let differing = one.iter().zip(other).enumerate().filter(|(_, (one, other))| one != other);
    differing.for_each(|(at, _)| differ(at..at + 1));
    let (shorter, longer) = (one.len().min(other.len()), one.len().max(other.len()));
    if shorter != longer {
        differ(shorter..longer);
    }
    runs
}

/// What is where in an image.
struct Places<'a> {
    dissection: Dissection,
    core: Option<&'a Symbols>,
    /// Where regions and files begin and end, in order.
    borders: Vec<usize>,
}

impl<'a> Places<'a> {
    fn of(image: &[u8], core: Option<&'a Symbols>) -> Self {
        let dissection = Dissection::of(image);
        let mut borders: Vec<usize> =
            files(&dissection).flat_map(|file| [file.range().start, file.range().end]).collect();
        borders.extend(dissection.regions.iter().map(|region| region.range().end));
        borders.sort_unstable();
        Self { dissection, core, borders }
    }

    /// Cuts a range where another region or file begins.
    fn split(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let inside = self.borders.iter().copied().filter(|border| range.contains(border) && *border != range.start);
        let mut start = range.start;
        let mut parts: Vec<Range<usize>> = Vec::new();
        for border in inside.chain([range.end]) {
            parts.push(start..border);
            start = border;
        }
        parts
    }

    fn difference(&self, image: &[u8], range: Range<usize>) -> Difference {
        let region = self.dissection.region_at(range.start);
        let file = files(&self.dissection).find(|file| file.range().contains(&range.start));
        Difference {
            offset: range.start as u64,
            size: range.len() as u64,
            region: region.map_or_else(|| "behind the end".to_owned(), |region| region.content.to_string()),
            file: file.map(|file| file.name.clone().unwrap_or_else(|| guids::name(file.guid))),
            symbol: file.and_then(|file| self.symbol(image, file, range.start as u64)),
        }
    }

    /// What of a file's program is at `offset`.
    fn symbol(&self, image: &[u8], file: &File, offset: u64) -> Option<String> {
        let payload = file.payload?;
        let inside = offset.checked_sub(payload.offset).filter(|inside| *inside < payload.size);
        let Some(inside) = inside else { return Some("header of the file".to_owned()) };
        if payload.is_pe {
            let range = payload.offset as usize..(payload.offset + payload.size) as usize;
            return symbols::pe_section(image.get(range)?, inside);
        }
        let core = self.dissection.descriptor?.info.core_offset;
        self.core.filter(|_| payload.offset == core)?.at(inside)
    }
}

fn files(dissection: &Dissection) -> impl Iterator<Item = &File> {
    dissection.regions.iter().flat_map(|region| match &region.content {
        Content::Code(volume) => volume.files.as_slice(),
        _ => &[],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_files_have_no_difference() {
        let comparison = compare(b"same", b"same", None);
        assert!(comparison.is_equal());
        assert_eq!(comparison.sha256[0], comparison.sha256[1]);
    }

    #[test]
    fn near_differences_are_one_and_far_ones_are_two() {
        let one = vec![0u8; 200];
        let mut other = one.clone();
        for at in [10, 12, 12 + GAP + 1, 100] {
            other[at] = 1;
        }
        let found = compare(&one, &other, None);
        let places: Vec<_> = found.differences.iter().map(|difference| (difference.offset, difference.size)).collect();
        assert_eq!((places, found.differing_bytes), (vec![(10, 20), (100, 1)], 4));
    }

    #[test]
    fn what_only_one_file_has_differs() {
        let found = compare(&[0; 100], &[0; 130], None);
        assert_eq!((found.differences[0].offset, found.differences[0].size, found.differing_bytes), (100, 30, 30));
        assert_eq!(compare(&[0; 130], &[0; 100], None).differences[0].region, "unknown");
    }

    #[test]
    fn very_many_differences_are_counted() {
        let one = vec![0u8; 40 * (LIST_LIMIT + 5)];
        let other: Vec<u8> = (0..one.len()).map(|at| u8::from(at % 40 == 0)).collect();
        let found = compare(&one, &other, None);
        assert_eq!((found.count, found.differences.len()), (LIST_LIMIT + 5, LIST_LIMIT));
    }
}
