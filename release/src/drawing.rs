//! An image as text: a drawing of its regions, then what is in them.

use std::fmt::Write as _;

use image::dissect::nv::{Journal, Variables};
use image::dissect::volume::Volume;
use image::dissect::{Content, Dissection, Region};

use crate::digest::sha256;
use crate::files::printable;
use crate::guids;
use crate::var_store;

/// Columns of the box that stands for a region.
const WIDTH: usize = 14;

/// Draws an image. `name` is what it is called.
#[must_use]
pub fn draw(name: &str, image: &[u8], dissection: &Dissection) -> String {
    let mut out =
        format!("{name}: {} bytes ({})\nSHA-256 {}\n\n", image.len(), size(image.len() as u64), sha256(image));
    let bar = "─".repeat(WIDTH);
    for (index, region) in dissection.regions.iter().enumerate() {
        let (left, right) = if index == 0 { ('┌', '┐') } else { ('├', '┤') };
        line(&mut out, format!("{:#010x} {left}{bar}{right}", region.offset));
        let text = region.content.to_string();
        line(&mut out, format!("           │ {text:<0$}│ {1:>9}  {2}", WIDTH - 1, size(region.size), about(region)));
    }
    line(&mut out, format!("{:#010x} └{bar}┘\n", dissection.size));
    line(&mut out, "SHA-256 of the regions".to_owned());
    for region in &dissection.regions {
        line(&mut out, format!("  {:<12} {}", region.content.to_string(), sha256(&image[region.range()])));
    }
    for region in &dissection.regions {
        match &region.content {
            Content::Vars(variables) => list_variables(&mut out, variables),
            Content::Code(volume) => list_files(&mut out, image, volume),
            _ => {}
        }
    }
    if let Some(descriptor) = dissection.descriptor {
        let info = descriptor.info;
        line(
            &mut out,
            format!("\nThe core is at {:#x}; what it is told is at {:#x}", info.core_offset, descriptor.offset),
        );
    }
    if !dissection.damages.is_empty() {
        line(&mut out, "\nDamaged".to_owned());
        for damage in &dissection.damages {
            line(&mut out, format!("  {:#010x} {}", damage.offset, damage.problem));
        }
    }
    out
}

fn line(out: &mut String, text: String) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{}", text.trim_end());
}

/// A size as people say it.
fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

/// The region in a few words.
fn about(region: &Region) -> String {
    match &region.content {
        Content::ElfHeader(header) => {
            format!("a PVH guest has it at {:#x} and starts at {:#x}", header.load_address, header.entry)
        }
        Content::Vars(vars) => {
            let (count, free) = (vars.variables.len(), vars.capacity.saturating_sub(vars.used));
            format!("{count} variables, {} of {} bytes free, {}", free, vars.capacity, journal(vars.journal))
        }
        Content::Code(volume) => format!("{} files, {} bytes free", volume.files.len(), volume.free),
        Content::Spare => "empty: the place of the variables".to_owned(),
        Content::Erased | Content::Unknown => String::new(),
    }
}

fn journal(journal: Journal) -> &'static str {
    match journal {
        Journal::Clean => "no write under way",
        Journal::Pending => "a cut write to be completed",
        Journal::Abandoned => "a cut write to be given up",
        Journal::Rewritten => "its journal cut while it was rewritten",
        Journal::Missing => "no journal",
    }
}

fn list_files(out: &mut String, image: &[u8], volume: &Volume) {
    line(
        out,
        format!("\nFiles of the volume {}", volume.name.map_or_else(|| "without a name".to_owned(), guids::name)),
    );
    for file in &volume.files {
        let name = file.name.as_deref().map_or_else(|| guids::name(file.guid), printable);
        let hash = sha256(&image[file.range()]);
        let kind = file_type(file.kind);
        line(out, format!("  {:#010x} {:>9} B  {kind:<8} {}  {hash}  {name}", file.offset, file.size, file.guid));
    }
}

/// `EFI_FV_FILETYPE_*`.
fn file_type(kind: u8) -> &'static str {
    match kind {
        0x01 => "raw",
        0x02 => "freeform",
        0x03 => "sec",
        0x04 => "pei",
        0x05 => "dxe",
        0x06 => "peim",
        0x07 => "driver",
        0x09 => "app",
        0x0b => "volume",
        _ => "other",
    }
}

fn list_variables(out: &mut String, variables: &Variables) {
    line(out, format!("\nVariables ({} deleted records beside them)", variables.deleted));
    for variable in &variables.variables {
        let attributes = var_store::attributes_text(variable.attributes);
        let (name, vendor) = (printable(&variable.name), guids::name(variable.guid));
        line(
            out,
            format!("  {:#010x} {:>6} B  {attributes:<14} {vendor} {name}", variable.offset, variable.data.len()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_the_largest_whole_unit() {
        assert_eq!([size(2 << 20), size(528 << 10), size(0x8_4001), size(0)], ["2 MiB", "528 KiB", "540673 B", "0 B"]);
    }

    #[test]
    fn damages_are_drawn_with_their_place() {
        let image = [0x5a; 0x2000];
        let text = draw("x.fd", &image, &Dissection::of(&image));
        assert!(text.contains("unknown") && text.contains("0x00000000 bytes that are neither"), "{text}");
    }
}
