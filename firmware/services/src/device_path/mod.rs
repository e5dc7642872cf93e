//! Device path nodes, text forms, utilities (UEFI 2.10 §10).
//!
//! | type | what |
//! | --- | --- |
//! | [`DevicePath`] | a borrowed path whose structure has been checked |
//! | [`DevicePathBuf`] | an owned one, for building |
//! | [`RawNode`] | one node of a path: type, sub-type, bytes |
//! | [`Node`] | one node, typed |
//!
//! A path is compared by its bytes, never by its decoded nodes. The text forms are in [`text`].

use alloc::borrow::ToOwned;
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::fmt;
use core::ops::Deref;

use uefi_raw::Status;
use uefi_raw::protocol::device_path::{DevicePathProtocol, DeviceSubType, DeviceType};

mod node;
pub mod text;

pub use node::{Node, PartitionFormat, Signature};
pub use text::TextOptions;

/// Bytes of a node's header: type, sub-type, length.
pub const HEADER_LENGTH: usize = size_of::<DevicePathProtocol>();

/// Longest path that is accepted, in bytes with its End node. A load option can hold no more (UEFI 2.10 §3.1.3).
pub const MAX_LENGTH: usize = u16::MAX as usize;

const END_ENTIRE: [u8; HEADER_LENGTH] = [DeviceType::END.0, DeviceSubType::END_ENTIRE.0, HEADER_LENGTH as u8, 0];
const END_INSTANCE: [u8; HEADER_LENGTH] = [DeviceType::END.0, DeviceSubType::END_INSTANCE.0, HEADER_LENGTH as u8, 0];

/// What is wrong with a device path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DevicePathError {
    /// The bytes end before the End node.
    Truncated,
    /// A node says it is shorter than its own header.
    NodeTooShort,
    /// The End node has data.
    EndLength,
    /// Longer than [`MAX_LENGTH`], or a node longer than its length field can say.
    TooLong,
    /// A text that is no device path.
    Text {
        /// Where the node that is not understood begins, in bytes.
        at: usize,
    },
}

impl fmt::Display for DevicePathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("device path without an end"),
            Self::NodeTooShort => f.write_str("device path node shorter than its header"),
            Self::EndLength => f.write_str("device path end node with data"),
            Self::TooLong => f.write_str("device path too long"),
            Self::Text { at } => write!(f, "device path text not understood at character {at}"),
        }
    }
}

impl core::error::Error for DevicePathError {}

impl From<DevicePathError> for Status {
    fn from(_: DevicePathError) -> Self {
        Self::INVALID_PARAMETER
    }
}

/// A device path: nodes, each at least as long as its header, the last an End Entire node without data, at most [`MAX_LENGTH`] bytes.
#[derive(PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct DevicePath {
    bytes: [u8],
}

