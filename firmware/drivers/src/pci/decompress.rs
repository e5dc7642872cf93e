//! UEFI's compression (UEFI 2.11 §19): Huffman-coded bytes and references to earlier output.
//!
//! Blocks of symbols, each with three codes of its own: one for the lengths of the second, one for bytes and lengths of
//! references, one for their distances. Nothing of the input is trusted.

use alloc::vec::Vec;
use core::fmt;

/// Most that is decompressed; option ROMs are a hundredth of it.
const LARGEST: usize = 16 << 20;
/// Two sizes, of what follows and of what comes out.
const HEADER: usize = 8;

/// Longest code.
const CODE_BITS: usize = 16;
/// Shortest reference.
const SHORTEST: usize = 3;
/// Bytes, and references of 3 to 256 bytes.
const SYMBOLS: usize = 510;
/// Lengths of codes, and three ways to say many zeros.
const LENGTHS: usize = CODE_BITS + 3;
/// Distances by the number of their bits; their count has 4 bits.
const DISTANCES: usize = 15;

/// Bits that hold the number of symbols of each code.
const SYMBOL_BITS: u32 = 9;
const LENGTH_BITS: u32 = 5;
const DISTANCE_BITS: u32 = 4;

/// Why data do not decompress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The sizes in front do not fit what is there, or are too large.
    Size,
    /// The data end too early.
    End,
    /// A code is no prefix code, or names more symbols than there are.
    Code,
    /// A reference leads before the beginning.
    Reference,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size => "its size makes no sense",
            Self::End => "it ends too early",
            Self::Code => "a code makes no sense",
            Self::Reference => "a reference leads nowhere",
        })
    }
}

/// Decompresses what begins with a header of two sizes.
///
/// # Errors
/// What is wrong with it.
pub fn decompress(data: &[u8]) -> Result<Vec<u8>, Error> {
    let (header, rest) = data.split_first_chunk::<HEADER>().ok_or(Error::Size)?;
    let [a, b, c, d, e, f, g, h] = *header;
    let (packed, size) = (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]) as usize);
    let packed = rest.get(..packed).filter(|_| size <= LARGEST).ok_or(Error::Size)?;
    let mut out = Vec::new();
    out.try_reserve_exact(size).map_err(|_| Error::Size)?;
    let mut bits = Bits { data: packed, next: 0 };
    while out.len() < size {
        block(&mut bits, &mut out, size)?;
    }
    Ok(out)
}

fn block(bits: &mut Bits<'_>, out: &mut Vec<u8>, size: usize) -> Result<(), Error> {
    // A count of zero wraps around in the original.
    let count = match bits.take(16)? {
        0 => 1 << 16,
        count => count,
    };
    let lengths = Code::<LENGTHS>::read_lengths(bits, LENGTH_BITS, Some(SHORTEST))?;
    let symbols = Code::read_symbols(bits, &lengths)?;
    let distances = Code::<DISTANCES>::read_lengths(bits, DISTANCE_BITS, None)?;
    for _ in 0..count {
        if out.len() == size {
            break;
        }
        let symbol = symbols.next(bits)?;
        if let Ok(byte) = u8::try_from(symbol) {
            out.push(byte);
            continue;
        }
        let length = usize::from(symbol) - 256 + SHORTEST;
        let distance = match u32::from(distances.next(bits)?) {
            few @ 0..2 => few as usize,
            count => (1 << (count - 1)) + bits.take(count - 1)?,
        };
        let from = out.len().checked_sub(distance + 1).ok_or(Error::Reference)?;
        for at in from..from + length.min(size - out.len()) {
            // What is copied may be what was just copied.
            out.push(out.get(at).copied().ok_or(Error::Reference)?);
        }
    }
    Ok(())
}

/// The data, most significant bit first.
struct Bits<'a> {
    data: &'a [u8],
    /// Number of the next bit.
    next: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Result<usize, Error> {
        let byte = self.data.get(self.next / 8).ok_or(Error::End)?;
        let bit = byte >> (7 - self.next % 8) & 1;
        self.next += 1;
        Ok(bit.into())
    }

    fn take(&mut self, count: u32) -> Result<usize, Error> {
        (0..count).try_fold(0, |value, _| Ok(value << 1 | self.bit()?))
    }
}

/// A canonical prefix code: shorter codes first, those of one length in the order of their symbols.
struct Code<const N: usize> {
    /// Number of codes by length.
    counts: [u16; CODE_BITS + 1],
    /// Symbols in the order of their codes.
    symbols: [u16; N],
    /// A code with one symbol takes no bits.
    only: Option<u16>,
}

impl<const N: usize> Code<N> {
    fn only(symbol: usize) -> Result<Self, Error> {
        let symbol = u16::try_from(symbol).ok().filter(|symbol| usize::from(*symbol) < N).ok_or(Error::Code)?;
        Ok(Self { counts: [0; CODE_BITS + 1], symbols: [0; N], only: Some(symbol) })
    }

    fn new(lengths: &[u8; N]) -> Result<Self, Error> {
        let mut counts = [0_u16; CODE_BITS + 1];
        for length in lengths.iter().filter(|length| **length != 0) {
            *counts.get_mut(usize::from(*length)).ok_or(Error::Code)? += 1;
        }
        // Of the codes of each length, some stand for symbols; those left over lead on, and none may be left over at last.
        let mut free = 1_i32;
        for count in &counts[1..] {
            free = free * 2 - i32::from(*count);
            if free < 0 {
                return Err(Error::Code);
            }
        }
        if free != 0 {
            return Err(Error::Code);
        }
        let mut symbols = [0; N];
        let mut place = 0;
        for wanted in 1..=CODE_BITS {
            for (symbol, _) in lengths.iter().enumerate().filter(|(_, length)| usize::from(**length) == wanted) {
                symbols[place] = symbol as u16;
                place += 1;
            }
        }
        Ok(Self { counts, symbols, only: None })
    }

