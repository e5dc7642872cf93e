# NixOS module: a dom0 whose guests start with this firmware and keep their variables. `self` is the flake.
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
    basePackage = lib.mkPackageOption pkgs "xen" { extraDescription = "The firmware is put into it."; };
    variables = {
      enable = lib.mkEnableOption "ovmf-xen-varstored, which keeps guests' UEFI variables in /var/lib/ovmf-xen/vars";
      package = lib.mkOption {
        type = lib.types.package;
        default = packages.ovmf-xen-varstored;
        defaultText = lib.literalExpression "ovmf-xen.packages.\${system}.ovmf-xen-varstored";
        description = "The daemon. Its configuration is `/etc/ovmf-xen/varstored.toml`, where there is one.";
      };
    };
  };

  config = lib.mkMerge [
    (lib.mkIf cfg.enable {
      environment.etc."xen/ovmf-xen".source = "${cfg.package}/FV";
      virtualisation.xen.package = lib.mkIf cfg.defaultForHvm (
        cfg.basePackage.override { OVMF-xen = cfg.package; }
      );
    })
    (lib.mkIf cfg.variables.enable {
      systemd.packages = [ cfg.variables.package ];
      # NixOS passes over what a unit says about its installation.
      systemd.services.ovmf-xen-varstored.wantedBy = [ "multi-user.target" ];
      users.users.ovmf-varstored = {
        description = "UEFI variables of Xen guests";
        isSystemUser = true;
        group = "ovmf-varstored";
      };
      users.groups.ovmf-varstored = { };
    })
  ];
}
