# The unsigned release set: what `ovmf-xen pin` makes of the source and the images.
{
  stdenv,
  tree,
  version,
  firmware,
  ovmf-xen-tools,
}:
stdenv.mkDerivation {
  pname = "ovmf-xen-release";
  inherit version;
  src = tree;
  dontUnpack = true;
  installPhase = ''
    ${ovmf-xen-tools}/bin/ovmf-xen pin --source $src --images ${firmware} --out $out
  '';
  dontFixup = true;
}
