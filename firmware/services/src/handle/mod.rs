//! Handles, protocols and who has opened them (UEFI 2.10 §7.3).
//!
//! [`Handles`] is the database: a handle is a number that stands for a list of protocol interfaces, an interface is a
//! pointer that the database never follows. It keeps the open list of each interface and applies the rules of
//! OpenProtocol to it, and it queues what RegisterProtocolNotify has to report. It calls nobody: whoever changes it
//! signals the events it returns, and disconnects the drivers it names, once the lock is released (see
//! [`crate::abi::handle`]). [`driver`] is the driver model's side.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::fmt;
use core::ptr;

use uefi_raw::{Event, Guid, Handle, Status};

pub mod driver;
#[cfg(test)]
mod tests;

/// Why the database refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandleError {
    /// There is no such handle.
    NoSuchHandle,
    /// The agent is no handle, and the kind of open needs one.
    NoSuchAgent,
    /// The controller is no handle, is the handle itself, and the kind of open needs one.
    NoSuchController,
    /// The handle does not have the protocol.
    NoSuchProtocol,
    /// The handle has the protocol, with another interface.
    OtherInterface,
    /// The handle has the protocol already.
    Duplicate,
    /// The attributes are none of those that OpenProtocol defines.
    Attributes,
    /// The same agent has it open by driver for the same controller.
    AlreadyStarted,
    /// Somebody has it open in a way that excludes this.
    InUse,
    /// The agent and controller do not have it open.
    NotOpen,
    /// Unknown registration, or nothing new for it.
    NothingNew,
}

impl fmt::Display for HandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchHandle => "no such handle",
            Self::NoSuchAgent => "no such agent handle",
            Self::NoSuchController => "no such controller handle",
            Self::NoSuchProtocol => "the handle does not have this protocol",
            Self::OtherInterface => "the handle has this protocol with another interface",
            Self::Duplicate => "the handle has this protocol already",
            Self::Attributes => "undefined open attributes",
            Self::AlreadyStarted => "already open by the same driver",
            Self::InUse => "open by another agent",
            Self::NotOpen => "not open by this agent and controller",
            Self::NothingNew => "nothing new",
        })
    }
}

impl core::error::Error for HandleError {}

impl From<HandleError> for Status {
    fn from(error: HandleError) -> Self {
        match error {
            HandleError::NoSuchHandle
            | HandleError::NoSuchAgent
            | HandleError::NoSuchController
            | HandleError::Duplicate
            | HandleError::Attributes => Self::INVALID_PARAMETER,
            HandleError::NoSuchProtocol
            | HandleError::OtherInterface
            | HandleError::NotOpen
            | HandleError::NothingNew => Self::NOT_FOUND,
            HandleError::AlreadyStarted => Self::ALREADY_STARTED,
            HandleError::InUse => Self::ACCESS_DENIED,
        }
    }
}

/// Result of the database.
pub type Result<T> = core::result::Result<T, HandleError>;

bitflags::bitflags! {
    /// How a protocol is opened, the values of `EFI_OPEN_PROTOCOL_*` (UEFI 2.10 §7.3.9).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct OpenAttributes: u32 {
        /// As HandleProtocol does it.
        const BY_HANDLE_PROTOCOL = 0x01;
        /// To use it; need not be closed.
        const GET_PROTOCOL = 0x02;
        /// To see whether it is there.
        const TEST_PROTOCOL = 0x04;
        /// By a bus driver, for a child it has made.
        const BY_CHILD_CONTROLLER = 0x08;
        /// By the driver that manages the controller.
        const BY_DRIVER = 0x10;
        /// By nobody else; drivers are disconnected first.
        const EXCLUSIVE = 0x20;
    }
}

impl OpenAttributes {
    const BY_DRIVER_EXCLUSIVE: Self = Self::BY_DRIVER.union(Self::EXCLUSIVE);
    /// Opens that do not stand in the way of an uninstallation.
    const PASSING: Self = Self::BY_HANDLE_PROTOCOL.union(Self::GET_PROTOCOL).union(Self::TEST_PROTOCOL);

