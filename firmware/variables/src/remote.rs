//! The wire format of varstored (xapi-project/varstored, `include/serialize.h`): variable services kept by a daemon
//! outside the guest. Both directions of both messages, for the client in the guest and for a daemon.
//!
//! The guest writes a request to the beginning of 16 contiguous pages and their page frame number to port [`PORT`]; the
//! reply is there, from the beginning too, when the write completes. Where no daemon serves the guest, the write does
//! nothing and the request is still there: see [`Unreadable::Unanswered`].
//!
//! Everything is little-endian and packed:
//!
//! ```text
//! request    u32 version = 1 | u32 command | fields
//!   0 GetVariable          name, vendor, u64 room, u8 at runtime
//!   1 SetVariable          name, vendor, data, u32 attributes, u8 at runtime
//!   2 GetNextVariableName  u64 room, name, vendor, u8 at runtime
//!   3 QueryVariableInfo    u32 attributes
//!   4 notify of a Secure Boot failure
//! reply      u64 EFI_STATUS | fields
//!   0 u32 attributes, data     2 name, vendor     3 u64 maximum storage, u64 remaining, u64 maximum variable
//!   0 and 2, BUFFER_TOO_SMALL: u64 needed
//! name, data: u64 bytes | bytes; a name is UCS-2 without NUL      vendor: 16 bytes
//! ```

use uefi_raw::table::runtime::VariableAttributes;
use uefi_raw::{Guid, Status};

use crate::name::Key;
use crate::service::Info;

/// The port for page frame numbers, 32 bits wide.
pub const PORT: u16 = 0x100;
/// Pages of the window that requests and replies are in.
pub const WINDOW_PAGES: usize = 16;
/// Bytes of the window.
pub const WINDOW_SIZE: usize = WINDOW_PAGES * 4096;
/// Longest name in bytes, without NUL.
pub const NAME_LIMIT: usize = 4096;
/// Longest name in UCS-2 units.
pub const NAME_UNITS: usize = NAME_LIMIT / size_of::<u16>();
/// Most data of a variable, in bytes.
pub const DATA_LIMIT: usize = 57344;
/// So many bytes of a reply tell how long it is.
pub const REPLY_HEAD: usize = 32;
/// First word of each request.
pub const VERSION: u32 = 1;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Command {
    /// GetVariable.
    Get = 0,
    /// SetVariable.
    Set = 1,
    /// GetNextVariableName.
    Next = 2,
    /// QueryVariableInfo.
    Query = 3,
    /// An image was refused by Secure Boot.
    Notify = 4,
}

impl Command {
    fn from_wire(value: u32) -> Option<Self> {
        [Self::Get, Self::Set, Self::Next, Self::Query, Self::Notify].into_iter().find(|&known| known as u32 == value)
    }
}

/// A request. Whether the operating system asks decides what can be seen and changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// GetVariable.
    Get {
        /// Which.
        key: Key<'a>,
        /// Bytes the caller has for the data.
        room: u64,
        /// The operating system asks.
        at_runtime: bool,
    },
    /// SetVariable.
    Set {
        /// Which.
        key: Key<'a>,
        /// Attributes as given.
        attributes: VariableAttributes,
        /// Data as given.
        data: &'a [u8],
        /// The operating system asks.
        at_runtime: bool,
    },
    /// GetNextVariableName.
    Next {
        /// The one before; an empty name asks for the first.
        key: Key<'a>,
        /// Bytes the caller has for the name with its NUL.
        room: u64,
        /// The operating system asks.
        at_runtime: bool,
    },
    /// QueryVariableInfo.
    Query {
        /// Attributes of the variables that are asked about.
        attributes: VariableAttributes,
    },
    /// An image was refused by Secure Boot.
    Notify,
}

/// Why bytes are no request that can be carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Another version, or a command that is not known: there is no reply.
    Unknown,
    /// The reply is this status.
    Status(Status),
}

impl<'a> Request<'a> {
    /// What is asked.
    pub const fn command(&self) -> Command {
        match self {
            Self::Get { .. } => Command::Get,
            Self::Set { .. } => Command::Set,
            Self::Next { .. } => Command::Next,
            Self::Query { .. } => Command::Query,
            Self::Notify => Command::Notify,
        }
    }

    /// Whether the operating system asks; `None` where the request does not tell.
    pub const fn at_runtime(&self) -> Option<bool> {
        match self {
            Self::Get { at_runtime, .. } | Self::Set { at_runtime, .. } | Self::Next { at_runtime, .. } => {
                Some(*at_runtime)
            }
            Self::Query { .. } | Self::Notify => None,
        }
    }

