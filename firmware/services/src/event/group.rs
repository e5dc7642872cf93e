//! Event groups that the firmware itself signals (UEFI 2.10 §7.1.2, `CreateEventEx`).

use uefi_raw::{Guid, guid};

/// ExitBootServices, before it looks at the map key; timers and memory services still work.
pub const BEFORE_EXIT_BOOT_SERVICES: Guid = guid!("8be0e274-3970-4b44-80c5-1ab9502f3bfc");
/// ExitBootServices has succeeded: no timers, no memory services.
pub const EXIT_BOOT_SERVICES: Guid = guid!("27abf055-b1b8-4c26-8048-748f37baa2df");
/// ExitBootServices has failed, because its map key was out of date; everything still works.
pub const EXIT_BOOT_SERVICES_FAILED: Guid = guid!("4f6c5507-232f-4787-b95e-72f862490cb1");
/// SetVirtualAddressMap; notified by the runtime driver.
pub const VIRTUAL_ADDRESS_CHANGE: Guid = guid!("13fa7698-c831-49c7-87ea-8f43fcc25196");
/// The memory map has changed. Notifications must not use the memory services.
pub const MEMORY_MAP_CHANGE: Guid = guid!("78bee926-692f-48fd-9edb-01422ef0d7ab");
/// The boot manager is about to load and start a boot option.
pub const READY_TO_BOOT: Guid = guid!("7ce88fb3-4bd7-4679-87a8-a8d8dee50d2b");
/// Right after the former.
pub const AFTER_READY_TO_BOOT: Guid = guid!("3a2a00ad-98b9-4cdf-a478-702777f1c10b");
