# The images, by the script that everybody runs.
{ cargoBuild }:
cargoBuild {
  pname = "ovmf-xen-firmware";
  buildPhase = ''
    runHook preBuild
    build-support/build --offline --out $out
  '';
  dontInstall = true;
}
