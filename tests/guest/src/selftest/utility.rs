//! CRC-32, copying, filling (UEFI 2.10 §7.5), random numbers (§37.5), and protocols that only have to be there.

use core::ptr::null_mut;

use uefi_raw::protocol::hii::database::HiiDatabaseProtocol;
use uefi_raw::protocol::hii::string::HiiStringProtocol;
use uefi_raw::protocol::rng::{RngAlgorithmType, RngProtocol};

use crate::harness::{Outcome, Test};
use crate::support::{crc32, located};

pub const TESTS: &[Test] = tests![
    crc32_is_that_of_the_specification,
    wrong_arguments_of_calculate_crc32_are_refused,
    copy_mem_copies_overlapping_ranges,
    set_mem_fills,
    random_numbers_differ,
    random_algorithms_are_listed,
    wrong_arguments_of_the_random_protocol_are_refused,
    the_hii_database_is_there,
];

fn crc32_is_that_of_the_specification() -> Outcome {
    let mut crc = 0;
    want!(SUCCESS, bs!(calculate_crc32(b"123456789".as_ptr().cast(), 9, &mut crc)));
    same!(crc, 0xCBF4_3926);
    let bytes: alloc::vec::Vec<u8> = (0..10_007u32).map(|n| ((n * n) >> 3) as u8).collect();
    want!(SUCCESS, bs!(calculate_crc32(bytes.as_ptr().add(1).cast(), bytes.len() - 1, &mut crc)));
    same!(crc, crc32(bytes[1..].iter().copied()));
    Ok(())
}

fn wrong_arguments_of_calculate_crc32_are_refused() -> Outcome {
    let (byte, mut crc) = (0u8, 0);
    want!(INVALID_PARAMETER, bs!(calculate_crc32(core::ptr::null(), 1, &mut crc)));
    want!(INVALID_PARAMETER, bs!(calculate_crc32((&raw const byte).cast(), 0, &mut crc)));
    want!(INVALID_PARAMETER, bs!(calculate_crc32((&raw const byte).cast(), 1, null_mut())));
    Ok(())
}

fn copy_mem_copies_overlapping_ranges() -> Outcome {
    for (from, to, length) in
        [(0, 1, 200), (1, 0, 200), (3, 60, 150), (60, 3, 150), (5, 5, 100), (0, 128, 128), (9, 8, 0)]
    {
        let mut bytes: [u8; 256] = core::array::from_fn(|index| index as u8);
        let mut expected = bytes;
        expected.copy_within(from..from + length, to);
        let start = bytes.as_mut_ptr();
        bs!(copy_mem(start.add(to), start.add(from), length));
        check!(bytes == expected, "{length} bytes from {from} to {to}");
    }
    Ok(())
}

fn set_mem_fills() -> Outcome {
    for (from, length) in [(0, 256), (1, 254), (7, 1), (3, 0), (9, 100)] {
        let mut bytes = [0u8; 256];
        let mut expected = bytes;
        expected[from..from + length].fill(0x5A);
        bs!(set_mem(bytes.as_mut_ptr().add(from), length, 0x5A));
        check!(bytes == expected, "{length} bytes from {from}");
    }
    Ok(())
}

fn random_numbers_differ() -> Outcome {
    let rng = located::<RngProtocol>(&RngProtocol::GUID)?;
    let (mut first, mut second) = ([0u8; 33], [0u8; 33]);
    want!(SUCCESS, call!(rng.get_rng(core::ptr::null(), first.len(), first.as_mut_ptr())));
    want!(SUCCESS, call!(rng.get_rng(core::ptr::null(), second.len(), second.as_mut_ptr())));
    check!(first != second && first != [0; 33] && second != [0; 33]);
    Ok(())
}

fn random_algorithms_are_listed() -> Outcome {
    let rng = located::<RngProtocol>(&RngProtocol::GUID)?;
    let mut size = 0;
    want!(BUFFER_TOO_SMALL, call!(rng.get_info(&mut size, null_mut())));
    check!(size > 0 && size % 16 == 0, "{size} bytes");
    let mut list = alloc::vec![RngAlgorithmType::EMPTY_ALGORITHM; size / 16];
    want!(SUCCESS, call!(rng.get_info(&mut size, list.as_mut_ptr())));
    for algorithm in list {
        let mut value = [0u8; 32];
        want!(SUCCESS, call!(rng.get_rng(&algorithm, value.len(), value.as_mut_ptr())));
        check!(value != [0; 32]);
    }
    Ok(())
}

fn wrong_arguments_of_the_random_protocol_are_refused() -> Outcome {
    let rng = located::<RngProtocol>(&RngProtocol::GUID)?;
    let mut value = [0u8; 8];
    want!(INVALID_PARAMETER, call!(rng.get_info(null_mut(), null_mut())));
    want!(INVALID_PARAMETER, call!(rng.get_rng(core::ptr::null(), 8, null_mut())));
    want!(INVALID_PARAMETER, call!(rng.get_rng(core::ptr::null(), 0, value.as_mut_ptr())));
    want!(UNSUPPORTED, call!(rng.get_rng(&RngAlgorithmType(crate::support::NOBODYS), 8, value.as_mut_ptr())));
    Ok(())
}

fn the_hii_database_is_there() -> Outcome {
    located::<HiiDatabaseProtocol>(&HiiDatabaseProtocol::GUID)?;
    located::<HiiStringProtocol>(&HiiStringProtocol::GUID)?;
    Ok(())
}
