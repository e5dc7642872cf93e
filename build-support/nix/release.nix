# The unsigned release set: what `ovmf-xen pin` makes of the source and the images.
{
  cargoBuild,
  tree,
  firmware,
  ovmf-xen-tools,
}:
cargoBuild {
  pname = "ovmf-xen-release";
  src = tree;
  dontBuild = true;
  installPhase = "${ovmf-xen-tools}/bin/ovmf-xen pin --source . --images ${firmware} --out $out";
}
