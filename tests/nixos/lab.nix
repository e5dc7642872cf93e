# The command `lab-here`: the lab in the dom0 that it is called in, with the tools that it needs.
{
  writeShellApplication,
  cargoBuild,
  parts,
  binutils,
  dosfstools,
  efitools,
  grub2_efi,
  libisoburn,
  mtools,
  openssl,
  perl,
  util-linux,
  xz,
}:
let
  lab = cargoBuild {
    pname = "ovmf-xen-lab";
    CARGO_PROFILE_DEV_DEBUG = "0";
    buildPhase = "cargo build --locked --offline --package lab";
    installPhase = "install -D target/debug/lab $out/bin/lab";
  };
in
writeShellApplication {
  name = "lab-here";
  runtimeInputs = [
    binutils
    dosfstools
    efitools
    grub2_efi
    lab
    libisoburn
    mtools
    openssl
    perl
    util-linux
    xz
  ];
  text = ''exec lab run --here ${parts.folder} "$@"'';
}
