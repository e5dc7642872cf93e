# What ovmf-xen's flake uses of nixpkgs' lib.
rec {
  callPackageWith =
    packages: function: arguments:
    let
      call = if builtins.isFunction function then function else import function;
      result = call (builtins.intersectAttrs (builtins.functionArgs call) packages // arguments);
    in
    # As nixpkgs' it adds functions to any set.
    if builtins.isAttrs result then
      result // { override = changes: callPackageWith packages function (arguments // changes); }
    else
      result;

  hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
  hasSuffix =
    suffix: text:
    let
      rest = builtins.stringLength text - builtins.stringLength suffix;
    in
    rest >= 0 && builtins.substring rest (-1) text == suffix;
  removePrefix =
    prefix: text:
    if hasPrefix prefix text then builtins.substring (builtins.stringLength prefix) (-1) text else text;
  removeSuffix =
    suffix: text:
    if hasSuffix suffix text then
      builtins.substring 0 (builtins.stringLength text - builtins.stringLength suffix) text
    else
      text;
  splitString = separator: text: builtins.filter builtins.isString (builtins.split separator text);
  unique = builtins.foldl' (seen: value: if builtins.elem value seen then seen else seen ++ [ value ]) [ ];
  toUpper = builtins.replaceStrings [ "h" "m" "p" "v" ] [ "H" "M" "P" "V" ];
  getLib = package: package;
  getOutput = _name: package: package;

  mkIf = condition: value: {
    _if = condition;
    _then = value;
  };
  mkMerge = values: { _all = values; };
  mkOption = option: { default = throw "an option without a value"; } // option // { _option = true; };
  mkEnableOption = _description: mkOption { default = false; };
  mkPackageOption =
    packages: name: _words:
    mkOption { default = packages.${name}; };
  literalExpression = text: text;
  types = {
    bool = null;
    package = null;
  };

  licenses = {
    mit = "MIT";
    asl20 = "Apache-2.0";
    bsd2 = "BSD-2-Clause";
  };
}
