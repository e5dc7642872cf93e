# The guests of tests/scenarios: those that a NixOS test plays, and for the others why not. What is not listed here is left
# out with its name, so that a scenario with something new is played when somebody has looked at it.
{ lib, programs }:
let
  reasons = builtins.fromTOML (builtins.readFile ./left-out.toml);
  folder = ../scenarios;
  files = builtins.filter (lib.hasSuffix ".toml") (builtins.attrNames (builtins.readDir folder));

  known = {
    kinds = [
      "pvh"
      "hvm"
    ];
    keys = [
      "cmdline"
      "console"
      "description"
      "disk"
      "extra"
      "files"
      "firmware"
      "forbid"
      "kernel"
      "kinds"
      "memory"
      "on-request"
      "ramdisk"
      "restart"
      "step"
      "vcpus"
    ];
    diskKeys = [
      "content"
      "damage"
      "fat"
      "files"
      "kind"
      "read-only"
      "sector-size"
      "size"
      "table"
    ];
    sources = [
      "initrd"
      "linux"
      "seabios"
    ]
    ++ map (name: "program:${name}") (builtins.attrNames programs);
    sourcePrefixes = [
      "firmware:"
      "guest:"
    ];
    contents = [
      "hex"
      "text"
      "uki"
      "update"
      "zeros"
    ];
  };

  # `what` for each of `names` that is neither known nor has a reason in left-out.toml; the reason for each that has one.
  reasonsFor =
    what: isKnown: given: names:
    map (name: given.${name} or "tests/nixos does not know the ${what} ${name}") (
      builtins.filter (name: !isKnown name) names
    );
  among = list: name: builtins.elem name list;
  isSource =
    name: among known.sources name || builtins.any (prefix: lib.hasPrefix prefix name) known.sourcePrefixes;

  # Why the content of a file cannot be had.
  contentReasons =
    content:
    if builtins.isString content then
      reasonsFor "source" isSource reasons.sources [ content ]
    else
      builtins.concatMap (
        kind:
        if kind == "changed" then
          contentReasons content.changed.from
        else if kind == "vars" then
          [ reasons.contents.vars ] ++ contentReasons content.vars.from
        else if kind == "joined" then
          contentReasons content.joined.code ++ contentReasons content.joined.vars
        else if kind == "iso" then
          builtins.concatMap contentReasons (builtins.attrValues content.iso)
        else
          reasonsFor "content" (among known.contents) reasons.contents [ kind ]
      ) (builtins.attrNames content);

  diskReasons =
    disk:
    reasonsFor "key of a disk" (among known.diskKeys) { } (builtins.attrNames disk)
    ++ builtins.concatMap contentReasons (
      builtins.attrValues (disk.files or { }) ++ (if disk ? content then [ disk.content ] else [ ])
    );

  guestsOf =
    file:
    let
      scenario = builtins.fromTOML (builtins.readFile (folder + "/${file}"));
      contents =
        builtins.attrValues (
          builtins.intersectAttrs {
            firmware = null;
            kernel = null;
            ramdisk = null;
          } scenario
        )
        ++ builtins.attrValues (scenario.files or { });
      common =
        reasonsFor "key" (among known.keys) reasons.keys (builtins.attrNames scenario)
        ++ builtins.concatMap contentReasons contents
        ++ builtins.concatMap diskReasons (scenario.disk or [ ]);
    in
    map (kind: {
      name = "${kind}-${lib.removeSuffix ".toml" file}";
      memory = scenario.memory or 512;
      reasons = reasonsFor "kind" (among known.kinds) reasons.kinds [ kind ] ++ common;
    }) (scenario.kinds or [ "pvh" ]);

  all = builtins.concatMap guestsOf files;
  isPlayed = guest: guest.reasons == [ ];
in
{
  guests = builtins.filter isPlayed all;
  leftOut = builtins.listToAttrs (
    map (guest: {
      inherit (guest) name;
      value = builtins.concatStringsSep "; " (lib.unique guest.reasons);
    }) (builtins.filter (guest: !isPlayed guest) all)
  );
}
