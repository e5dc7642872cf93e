# The command `ovmf-xen`: images, variable stores, releases.
{ cargoBuild }:
cargoBuild {
  pname = "ovmf-xen-tools";
  # The release profile is the firmware's, made for small images; this is compiled to be compiled fast.
  CARGO_PROFILE_DEV_DEBUG = "0";
  buildPhase = "cargo build --locked --offline --package ovmf-xen";
  installPhase = "install -D target/debug/ovmf-xen $out/bin/ovmf-xen";
  meta.mainProgram = "ovmf-xen";
}
