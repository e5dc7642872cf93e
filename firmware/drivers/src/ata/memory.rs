//! What a device reads and writes by itself: the caller's own memory where the device can reach it, else a buffer of ours that
//! data is copied through.

use hw::shared::{FrameAllocator, PAGE_SIZE, SharedPages, memory_barrier};

use super::command::{Data, Error};

/// Pages of the buffer; fewer where memory is short.
const BUFFER_PAGES: [usize; 3] = [64, 16, 1];

/// What the end of memory holds until a device has filled it. A sector that ends like this is only noticed later.
const MARK: [u8; 8] = *b"\xC5\x1A\x97\xE3\x0B\xD8\x6F\x54";

/// What pieces of memory a controller's table of them can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most pieces.
    pub pieces: usize,
    /// Most bytes of a piece; no piece crosses a multiple of it. A power of two, a page or more.
    pub longest: usize,
    /// Last address that can be reached.
    pub last: u64,
}

/// The memory of a link.
pub struct Memory {
    frames: &'static dyn FrameAllocator,
    limits: Limits,
    buffer: Option<SharedPages>,
    /// Whether the data described last goes through the buffer.
    copied: bool,
}

/// Memory in a row as the device sees it: address and length.
type Piece = (u64, usize);

impl Memory {
    /// Memory for a controller with these limits. The buffer comes with its first use.
    pub fn new(frames: &'static dyn FrameAllocator, limits: Limits) -> Self {
        Self { frames, limits, buffer: None, copied: false }
    }

    /// How much of `data` can be moved at once: a multiple of `block`.
    pub fn reach(&mut self, data: &mut Data<'_>, block: usize) -> Result<usize, Error> {
        let whole = |length: usize| length - length % block;
        let direct = whole(self.direct(data));
        if direct > 0 {
            return Ok(direct);
        }
        let most = whole(self.buffer()?.len().min(data.len()));
        if most == 0 { Err(Error::NoMemory) } else { Ok(most) }
    }

    /// Describes memory for all of `data`, which is no more than [`reach`](Self::reach) said: `put` gets the pieces in order. What
    /// goes to the device is copied where it has to be; the end of what comes from it is marked. Returns the number of pieces.
    pub fn describe(&mut self, data: &mut Data<'_>, mut put: impl FnMut(usize, Piece)) -> Result<usize, Error> {
        let mut count = 0;
        let mut emit = |piece| {
            put(count, piece);
            count += 1;
            true
        };
        let length = data.len();
        self.copied = self.direct(data) != length;
        if !self.copied {
            if let Data::In(into) = data
                && let Some(end) = into.last_chunk_mut()
            {
                *end = MARK;
            }
            pieces(data.address(), length, self.limits, |address| self.frames.frame_of(address).0, &mut emit);
        } else {
            let limits = self.limits;
            let buffer = self.buffer()?;
            if length > buffer.len() {
                return Err(Error::NoMemory);
            }
            match data {
                Data::Out(from) => buffer.copy_in(0, from),
                Data::In(into) if into.len() >= MARK.len() => buffer.copy_in(into.len() - MARK.len(), &MARK),
                Data::In(_) | Data::None => {}
            }
            let first = buffer.gfn(0).0;
            let offset = core::ptr::without_provenance((first as usize) * PAGE_SIZE);
            pieces(offset, length, limits, |address| (address.addr() / PAGE_SIZE) as u64, &mut emit);
        }
        // All of it is in memory before the device is told.
        memory_barrier();
        Ok(count)
    }

    /// Whether the device has not yet filled `data`, so far as can be seen: the mark is there.
    pub fn is_marked(&self, data: &Data<'_>) -> bool {
        let Data::In(into) = data else { return false };
        let mut end = MARK;
        match &self.buffer {
            Some(buffer) if self.copied => {
                buffer.copy_out(into.len().min(buffer.len()).saturating_sub(MARK.len()), &mut end);
            }
            // The device writes there, which the compiler does not know.
            _ => end = core::hint::black_box(&**into).last_chunk().copied().unwrap_or_default(),
        }
        end == MARK
    }

    /// Gives `data` what the device has written for it.
    pub fn collect(&mut self, data: &mut Data<'_>) {
        // Nothing is read before the device was seen to be done.
        memory_barrier();
        if let (true, Data::In(into), Some(buffer)) = (self.copied, data, &self.buffer) {
            let length = into.len().min(buffer.len());
            buffer.copy_out(0, &mut into[..length]);
        }
    }

    /// How many of the first bytes of `data` the device can reach where they are.
    fn direct(&self, data: &mut Data<'_>) -> usize {
        let (address, length) = (data.address(), data.len());
        // Tables hold even addresses and lengths.
        if !address.addr().is_multiple_of(2) || !length.is_multiple_of(2) {
            return 0;
        }
        let (mut count, mut covered) = (0, 0);
        pieces(address, length, self.limits, |address| self.frames.frame_of(address).0, &mut |(start, length)| {
            let reachable = start.checked_add(length as u64).is_some_and(|end| end - 1 <= self.limits.last);
            if count == self.limits.pieces || !reachable {
                return false;
            }
            count += 1;
            covered += length;
            true
        });
        covered
    }