    /// Whether OpenProtocol defines them: one flag, or by driver and exclusive.
    pub fn are_defined(self) -> bool {
        let known = Self::from_bits(self.bits()).is_some();
        known && (self.bits().is_power_of_two() || self == Self::BY_DRIVER_EXCLUSIVE)
    }
}

/// An entry of an open list (`EFI_OPEN_PROTOCOL_INFORMATION_ENTRY`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Open {
    /// Who has opened.
    pub agent: Handle,
    /// For which controller; may be null.
    pub controller: Handle,
    /// How.
    pub attributes: OpenAttributes,
    /// How many times.
    pub count: u32,
}

impl Open {
    fn is(&self, agent: Handle, controller: Handle, attributes: OpenAttributes) -> bool {
        self.agent == agent && self.controller == controller && self.attributes == attributes
    }
}

/// What [`Handles::open`] says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opened {
    /// It is open; the interface.
    Interface(*mut c_void),
    /// These drivers manage the handle through the protocol and have to be disconnected before it can be opened exclusively.
    DisconnectFirst(Vec<Handle>),
}

/// The database.
#[derive(Debug, Default)]
pub struct Handles {
    /// Handle number `n` is in slot `n`. A number is never used again, so that a stale handle is never mistaken for
    /// another, and handles are listed in the order in which they were made.
    slots: Vec<Option<Box<Entry>>>,
    /// Boxed because ProtocolsPerHandle gives out the address of the GUID.
    #[expect(clippy::vec_box, reason = "the address of a GUID is given out and has to stay")]
    protocols: Vec<Box<Protocol>>,
    /// Indices into `protocols`, ordered by GUID.
    by_guid: Vec<(Key, usize)>,
    registrations: Vec<Registration>,
    registrations_made: usize,
}

/// A GUID as one number: compared in two instructions instead of a chain of fields.
type Key = u128;

#[derive(Debug, Default)]
struct Entry {
    interfaces: Vec<Interface>,
}

#[derive(Debug)]
struct Interface {
    key: Key,
    protocol: usize,
    pointer: *mut c_void,
    /// How often HandleProtocol returned it.
    handle_protocol_count: u32,
    opens: Vec<Open>,
}

#[derive(Debug)]
struct Protocol {
    guid: Guid,
    /// In the order of installation.
    instances: Vec<(Handle, *mut c_void)>,
}

#[derive(Debug)]
struct Registration {
    id: usize,
    protocol: usize,
    event: Event,
    /// Handles on which the protocol was installed and that have not been located through the registration yet.
    news: VecDeque<Handle>,
}

/// A handle's value is its number shifted, never null: small enough to fault where somebody follows it.
const HANDLE_SHIFT: u32 = 4;

impl Handles {
    /// An empty database.
    pub const fn new() -> Self {
        Self {
            slots: Vec::new(),
            protocols: Vec::new(),
            by_guid: Vec::new(),
            registrations: Vec::new(),
            registrations_made: 0,
        }
    }

    /// Installs interfaces on `handle`, or on a new handle: all of them or none. Returns the handle and the events to
    /// signal.
    pub fn install(
        &mut self,
        handle: Option<Handle>,
        interfaces: &[(Guid, *mut c_void)],
    ) -> Result<(Handle, Vec<Event>)> {
        if let Some(handle) = handle {
            let entry = self.entry(handle)?;
            if interfaces.iter().any(|(guid, _)| entry.find(key(guid)).is_some()) {
                return Err(HandleError::Duplicate);
            }
        }
        if interfaces.iter().enumerate().any(|(index, (guid, _))| interfaces[..index].iter().any(|(g, _)| g == guid)) {
            return Err(HandleError::Duplicate);
        }
        let handle = handle.unwrap_or_else(|| self.new_handle());
        let mut events = Vec::new();
        for (guid, pointer) in interfaces {
            let protocol = self.protocol_index(guid);
            let entry = self.entry_mut(handle)?;
            entry.interfaces.push(Interface {
                key: key(guid),
                protocol,
                pointer: *pointer,
                handle_protocol_count: 0,
                opens: Vec::new(),
            });
            self.announce(handle, protocol, *pointer, &mut events);
        }
        Ok((handle, events))
    }

