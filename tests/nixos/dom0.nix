# The dom0 of the tests. It is the same for all of them, so that its disk is made once. `lab` is the command lab-here.
lab:
_:
{
  environment.systemPackages = [ lab ];

  virtualisation = {
    # The test driver starts a kernel by itself; Xen has to be started by a boot loader.
    useBootLoader = true;
    installBootLoader = true;
    useEFIBoot = true;
    diskSize = 12288;
    cores = 2;
    xen = {
      enable = true;
      # The consoles of the guests and Xen's log are written down.
      trace = true;
      dom0Resources = {
        memory = 2048;
        maxMemory = 2048;
        maxVCPUs = 1;
      };
      # dom0 keeps to one CPU and guests to the other, as in the lab; see tests/lab/src/machine.rs for cpuidle.
      boot.params = [
        "dom0_vcpus_pin"
        "cpuidle=0"
        "console=com1"
        "com1=115200,8n1"
      ];
    };
  };
  boot = {
    loader.systemd-boot.enable = true;
    loader.timeout = 0;
    initrd.systemd.enable = true;
  };

  # The lab looks for all logs in one folder.
  systemd.tmpfiles.rules = [
    "d /var/log/xen 0755 root root -"
    "L+ /var/log/xen/console - - - - ."
    "d /lab 0755 root root -"
    "L+ /lab/log - - - - /var/log/xen"
  ];

  # hvc0 is Xen's console, so the test driver's console is the next one.
  systemd.services.console-of-the-test-driver = {
    wantedBy = [ "backdoor.service" ];
    before = [ "backdoor.service" ];
    requires = [
      "dev-hvc0.device"
      "dev-hvc1.device"
    ];
    after = [
      "dev-hvc0.device"
      "dev-hvc1.device"
    ];
    serviceConfig.Type = "oneshot";
    script = "mv /dev/hvc1 /dev/hvc0";
  };
}
