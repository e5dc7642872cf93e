//! Places in code by name: in the core by the symbols of its ELF file, in PE files by section.

use anyhow::{Context as _, Result};
use object::read::elf::ElfFile64;
use object::read::pe::PeFile64;
use object::{Endianness, LittleEndian as LE, Object as _, ObjectSymbol as _, SymbolKind};

/// The core's functions and data in the order of their addresses, which are offsets in the flattened core.
#[derive(Debug, Clone, Default)]
pub struct Symbols(Vec<Symbol>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Symbol {
    address: u64,
    size: u64,
    name: String,
}

impl Symbols {
    /// Reads the symbols of the core's ELF file (`target/x86_64-unknown-none/release/ovmf-xen-core` of a build).
    ///
    /// # Errors
    /// It is no ELF file, or has no symbols.
    pub fn from_elf(elf: &[u8]) -> Result<Self> {
        let elf = ElfFile64::<Endianness>::parse(elf).context("not a 64-bit ELF file")?;
        let named = elf.symbols().filter(|symbol| {
            symbol.is_definition() && !matches!(symbol.kind(), SymbolKind::File | SymbolKind::Section)
        });
        let mut symbols: Vec<Symbol> = named
            .filter_map(|symbol| {
                let name = symbol.name().ok().filter(|name| !name.is_empty())?;
                let name = format!("{:#}", rustc_demangle::demangle(name));
                Some(Symbol { address: symbol.address(), size: symbol.size(), name })
            })
            .collect();
        symbols.sort_by(|one, other| (one.address, one.size, &one.name).cmp(&(other.address, other.size, &other.name)));
        anyhow::ensure!(!symbols.is_empty(), "the ELF file has no symbols; was it stripped?");
        Ok(Self(symbols))
    }

    /// What is at `address`: the symbol that covers it, else the nearest before it, with the distance.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<String> {
        let behind = self.0.partition_point(|symbol| symbol.address <= address);
        let before = self.0.get(..behind)?;
        let covers = |symbol: &&Symbol| address - symbol.address < symbol.size;
        // Symbols do not nest deep; one that covers the address is near.
        let symbol = before.iter().rev().take(8).find(covers).or(before.last())?;
        Some(match address - symbol.address {
            0 => symbol.name.clone(),
            distance => format!("{}+{distance:#x}", symbol.name),
        })
    }
}

/// What is at `offset` of a PE file: its section and the address there. Programs of this build have no symbols.
#[must_use]
pub fn pe_section(pe: &[u8], offset: u64) -> Option<String> {
    let pe = PeFile64::parse(pe).ok()?;
    for section in pe.section_table().iter() {
        let start = u64::from(section.pointer_to_raw_data.get(LE));
        let size = u64::from(section.size_of_raw_data.get(LE));
        if (start..start.saturating_add(size)).contains(&offset) {
            let name = section.raw_name();
            let address = u64::from(section.virtual_address.get(LE)) + (offset - start);
            return Some(format!("{} at {address:#x}", String::from_utf8_lossy(name).trim_end_matches('\0')));
        }
    }
    Some("PE headers".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(list: &[(u64, u64, &str)]) -> Symbols {
        let symbol = |&(address, size, name): &(u64, u64, &str)| Symbol { address, size, name: name.to_owned() };
        Symbols(list.iter().map(symbol).collect())
    }

    #[test]
    fn the_symbol_that_covers_an_address_wins_over_a_nearer_one() {
        let symbols = symbols(&[(0, 0, "start"), (0x10, 0x20, "function"), (0x18, 0, "label"), (0x40, 4, "last")]);
        let at = |address| symbols.at(address).unwrap();
        assert_eq!([at(0), at(8), at(0x10), at(0x1c)], ["start", "start+0x8", "function", "function+0xc"]);
        assert_eq!([at(0x30), at(0x40), at(0x100)], ["label+0x18", "last", "last+0xc0"]);
    }

    #[test]
    fn what_is_no_elf_file_or_no_pe_file_is_said_to_be_none() {
        assert!(Symbols::from_elf(b"MZ").is_err());
        assert_eq!(pe_section(b"\x7fELF", 0), None);
        assert_eq!(symbols(&[]).at(5), None);
    }
}
