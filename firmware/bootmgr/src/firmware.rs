//! What the boot manager needs of the firmware to boot. [`crate::live`] is the running one.

use alloc::string::String;
use alloc::vec::Vec;

use services::file::DirectoryEntry;
use services::{Handle, Status};

use crate::devices::{DeviceOrder, Disk, Network, Volume};
use crate::load_option::LoadOption;
use crate::menu::Choice;
use crate::variables::Variables;

/// A loaded program, or why there is none: a text for a person to read.
pub type Loaded = Result<Handle, String>;

/// What the policy needs of the firmware.
pub trait Firmware: Variables {
    /// Loads the kernel that the guest's configuration names; `None` if it names none.
    fn load_kernel(&mut self) -> Option<Loaded>;
    /// In which order devices are tried.
    fn device_order(&mut self) -> DeviceOrder;
    /// Loads the program of a load option; short-form paths are completed.
    fn load_option(&mut self, option: &LoadOption) -> Loaded;
    /// Loads a file of a volume; `None` if it is not there.
    fn load_file(&mut self, volume: &Volume, path: &str) -> Option<Loaded>;
    /// Loads the UEFI Shell that the firmware's image carries.
    fn load_shell(&mut self) -> Loaded;
    /// Starts a program; comes back only if the program does.
    fn start(&mut self, program: Handle) -> Status;
    /// Starts a driver or tool before anything is booted; comes back.
    fn start_before(&mut self, program: Handle) -> Status;
    /// Gives devices the drivers that are there now; with `anew` those that they have are taken away first.
    fn connect(&mut self, anew: bool);
    /// Loads what a network device chooses.
    fn load_network(&mut self, network: &Network) -> Loaded;
    /// Network devices; their drivers are started now if they were not.
    fn networks(&mut self) -> Vec<Network>;
    /// Disks in a stable order.
    fn disks(&mut self) -> Vec<Disk>;
    /// Lists a directory of a volume.
    ///
    /// # Errors
    /// What a person should read.
    fn list(&mut self, volume: &Volume, path: &str) -> Result<Vec<DirectoryEntry>, String>;
    /// Whether a volume has something at a path.
    fn exists(&mut self, volume: &Volume, path: &str) -> bool;
    /// Whether variables outlast the guest.
    fn variables_last(&self) -> bool;
    /// What is wrong with devices that could not be used at all.
    fn failures(&mut self) -> Vec<String>;
    /// A line on the console.
    fn say(&mut self, line: &str);
    /// Whether somebody asks for the menu by a key, within so many seconds; 0 looks once, `u16::MAX` waits for ever.
    fn is_menu_wanted(&mut self, seconds: u16) -> bool;
    /// Waits for any key, no longer than so many seconds if they are given; `false` if none came, at once where nothing has keys.
    fn wait_for_key(&mut self, seconds: Option<u16>) -> bool;
    /// Shows the menu, with what came of the last choice, until something is chosen. `Restart` and `PowerOff` it does itself.
    fn menu(&mut self, message: Option<String>) -> Choice;
}