    /// Drivers that manage the handle through this interface. They have to be disconnected before it is uninstalled.
    pub fn drivers_using(&self, handle: Handle, guid: &Guid, interface: *mut c_void) -> Result<Vec<Handle>> {
        Ok(self.exact(handle, guid, interface)?.drivers())
    }

    /// Uninstalls interfaces: all of them or none. Opens that need no closing are forgotten even if others refuse it. A
    /// handle without interfaces ceases to exist.
    pub fn uninstall(&mut self, handle: Handle, interfaces: &[(Guid, *mut c_void)]) -> Result<()> {
        for (guid, pointer) in interfaces {
            self.exact_mut(handle, guid, *pointer)?.check_unused()?;
        }
        for (guid, pointer) in interfaces {
            self.retire(handle, guid, *pointer)?;
        }
        let entry = self.entry(handle)?;
        if entry.interfaces.is_empty()
            && let Some(slot) = slot_of(handle).and_then(|slot| self.slots.get_mut(slot))
        {
            *slot = None;
        }
        Ok(())
    }

    /// Replaces an interface by another, which counts as installed anew. Returns the events to signal.
    pub fn reinstall(&mut self, handle: Handle, guid: &Guid, old: *mut c_void, new: *mut c_void) -> Result<Vec<Event>> {
        let interface = self.exact_mut(handle, guid, old)?;
        interface.check_unused()?;
        interface.pointer = new;
        let protocol = interface.protocol;
        self.withdraw(handle, protocol);
        let mut events = Vec::new();
        self.announce(handle, protocol, new, &mut events);
        Ok(events)
    }

    /// Whether it is a handle.
    pub fn exists(&self, handle: Handle) -> bool {
        self.entry(handle).is_ok()
    }

    /// The interface of a protocol, without any bookkeeping.
    pub fn interface(&self, handle: Handle, guid: &Guid) -> Result<*mut c_void> {
        Ok(self.supported(handle, guid)?.pointer)
    }

    /// HandleProtocol: the interface, with the bookkeeping of an open by `core_agent`'s HandleProtocol.
    pub fn handle_protocol(&mut self, handle: Handle, guid: &Guid) -> Result<*mut c_void> {
        let interface = self.supported_mut(handle, guid)?;
        interface.handle_protocol_count = interface.handle_protocol_count.saturating_add(1);
        Ok(interface.pointer)
    }

    /// OpenProtocol (UEFI 2.10 §7.3.9). `agent` and `controller` may be null where the attributes allow it.
    pub fn open(
        &mut self,
        handle: Handle,
        guid: &Guid,
        agent: Handle,
        controller: Handle,
        attributes: OpenAttributes,
    ) -> Result<Opened> {
        self.check_open(handle, agent, controller, attributes)?;
        let interface = self.supported_mut(handle, guid)?;
        let opened = Ok(Opened::Interface(interface.pointer));

        // §7.3.9 compares only the agent here, not the controller.
        let by_driver = attributes.contains(OpenAttributes::BY_DRIVER);
        if by_driver && interface.opens.iter().any(|open| open.agent == agent && open.attributes == attributes) {
            return Err(HandleError::AlreadyStarted);
        }
        if !attributes.intersects(OpenAttributes::BY_DRIVER_EXCLUSIVE)
            && let Some(open) = interface.opens.iter_mut().find(|open| open.is(agent, controller, attributes))
        {
            open.count = open.count.saturating_add(1);
            return opened;
        }
        let drivers = interface.drivers();
        let exclusive = interface.opens.iter().any(|open| open.attributes.contains(OpenAttributes::EXCLUSIVE));
        if attributes.contains(OpenAttributes::EXCLUSIVE) {
            if exclusive {
                return Err(HandleError::InUse);
            }
            if !drivers.is_empty() {
                return Ok(Opened::DisconnectFirst(drivers));
            }
        } else if attributes == OpenAttributes::BY_DRIVER && (exclusive || !drivers.is_empty()) {
            return Err(HandleError::InUse);
        }
        if !agent.is_null() {
            interface.opens.push(Open { agent, controller, attributes, count: 1 });
        }
        opened
    }

