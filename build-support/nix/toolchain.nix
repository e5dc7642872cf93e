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
  archives = release.archives // (if withLints then release.lint-archives else { });
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
  '';
  # Stripping takes the symbols of the libraries that are compiled into the images.
  dontStrip = true;
}
