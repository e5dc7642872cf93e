# ovmf-xen-varstored, the daemon for dom0 that keeps guests' variables, with its systemd units.
{ cargoBuild, xenLibraries }:
cargoBuild (
  xenLibraries
  // {
    pname = "ovmf-xen-varstored";
    buildPhase = "cargo build --locked --offline --release --package varstored";
    installPhase = ''
      install -D -t $out/bin target/release/ovmf-xen-varstored
      install -D -m 644 -t $out/share/doc/ovmf-xen firmware/varstored/dist/varstored.toml
      for unit in firmware/varstored/dist/*.service; do
        install -D -m 644 -t $out/lib/systemd/system $unit
        substituteInPlace $out/lib/systemd/system/''${unit##*/} --replace-fail /usr/sbin/ $out/bin/
      done
    '';
    meta = {
      description = "Daemon for dom0 that keeps the UEFI variables of Xen guests";
      mainProgram = "ovmf-xen-varstored";
    };
  }
)