    /// CloseProtocol (UEFI 2.10 §7.3.10): forgets every open of this agent for this controller.
    pub fn close(&mut self, handle: Handle, guid: &Guid, agent: Handle, controller: Handle) -> Result<()> {
        self.entry(agent).map_err(|_| HandleError::NoSuchAgent)?;
        if !controller.is_null() {
            self.entry(controller).map_err(|_| HandleError::NoSuchController)?;
        }
        let opens = &mut self.supported_mut(handle, guid)?.opens;
        let before = opens.len();
        opens.retain(|open| open.agent != agent || open.controller != controller);
        if opens.len() == before { Err(HandleError::NotOpen) } else { Ok(()) }
    }

    /// The open list of an interface. What HandleProtocol opened is listed as opened by `core_agent`.
    pub fn opens(&self, handle: Handle, guid: &Guid, core_agent: Handle) -> Result<Vec<Open>> {
        let interface = self.supported(handle, guid)?;
        let mut opens = interface.opens.clone();
        if interface.handle_protocol_count > 0 {
            opens.push(Open {
                agent: core_agent,
                controller: ptr::null_mut(),
                attributes: OpenAttributes::BY_HANDLE_PROTOCOL,
                count: interface.handle_protocol_count,
            });
        }
        Ok(opens)
    }

    /// Forgets every open by `agent`, of whatever protocol and handle.
    pub fn close_all_of(&mut self, agent: Handle) {
        for entry in self.slots.iter_mut().flatten() {
            for interface in &mut entry.interfaces {
                interface.opens.retain(|open| open.agent != agent);
            }
        }
    }

    /// The GUIDs of a handle's protocols. They stay where they are as long as the database exists.
    pub fn protocols(&self, handle: Handle) -> Result<Vec<*const Guid>> {
        let guid = |interface: &Interface| self.protocols.get(interface.protocol).map(|p| ptr::from_ref(&p.guid));
        Ok(self.entry(handle)?.interfaces.iter().filter_map(guid).collect())
    }

    /// All handles, in the order in which they were made.
    pub fn all(&self) -> Vec<Handle> {
        self.slots.iter().enumerate().filter(|(_, entry)| entry.is_some()).map(|(slot, _)| handle_of(slot)).collect()
    }

    /// The handles with a protocol and its interface on each, in the order of installation.
    pub fn instances(&self, guid: &Guid) -> &[(Handle, *mut c_void)] {
        self.find_protocol(guid).map_or(&[], |protocol| &protocol.instances)
    }

    /// RegisterProtocolNotify: `event` will be among the events to signal when the protocol is installed. Returns the
    /// registration.
    pub fn register(&mut self, guid: &Guid, event: Event) -> *mut c_void {
        let protocol = self.protocol_index(guid);
        self.registrations_made += 1;
        let id = self.registrations_made;
        self.registrations.push(Registration { id, protocol, event, news: VecDeque::new() });
        ptr::without_provenance_mut(id)
    }

    /// The event is gone, and with it its registrations.
    pub fn forget_event(&mut self, event: Event) {
        self.registrations.retain(|registration| registration.event != event);
    }

