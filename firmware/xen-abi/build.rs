//! Generates Rust declarations from Xen's public headers (Debian package `libxen-dev`).
#![expect(clippy::expect_used, reason = "a build script reports by failing")]

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=XEN_HEADERS");
    let headers = env::var("XEN_HEADERS").unwrap_or_else(|_| "/usr/include".into());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
    bindgen::Builder::default()
        .header("src/xen.h")
        // The guest ABI is that of x86-64 whatever the machine that builds.
        .clang_args([
            "--target=x86_64-unknown-none",
            "-ffreestanding",
            "-nostdinc",
            "-Isrc/freestanding",
            "-idirafter",
            &headers,
        ])
        .use_core()
        .ctypes_prefix("::core::ffi")
        .derive_default(true)
        .layout_tests(true)
        .generate_comments(false)
        .default_macro_constant_type(bindgen::MacroTypeVariation::Unsigned)
        .allowlist_type("hvm_start_info|hvm_modlist_entry|hvm_memmap_table_entry")
        .allowlist_type("xen_memory_map|xen_add_to_physmap|xen_remove_from_physmap|xen_hvm_param")
        .allowlist_type("evtchn_(alloc_unbound|send|close|unmask)|sched_poll|sched_shutdown")
        .allowlist_type("shared_info|vcpu_time_info|xenstore_domain_interface|xsd_sockmsg|xencons_interface")
        .allowlist_type(
            "grant_entry_v1|blkif_request|blkif_request_indirect|blkif_request_segment|blkif_response|blkif_sring",
        )
        .allowlist_type("xsd_sockmsg_type|xenbus_state|gnttab_query_size")
        .allowlist_var("XEN_HVM_(START_MAGIC_VALUE|MEMMAP_TYPE_.*)|__HYPERVISOR_.*|XENMEM_.*|XENMAPSPACE_.*")
        .allowlist_var(
            "EVTCHNOP_.*|SCHEDOP_.*|SHUTDOWN_.*|HVM_PARAM_.*|HVMOP_(get|set)_param|GNTTABOP_.*|GTF_.*|GNTST_.*",
        )
        .allowlist_var(
            "BLKIF_.*|VDISK_.*|XEN_IO_PROTO_ABI_X86_64|XENSTORE_.*|XS_.*|DOMID_SELF|XENFEAT_.*|XENVER_.*|VCPUOP_.*",
        )
        .generate()
        .expect("reading Xen's public headers: is libxen-dev installed?")
        .write_to_file(out)
        .expect("writing the generated declarations");
}
