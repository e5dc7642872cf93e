# The official Rust release that build-support/toolchain.toml names: its archives, by hash, laid out as rustup does.
# nixpkgs compiles its own rustc, whose code generation differs; with it the images would have other bytes.
{
  stdenv,
  fetchurl,
  autoPatchelfHook,
  zlib,
  withLints ? false,
}:
let
  release = builtins.fromTOML (builtins.readFile ../toolchain.toml);
  # For the lints and `nix develop`: no image depends on them.
  lintArchives = {
    "rustfmt-1.95.0-x86_64-unknown-linux-gnu.tar.xz" = "f1b2a7301513ffdd95ebf22ebbdd932e4d17fc806f748d93924740d0297b1396";
    "clippy-1.95.0-x86_64-unknown-linux-gnu.tar.xz" = "ac779bc9839dd47180806b133e4e2563c4a34716284cd5b8fede8ef289f452ca";
  };
  archives = release.archives // (if withLints then lintArchives else { });
  fetch =
    name:
    fetchurl {
      url = "${release.url}/${name}";
      sha256 = archives.${name};
    };
in
stdenv.mkDerivation {
  pname = "rust-official";
  inherit (release) version;
  srcs = map fetch (builtins.attrNames archives);
  # The programs are made for the usual place of the dynamic linker.
  nativeBuildInputs = [ autoPatchelfHook ];
  buildInputs = [
    stdenv.cc.cc.lib
    zlib
  ];
  dontUnpack = true;
  installPhase = ''
    mkdir $out
    for archive in $srcs; do
      mkdir unpacked
      tar -xf $archive -C unpacked --strip-components=1
      while read -r component; do
        cp -r unpacked/$component/. $out/
        rm $out/manifest.in
      done <unpacked/components
      rm -r unpacked
    done
    rm -r $out/share/doc $out/share/man
    # Programs for the machine that builds are linked by nixpkgs' linker, which notes where their libraries are; rustc
    # would take its own. The firmware's linker is rust-lld in any case.
    ln -sf ${stdenv.cc.bintools}/bin/ld $out/lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld/ld.lld
  '';
  # Stripping takes the symbols of the libraries that are compiled into the images.
  dontStrip = true;
}
