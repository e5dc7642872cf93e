# Builder of the stand-in: the phases of nixpkgs' stdenv, as far as ovmf-xen's flake relies on them.
set -euo pipefail
export HOME=$NIX_BUILD_TOP/no-home
. "$setup"

cd "$NIX_BUILD_TOP"
if [ -z "${dontUnpack-}" ]; then
    cp -r "$src" source
    chmod -R u+w source
    cd source
fi
eval "${postPatch-}"
[ -n "${dontConfigure-}" ] || eval "${configurePhase-}"
[ -n "${dontBuild-}" ] || eval "${buildPhase-}"
[ -n "${dontInstall-}" ] || eval "${installPhase-}"
