//! Memory protection as EFI_MEMORY_ATTRIBUTE_PROTOCOL shows and changes it (UEFI 2.10 §37.7).

use alloc::string::String;

use uefi_raw::Status;
use uefi_raw::protocol::memory_protection::MemoryAttributeProtocol;
use uefi_raw::table::boot::{AllocateType, MemoryAttribute, MemoryType};

use crate::harness::{Outcome, Test};
use crate::support::{located, own_image};

pub const TESTS: &[Test] = tests![
    a_page_becomes_read_only_and_writable_again,
    rights_are_set_one_by_one,
    pages_with_different_rights_have_no_common_ones,
    freed_pages_are_writable_again,
    wrong_arguments_are_refused,
    the_code_of_this_program_is_read_only,
    the_data_of_this_program_is_not_executable,
    stack_and_pool_are_not_executable,
    page_zero_is_not_mapped,
];

const READ_ONLY: MemoryAttribute = MemoryAttribute::READ_ONLY;
const NO_EXECUTE: MemoryAttribute = MemoryAttribute::EXECUTE_PROTECT;
const NO_READ: MemoryAttribute = MemoryAttribute::READ_PROTECT;

fn protocol() -> Result<*mut MemoryAttributeProtocol, String> {
    located(&MemoryAttributeProtocol::GUID)
}

fn rights(address: u64, pages: u64) -> Result<MemoryAttribute, Status> {
    let (protocol, mut attributes) = (protocol().map_err(|_| Status::NOT_FOUND)?, MemoryAttribute::empty());
    match call!(protocol.get_memory_attributes(address, pages * 4096, &mut attributes)) {
        Status::SUCCESS => Ok(attributes & (READ_ONLY | NO_EXECUTE | NO_READ)),
        status => Err(status),
    }
}

fn page_of<T>(value: *const T) -> u64 {
    value.addr() as u64 & !0xFFF
}

/// Runs `f` with three pages of data.
fn with_pages(f: impl FnOnce(*mut MemoryAttributeProtocol, u64) -> Outcome) -> Outcome {
    let (protocol, mut address) = (protocol()?, 0);
    want!(SUCCESS, bs!(allocate_pages(AllocateType::ANY_PAGES, MemoryType::LOADER_DATA, 3, &mut address)));
    let outcome = f(protocol, address);
    let _ = call!(protocol.clear_memory_attributes(address, 3 * 4096, READ_ONLY | NO_READ));
    want!(SUCCESS, bs!(free_pages(address, 3)));
    outcome
}

fn a_page_becomes_read_only_and_writable_again() -> Outcome {
    with_pages(|protocol, page| {
        want!(SUCCESS, call!(protocol.set_memory_attributes(page, 4096, READ_ONLY)));
        check!(rights(page, 1).is_ok_and(|rights| rights.contains(READ_ONLY)), "{:?}", rights(page, 1));
        want!(SUCCESS, call!(protocol.clear_memory_attributes(page, 4096, READ_ONLY)));
        check!(rights(page, 1).is_ok_and(|rights| !rights.contains(READ_ONLY)), "{:?}", rights(page, 1));
        efi!((page as *mut u8).write_volatile(1));
        Ok(())
    })
}

fn rights_are_set_one_by_one() -> Outcome {
    with_pages(|protocol, page| {
        want!(SUCCESS, call!(protocol.clear_memory_attributes(page, 3 * 4096, READ_ONLY | NO_EXECUTE | NO_READ)));
        same!(rights(page, 3), Ok(MemoryAttribute::empty()));
        let mut expected = MemoryAttribute::empty();
        for right in [NO_EXECUTE, READ_ONLY, NO_READ] {
            expected |= right;
            want!(SUCCESS, call!(protocol.set_memory_attributes(page, 3 * 4096, right)));
            same!(rights(page, 3), Ok(expected));
        }
        for right in [READ_ONLY, NO_READ, NO_EXECUTE] {
            expected -= right;
            want!(SUCCESS, call!(protocol.clear_memory_attributes(page, 3 * 4096, right)));
            same!(rights(page, 3), Ok(expected));
        }
        want!(SUCCESS, call!(protocol.set_memory_attributes(page, 3 * 4096, NO_EXECUTE)));
        Ok(())
    })
}

