# One scenario, played for one kind of guest in a NixOS dom0 that has the firmware from the module. `withoutKvm` is the
# same test for machines that cannot run it on hardware: Xen, dom0 and guest are emulated.
{
  lib,
  testers,
  version,
  guest,
  lab,
  self,
}:
let
  firmware = "/etc/xen/ovmf-xen";
  pins = builtins.filter (lib.hasSuffix ".fd") (
    lib.splitString "\n" (builtins.readFile (../../release + "/${version}/SHA256SUMS"))
  );

  testWith =
    options:
    testers.runNixOSTest {
      name = "ovmf-xen-${guest.name}";
      globalTimeout = 3600;
      nodes.dom0 = {
        imports = [
          (import ./dom0.nix lab)
          self.nixosModules.default
        ];
        virtualisation = {
          # For dom0, for Xen, for the guest.
          memorySize = 2048 + 512 + guest.memory;
          ovmf-xen.enable = true;
          # The guests name the file, so that Xen is not compiled anew for each firmware.
          ovmf-xen.defaultForHvm = false;
          qemu.options = options;
        };
      };
      testScript = ''
        dom0.wait_for_unit("xen-init-dom0.service")
        dom0.wait_for_unit("xenconsoled.service")
        with subtest("the firmware is the released one"):
            for pin in ${builtins.toJSON pins}:
                dom0.succeed(f"cd ${firmware} && echo '{pin}' | sha256sum --check --strict")
        with subtest("${guest.name}"):
            print(dom0.succeed("lab-here --image ${firmware}/OVMF.fd --output /tmp/logs ${guest.name} 2>&1"))
      '';
    };
in
testWith [ ]
// {
  # A processor that Xen and dom0 can be emulated on; the reasons are in tests/lab/src/machine.rs.
  withoutKvm =
    (testWith [
      "-machine accel=tcg"
      "-cpu EPYC,+svm,+npt,-pcid,-monitor,-rdtscp"
    ]).overrideTestDerivation
      (_: {
        requiredSystemFeatures = [ "nixos-test" ];
      });
}
