{
  description = "UEFI firmware for Xen guests, written in Rust";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      build = import ./build-support/nix {
        inherit pkgs;
        tree = self;
      };
      tests = import ./tests/nixos { inherit pkgs build self; };
    in
    {
      packages.${system} = build.packages // {
        default = build.packages.ovmf-xen;
      };
      overlays.default =
        final: prev:
        (import ./build-support/nix {
          pkgs = final;
          tree = self;
        }).packages;
      nixosModules.default = import ./build-support/nix/module.nix self;
      devShells.${system}.default = build.shell;
      formatter.${system} = pkgs.nixfmt-tree;
      checks.${system} = build.checks // tests.checks;
      # `nix eval --json .#scenarios`: which scenarios are VM tests, and why the others are not.
      inherit (tests) scenarios;
    };
}