    /// Writes the request to the beginning of `buffer`; returns its length, or `None` if it is too long.
    pub fn encode(&self, buffer: &mut [u8]) -> Option<usize> {
        let mut out = Writer::new(buffer);
        out.u32(VERSION)?;
        out.u32(self.command() as u32)?;
        match *self {
            Self::Get { key, room, at_runtime } => {
                out.key(key)?;
                out.u64(room)?;
                out.bytes(&[u8::from(at_runtime)])?;
            }
            Self::Set { key, attributes, data, at_runtime } => {
                out.key(key)?;
                out.blob(data)?;
                out.u32(attributes.bits())?;
                out.bytes(&[u8::from(at_runtime)])?;
            }
            Self::Next { key, room, at_runtime } => {
                out.u64(room)?;
                out.key(key)?;
                out.bytes(&[u8::from(at_runtime)])?;
            }
            Self::Query { attributes } => out.u32(attributes.bits())?,
            Self::Notify => {}
        }
        Some(out.end)
    }

    /// Reads a request from anyone. The units of its name go to `name`.
    pub fn decode(bytes: &'a [u8], name: &'a mut [u16; NAME_UNITS]) -> Result<Self, Refusal> {
        let mut input = Reader(bytes);
        let head = input.u32().zip(input.u32());
        let command = head.filter(|&(version, _)| version == VERSION).and_then(|(_, word)| Command::from_wire(word));
        match command.ok_or(Refusal::Unknown)? {
            Command::Get => {
                let key = input.key(name)?;
                Ok(Self::Get { key, room: input.field()?, at_runtime: input.flag()? })
            }
            Command::Set => {
                let key = input.key(name)?;
                let data = input.blob(DATA_LIMIT, Status::OUT_OF_RESOURCES)?;
                let attributes = VariableAttributes::from_bits_retain(input.u32().ok_or(CUT)?);
                Ok(Self::Set { key, attributes, data, at_runtime: input.flag()? })
            }
            Command::Next => {
                let room = input.field()?;
                let key = input.key(name)?;
                Ok(Self::Next { key, room, at_runtime: input.flag()? })
            }
            Command::Query => {
                Ok(Self::Query { attributes: VariableAttributes::from_bits_retain(input.u32().ok_or(CUT)?) })
            }
            Command::Notify => Ok(Self::Notify),
        }
    }
}

/// Bytes end inside a field.
const CUT: Refusal = Refusal::Status(Status::DEVICE_ERROR);

/// A reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply<'a> {
    /// Nothing but a status: that of SetVariable or of a failure.
    Status(Status),
    /// The caller has too little room.
    TooSmall {
        /// Bytes needed.
        needed: u64,
    },
    /// GetVariable's.
    Variable {
        /// Attributes.
        attributes: VariableAttributes,
        /// Content.
        data: &'a [u8],
    },
    /// GetNextVariableName's.
    Next {
        /// Vendor.
        vendor: Guid,
        /// UCS-2, little-endian, without NUL.
        name: &'a [u8],
    },
    /// QueryVariableInfo's.
    Info(Info),
}

/// Why bytes are no reply to the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// The request is still there: nobody answered.
    Unanswered,
    /// A status that is neither success nor an error, sizes that do not fit, or a name that is none.
    Malformed,
}

impl<'a> Reply<'a> {
    /// Where the name is in GetNextVariableName's.
    pub const NAME_OFFSET: usize = 2 * size_of::<u64>();
    const DATA_OFFSET: u64 = 20;

    /// How long the reply is whose first [`REPLY_HEAD`] bytes are at the beginning of `head`.
    pub fn size(command: Command, head: &[u8]) -> usize {
        let mut input = Reader(head);
        let is_success = input.u64() == Some(Status::SUCCESS.0 as u64);
        let size = match command {
            Command::Get if is_success => {
                let data = input.u32().and_then(|_| input.u64());
                data.map(|data| data.saturating_add(Self::DATA_OFFSET))
            }
            Command::Next if is_success => {
                let end = (Self::NAME_OFFSET + size_of::<Guid>()) as u64;
                input.u64().map(|name| name.saturating_add(end))
            }
            _ => None,
        };
        size.and_then(|size| usize::try_from(size).ok()).unwrap_or(REPLY_HEAD)
    }

    /// The status of the service.
    pub const fn status(&self) -> Status {
        match self {
            Self::Status(status) => *status,
            Self::TooSmall { .. } => Status::BUFFER_TOO_SMALL,
            Self::Variable { .. } | Self::Next { .. } | Self::Info(_) => Status::SUCCESS,
        }
    }