    /// The next handle that is new to a registration, and its interface. It stays new until it is [taken](Self::take_new).
    pub fn peek_new(&self, registration: *const c_void) -> Result<(Handle, *mut c_void)> {
        let registration = self.registrations.iter().find(|r| r.id == registration.addr());
        let registration = registration.ok_or(HandleError::NothingNew)?;
        let handle = *registration.news.front().ok_or(HandleError::NothingNew)?;
        let protocol = self.protocols.get(registration.protocol).ok_or(HandleError::NothingNew)?;
        protocol.instances.iter().find(|(h, _)| *h == handle).copied().ok_or(HandleError::NothingNew)
    }

    /// Takes what [`Self::peek_new`] saw off the queue.
    pub fn take_new(&mut self, registration: *const c_void) {
        if let Some(registration) = self.registrations.iter_mut().find(|r| r.id == registration.addr()) {
            registration.news.pop_front();
        }
    }

    /// The agents that manage `controller`: those that have any of its protocols open by driver.
    pub fn drivers_managing(&self, controller: Handle) -> Result<Vec<Handle>> {
        let mut drivers = Vec::new();
        for agent in self.entry(controller)?.interfaces.iter().flat_map(Interface::drivers) {
            push_new(&mut drivers, agent);
        }
        Ok(drivers)
    }

    /// The children of `controller`: those for which any of its protocols is open by child controller, made by `driver`
    /// or, without one, by anybody.
    pub fn children(&self, controller: Handle, driver: Option<Handle>) -> Result<Vec<Handle>> {
        let mut children = Vec::new();
        for open in self.entry(controller)?.interfaces.iter().flat_map(|interface| &interface.opens) {
            let made_by = driver.is_none_or(|driver| open.agent == driver);
            if made_by && open.attributes == OpenAttributes::BY_CHILD_CONTROLLER {
                push_new(&mut children, open.controller);
            }
        }
        Ok(children)
    }

    /// UEFI 2.10 §7.3.9: which handles each kind of open needs.
    fn check_open(&self, handle: Handle, agent: Handle, controller: Handle, attributes: OpenAttributes) -> Result<()> {
        self.entry(handle)?;
        if !attributes.are_defined() {
            return Err(HandleError::Attributes);
        }
        if OpenAttributes::PASSING.contains(attributes) {
            return Ok(());
        }
        self.entry(agent).map_err(|_| HandleError::NoSuchAgent)?;
        if attributes != OpenAttributes::EXCLUSIVE {
            self.entry(controller).map_err(|_| HandleError::NoSuchController)?;
        }
        if attributes == OpenAttributes::BY_CHILD_CONTROLLER && handle == controller {
            return Err(HandleError::NoSuchController);
        }
        Ok(())
    }

    fn new_handle(&mut self) -> Handle {
        self.slots.push(Some(Box::default()));
        handle_of(self.slots.len() - 1)
    }

    fn retire(&mut self, handle: Handle, guid: &Guid, pointer: *mut c_void) -> Result<()> {
        let protocol = self.exact(handle, guid, pointer)?.protocol;
        self.entry_mut(handle)?.interfaces.retain(|interface| interface.protocol != protocol);
        self.withdraw(handle, protocol);
        Ok(())
    }

    fn announce(&mut self, handle: Handle, protocol: usize, pointer: *mut c_void, events: &mut Vec<Event>) {
        if let Some(protocol) = self.protocols.get_mut(protocol) {
            protocol.instances.push((handle, pointer));
        }
        for registration in self.registrations.iter_mut().filter(|r| r.protocol == protocol) {
            registration.news.push_back(handle);
            events.push(registration.event);
        }
    }

    fn withdraw(&mut self, handle: Handle, protocol: usize) {
        if let Some(protocol) = self.protocols.get_mut(protocol) {
            protocol.instances.retain(|(h, _)| *h != handle);
        }
        for registration in self.registrations.iter_mut().filter(|r| r.protocol == protocol) {
            registration.news.retain(|h| *h != handle);
        }
    }

