# `nix develop`: what build-support/setup would install, with the lints.
{
  lib,
  mkShell,
  llvmPackages,
  callPackage,
  xen-headers,
}:
mkShell {
  packages = [ (callPackage ./toolchain.nix { withLints = true; }) ];
  LIBCLANG_PATH = "${lib.getLib llvmPackages.libclang}/lib";
  XEN_HEADERS = xen-headers;
}
