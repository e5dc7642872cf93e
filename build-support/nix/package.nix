# The firmware for one flavour of guests, laid out and named as nixpkgs' OVMF, so that it takes the place of OVMF-xen.
{
  lib,
  stdenv,
  tree,
  version,
  firmware,
  flavour,
}:
stdenv.mkDerivation (package: {
  pname = "ovmf-xen-${flavour}";
  inherit version;
  src = tree;
  dontUnpack = true;
  installPhase = ''
    mkdir -p $out/FV $out/share/doc/ovmf-xen
    cp ${firmware}/ovmf-xen-${flavour}/FV/*.fd $out/FV/
    cp $src/LICENSE-* $out/share/doc/ovmf-xen/
  '';
  dontFixup = true;
  passthru = {
    mergedFirmware = "${package.finalPackage}/FV/OVMF.fd";
    firmware = "${package.finalPackage}/FV/OVMF_CODE.fd";
    variables = "${package.finalPackage}/FV/OVMF_VARS.fd";
  };
  meta = {
    description = "UEFI firmware for ${lib.toUpper flavour} guests of Xen";
    license = with lib.licenses; [
      mit
      asl20
      bsd2
    ];
    platforms = [ "x86_64-linux" ];
  };
})