    fn buffer(&mut self) -> Result<&SharedPages, Error> {
        if self.buffer.is_none() {
            let pages = BUFFER_PAGES.iter().find_map(|&pages| self.frames.allocate(pages)).ok_or(Error::NoMemory)?;
            let end = (pages.gfn(0).0 + pages.pages() as u64).saturating_mul(PAGE_SIZE as u64);
            if end - 1 > self.limits.last
                || pages.pages().div_ceil(self.limits.longest / PAGE_SIZE) + 1 > self.limits.pieces
            {
                self.frames.free(pages);
                return Err(Error::NoMemory);
            }
            self.buffer = Some(pages);
        }
        self.buffer.as_ref().ok_or(Error::NoMemory)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.frames.free(buffer);
        }
    }
}

/// Cuts `length` bytes at `start` into pieces that lie in a row in physical memory and cross no multiple of `limits.longest`,
/// until `emit` wants no more. `frame` tells the frame an address lies in.
fn pieces(
    start: *const u8,
    length: usize,
    limits: Limits,
    frame: impl Fn(*const u8) -> u64,
    emit: &mut impl FnMut(Piece) -> bool,
) {
    let mut open: Option<Piece> = None;
    let mut done = 0;
    while done < length {
        let at = start.wrapping_add(done);
        let into_page = at.addr() % PAGE_SIZE;
        let here = (PAGE_SIZE - into_page).min(length - done);
        let address = frame(at).wrapping_mul(PAGE_SIZE as u64) + into_page as u64;
        open = Some(match open {
            Some((first, covered))
                if first + covered as u64 == address && !address.is_multiple_of(limits.longest as u64) =>
            {
                (first, covered + here)
            }
            Some(piece) => {
                if !emit(piece) {
                    return;
                }
                (address, here)
            }
            None => (address, here),
        });
        done += here;
    }
    if let Some(piece) = open {
        emit(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::leak;
    use hw::fake::LowFrames;

    const LIMITS: Limits = Limits { pieces: 512, longest: 64 << 10, last: u32::MAX as u64 };

    fn cut(start: usize, length: usize, frame: impl Fn(usize) -> u64) -> Vec<Piece> {
        let mut cut = Vec::new();
        pieces(core::ptr::without_provenance(start), length, LIMITS, |at| frame(at.addr() / 4096), &mut |piece| {
            cut.push(piece);
            true
        });
        cut
    }

    #[test]
    fn memory_in_a_row_is_cut_only_at_boundaries() {
        assert_eq!(
            cut(0x1_F000, 0x1_3000, |page| page as u64),
            [(0x1_F000, 0x1000), (0x2_0000, 0x1_0000), (0x3_0000, 0x2000)]
        );
        assert_eq!(cut(0x1_0802, 0x1000, |page| page as u64), [(0x1_0802, 0x1000)]);
    }

    #[test]
    fn pages_that_are_not_in_a_row_are_pieces() {
        assert_eq!(cut(0x1800, 0x1000, |page| 100 - page as u64), [(99 << 12 | 0x800, 0x800), (98 << 12, 0x800)]);
    }

    #[test]
    fn what_cannot_be_reached_goes_through_the_buffer() {
        let frames: &'static LowFrames = leak(LowFrames::default());
        let mut memory = Memory::new(frames, LIMITS);
        let block = leak([0u16; 4096]);
        let bytes: &mut [u8] = vec![0; 8193].leak();
        let odd = usize::from(bytes.as_ptr().addr().is_multiple_of(2));
        assert_eq!(memory.reach(&mut Data::In(&mut bytes[odd..odd + 4096]), 512), Ok(4096));
        assert_eq!(frames.live(), 64, "an odd address");
        let mut memory = Memory::new(frames, Limits { last: 0, ..LIMITS });
        let words = Vec::from(block.map(|_| 0u8));
        assert_eq!(
            memory.reach(&mut Data::Out(&words), 512),
            Err(Error::NoMemory),
            "the buffer cannot be reached either"
        );
        assert_eq!(frames.live(), 64);
    }

    #[test]
    fn a_full_table_cuts_a_transfer_at_a_block() {
        let frames: &'static LowFrames = leak(LowFrames::default());
        let mut memory = Memory::new(frames, Limits { pieces: 2, longest: 4096, ..LIMITS });
        let bytes: &mut [u8] = vec![0; 1 << 16].leak();
        let start = bytes.as_ptr().align_offset(4096) + 4096 - 768;
        let mut data = Data::In(&mut bytes[start..start + 16384]);
        assert_eq!(memory.reach(&mut data, 512), Ok(4608));
    }
}