impl DevicePath {
    /// The path of no nodes.
    pub const fn empty() -> &'static Self {
        // SAFETY: a lone End node is a path.
        unsafe { Self::from_checked(&END_ENTIRE) }
    }

    /// The path that `bytes` begin with. What follows its End node is not looked at.
    pub fn from_bytes(bytes: &[u8]) -> Result<&Self, DevicePathError> {
        Self::split_first(bytes).map(|(path, _)| path)
    }

    /// The path that `bytes` begin with, and the bytes behind it.
    pub fn split_first(bytes: &[u8]) -> Result<(&Self, &[u8]), DevicePathError> {
        let mut length = 0;
        loop {
            let node = RawNode::first(&bytes[length..])?;
            length += node.bytes.len();
            if length > MAX_LENGTH {
                return Err(DevicePathError::TooLong);
            }
            if node.is_end() {
                if node.bytes.len() != END_ENTIRE.len() {
                    return Err(DevicePathError::EndLength);
                }
                let (path, rest) = bytes.split_at(length);
                // SAFETY: just checked.
                return Ok((unsafe { Self::from_checked(path) }, rest));
            }
        }
    }

    /// The path at `pointer`.
    ///
    /// # Errors
    /// If a node is shorter than its header, or the path is longer than [`MAX_LENGTH`].
    ///
    /// # Safety
    /// `pointer` points to readable memory up to the end of the path or up to the first node that says it is shorter
    /// than its header, and the memory does not change during `'a`.
    pub unsafe fn from_ptr<'a>(pointer: *const DevicePathProtocol) -> Result<&'a Self, DevicePathError> {
        let start: *const u8 = pointer.cast();
        let mut length = 0;
        loop {
            // SAFETY: within the path, whose nodes are readable (the caller).
            let header: [u8; HEADER_LENGTH] = unsafe { start.add(length).cast::<[u8; HEADER_LENGTH]>().read() };
            let node_length = usize::from(u16::from_le_bytes([header[2], header[3]]));
            if node_length < HEADER_LENGTH {
                return Err(DevicePathError::NodeTooShort);
            }
            length += node_length;
            if length > MAX_LENGTH {
                return Err(DevicePathError::TooLong);
            }
            if header[..2] == END_ENTIRE[..2] {
                if header != END_ENTIRE {
                    return Err(DevicePathError::EndLength);
                }
                // SAFETY: readable and unchanging (the caller), and its structure was just checked.
                return Ok(unsafe { Self::from_checked(core::slice::from_raw_parts(start, length)) });
            }
        }
    }

    /// # Safety
    /// `bytes` are a path as the type describes it.
    const unsafe fn from_checked(bytes: &[u8]) -> &Self {
        // SAFETY: `DevicePath` is a transparent wrapper of `[u8]`.
        unsafe { &*(core::ptr::from_ref(bytes) as *const Self) }
    }

    /// All bytes, the End node included.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// For the C side. Valid as long as the path is.
    pub const fn as_ptr(&self) -> *const DevicePathProtocol {
        self.bytes.as_ptr().cast()
    }

    /// Whether there is no node but the End node.
    pub fn is_empty(&self) -> bool {
        self.raw_nodes().next().is_none()
    }

    /// The nodes with their bytes, without the final End Entire node. End Instance nodes are among them.
    pub const fn raw_nodes(&self) -> RawNodes<'_> {
        RawNodes { rest: &self.bytes }
    }

    /// The nodes, typed, without the final End Entire node. End Instance nodes are among them.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + '_ {
        self.raw_nodes().map(|node| node.decode())
    }

    /// The last node.
    pub fn last(&self) -> Option<RawNode<'_>> {
        self.raw_nodes().last()
    }

    /// Whether the nodes of `prefix` are the first nodes of this path.
    pub fn starts_with(&self, prefix: &Self) -> bool {
        self.strip_prefix(prefix).is_some()
    }

    /// What remains behind the nodes of `prefix`, if the path starts with them.
    pub fn strip_prefix(&self, prefix: &Self) -> Option<&Self> {
        let rest = self.bytes.strip_prefix(prefix.without_end())?;
        // SAFETY: the bytes before `rest` were whole nodes, for they are those of another path; so `rest` begins with a
        // node and ends as this path does.
        Some(unsafe { Self::from_checked(rest) })
    }

    /// Whether the path has several instances.
    pub fn is_multi_instance(&self) -> bool {
        self.raw_nodes().any(|node| node.is_end_instance())
    }

    /// The instances: the paths between End Instance nodes, each as a path of its own. A path has at least one.
    pub const fn instances(&self) -> Instances<'_> {
        Instances { rest: Some(self) }
    }

    /// The first instance as a path of its own, and what follows it.
    pub fn next_instance(&self) -> (DevicePathBuf, Option<&Self>) {
        let mut nodes = self.raw_nodes();
        let mut instance = DevicePathBuf::new();
        while let Some(node) = nodes.next() {
            if node.is_end_instance() {
                // SAFETY: begins behind a whole node and ends as this path does.
                return (instance, Some(unsafe { Self::from_checked(nodes.rest) }));
            }
            instance.insert_bytes_at_end(node.bytes);
        }
        (instance, None)
    }

    fn without_end(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - END_ENTIRE.len()]
    }
}

impl ToOwned for DevicePath {
    type Owned = DevicePathBuf;

    fn to_owned(&self) -> DevicePathBuf {
        DevicePathBuf { bytes: self.bytes.to_vec() }
    }
}

impl<'a> IntoIterator for &'a DevicePath {
    type Item = RawNode<'a>;
    type IntoIter = RawNodes<'a>;

    fn into_iter(self) -> RawNodes<'a> {
        self.raw_nodes()
    }
}

/// The instances of a path. See [`DevicePath::instances`].
#[derive(Clone, Debug)]
pub struct Instances<'a> {
    rest: Option<&'a DevicePath>,
}

impl Iterator for Instances<'_> {
    type Item = DevicePathBuf;

    fn next(&mut self) -> Option<DevicePathBuf> {
        let (instance, rest) = self.rest?.next_instance();
        self.rest = rest;
        Some(instance)
    }
}

/// The nodes of a path. See [`DevicePath::raw_nodes`].
#[derive(Clone, Debug)]
pub struct RawNodes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for RawNodes<'a> {
    type Item = RawNode<'a>;

    fn next(&mut self) -> Option<RawNode<'a>> {
        let node = RawNode::first(self.rest).ok().filter(|node| !node.is_end())?;
        self.rest = &self.rest[node.bytes.len()..];
        Some(node)
    }
}

/// One node as it stands in a path; at least as long as its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawNode<'a> {
    bytes: &'a [u8],
}

impl<'a> RawNode<'a> {
    /// The node that `bytes` begin with.
    pub fn first(bytes: &'a [u8]) -> Result<Self, DevicePathError> {
        let header = bytes.get(..HEADER_LENGTH).ok_or(DevicePathError::Truncated)?;
        let length = usize::from(u16::from_le_bytes([header[2], header[3]]));
        if length < HEADER_LENGTH {
            return Err(DevicePathError::NodeTooShort);
        }
        bytes.get(..length).map(|bytes| Self { bytes }).ok_or(DevicePathError::Truncated)
    }

