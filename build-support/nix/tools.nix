# The command `ovmf-xen`: images, variable stores, releases.
{ cargoBuild }:
cargoBuild {
  pname = "ovmf-xen-tools";
  # The release profile is the firmware's: whole-program optimisation, which a command that runs for a second does not need.
  CARGO_PROFILE_RELEASE_LTO = "off";
  CARGO_PROFILE_RELEASE_CODEGEN_UNITS = "16";
  buildPhase = "cargo build --locked --offline --release --package ovmf-xen";
  installPhase = "install -D target/release/ovmf-xen $out/bin/ovmf-xen";
  meta.mainProgram = "ovmf-xen";
}
