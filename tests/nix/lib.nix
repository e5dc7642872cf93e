# What ovmf-xen's flake uses of nixpkgs' lib.
rec {
  callPackageWith =
    packages: function: arguments:
    let
      call = if builtins.isFunction function then function else import function;
    in
    call (builtins.intersectAttrs (builtins.functionArgs call) packages // arguments);

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
  toUpper = builtins.replaceStrings [ "h" "m" "p" "v" ] [ "H" "M" "P" "V" ];
  getLib = package: package;

  licenses = {
    mit = "MIT";
    asl20 = "Apache-2.0";
    bsd2 = "BSD-2-Clause";
  };
}
