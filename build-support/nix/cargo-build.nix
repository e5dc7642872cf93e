# stdenv.mkDerivation with what build-support/setup would install, by the variables it documents, and cargo's crates from
# Cargo.lock. A function from the arguments of the derivation; `toolchain` may be another one than the official release.
{
  lib,
  stdenv,
  llvmPackages,
  rustPlatform,
  source,
  version,
  rust-official,
  xen-headers,
}:
let
  crates = rustPlatform.importCargoLock { lockFile = ../../Cargo.lock; };
in
{
  toolchain ? rust-official,
  ...
}@arguments:
stdenv.mkDerivation (
  {
    inherit version;
    src = source;
    LIBCLANG_PATH = "${lib.getLib llvmPackages.libclang}/lib";
    XEN_HEADERS = xen-headers;
    postPatch = "patchShebangs build-support tests";
    configurePhase = ''
      export CARGO_HOME=$NIX_BUILD_TOP/cargo-home
      mkdir $CARGO_HOME
      cat >$CARGO_HOME/config.toml <<TEXT
      [source.crates-io]
      replace-with = "vendored"
      [source.vendored]
      directory = "${crates}"
      TEXT
    '';
    # Neither the images nor the official compiler's output gains anything from it.
    dontFixup = true;
  }
  // removeAttrs arguments [ "toolchain" ]
  // {
    nativeBuildInputs = [ toolchain ] ++ arguments.nativeBuildInputs or [ ];
  }
)
