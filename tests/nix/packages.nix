# What ovmf-xen's flake uses of nixpkgs. Archives and crates are fetched by their hashes as everywhere; linker, shell tools,
# libclang and Xen's headers are this machine's, from the folders that the sandbox lets in.
let
  lib = import ./lib.nix;
  system = "x86_64-linux";

  mkDerivation =
    arguments:
    let
      attributes = if builtins.isFunction arguments then arguments (attributes // { finalPackage = package; }) else arguments;
      name = attributes.name or "${attributes.pname}-${attributes.version}";
      package =
        builtins.derivation (
          {
            inherit name system;
            builder = "/bin/bash";
            args = [ ./build.sh ];
            BASH_ENV = ./bash.sh;
            setup = ./setup.sh;
          }
          // removeAttrs attributes [
            "meta"
            "passthru"
          ]
        )
        // {
          inherit (attributes) version;
          meta = attributes.meta or { };
          overrideAttrs = change: mkDerivation (attributes // change attributes);
        }
        // attributes.passthru or { };
    in
    package;

  # A package of this machine; `script` leaves in $out what the flake looks for there.
  machine =
    name: script:
    mkDerivation {
      inherit name;
      version = "of-this-machine";
      dontUnpack = true;
      installPhase = script;
    };
  nothing = name: machine name "mkdir $out";

  fetchurl = import <nix/fetchurl.nix>;

  # As nixpkgs' function of this name: a folder with a link to each crate.
  importCargoLock =
    { lockFile }:
    let
      fromRegistry = builtins.filter (crate: crate ? source) (builtins.fromTOML (builtins.readFile lockFile)).package;
      fetch =
        { name, version, checksum, ... }:
        fetchurl {
          name = "crate-${name}-${version}.tar.gz";
          url = "https://static.crates.io/crates/${name}/${version}/download";
          sha256 = checksum;
        };
    in
    mkDerivation {
      name = "cargo-vendor-dir";
      version = "";
      crates = map fetch fromRegistry;
      dontUnpack = true;
      installPhase = ''
        mkdir -p $out/.unpacked
        for crate in $crates; do
          name=''${crate##*/*-crate-}
          name=''${name%.tar.gz}
          mkdir $out/.unpacked/$name
          tar -xf $crate -C $out/.unpacked/$name --strip-components=1
          printf '{"files":{},"package":"%s"}' "$(sha256sum <$crate | cut -d' ' -f1)" >$out/.unpacked/$name/.cargo-checksum.json
          ln -s .unpacked/$name $out/$name
        done
      '';
    };

  # Xen with another firmware shows which one it was given.
  xen = machine "xen" "mkdir $out" // {
    src = machine "xen-source" ''
      mkdir -p $out/xen/include
      cp -r /usr/include/xen $out/xen/include/public
    '';
    override =
      { OVMF-xen }:
      machine "xen-with-firmware" ''
        mkdir $out
        ln -s ${OVMF-xen.mergedFirmware} $out/ovmf.bin
        test -s ${OVMF-xen.firmware} && test -s ${OVMF-xen.variables}
      '';
  };
  packages = {
    inherit
      lib
      fetchurl
      xen
      ;
    stdenv = {
      inherit mkDerivation;
      cc = {
        cc.lib = nothing "gcc-lib";
        bintools = machine "bintools" "mkdir -p $out/bin && ln -s /usr/bin/ld $out/bin/ld";
      };
      hostPlatform = { inherit system; };
    };
    # The programs of an official Rust release run here as they are.
    autoPatchelfHook = nothing "auto-patchelf-hook";
    zlib = nothing "zlib";
    rustPlatform = {
      inherit importCargoLock;
      # The machine's libclang finds the machine's headers.
      bindgenHook = nothing "bindgen-hook";
    };
    llvmPackages.libclang = machine "libclang" ''
      mkdir -p $out/lib
      for file in /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/x86_64-linux-gnu/libclang*.so*; do
        [ ! -e $file ] || ln -sf $file $out/lib/
      done
      test -n "$(ls $out/lib)"
    '';
    linkFarm =
      name: entries:
      machine name (
        "mkdir $out\n"
        + builtins.concatStringsSep "" (
          builtins.attrValues (builtins.mapAttrs (link: target: "mkdir -p $(dirname $out/${link}) && ln -s ${target} $out/${link}\n") entries)
        )
      );
    mkShell =
      arguments:
      mkDerivation (
        {
          name = "shell";
          version = "";
          dontUnpack = true;
          installPhase = "mkdir $out";
        }
        // removeAttrs arguments [ "packages" ]
        // {
          nativeBuildInputs = arguments.packages ++ arguments.nativeBuildInputs;
          outputs = [ "out" ];
          # What `nix develop` reads.
          stdenv = machine "stdenv" "mkdir $out && cp $setup $out/setup";
        }
      );
    nixfmt-tree = nothing "nixfmt-tree";

    # For the VM tests, which are evaluated here and not built.
    testers.runNixOSTest =
      test:
      let
        config = import ./modules.nix {
          inherit lib;
          pkgs = packages;
        } [ test.nodes.dom0 ];
        derivation =
          change:
          mkDerivation (
            {
              name = "vm-test-run-${test.name}";
              version = "";
              node = builtins.toJSON config;
              passthru = {
                inherit (test) testScript;
                inherit config;
                overrideTestDerivation = change: derivation (change { });
              };
            }
            // change
          );
      in
      derivation { };
    runCommand =
      name: attributes: script:
      mkDerivation (
        attributes
        // {
          inherit name;
          version = "";
          dontUnpack = true;
          installPhase = script;
        }
      );
    writeShellApplication =
      {
        name,
        runtimeInputs,
        text,
      }:
      mkDerivation {
        inherit name text;
        version = "";
        path = builtins.concatStringsSep ":" (map (input: "${input}/bin") runtimeInputs);
        dontUnpack = true;
        installPhase = ''
          mkdir -p $out/bin
          printf '#!/bin/bash\nPATH=%s:$PATH\n%s\n' "$path" "$text" >$out/bin/$name
          chmod +x $out/bin/$name
        '';
      };
    pkgsStatic.busybox = nothing "busybox";
    linuxPackages.kernel = nothing "linux";
    binutils = nothing "binutils";
    dosfstools = nothing "dosfstools";
    efitools = nothing "efitools";
    edk2-uefi-shell = nothing "edk2-uefi-shell";
    grub2_efi = nothing "grub";
    libisoburn = nothing "libisoburn";
    mtools = nothing "mtools";
    openssl = nothing "openssl";
    perl = nothing "perl";
    systemd = nothing "systemd";
    util-linux = nothing "util-linux";
    xz = nothing "xz";
  };
in
packages
