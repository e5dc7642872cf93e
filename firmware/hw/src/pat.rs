//! The page attribute table (Intel SDM vol. 3 §12.12): the memory types that page table entries choose from.
//!
//! One of its eight entries becomes write-combining while the firmware runs, for video memory. It is one that the firmware's page
//! tables use for nothing else; as the CPU starts, it means write-back.

use core::arch::x86_64::__cpuid;

use x86_64::registers::model_specific::Msr;

const TABLE: Msr = Msr::new(0x277);
/// The entry that becomes write-combining: the one of which a page table entry has but the attribute bit.
pub const WRITE_COMBINING: u32 = 4;
const TYPE_WRITE_COMBINING: u64 = 1;
const TYPE_WRITE_BACK: u64 = 6;

/// Lets pages that are marked so ([`PageTables::combine_writes`](crate::paging::PageTables::combine_writes)) combine writes. Nothing
/// changes on a CPU without the table.
pub fn enable() {
    set(TYPE_WRITE_COMBINING);
}

/// Gives the entry back the type that it starts with. Whether the operating system looks at the table or writes its own, it finds
/// what it would find without us.
pub fn disable() {
    set(TYPE_WRITE_BACK);
}

fn set(kind: u64) {
    if __cpuid(1).edx & (1 << 16) == 0 {
        return;
    }
    let mut table = TABLE;
    // SAFETY: the CPU has the register. Only pages of video memory use the entry, and it may be of any type.
    unsafe { table.write(with_entry(table.read(), kind)) };
}

const fn with_entry(table: u64, kind: u64) -> u64 {
    let shift = WRITE_COMBINING * 8;
    table & !(0xFF << shift) | kind << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_entry_changes() {
        const AT_RESET: u64 = 0x0007_0406_0007_0406;
        let combining = with_entry(AT_RESET, TYPE_WRITE_COMBINING);
        assert_eq!(combining, 0x0007_0401_0007_0406);
        assert_eq!(with_entry(combining, TYPE_WRITE_BACK), AT_RESET);
    }
}
