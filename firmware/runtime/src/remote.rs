//! The variable services through a daemon outside the guest, in varstored's protocol ([`variables::remote`]).
//!
//! The daemon keeps all variables, volatile ones too, and applies all rules: it is in the place of the library. What it
//! replies is checked all the same, and copied out of the pages it can write before it is looked at.

use uefi_raw::Status;
use uefi_raw::table::runtime::VariableAttributes;
use variables::remote::{NAME_UNITS, REPLY_HEAD, Reply, Request, Unreadable};
use variables::{Info, Key, NextVariable, Variable};

/// More than any variable has: the daemon always replies with the data.
const ALL: u64 = u32::MAX as u64;
const ACCESS: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS.union(VariableAttributes::RUNTIME_ACCESS);

/// The pages that requests and replies go through, and memory of our own for what is in them.
pub trait Window {
    /// Our own memory, as long as the window.
    fn buffer(&mut self) -> &mut [u8];

    /// Hands the first `length` bytes of the buffer to the daemon, and waits for its reply.
    fn exchange(&mut self, length: usize);

    /// Copies these bytes of the reply to the same place in the buffer.
    fn fetch(&mut self, from: usize, to: usize);
}

/// Why the daemon is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absence {
    /// There is none.
    Unanswered,
    /// There is one, and it has no variables for this guest; or it replies what is no reply.
    Failed(Status),
}

/// A daemon that serves this guest.
#[derive(Debug)]
pub struct Daemon<W> {
    window: W,
    at_runtime: bool,
}

impl<W: Window> Daemon<W> {
    /// Asks whether there is a daemon, and how much it can store. At most [`REPLY_HEAD`] bytes of window and buffer are
    /// changed.
    pub fn find(mut window: W) -> Result<(Self, Info), (W, Absence)> {
        let request = Request::Query { attributes: VariableAttributes::NON_VOLATILE | ACCESS };
        match exchange(&mut window, &request) {
            Ok(Reply::Info(info)) => Ok((Self { window, at_runtime: false }, info)),
            Ok(reply) => {
                let status = reply.status();
                Err((window, Absence::Failed(status)))
            }
            Err(Failure::Reply(Unreadable::Unanswered)) => Err((window, Absence::Unanswered)),
            Err(_) => Err((window, Absence::Failed(Status::PROTOCOL_ERROR))),
        }
    }

    /// The window, for moving its memory.
    pub const fn window(&self) -> &W {
        &self.window
    }

    /// The window, for moving its memory.
    pub const fn window_mut(&mut self) -> &mut W {
        &mut self.window
    }

    /// From here on requests are the operating system's (after ExitBootServices).
    pub const fn set_at_runtime(&mut self) {
        self.at_runtime = true;
    }

    /// GetVariable.
    pub fn get(&mut self, key: Key<'_>) -> Result<Variable<'_>, Status> {
        if key.name.len() > NAME_UNITS {
            return Err(Status::NOT_FOUND);
        }
        match self.call(&Request::Get { key, room: ALL, at_runtime: self.at_runtime })? {
            Reply::Variable { attributes, data } => Ok(Variable { attributes, data }),
            reply => Err(failure(reply)),
        }
    }

    /// GetNextVariableName.
    pub fn next(&mut self, key: Key<'_>) -> Result<NextVariable<'_>, Status> {
        if key.name.len() > NAME_UNITS {
            return Err(Status::INVALID_PARAMETER);
        }
        let (vendor, length) = match self.call(&Request::Next { key, room: ALL, at_runtime: self.at_runtime })? {
            Reply::Next { vendor, name } => (vendor, name.len()),
            reply => return Err(failure(reply)),
        };
        // The name is in front of the vendor, without the NUL that the caller wants.
        let name = Reply::NAME_OFFSET..Reply::NAME_OFFSET + length + size_of::<u16>();
        let name = self.window.buffer().get_mut(name).ok_or(Status::DEVICE_ERROR)?;
        if let Some(terminator) = name.last_chunk_mut() {
            *terminator = [0; size_of::<u16>()];
        }
        Ok(NextVariable { vendor, name })
    }

    /// SetVariable.
    pub fn set(&mut self, key: Key<'_>, attributes: VariableAttributes, data: &[u8]) -> Result<(), Status> {
        if !key.is_valid() || key.name.len() > NAME_UNITS {
            return Err(Status::INVALID_PARAMETER);
        }
        done(self.call(&Request::Set { key, attributes, data, at_runtime: self.at_runtime })?)
    }

    /// QueryVariableInfo. What may be asked when is checked here, as the request does not say who asks (UEFI 2.10
    /// §8.2.4).
    pub fn query(&mut self, attributes: VariableAttributes) -> Result<Info, Status> {
        let runtime = attributes.contains(VariableAttributes::RUNTIME_ACCESS);
        if !attributes.contains(VariableAttributes::BOOTSERVICE_ACCESS) || self.at_runtime && !runtime {
            return Err(Status::INVALID_PARAMETER);
        }
        match self.call(&Request::Query { attributes })? {
            Reply::Info(info) => Ok(info),
            reply => Err(failure(reply)),
        }
    }

    /// Tells the daemon that Secure Boot refused an image.
    pub fn notify_secure_boot_failure(&mut self) -> Result<(), Status> {
        done(self.call(&Request::Notify)?)
    }

    fn call(&mut self, request: &Request<'_>) -> Result<Reply<'_>, Status> {
        exchange(&mut self.window, request).map_err(|failure| match failure {
            Failure::TooLong => Status::OUT_OF_RESOURCES,
            // The daemon has gone, or is not to be believed.
            Failure::Reply(_) => Status::DEVICE_ERROR,
        })
    }
}

enum Failure {
    TooLong,
    Reply(Unreadable),
}

fn exchange<'a, W: Window>(window: &'a mut W, request: &Request<'_>) -> Result<Reply<'a>, Failure> {
    let length = request.encode(window.buffer()).ok_or(Failure::TooLong)?;
    window.exchange(length);
    window.fetch(0, REPLY_HEAD);
    let command = request.command();
    // Copied once: the sizes that are looked at here are those that count.
    let size = Reply::size(command, window.buffer()).min(window.buffer().len());
    if size > REPLY_HEAD {
        window.fetch(REPLY_HEAD, size);
    }
    let reply = window.buffer().get(..size.max(REPLY_HEAD)).unwrap_or_default();
    Reply::decode(command, reply).map_err(Failure::Reply)
}

fn done(reply: Reply<'_>) -> Result<(), Status> {
    if reply == Reply::Status(Status::SUCCESS) { Ok(()) } else { Err(failure(reply)) }
}

/// The status of a reply that is not the one that was hoped for. There was room for everything.
fn failure(reply: Reply<'_>) -> Status {
    match reply {
        Reply::Status(status) if status.is_error() && status != Status::BUFFER_TOO_SMALL => status,
        _ => Status::DEVICE_ERROR,
    }
}

#[cfg(test)]
mod tests;