    fn next(&self, bits: &mut Bits<'_>) -> Result<u16, Error> {
        if let Some(only) = self.only {
            return Ok(only);
        }
        let (mut code, mut first, mut place) = (0, 0, 0);
        for count in &self.counts[1..] {
            let count = usize::from(*count);
            code |= bits.bit()?;
            if code - first < count {
                return self.symbols.get(place + code - first).copied().ok_or(Error::Code);
            }
            place += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(Error::Code)
    }

    /// Reads a code whose lengths stand there as they are: in three bits, from 7 on in a number of ones. After `gap` symbols
    /// two bits tell how many have none.
    fn read_lengths(bits: &mut Bits<'_>, count_bits: u32, gap: Option<usize>) -> Result<Self, Error> {
        let count = bits.take(count_bits)?;
        if count == 0 {
            return Self::only(bits.take(count_bits)?);
        }
        let mut lengths = [0; N];
        let mut index = 0;
        while index < count {
            let mut length = bits.take(3)? as u8;
            if length == 7 {
                while bits.bit()? == 1 {
                    length += 1;
                    if usize::from(length) > CODE_BITS {
                        return Err(Error::Code);
                    }
                }
            }
            *lengths.get_mut(index).ok_or(Error::Code)? = length;
            index += 1;
            if Some(index) == gap {
                index += bits.take(2)?;
            }
        }
        Self::new(&lengths)
    }
}

impl Code<SYMBOLS> {
    /// Reads the code of symbols, whose lengths are coded themselves.
    fn read_symbols(bits: &mut Bits<'_>, code: &Code<LENGTHS>) -> Result<Self, Error> {
        let count = bits.take(SYMBOL_BITS)?;
        if count == 0 {
            return Self::only(bits.take(SYMBOL_BITS)?);
        }
        let mut lengths = [0; SYMBOLS];
        let mut index = 0;
        while index < count {
            let zeros = match code.next(bits)? {
                0 => 1,
                1 => bits.take(4)? + 3,
                2 => bits.take(SYMBOL_BITS)? + 20,
                length => {
                    *lengths.get_mut(index).ok_or(Error::Code)? = (length - 2) as u8;
                    index += 1;
                    continue;
                }
            };
            index += zeros;
        }
        Self::new(&lengths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by EDK2's compressor of [`plain`].
    const PACKED: &str = "980000001a030000007e5397ad9ff000000007c0005d75d5b6c1d4891d8423449a8990f1edd2e6b5c8f2fd4c0002499b\
        ab6c99a0ddb76009706f9f10ede19e1d037f737968391bd301ec1247044382590d053831a87069a11c888795156551c75217deca3f892e3fefd9\
        cba76f1ebe7f020c287122c68f224ca97326ce9f428d2a752ad6ae162cdab772edebf830e2c7932e612434c8a173aab2ec68d3ab5800";

    fn packed() -> Vec<u8> {
        let digits: Vec<u8> = PACKED.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    fn plain() -> Vec<u8> {
        let lines = (0..12).map(|n: u32| format!("option ROM {}: the quick brown fox; ", n * n));
        lines.flat_map(String::into_bytes).chain([0; 300]).chain(0..64).collect()
    }

    #[test]
    fn what_another_compressor_made_decompresses() {
        assert_eq!(decompress(&packed()), Ok(plain()));
    }

    #[test]
    fn codes_with_one_symbol_take_no_bits() {
        // One block with two symbols: no code of lengths (symbol 0), all symbols 'x', no distances.
        let mut bits = vec![0_u8; 0];
        let mut put = |value: u32, count: u32| bits.extend((0..count).rev().map(|bit| (value >> bit & 1) as u8));
        put(2, 16);
        put(0, 5 + 5);
        put(0, 9);
        put(u32::from(b'x'), 9);
        put(0, 4 + 4);
        let body: Vec<u8> =
            bits.chunks(8).map(|byte| (0..8).fold(0, |v, i| v << 1 | byte.get(i).copied().unwrap_or(0))).collect();
        let data = [&(body.len() as u32).to_le_bytes()[..], &2_u32.to_le_bytes(), &body].concat();
        assert_eq!(decompress(&data).as_deref(), Ok(&b"xx"[..]));
    }

    #[test]
    fn a_size_that_does_not_fit_is_refused() {
        let mut data = packed();
        assert_eq!(decompress(&data[..7]), Err(Error::Size));
        data[0] += 1;
        assert_eq!(decompress(&data), Err(Error::Size));
        let mut data = packed();
        data[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decompress(&data), Err(Error::Size));
    }

    #[test]
    fn data_cut_short_or_changed_anywhere_are_survived() {
        let whole = packed();
        for length in 0..whole.len() {
            assert!(decompress(&whole[..length]).is_err());
            // The sizes still fit; the end comes too early, or what is left out was padding.
            let mut cut = whole[..length.max(HEADER)].to_vec();
            let packed = (cut.len() - HEADER) as u32;
            cut[..4].copy_from_slice(&packed.to_le_bytes());
            assert!(decompress(&cut).is_err() || length + 2 >= whole.len());
        }
        for at in 0..whole.len() * 8 {
            let mut changed = whole.clone();
            changed[at / 8] ^= 1 << (at % 8);
            let _ = decompress(&changed).map(|out| assert!(out.len() <= LARGEST));
        }
    }
}
