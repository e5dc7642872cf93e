//! The monotonic counter (UEFI 2.10 §7.5, §8.5.2): its high half is kept in a variable and grows with each start.

use uefi_raw::table::runtime::VariableAttributes;
use uefi_raw::{Guid, Status, guid};
use variables::Key;

use super::state::{self, State, utf16};

/// Vendor and name of the variable, as EDK2 has them, so that a store of its goes on counting.
const VENDOR: Guid = guid!("eb704011-1402-11d3-8e77-00a0c969723b");
const NAME: [u16; 3] = utf16(b"MTC");
const ATTRIBUTES: VariableAttributes = VariableAttributes::NON_VOLATILE
    .union(VariableAttributes::BOOTSERVICE_ACCESS)
    .union(VariableAttributes::RUNTIME_ACCESS);

/// Begins the count of this start. A store too full to note it only makes the next start repeat the numbers.
pub fn start() {
    let _ = state::with(|state| {
        let before = state.variables.get(Key::new(VENDOR, &NAME)).ok();
        let before = before.and_then(|variable| variable.data.try_into().ok()).map_or(0, u32::from_le_bytes);
        let high = before.wrapping_add(1);
        state.monotonic_count = u64::from(high) << u32::BITS;
        store(state, high)
    });
}

/// GetNextMonotonicCount, a boot service.
pub unsafe extern "efiapi" fn get_next_monotonic_count(count: *mut u64) -> Status {
    if count.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let next = state::with(|state| {
        let next = state.monotonic_count.wrapping_add(1);
        if high(next) != high(state.monotonic_count) {
            store(state, high(next))?;
        }
        state.monotonic_count = next;
        Ok(next)
    });
    match flatten(next) {
        Ok(next) => {
            // SAFETY: the caller's pointer, checked for null.
            unsafe { count.write_unaligned(next) };
            Status::SUCCESS
        }
        Err(status) => status,
    }
}

/// GetNextHighMonotonicCount.
pub unsafe extern "efiapi" fn get_next_high_monotonic_count(count: *mut u32) -> Status {
    if count.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let next = state::with(|state| {
        let next = high(state.monotonic_count).wrapping_add(1);
        store(state, next)?;
        state.monotonic_count = u64::from(next) << u32::BITS;
        Ok(next)
    });
    match flatten(next) {
        Ok(next) => {
            // SAFETY: the caller's pointer, checked for null.
            unsafe { count.write_unaligned(next) };
            Status::SUCCESS
        }
        Err(status) => status,
    }
}

const fn high(count: u64) -> u32 {
    (count >> u32::BITS) as u32
}

fn store(state: &mut State, high: u32) -> Result<(), Status> {
    state.variables.set(Key::new(VENDOR, &NAME), ATTRIBUTES, &high.to_le_bytes())
}

/// The service has one error of its own.
fn flatten<T>(result: Result<Result<T, Status>, Status>) -> Result<T, Status> {
    result?.map_err(|_| Status::DEVICE_ERROR)
}
