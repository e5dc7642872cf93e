//! Hands the linker script to the linker.

fn main() {
    println!("cargo:rerun-if-changed=core.ld");
    println!("cargo:rerun-if-changed=src/start.s");
    println!("cargo:rerun-if-changed=src/reset_vector.s");
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rustc-link-arg=--script={folder}/core.ld");
    println!("cargo:rustc-link-arg=--no-dynamic-linker");
    // Relocations are applied by our own few instructions, which know one form.
    println!("cargo:rustc-link-arg=--pack-dyn-relocs=none");
    println!("cargo:rustc-link-arg=--build-id=none");
}
