//! Reading DER element by element.

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};

use crate::error::Error;

/// The tag `[number]` of a constructed value.
pub const fn context(number: TagNumber) -> Tag {
    Tag::ContextSpecific { constructed: true, number }
}

/// The elements in the value of a SEQUENCE or SET, one after the other.
#[derive(Clone)]
pub struct Elements<'a>(SliceReader<'a>);

impl<'a> Elements<'a> {
    /// The elements that `bytes` consist of.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        Ok(Self(SliceReader::new(bytes)?))
    }

    /// The elements of the only element of `bytes`, which has the tag.
    pub fn of(bytes: &'a [u8], tag: Tag) -> Result<Self, Error> {
        let mut outer = Self::new(bytes)?;
        let inner = outer.enter(tag)?;
        outer.end()?;
        Ok(inner)
    }

    /// Whether there are no more.
    pub fn is_empty(&self) -> bool {
        self.0.is_finished()
    }

    /// That there are no more.
    pub fn end(self) -> Result<(), Error> {
        if self.is_empty() { Ok(()) } else { Err(Error::Malformed) }
    }

    /// Whether the next element has the tag.
    pub fn is_next(&self, tag: Tag) -> bool {
        self.0.peek_tag().is_ok_and(|next| next == tag)
    }

    /// The next element, whatever it is.
    pub fn any(&mut self) -> Result<AnyRef<'a>, Error> {
        Ok(AnyRef::decode(&mut self.0)?)
    }

    /// Value of the next element, which has the tag.
    pub fn value(&mut self, tag: Tag) -> Result<&'a [u8], Error> {
        let element = self.any()?;
        if element.tag() == tag { Ok(element.value()) } else { Err(Error::Malformed) }
    }

    /// Value of the next element if that has the tag.
    pub fn optional(&mut self, tag: Tag) -> Result<Option<&'a [u8]>, Error> {
        if self.is_next(tag) { self.value(tag).map(Some) } else { Ok(None) }
    }

    /// The elements in the next element, which has the tag.
    pub fn enter(&mut self, tag: Tag) -> Result<Self, Error> {
        Self::new(self.value(tag)?)
    }

    /// The whole next element, tag and length included; it has the tag.
    pub fn whole(&mut self, tag: Tag) -> Result<&'a [u8], Error> {
        if self.is_next(tag) { Ok(self.0.tlv_bytes()?) } else { Err(Error::Malformed) }
    }

    /// The next element as what its type reads.
    pub fn decode<T: Decode<'a>>(&mut self) -> Result<T, Error> {
        Ok(T::decode(&mut self.0)?)
    }

    /// The identifier of an AlgorithmIdentifier; parameters are of no interest with the algorithms that are known here.
    pub fn algorithm(&mut self) -> Result<ObjectIdentifier, Error> {
        self.enter(Tag::Sequence)?.decode()
    }
}
