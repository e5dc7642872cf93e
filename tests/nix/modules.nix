# NixOS modules as far as ours need them: options with defaults, mkIf, mkMerge of all that a module defines, definitions
# merged by name. It does not know NixOS's own options, so it cannot tell a misspelt one.
{ lib, pkgs }:
modules:
let
  call = module: if builtins.isFunction module then module { inherit config lib pkgs; } else module;
  withImports = module: [ module ] ++ builtins.concatMap (import: withImports (call import)) (module.imports or [ ]);
  all = builtins.concatMap (module: withImports (call module)) modules;

  definitions =
    module:
    let
      all =
        module.config or (removeAttrs module [
          "imports"
          "options"
        ]);
    in
    all._all or [ all ];
  isAttributes = value: builtins.isAttrs value && !value ? type;
  # What is inside a condition, each value with the condition.
  pushed = value: if value ? _if then builtins.mapAttrs (_: lib.mkIf value._if) value._then else value;
  holds = value: !(builtins.isAttrs value && value ? _if) || value._if && holds value._then;
  plain = value: if builtins.isAttrs value && value ? _if then plain value._then else value;

  isDefault = value: builtins.isAttrs value && value ? _default;

  merge =
    values:
    let
      defined = builtins.filter (value: !isDefault value) values;
      present = builtins.filter holds defined;
      fallback = builtins.filter isDefault values;
    in
    if builtins.all (value: isAttributes (inner value)) defined && defined != [ ] then
      mergeAttributes defined
    else if present != [ ] then
      plain (builtins.elemAt present (builtins.length present - 1))
    else if fallback != [ ] then
      (builtins.head fallback)._default
    else
      # Whether anything is defined cannot be asked for the names of attributes: the answer may need them.
      null;
  inner = value: if builtins.isAttrs value && value ? _if then inner value._then else value;
  mergeAttributes =
    values: builtins.mapAttrs (_: merge) (builtins.zipAttrsWith (_: found: found) (map pushed values));

  # A default is looked at when nothing else is defined.
  defaults =
    options:
    builtins.mapAttrs (
      _: option: if option ? _option then { _default = option.default; } else defaults option
    ) options;
  config = mergeAttributes (map (module: defaults (module.options or { })) all ++ builtins.concatMap definitions all);
in
config
