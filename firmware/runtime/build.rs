//! Link options of the image; only for the UEFI target.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("uefi") {
        return;
    }
    // The last two make the bytes depend on nothing but the code.
    for option in ["/subsystem:efi_runtime_driver", "/align:4096", "/Brepro", "/debug:none"] {
        println!("cargo::rustc-link-arg-bins={option}");
    }
}
