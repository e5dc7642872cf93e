use std::fs;

use super::*;
use crate::service;
use uefi_raw::table::runtime::VariableAttributes;
use uefi_raw::{Guid, Status};
use variables::Key;
use variables::remote::{Command, Reply, Request, WINDOW_SIZE};

const NV: VariableAttributes = VariableAttributes::NON_VOLATILE;
const GLOBAL: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS.union(VariableAttributes::RUNTIME_ACCESS);
const NAME: [u16; 1] = [0x41];
const VOLATILE_NAME: [u16; 1] = [0x42];

fn key() -> Key<'static> {
    Key::new(Guid::ZERO, &NAME)
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("varstored-{name}-{}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn stores(&self) -> Stores {
        Stores::new(&self.0, None).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn what_was_set_is_there_for_the_next_daemon() {
    let folder = Folder::new("next");
    folder.stores().open("guest", true).unwrap().set(key(), NV | GLOBAL, b"kept").unwrap();
    folder.stores().open("guest", true).unwrap().get(key()).map(|found| assert_eq!(found.data, b"kept")).unwrap();
    let bytes = fs::read(folder.0.join("guest.fd")).unwrap();
    assert_eq!(bytes.len() as u64, volume::VOLUME_SIZE);
}

#[test]
fn volatile_variables_outlive_the_daemon_and_not_a_start() {
    let folder = Folder::new("volatile");
    folder.stores().open("guest", true).unwrap().set(key(), GLOBAL, b"now").unwrap();
    let mut stores = folder.stores();
    assert_eq!(stores.open("guest", false).unwrap().get(key()).unwrap().data, b"now");
    stores.close("guest");
    assert_eq!(stores.open("guest", false).unwrap().get(key()).unwrap().data, b"now");
    assert!(stores.open("guest", true).unwrap().get(key()).is_err());
}

#[test]
fn guests_do_not_see_each_other() {
    let folder = Folder::new("others");
    let mut stores = folder.stores();
    stores.open("one", true).unwrap().set(key(), NV | GLOBAL, b"1").unwrap();
    assert!(stores.open("other", true).unwrap().get(key()).is_err());
}

/// Has the operating system set variables until one is refused; with how many there were, and what was said then.
fn flood(variables: &mut GuestVariables) -> (u16, Status) {
    let mut reply = vec![0; WINDOW_SIZE];
    for number in 0.. {
        let name = [0x46, 0x100 + number];
        let key = Key::new(Guid::ZERO, &name);
        let request = Request::Set { key, attributes: NV | GLOBAL, data: &[7; 1000], at_runtime: true };
        let length = service::answer(variables, &request, &mut reply);
        let status = Reply::decode(Command::Set, &reply[..length]).unwrap().status();
        if status != Status::SUCCESS {
            return (number, status);
        }
    }
    unreachable!("a store without end")
}

fn room(variables: &mut GuestVariables) -> u64 {
    variables.set_asker(false);
    variables.query(NV | GLOBAL).unwrap().remaining_storage
}

#[test]
fn a_guest_that_floods_takes_no_room_from_another() {
    let folder = Folder::new("flood");
    let mut stores = folder.stores();
    let before = room(stores.open("other", true).unwrap());
    let (count, status) = flood(stores.open("one", true).unwrap());
    assert_eq!(status, Status::OUT_OF_RESOURCES);
    assert!(u64::from(count) > before / 2000, "{count}");
    assert_eq!(room(stores.open("other", false).unwrap()), before);
    assert_eq!(flood(stores.open("other", false).unwrap()), (count, status));
    for name in ["one", "other"] {
        assert_eq!(fs::metadata(folder.0.join(format!("{name}.fd"))).unwrap().len(), volume::VOLUME_SIZE);
        assert_eq!(
            stores.open(name, false).unwrap().get(Key::new(Guid::ZERO, &[0x46, 0x100])).unwrap().data,
            [7; 1000]
        );
    }
}

#[test]
fn what_a_daemon_left_that_was_cut_while_it_made_a_store_is_no_matter() {
    let folder = Folder::new("half-made");
    fs::write(folder.0.join("guest.new"), [7; 100]).unwrap();
    folder.stores().open("guest", true).unwrap().set(key(), NV | GLOBAL, b"kept").unwrap();
    assert_eq!(folder.stores().open("guest", false).unwrap().get(key()).unwrap().data, b"kept");
}

#[test]
fn a_store_is_called_by_uuid_if_there_is_such_a_file_else_by_name() {
    let folder = Folder::new("names");
    let stores = folder.stores();
    let name = |name: &str, uuid: &str| stores.name(name, uuid);
    assert_eq!(name("web", "2a7c"), Some("web".into()));
    assert_eq!(name("web--incoming", "2a7c"), Some("web".into()));
    fs::write(folder.0.join("2a7c.fd"), "").unwrap();
    assert_eq!(name("web", "2A7C"), Some("2a7c".into()));
    for bad in ["", "../x", "a/b", ".hidden"] {
        assert_eq!(name(bad, "../x"), None, "{bad}");
    }
}

#[test]
fn a_file_that_is_no_store_is_named_and_left_alone() {
    let folder = Folder::new("damaged");
    let path = folder.0.join("guest.fd");
    for (content, word) in
        [(vec![7; 4096], "no variable store"), (vec![1; 10], "too short"), (vec![0xFF; 4096], "nothing")]
    {
        fs::write(&path, &content).unwrap();
        let said = format!("{:#}", folder.stores().open("guest", true).unwrap_err());
        assert!(said.contains("guest.fd") && said.contains(word) && said.contains(WAY_OUT), "{said}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn a_template_is_where_new_stores_come_from() {
    let folder = Folder::new("template");
    folder.stores().open("template", true).unwrap().set(key(), NV | GLOBAL, b"given").unwrap();
    let template = folder.0.join("template.fd");
    let mut stores = Stores::new(&folder.0, Some(&template)).unwrap();
    assert_eq!(stores.open("guest", true).unwrap().get(key()).unwrap().data, b"given");
    fs::write(&template, "no").unwrap();
    assert!(Stores::new(&folder.0, Some(&template)).is_err());
}

#[test]
fn a_store_is_closed_when_it_is_idle() {
    let folder = Folder::new("idle");
    let mut stores = folder.stores();
    stores.open("guest", true).unwrap();
    assert!(stores.close_idle());
    for open in stores.open.values_mut() {
        open.used = Instant::now().checked_sub(IDLE).unwrap();
    }
    assert!(!stores.close_idle());
}

#[test]
fn a_hundred_guests_take_little_memory() {
    let folder = Folder::new("hundred");
    let mut stores = folder.stores();
    let before = resident();
    for number in 0..100 {
        let variables = stores.open(&format!("guest{number}"), true).unwrap();
        variables.set(key(), NV | GLOBAL, &[7; 1000]).unwrap();
        variables.set(Key::new(Guid::ZERO, &VOLATILE_NAME), GLOBAL, &[number]).unwrap();
    }
    assert_eq!(stores.open.len(), MOST_OPEN);
    for number in 0..100 {
        let variables = stores.open(&format!("guest{number}"), false).unwrap();
        assert_eq!(variables.get(key()).unwrap().data, [7; 1000]);
        assert_eq!(variables.get(Key::new(Guid::ZERO, &VOLATILE_NAME)).unwrap().data, [number]);
    }
    stores.open.clear();
    let grown = resident() - before;
    println!("100 guests: {grown} KiB more");
    assert!(grown < 20_000, "{grown} KiB");
}

/// KiB of this process in memory.
fn resident() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
