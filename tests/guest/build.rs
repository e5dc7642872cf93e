//! EFI applications whose bytes depend on their source only.

fn main() {
    println!("cargo:rustc-link-arg-bins=/Brepro");
    println!("cargo:rustc-link-arg-bins=/debug:none");
}