fn pages_with_different_rights_have_no_common_ones() -> Outcome {
    with_pages(|protocol, page| {
        want!(SUCCESS, call!(protocol.set_memory_attributes(page + 4096, 4096, READ_ONLY)));
        same!(rights(page, 3), Err(Status::NO_MAPPING));
        check!(rights(page, 1).is_ok() && rights(page + 4096, 1).is_ok());
        Ok(())
    })
}

fn freed_pages_are_writable_again() -> Outcome {
    let (protocol, mut address) = (protocol()?, 0);
    want!(SUCCESS, bs!(allocate_pages(AllocateType::ANY_PAGES, MemoryType::LOADER_DATA, 1, &mut address)));
    want!(SUCCESS, call!(protocol.set_memory_attributes(address, 4096, READ_ONLY)));
    want!(SUCCESS, bs!(free_pages(address, 1)));
    let mut again = address;
    want!(SUCCESS, bs!(allocate_pages(AllocateType::ADDRESS, MemoryType::LOADER_DATA, 1, &mut again)));
    let rights = rights(address, 1);
    want!(SUCCESS, bs!(free_pages(address, 1)));
    check!(rights.is_ok_and(|rights| !rights.contains(READ_ONLY)), "{rights:?}");
    Ok(())
}

fn wrong_arguments_are_refused() -> Outcome {
    with_pages(|protocol, page| {
        let mut attributes = MemoryAttribute::empty();
        want!(INVALID_PARAMETER, call!(protocol.get_memory_attributes(page, 0, &mut attributes)));
        want!(INVALID_PARAMETER, call!(protocol.get_memory_attributes(page, 4096, core::ptr::null_mut())));
        want!(INVALID_PARAMETER, call!(protocol.set_memory_attributes(page, 0, READ_ONLY)));
        want!(INVALID_PARAMETER, call!(protocol.clear_memory_attributes(page, 0, READ_ONLY)));
        for other in [MemoryAttribute::empty(), MemoryAttribute::WRITE_BACK, MemoryAttribute::RUNTIME] {
            want!(INVALID_PARAMETER, call!(protocol.set_memory_attributes(page, 4096, other)));
            want!(INVALID_PARAMETER, call!(protocol.clear_memory_attributes(page, 4096, other)));
        }
        let status = call!(protocol.set_memory_attributes(page + 8, 4096, READ_ONLY));
        check!(status.is_error(), "{status:?}");
        let status = call!(protocol.get_memory_attributes(page, 100, &mut attributes));
        check!(status.is_error(), "{status:?}");
        Ok(())
    })
}

fn the_code_of_this_program_is_read_only() -> Outcome {
    same!(rights(page_of(the_code_of_this_program_is_read_only as *const ()), 1), Ok(READ_ONLY));
    Ok(())
}

fn the_data_of_this_program_is_not_executable() -> Outcome {
    static mut DATA: u64 = 1;
    let data = page_of(&raw const DATA);
    same!(rights(data, 1), Ok(NO_EXECUTE));
    let header = rights(own_image().image_base.addr() as u64, 1);
    check!(header.is_ok_and(|rights| rights.contains(NO_EXECUTE)), "{header:?}");
    Ok(())
}

fn stack_and_pool_are_not_executable() -> Outcome {
    let local = 0u64;
    same!(rights(page_of(&raw const local), 1), Ok(NO_EXECUTE));
    let pool = alloc::boxed::Box::new(0u64);
    same!(rights(page_of(&raw const *pool), 1), Ok(NO_EXECUTE));
    Ok(())
}

fn page_zero_is_not_mapped() -> Outcome {
    let rights = rights(0, 1);
    check!(rights == Err(Status::NO_MAPPING) || rights.is_ok_and(|rights| rights.contains(NO_READ)), "{rights:?}");
    Ok(())
}
