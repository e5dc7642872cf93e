//! Generates Rust declarations from the C headers of Xen's stable libraries (Debian package `libxen-dev`), and links them.
#![expect(clippy::expect_used, reason = "a build script reports by failing")]

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=src/xen/libraries.h");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=XEN_HEADERS");
    for library in ["xendevicemodel", "xenforeignmemory", "xenevtchn", "xenstore"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
    let headers = env::var("XEN_HEADERS").unwrap_or_else(|_| "/usr/include".into());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("libraries.rs");
    bindgen::Builder::default()
        .header("src/xen/libraries.h")
        .clang_args(["-D__XEN_TOOLS__", "-idirafter", &headers])
        .generate_comments(false)
        .layout_tests(false)
        .default_macro_constant_type(bindgen::MacroTypeVariation::Unsigned)
        .allowlist_function("xendevicemodel_(open|close|nr_vcpus)")
        .allowlist_function("xendevicemodel_(create|destroy)_ioreq_server|xendevicemodel_set_ioreq_server_state")
        .allowlist_function("xendevicemodel_map_io_range_to_ioreq_server")
        .allowlist_function("xenforeignmemory_(open|close|map|unmap|map_resource|unmap_resource)")
        .allowlist_function("xenevtchn_(open|close|fd|notify|bind_interdomain|unbind|pending|unmask)")
        .allowlist_function("xs_(open|close|read|write|rm|directory|watch|fileno|check_watch|is_domain_introduced)")
        .allowlist_type("ioreq")
        .allowlist_var(
            "STATE_IO.*|IOREQ_(READ|WRITE)|IOREQ_TYPE_PIO|XENMEM_resource_ioreq_server|HVM_IOREQSRV_BUFIOREQ_OFF",
        )
        .generate()
        .expect("reading the headers of Xen's libraries: is libxen-dev installed?")
        .write_to_file(out)
        .expect("writing the generated declarations");
}
