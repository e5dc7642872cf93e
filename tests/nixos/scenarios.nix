# The guests of tests/scenarios: those that a NixOS test plays, and for the others why not.
{ lib, programs }:
let
  reasons = builtins.fromTOML (builtins.readFile ./left-out.toml);
  folder = ../scenarios;
  files = builtins.filter (lib.hasSuffix ".toml") (builtins.attrNames (builtins.readDir folder));

  # Every text in a value, however deep.
  texts =
    value:
    if builtins.isString value then
      [ value ]
    else if builtins.isList value then
      builtins.concatMap texts value
    else if builtins.isAttrs value then
      texts (builtins.attrValues value)
    else
      [ ];

  guestsOf =
    file:
    let
      scenario = builtins.fromTOML (builtins.readFile (folder + "/${file}"));
      contents = texts (
        builtins.attrValues (builtins.intersectAttrs {
          disk = null;
          kernel = null;
          ramdisk = null;
          files = null;
          firmware = null;
        } scenario)
      );
      missing = builtins.filter (
        text: lib.hasPrefix "program:" text && !programs ? ${lib.removePrefix "program:" text}
      ) contents;
      reasonsOf =
        kind:
        builtins.attrValues (
          builtins.intersectAttrs { ${kind} = null; } reasons.kinds
          // builtins.intersectAttrs scenario reasons.keys
          // builtins.intersectAttrs (lib.genAttrs contents (_: null)) reasons.sources
        )
        ++ map (text: "tests/nixos/parts.nix has no ${text}") missing;
    in
    map (kind: {
      name = "${kind}-${lib.removeSuffix ".toml" file}";
      memory = scenario.memory or 512;
      reasons = reasonsOf kind;
    }) (scenario.kinds or [ "pvh" ]);

  all = builtins.concatMap guestsOf files;
  isPlayed = guest: guest.reasons == [ ];
in
{
  guests = builtins.filter isPlayed all;
  leftOut = builtins.listToAttrs (
    map (guest: {
      inherit (guest) name;
      value = builtins.concatStringsSep "; " guest.reasons;
    }) (builtins.filter (guest: !isPlayed guest) all)
  );
}
