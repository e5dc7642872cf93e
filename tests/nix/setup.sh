# Of nixpkgs' stdenv what ovmf-xen's flake relies on, for builds and for `nix develop`.
export PATH=/usr/local/bin:/usr/bin:/bin
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
