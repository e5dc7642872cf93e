# NixOS module: a dom0 whose guests start with this firmware. `self` is the flake.
self:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.virtualisation.ovmf-xen;
  packages = self.packages.${pkgs.stdenv.hostPlatform.system};
in
{
  options.virtualisation.ovmf-xen = {
    enable = lib.mkEnableOption "ovmf-xen, UEFI firmware for Xen guests, in /etc/xen/ovmf-xen";
    package = lib.mkOption {
      type = lib.types.package;
      default = packages.ovmf-xen-hvm;
      defaultText = lib.literalExpression "ovmf-xen.packages.\${system}.ovmf-xen-hvm";
      description = "The firmware. One image serves PVH and HVM guests.";
    };
    defaultForHvm = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = ''
        Whether `firmware="uefi"` in the configuration of an HVM guest means this firmware. The path is compiled into
        Xen's tools, so Xen is built from source with it. Without this option name the file:
        `bios_path_override="/etc/xen/ovmf-xen/OVMF.fd"`.
      '';
    };
    basePackage = lib.mkPackageOption pkgs "Xen to put the firmware into" { default = [ "xen" ]; };
  };

  config = lib.mkIf cfg.enable {
    environment.etc."xen/ovmf-xen".source = "${cfg.package}/FV";
    virtualisation.xen.package = lib.mkIf cfg.defaultForHvm (
      cfg.basePackage.override { OVMF-xen = cfg.package; }
    );
  };
}
