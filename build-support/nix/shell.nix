# `nix develop`: what build-support/setup would install, what is linked with Xen's libraries, and what unit tests run.
{
  lib,
  mkShell,
  llvmPackages,
  dosfstools,
  mtools,
  callPackage,
  xen-headers,
  xenLibraries,
}:
mkShell {
  inherit (xenLibraries) nativeBuildInputs buildInputs;
  packages = [
    (callPackage ./toolchain.nix { withLints = true; })
    dosfstools
    mtools
  ];
  LIBCLANG_PATH = "${lib.getLib llvmPackages.libclang}/lib";
  XEN_HEADERS = xen-headers;
}
