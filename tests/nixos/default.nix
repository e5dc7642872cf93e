# NixOS tests: scenarios of tests/scenarios, played by the lab in a NixOS dom0.
{
  pkgs,
  build,
  self,
}:
let
  callPackage = pkgs.lib.callPackageWith (pkgs // build.parts // { inherit callPackage; });
  parts = callPackage ./parts.nix { };
  lab = callPackage ./lab.nix { inherit parts; };
  scenarios = callPackage ./scenarios.nix { inherit (parts) programs; };
  testOf = guest: {
    name = "vm-${guest.name}";
    value = callPackage ./test.nix { inherit guest lab self; };
  };
in
{
  checks = builtins.listToAttrs (map testOf scenarios.guests);
  scenarios = {
    played = map (guest: guest.name) scenarios.guests;
    inherit (scenarios) leftOut;
  };
}
