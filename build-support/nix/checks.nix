# `nix flake check`, as far as no guest is booted.
{
  stdenv,
  dosfstools,
  mtools,
  tree,
  cargoBuild,
  xenLibraries,
  callPackage,
  firmware,
  packages,
}:
let
  # A check that succeeds has nothing to tell. Tests read scenarios and documents too.
  cargoCheck =
    arguments:
    cargoBuild (
      xenLibraries
      // {
        src = tree;
        installPhase = "touch $out";
      }
      // arguments
    );
  # Compiled again, in another folder.
  again = firmware.overrideAttrs (before: {
    pname = "${before.pname}-again";
    preBuild = ''
      cp -r . ../elsewhere
      cd ../elsewhere
    '';
  });
in
{
  build = packages.ovmf-xen;
  release = packages.ovmf-xen-release;
  varstored = packages.ovmf-xen-varstored;
  unit = cargoCheck {
    pname = "ovmf-xen-unit-tests";
    # File systems made by others are read, and ours by theirs.
    nativeBuildInputs = xenLibraries.nativeBuildInputs ++ [
      dosfstools
      mtools
    ];
    buildPhase = "cargo test --locked --offline";
  };
  lints = cargoCheck {
    pname = "ovmf-xen-lints";
    toolchain = callPackage ./toolchain.nix { withLints = true; };
    buildPhase = ''
      cargo fmt --all --check
      cargo clippy --locked --offline --all-targets --all-features -- -D warnings
      lint() { cargo clippy --locked --offline --release --package $1 --target $2 -- -D warnings; }
      lint entry x86_64-unknown-none
      lint runtime x86_64-unknown-uefi
      lint guest x86_64-unknown-uefi
    '';
  };
  rebuild = stdenv.mkDerivation {
    name = "ovmf-xen-rebuild-compare";
    dontUnpack = true;
    installPhase = ''
      for file in OVMF.fd OVMF_CODE.fd OVMF_VARS.fd; do
        cmp ${firmware}/ovmf-xen-pvh/FV/$file ${again}/ovmf-xen-pvh/FV/$file
      done
      touch $out
    '';
  };
}
