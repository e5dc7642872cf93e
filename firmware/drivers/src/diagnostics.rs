//! What went wrong with a device, so that a person can act on it: which device, at what, and why.

use alloc::string::String;
use core::fmt;

use hw::hypervisor::Errno;

use crate::grants::GrantError;
use crate::xenbus::State;
use crate::xenstore;

/// A device that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The device as a person knows it: `device/vbd/51712 (xvda)`.
    pub device: String,
    /// What was being done.
    pub step: Step,
    /// Why it failed.
    pub reason: Reason,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.device, self.step, self.reason)
    }
}

impl core::error::Error for Failure {}

/// What is done with a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Looking for devices in xenstore.
    Enumerating,
    /// Reading what the toolstack and the backend say about it.
    ReadingDescription,
    /// Making the ring that requests go over.
    MakingRing,
    /// Telling the backend of the ring.
    Publishing,
    /// Waiting for the backend.
    WaitingForBackend,
    /// Closing the connection.
    Closing,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enumerating => "looking for devices",
            Self::ReadingDescription => "reading its description",
            Self::MakingRing => "making the ring",
            Self::Publishing => "telling the backend of the ring",
            Self::WaitingForBackend => "waiting for the backend",
            Self::Closing => "closing",
        })
    }
}

/// Why something with a device failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Xenstore.
    Xenstore(xenstore::Error),
    /// The grant table.
    Grant(GrantError),
    /// A hypercall.
    Hypervisor(Errno),
    /// No memory.
    OutOfMemory,
    /// A key that must be there is not.
    Missing(&'static str),
    /// A value that makes no sense: the key, and the beginning of what it holds.
    Value(&'static str, String),
    /// The backend stays in this state for so many seconds.
    Stuck(State, u64),
    /// The backend goes away.
    Leaving(State),
    /// A drive without a medium.
    NoMedium,
    /// The device is being used already.
    Busy,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xenstore(error) => write!(f, "{error}"),
            Self::Grant(error) => write!(f, "{error}"),
            Self::Hypervisor(error) => write!(f, "{error}"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Missing(key) => write!(f, "the key `{key}` is missing in xenstore"),
            Self::Value(key, value) => write!(f, "the key `{key}` holds \"{value}\", which makes no sense"),
            Self::Stuck(state, seconds) => {
                write!(f, "the backend is still in state {state} after {seconds} s; does its driver run in dom0?")
            }
            Self::Leaving(state) => write!(f, "the backend went to state {state}; dom0's log says why"),
            Self::NoMedium => f.write_str("no medium in the drive"),
            Self::Busy => f.write_str("the device is in use"),
        }
    }
}

impl From<xenstore::Error> for Reason {
    fn from(error: xenstore::Error) -> Self {
        Self::Xenstore(error)
    }
}

impl From<GrantError> for Reason {
    fn from(error: GrantError) -> Self {
        Self::Grant(error)
    }
}

impl From<Errno> for Reason {
    fn from(error: Errno) -> Self {
        Self::Hypervisor(error)
    }
}

/// The beginning of a value from outside, printable.
pub fn excerpt(value: &[u8]) -> String {
    const LONGEST: usize = 32;
    alloc::format!("{}", value[..value.len().min(LONGEST)].escape_ascii())
}
