{
  description = "Stand-in for nixpkgs: the functions and packages that ovmf-xen's flake uses, from this machine";
  outputs = _: { legacyPackages.x86_64-linux = import ./packages.nix; };
}
