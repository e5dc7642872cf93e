# Xen's public headers as XEN_HEADERS takes them, from Xen's source: nothing of Xen is compiled for the firmware, and Xen
# itself can be built with the firmware in it.
{ stdenv, xen }:
stdenv.mkDerivation {
  pname = "xen-public-headers";
  inherit (xen) version src;
  dontConfigure = true;
  dontBuild = true;
  installPhase = ''
    mkdir $out
    cp -r xen/include/public $out/xen
  '';
  dontFixup = true;
}
