//! Disks for tests: one in memory that counts its transfers, and files for the usual tools to work on.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use services::block::{BlockDevice, BlockError, Geometry};

/// A disk in memory.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    pub bytes: Vec<u8>,
    pub block: usize,
    pub read_only: bool,
    pub removable: bool,
    /// Bytes of each read so far.
    pub reads: Vec<usize>,
    /// Bytes of each write so far.
    pub writes: Vec<usize>,
    /// Where each write went, and what it wrote, if that is to be kept.
    pub journal: Option<Vec<(usize, Vec<u8>)>>,
}

impl MemoryDisk {
    pub fn new(blocks: usize, block: usize) -> Self {
        Self::of(vec![0; blocks * block], block)
    }

    pub fn of(bytes: Vec<u8>, block: usize) -> Self {
        Self { bytes, block, read_only: false, removable: false, reads: Vec::new(), writes: Vec::new(), journal: None }
    }

    fn range(&self, lba: u64, length: usize) -> Result<std::ops::Range<usize>, BlockError> {
        assert_eq!(length % self.block, 0);
        let start = usize::try_from(lba).ok().and_then(|lba| lba.checked_mul(self.block));
        let start = start.ok_or(BlockError::InvalidParameter)?;
        let end = start.checked_add(length).ok_or(BlockError::InvalidParameter)?;
        if end > self.bytes.len() { Err(BlockError::InvalidParameter) } else { Ok(start..end) }
    }
}

impl BlockDevice for MemoryDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            block_size: self.block as u32,
            blocks: (self.bytes.len() / self.block) as u64,
            read_only: self.read_only,
            removable: self.removable,
            io_align: 1,
            blocks_per_physical: 1,
        }
    }

    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError> {
        let range = self.range(lba, into.len())?;
        self.reads.push(into.len());
        into.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), BlockError> {
        if self.read_only {
            return Err(BlockError::WriteProtected);
        }
        let range = self.range(lba, from.len())?;
        self.writes.push(from.len());
        if let Some(journal) = &mut self.journal {
            journal.push((range.start, from.to_vec()));
        }
        self.bytes[range].copy_from_slice(from);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        Ok(())
    }
}

/// An ISO 9660 medium of 64 sectors of 2048 bytes with nothing but what El Torito needs: descriptors at sector 16, the catalog
/// at sector 19, in it the default entry for a BIOS at sector 20 and an entry for EFI with `image` at sector 24. That one's
/// size is counted in sectors of 512 bytes, as most makers do.
pub fn small_iso(image: &[u8]) -> Vec<u8> {
    const SECTOR: usize = 2048;
    let mut bytes = vec![0; 64 * SECTOR];
    for (sector, kind) in [(16, 1), (17, 0), (18, 255)] {
        bytes[sector * SECTOR] = kind;
        bytes[sector * SECTOR + 1..][..6].copy_from_slice(b"CD001\x01");
    }
    bytes[17 * SECTOR + 7..][..23].copy_from_slice(b"EL TORITO SPECIFICATION");
    bytes[17 * SECTOR + 0x47] = 19;
    let mut record = |index: usize, content: &[u8]| {
        bytes[19 * SECTOR + index * 32..][..content.len()].copy_from_slice(content);
    };
    let mut validation = [0; 32];
    (validation[0], validation[30], validation[31]) = (1, 0x55, 0xaa);
    validation[28..30].copy_from_slice(&(0_u16.wrapping_sub(0xaa55 + 1)).to_le_bytes());
    record(0, &validation);
    record(1, &[0x88, 0, 0, 0, 0, 0, 4, 0, 20]);
    record(2, &[0x91, 0xef, 1, 0]);
    let [low, high, ..] = (image.len() / 512).to_le_bytes();
    record(3, &[0x88, 0, 0, 0, 0, 0, low, high, 24]);
    bytes[24 * SECTOR..][..image.len()].copy_from_slice(image);
    bytes
}

/// A file that goes away with the value. Tools that are not installed fail the test by name.
#[derive(Debug)]
pub struct TemporaryFile(PathBuf);

impl TemporaryFile {
    pub fn new(size: u64) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ovmf-xen-fs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::File::create(&path).and_then(|file| file.set_len(size)).unwrap();
        Self(path)
    }

    pub fn of(bytes: &[u8]) -> Self {
        const CHUNK: usize = 64 << 10;
        let file = Self::new(bytes.len() as u64);
        let out = std::fs::OpenOptions::new().write(true).open(&file.0).unwrap();
        // What is zero stays a hole: most of an image is.
        for (index, chunk) in bytes.chunks(CHUNK).enumerate().filter(|(_, chunk)| chunk.iter().any(|&byte| byte != 0)) {
            out.write_all_at(chunk, (index * CHUNK) as u64).unwrap();
        }
        file
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn read(&self) -> Vec<u8> {
        std::fs::read(&self.0).unwrap()
    }

    /// Runs a tool with the file as last argument and `input` on its standard input; returns what it said.
    pub fn pipe(&self, tool: &str, arguments: &[&str], input: &[u8]) -> String {
        let mut command = Command::new(tool);
        command.args(arguments).arg(&self.0);
        run(command, input)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs a tool, which must succeed; returns what it said.
pub fn run(mut command: Command, input: &[u8]) -> String {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    command.env("PATH", path).env("MTOOLS_SKIP_CHECK", "1");
    let tool = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{tool} is needed by this test: {error}"));
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} failed: {said}");
    said
}
