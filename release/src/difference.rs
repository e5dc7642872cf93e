//! Where two images differ.

use crate::manifest::Artifact;

/// A line per region in which two images of one layout differ: how many bytes, and the first and the last.
#[must_use]
pub fn explain(one: &[u8], other: &[u8], image: &Artifact) -> Vec<String> {
    let mut lines = Vec::new();
    for region in &image.layout {
        let range = region.offset as usize..(region.offset + region.size) as usize;
        let (Some(here), Some(there)) = (one.get(range.clone()), other.get(range)) else {
            lines.push(format!("region {}: one of the files ends before it does", region.region));
            continue;
        };
        let differing: Vec<_> =
            here.iter().zip(there).enumerate().filter(|(_, (a, b))| a != b).map(|(at, _)| at).collect();
        if let (Some(first), Some(last)) = (differing.first(), differing.last()) {
            lines.push(format!(
                "region {}: {} of {} bytes differ, from {:#x} to {:#x}",
                region.region,
                differing.len(),
                region.size,
                region.offset + *first as u64,
                region.offset + *last as u64
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_region_and_its_bytes_are_named() {
        let (manifest, _) = testing::parts();
        let image = manifest.images().next().unwrap();
        let lines = explain(b"header and code", b"header and CodE", image);
        assert_eq!(lines, ["region code: 2 of 4 bytes differ, from 0xb to 0xe"]);
        assert_eq!(
            explain(b"header and code", b"header", image),
            ["region code: one of the files ends before it does"]
        );
    }
}