    fn protocol_index(&mut self, guid: &Guid) -> usize {
        let key = key(guid);
        match self.by_guid.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(found) => self.by_guid[found].1,
            Err(place) => {
                self.protocols.push(Box::new(Protocol { guid: *guid, instances: Vec::new() }));
                let index = self.protocols.len() - 1;
                self.by_guid.insert(place, (key, index));
                index
            }
        }
    }

    fn find_protocol(&self, guid: &Guid) -> Option<&Protocol> {
        let found = self.by_guid.binary_search_by_key(&key(guid), |(key, _)| *key).ok()?;
        let (_, index) = self.by_guid.get(found)?;
        self.protocols.get(*index).map(|protocol| &**protocol)
    }

    fn entry(&self, handle: Handle) -> Result<&Entry> {
        let slot = slot_of(handle).and_then(|slot| self.slots.get(slot));
        slot.and_then(Option::as_deref).ok_or(HandleError::NoSuchHandle)
    }

    fn entry_mut(&mut self, handle: Handle) -> Result<&mut Entry> {
        let slot = slot_of(handle).and_then(|slot| self.slots.get_mut(slot));
        slot.and_then(Option::as_deref_mut).ok_or(HandleError::NoSuchHandle)
    }

    fn supported(&self, handle: Handle, guid: &Guid) -> Result<&Interface> {
        let entry = self.entry(handle)?;
        entry.find(key(guid)).and_then(|index| entry.interfaces.get(index)).ok_or(HandleError::NoSuchProtocol)
    }

    fn supported_mut(&mut self, handle: Handle, guid: &Guid) -> Result<&mut Interface> {
        let entry = self.entry_mut(handle)?;
        entry.find(key(guid)).and_then(|index| entry.interfaces.get_mut(index)).ok_or(HandleError::NoSuchProtocol)
    }

    fn exact(&self, handle: Handle, guid: &Guid, pointer: *mut c_void) -> Result<&Interface> {
        self.supported(handle, guid)
            .and_then(|found| if found.pointer == pointer { Ok(found) } else { Err(HandleError::OtherInterface) })
    }

    fn exact_mut(&mut self, handle: Handle, guid: &Guid, pointer: *mut c_void) -> Result<&mut Interface> {
        self.supported_mut(handle, guid)
            .and_then(|found| if found.pointer == pointer { Ok(found) } else { Err(HandleError::OtherInterface) })
    }
}

impl Entry {
    fn find(&self, key: Key) -> Option<usize> {
        self.interfaces.iter().position(|interface| interface.key == key)
    }
}

impl Interface {
    fn drivers(&self) -> Vec<Handle> {
        let mut drivers = Vec::new();
        for open in self.opens.iter().filter(|open| open.attributes.contains(OpenAttributes::BY_DRIVER)) {
            push_new(&mut drivers, open.agent);
        }
        drivers
    }

    /// Forgets the opens that need no closing and refuses if others remain.
    fn check_unused(&mut self) -> Result<()> {
        self.opens.retain(|open| !OpenAttributes::PASSING.contains(open.attributes));
        self.handle_protocol_count = 0;
        if self.opens.is_empty() { Ok(()) } else { Err(HandleError::InUse) }
    }
}

fn key(guid: &Guid) -> Key {
    u128::from_le_bytes(guid.to_bytes())
}

fn slot_of(handle: Handle) -> Option<usize> {
    let value = handle.addr();
    let number = value >> HANDLE_SHIFT;
    if number << HANDLE_SHIFT == value { number.checked_sub(1) } else { None }
}

fn handle_of(slot: usize) -> Handle {
    ptr::without_provenance_mut((slot + 1) << HANDLE_SHIFT)
}

fn push_new(list: &mut Vec<Handle>, handle: Handle) {
    if !list.contains(&handle) {
        list.push(handle);
    }
}
