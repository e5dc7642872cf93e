//! Authenticated writes: updates that openssl and efitools make on the spot.

use std::arch::{asm, x86_64::_rdtsc};

use uefi_raw::Status;
use uefi_raw::table::runtime::RuntimeServices;

use super::machine::Machine;
use super::tools::{APPEND, AUTHENTICATED, Form, Signer, list, self_signed, signed, variable};
use super::{DESCRIPTOR_SIZE, get_of, set_virtual_address_map, terminated, virtual_map};

/// What an operating system has to give a runtime service (UEFI 2.10 §2.3.4).
const LEAST_STACK: usize = 4096;

/// A SetVariable with the data of `signer`: its status, the bytes of the caller's stack that it used, and how long it took.
fn set(services: &RuntimeServices, name: &str, append: bool, data: &[u8]) -> (Status, usize, u64) {
    let (vendor, units) = (variable(name).0, terminated(name));
    let attributes = if append { AUTHENTICATED | APPEND } else { AUTHENTICATED };
    let (mut status, mut ticks) = (Status::ABORTED, 0);
    let used = stack_used(&mut || {
        // SAFETY: valid pointers to a running driver's service; the counter can always be read.
        unsafe {
            let before = _rdtsc();
            status = (services.set_variable)(units.as_ptr(), &vendor, attributes, data.len(), data.as_ptr());
            ticks = _rdtsc() - before;
        }
    });
    (status, used, ticks)
}

/// Calls the function on a stack of its own, and returns how much of it is not as it was.
fn stack_used(function: &mut dyn FnMut()) -> usize {
    const PAINT: u64 = 0x5a5a_5a5a_5a5a_5a5a;
    let mut stack = vec![PAINT; 0x2000];
    let mut function = function;
    // SAFETY: `call` gets what it expects, on a stack that is large enough and 16-byte aligned; the registers that a
    // called function may change are named.
    unsafe {
        let top = stack.as_mut_ptr_range().end.map_addr(|address| address & !15);
        asm!(
            "mov r12, rsp",
            "mov rsp, {top}",
            "call {call}",
            "mov rsp, r12",
            top = in(reg) top,
            call = sym call,
            in("rdi") &raw mut function,
            out("r12") _,
            clobber_abi("C"),
        );
    }
    let untouched = stack.iter().take_while(|&&word| word == PAINT).count();
    assert!(untouched > 0, "the stack of the test is too small");
    (stack.len() - untouched) * 8
}

unsafe extern "C" fn call(function: *mut &mut dyn FnMut()) {
    // SAFETY: passed by `stack_used`.
    unsafe { (*function)() };
}

/// An update of a variable that holds certificates.
fn update(signer: &Signer, name: &str, append: bool, second: u8, holders: &[&Signer]) -> Vec<u8> {
    let content: Vec<u8> = holders.iter().flat_map(|holder| list(holder)).collect();
    let attributes = if append { AUTHENTICATED | APPEND } else { AUTHENTICATED };
    signed(signer, &Form::default(), variable(name), attributes, second, &content)
}

#[test]
#[ignore = "loads the image named in RUNTIME_IMAGE"]
fn signed_updates_are_verified_at_virtual_addresses_and_on_little_stack() {
    let (platform, large) = (self_signed("platform", "rsa:2048"), self_signed("large", "rsa:4096"));
    let machine = Machine::start();
    for name in ["db", "KEK", "PK"] {
        let data = update(&platform, name, false, 1, &[&platform, &large][..if name == "KEK" { 2 } else { 1 }]);
        let (status, used, _) = set(machine.services(), name, false, &data);
        assert_eq!(status, Status::SUCCESS, "{name}");
        assert!(used < LEAST_STACK, "{name}: {used}");
    }
    let global = variable("PK").0;
    assert_eq!(get_of(machine.services(), global, "SetupMode").expect("told").1, [0]);

    machine.exit_boot_services();
    let map = virtual_map(&[machine.data(), machine.image()]);
    assert_eq!(set_virtual_address_map(machine.services(), &map, DESCRIPTOR_SIZE, 1), Status::SUCCESS);
    machine.forget_physical();
    let services = machine.virtual_services();
    let rogue = self_signed("rogue", "rsa:4096");
    for (name, data, append, expected) in [
        ("2048 bits", update(&platform, "db", false, 2, &[&large]), false, Status::SUCCESS),
        ("the same again", update(&platform, "db", false, 2, &[&large]), false, Status::SECURITY_VIOLATION),
        ("4096 bits", update(&large, "db", false, 3, &[&large]), false, Status::SUCCESS),
        ("append", update(&large, "db", true, 4, &[&large, &platform, &rogue]), true, Status::SUCCESS),
        ("rogue", update(&rogue, "db", false, 5, &[&rogue]), false, Status::SECURITY_VIOLATION),
    ] {
        let (status, used, ticks) = set(services, "db", append, &data);
        println!("{name}: {status:?}, {used} bytes of the caller's stack, {ticks} ticks");
        assert_eq!(status, expected, "{name}");
        assert!(used < LEAST_STACK, "{name}: {used}");
    }
    let (status, _, _) = set(services, "PK", false, &update(&platform, "PK", false, 9, &[]));
    assert_eq!(status, Status::SUCCESS);
    assert_eq!(get_of(services, global, "SetupMode").expect("told").1, [1]);
}
