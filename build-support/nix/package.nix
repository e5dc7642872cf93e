# The firmware for one flavour of guests, laid out and named as nixpkgs' OVMF, so that it takes the place of OVMF-xen.
{
  lib,
  stdenv,
  version,
  firmware,
  ovmf-xen-release,
  flavour,
}:
stdenv.mkDerivation (package: {
  pname = "ovmf-xen-${flavour}";
  inherit version;
  dontUnpack = true;
  installPhase = ''
    release=${ovmf-xen-release}/ovmf-xen-${version}
    mkdir -p $out/FV $out/share/doc/ovmf-xen
    cp ${firmware}/ovmf-xen-${flavour}/FV/*.fd $out/FV/
    cp $release/LICENSE-* $release/sbom.cdx.json $out/share/doc/ovmf-xen/
    sed "s,/usr/share/ovmf-xen/FV/,$out/FV/," $release/${flavour}.cfg >$out/share/doc/ovmf-xen/${flavour}.cfg
  '';
  dontFixup = true;
  passthru = {
    # What is compiled, for `nix build --rebuild`.
    images = firmware;
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
