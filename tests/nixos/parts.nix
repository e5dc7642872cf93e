# What scenarios are made from, in the folder that `lab run --here` takes (tests/lab/src/here.rs).
{
  lib,
  runCommand,
  linkFarm,
  cargoBuild,
  edk2-uefi-shell,
  grub2_efi,
  linuxPackages,
  pkgsStatic,
  systemd,
}:
let
  inherit (linuxPackages) kernel;
  bootFolder = "${systemd}/lib/systemd/boot/efi";

  # By the names that scenarios use.
  programs = {
    shell = "${edk2-uefi-shell}/shell.efi";
    systemd-boot = "${bootFolder}/systemd-bootx64.efi";
    systemd-stub = "${bootFolder}/linuxx64.efi.stub";
    grub = "${grub}/grubx64.efi";
  };

  # One file that looks for its configuration where Debian's does.
  grub = runCommand "grub-one-file" { nativeBuildInputs = [ grub2_efi ]; } ''
    mkdir $out
    grub-mkimage -O x86_64-efi -p /EFI/debian -o $out/grubx64.efi \
      boot configfile echo fat linux normal part_gpt part_msdos search search_fs_file test
  '';

  guest = cargoBuild {
    pname = "ovmf-xen-guest-programs";
    buildPhase = "cargo build --locked --offline --release --package guest --target x86_64-unknown-uefi";
    installPhase = "install -D -t $out target/x86_64-unknown-uefi/release/*.efi";
  };
in
{
  inherit programs;
  folder = linkFarm "ovmf-xen-test-parts" {
    scenarios = ../scenarios;
    programs = linkFarm "ovmf-xen-test-programs" programs;
    inherit guest;
    vmlinuz = "${kernel}/bzImage";
    "root/usr/lib/modules" = "${lib.getOutput "modules" kernel}/lib/modules";
    "root/usr/bin/busybox" = "${pkgsStatic.busybox}/bin/busybox";
  };
}
