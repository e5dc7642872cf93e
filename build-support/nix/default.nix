# Everything that is built, from one set of packages. Attributes: packages, checks, shell, and for the tests `parts`.
{
  pkgs,
  tree ? ../..,
}:
let
  callPackage = pkgs.lib.callPackageWith (pkgs // parts);

  parts = {
    inherit (manifest.workspace.package) version;
    inherit tree callPackage;
    # What is compiled: a change elsewhere in the tree compiles nothing anew.
    source = callPackage ./source.nix { };
    rust-official = callPackage ./toolchain.nix { };
    xen-headers = callPackage ./xen-headers.nix { };
    cargoBuild = callPackage ./cargo-build.nix { };
    # For the daemon, which alone is linked with Xen's libraries; bindgen reads their headers and those of the C library.
    xenLibraries = {
      nativeBuildInputs = [ pkgs.rustPlatform.bindgenHook ];
      buildInputs = [ pkgs.xen ];
    };
    firmware = callPackage ./firmware.nix { };
  };
  manifest = builtins.fromTOML (builtins.readFile ../../Cargo.toml);

  packages = {
    ovmf-xen-pvh = callPackage ./package.nix {
      flavour = "pvh";
      inherit (packages) ovmf-xen-release;
    };
    ovmf-xen-hvm = callPackage ./package.nix {
      flavour = "hvm";
      inherit (packages) ovmf-xen-release;
    };
    ovmf-xen = pkgs.linkFarm "ovmf-xen-${parts.version}" {
      inherit (packages) ovmf-xen-pvh ovmf-xen-hvm;
    };
    ovmf-xen-tools = callPackage ./tools.nix { };
    ovmf-xen-varstored = callPackage ./varstored.nix { };
    ovmf-xen-release = callPackage ./release.nix { inherit (packages) ovmf-xen-tools; };
  };
in
{
  inherit packages parts;
  # No callPackage: it would add functions to the checks.
  checks = import ./checks.nix {
    inherit (pkgs) stdenv dosfstools mtools;
    inherit (parts) cargoBuild xenLibraries firmware;
    inherit tree callPackage packages;
  };
  shell = callPackage ./shell.nix { };
}
