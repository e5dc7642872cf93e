# Builder of the stand-in: the phases of nixpkgs' stdenv, as far as ovmf-xen's flake relies on them.
set -euo pipefail
export PATH=/usr/local/bin:/usr/bin:/bin HOME=$NIX_BUILD_TOP/no-home
for input in ${nativeBuildInputs-}; do
    PATH=$input/bin:$PATH
done
runHook() { eval "${!1-}"; }
# This machine has /bin/bash.
patchShebangs() { :; }
substituteInPlace() { # FILE --replace-fail FROM TO
    grep -qF -- "$3" "$1" || { echo "$1: has no $3" >&2; return 1; }
    sed -i "s|$3|$4|g" "$1"
}

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