    /// The node at `pointer`.
    ///
    /// # Safety
    /// `pointer` points to a readable header and, if that is valid, to a node of the length it says, which does not
    /// change during `'a`.
    pub unsafe fn from_ptr(pointer: *const DevicePathProtocol) -> Result<Self, DevicePathError> {
        // SAFETY: the caller.
        let length = usize::from(unsafe { pointer.read() }.length());
        if length < HEADER_LENGTH {
            return Err(DevicePathError::NodeTooShort);
        }
        // SAFETY: the caller.
        Ok(Self { bytes: unsafe { core::slice::from_raw_parts(pointer.cast(), length) } })
    }

    /// Type.
    pub const fn device_type(&self) -> DeviceType {
        DeviceType(self.bytes[0])
    }

    /// Sub-type.
    pub const fn sub_type(&self) -> DeviceSubType {
        DeviceSubType(self.bytes[1])
    }

    /// What follows the header.
    pub fn data(&self) -> &'a [u8] {
        &self.bytes[HEADER_LENGTH..]
    }

    /// Header and data.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether this node ends the whole path.
    pub fn is_end(&self) -> bool {
        self.bytes[..2] == END_ENTIRE[..2]
    }

    /// Whether this node ends an instance and another follows.
    pub fn is_end_instance(&self) -> bool {
        self.bytes[..2] == END_INSTANCE[..2]
    }

    /// The typed node.
    pub fn decode(&self) -> Node {
        Node::decode(self.device_type(), self.sub_type(), self.data())
    }
}

/// An owned [`DevicePath`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DevicePathBuf {
    bytes: Vec<u8>,
}

impl DevicePathBuf {
    /// The path of no nodes.
    pub fn new() -> Self {
        Self { bytes: END_ENTIRE.to_vec() }
    }

    /// The path of these nodes.
    ///
    /// # Errors
    /// `TooLong`.
    pub fn from_nodes<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Result<Self, DevicePathError> {
        let mut path = Self::new();
        for node in nodes {
            path.push(node)?;
        }
        Ok(path)
    }

    /// Appends a node.
    ///
    /// # Errors
    /// `TooLong`; the path is then as before.
    pub fn push(&mut self, node: &Node) -> Result<(), DevicePathError> {
        let bytes = node.to_bytes()?;
        self.append_bytes(&bytes)
    }

    /// This path and one more node: for children of a device.
    ///
    /// # Errors
    /// `TooLong`.
    pub fn with(mut self, node: &Node) -> Result<Self, DevicePathError> {
        self.push(node)?;
        Ok(self)
    }

    /// Appends a node as it stands.
    ///
    /// # Errors
    /// `TooLong`; the path is then as before.
    pub fn push_raw(&mut self, node: RawNode<'_>) -> Result<(), DevicePathError> {
        if node.is_end() { Ok(()) } else { self.append_bytes(node.bytes) }
    }

    /// Appends the nodes of `path`.
    ///
    /// # Errors
    /// `TooLong`; the path is then as before.
    pub fn append(&mut self, path: &DevicePath) -> Result<(), DevicePathError> {
        self.append_bytes(path.without_end())
    }

    /// Appends `path` as one more instance (or several). To an empty path it is just appended.
    ///
    /// # Errors
    /// `TooLong`; the path is then as before.
    pub fn append_instance(&mut self, path: &DevicePath) -> Result<(), DevicePathError> {
        let mut bytes = if self.is_empty() { Vec::new() } else { END_INSTANCE.to_vec() };
        bytes.extend_from_slice(path.without_end());
        self.append_bytes(&bytes)
    }

    /// The path as borrowed.
    pub fn as_path(&self) -> &DevicePath {
        self
    }

    /// `bytes` are whole nodes.
    fn append_bytes(&mut self, bytes: &[u8]) -> Result<(), DevicePathError> {
        if bytes.len() > MAX_LENGTH - self.bytes.len() {
            return Err(DevicePathError::TooLong);
        }
        self.insert_bytes_at_end(bytes);
        Ok(())
    }

    /// `bytes` are whole nodes, and together not longer than a path may be.
    fn insert_bytes_at_end(&mut self, bytes: &[u8]) {
        self.bytes.truncate(self.without_end().len());
        self.bytes.extend_from_slice(bytes);
        self.bytes.extend_from_slice(&END_ENTIRE);
    }
}

impl fmt::Display for DevicePathBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_path(), f)
    }
}

impl fmt::Debug for DevicePathBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_path(), f)
    }
}

impl Default for DevicePathBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for DevicePathBuf {
    type Target = DevicePath;

    fn deref(&self) -> &DevicePath {
        // SAFETY: every function of the type keeps the bytes a path.
        unsafe { DevicePath::from_checked(&self.bytes) }
    }
}

impl AsRef<DevicePath> for DevicePathBuf {
    fn as_ref(&self) -> &DevicePath {
        self
    }
}

impl Borrow<DevicePath> for DevicePathBuf {
    fn borrow(&self) -> &DevicePath {
        self
    }
}

impl From<&DevicePath> for DevicePathBuf {
    fn from(path: &DevicePath) -> Self {
        path.to_owned()
    }
}

impl PartialEq<DevicePath> for DevicePathBuf {
    fn eq(&self, other: &DevicePath) -> bool {
        **self == *other
    }
}

#[cfg(test)]
mod tests;
