# The part of the tree that cargo and build-support/build read.
{ lib, tree }:
let
  root = toString tree;
  isCompiled =
    path: _type:
    let
      name = lib.removePrefix "${root}/" path;
    in
    !(
      lib.hasSuffix ".md" name
      || lib.hasSuffix ".nix" name
      || builtins.elem name [
        ".ci"
        "flake.lock"
        "out"
        "target"
        "tests/bench"
        "tests/nix"
        "tests/nixos"
        "tests/run"
        "tests/scenarios"
        "tests/setup"
      ]
    );
in
builtins.path {
  name = "ovmf-xen-source";
  path = root;
  filter = isCompiled;
}