    /// Writes the reply to the beginning of `buffer`; returns its length, or `None` if it is too long.
    pub fn encode(&self, buffer: &mut [u8]) -> Option<usize> {
        let mut out = Writer::new(buffer);
        out.u64(self.status().0 as u64)?;
        match *self {
            Self::Status(_) => {}
            Self::TooSmall { needed } => out.u64(needed)?,
            Self::Variable { attributes, data } => {
                out.u32(attributes.bits())?;
                out.blob(data)?;
            }
            Self::Next { vendor, name } => {
                out.blob(name)?;
                out.bytes(&vendor.to_bytes())?;
            }
            Self::Info(info) => {
                for field in [info.maximum_storage, info.remaining_storage, info.maximum_variable] {
                    out.u64(field)?;
                }
            }
        }
        Some(out.end)
    }

    /// Reads the reply to a request of that command.
    pub fn decode(command: Command, bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let mut input = Reader(bytes);
        let status = input.u64().ok_or(Unreadable::Malformed)?;
        if status == u64::from(VERSION) | u64::from(command as u32) << u32::BITS {
            return Err(Unreadable::Unanswered);
        }
        let status = Status(usize::try_from(status).map_err(|_| Unreadable::Malformed)?);
        let reply = match (status, command) {
            (Status::SUCCESS, Command::Get) => input.variable(),
            (Status::SUCCESS, Command::Next) => input.next(),
            (Status::SUCCESS, Command::Query) => input.info(),
            (Status::BUFFER_TOO_SMALL, Command::Get | Command::Next) => {
                input.u64().map(|needed| Self::TooSmall { needed })
            }
            (Status::SUCCESS, Command::Set | Command::Notify) => Some(Self::Status(status)),
            _ if status.is_error() => Some(Self::Status(status)),
            _ => None,
        };
        reply.ok_or(Unreadable::Malformed)
    }
}

struct Writer<'a> {
    buffer: &'a mut [u8],
    end: usize,
}

impl<'a> Writer<'a> {
    const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, end: 0 }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.end.checked_add(bytes.len())?;
        self.buffer.get_mut(self.end..end)?.copy_from_slice(bytes);
        self.end = end;
        Some(())
    }

    fn u32(&mut self, value: u32) -> Option<()> {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> Option<()> {
        self.bytes(&value.to_le_bytes())
    }

    fn blob(&mut self, bytes: &[u8]) -> Option<()> {
        self.u64(bytes.len() as u64)?;
        self.bytes(bytes)
    }

    fn key(&mut self, key: Key<'_>) -> Option<()> {
        self.u64(size_of_val(key.name) as u64)?;
        key.name.iter().try_for_each(|unit| self.bytes(&unit.to_le_bytes()))?;
        self.bytes(&key.vendor.to_bytes())
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn field(&mut self) -> Result<u64, Refusal> {
        self.u64().ok_or(CUT)
    }

    fn flag(&mut self) -> Result<bool, Refusal> {
        self.array().map(|[byte]| byte != 0).ok_or(CUT)
    }

    fn guid(&mut self) -> Option<Guid> {
        self.array().map(Guid::from_bytes)
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    fn blob(&mut self, limit: usize, too_long: Status) -> Result<&'a [u8], Refusal> {
        let length = self.field()?;
        if length > limit as u64 {
            return Err(Refusal::Status(too_long));
        }
        self.take(length).ok_or(CUT)
    }

    fn key(&mut self, name: &'a mut [u16; NAME_UNITS]) -> Result<Key<'a>, Refusal> {
        let bytes = self.blob(NAME_LIMIT, Status::DEVICE_ERROR)?;
        let vendor = self.guid().ok_or(CUT)?;
        let (units, rest) = bytes.as_chunks();
        if !rest.is_empty() {
            return Err(Refusal::Status(Status::INVALID_PARAMETER));
        }
        let name = name.get_mut(..units.len()).ok_or(CUT)?;
        for (place, &unit) in name.iter_mut().zip(units) {
            *place = u16::from_le_bytes(unit);
        }
        Ok(Key::new(vendor, name))
    }

    fn variable(&mut self) -> Option<Reply<'a>> {
        let attributes = VariableAttributes::from_bits_retain(self.u32()?);
        let length = self.u64()?;
        Some(Reply::Variable { attributes, data: self.take(length)? })
    }

    fn next(&mut self) -> Option<Reply<'a>> {
        let length = self.u64()?;
        let name = self.take(length)?;
        let vendor = self.guid()?;
        let (units, rest) = name.as_chunks();
        let is_name = rest.is_empty() && !units.is_empty() && units.len() <= NAME_UNITS && !units.contains(&[0, 0]);
        is_name.then_some(Reply::Next { vendor, name })
    }

    fn info(&mut self) -> Option<Reply<'a>> {
        let (maximum_storage, remaining_storage) = self.u64().zip(self.u64())?;
        Some(Reply::Info(Info { maximum_storage, remaining_storage, maximum_variable: self.u64()? }))
    }
}

#[cfg(test)]
mod tests;
