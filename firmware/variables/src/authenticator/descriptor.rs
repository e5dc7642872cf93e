//! EFI_VARIABLE_AUTHENTICATION_2 (UEFI 2.10 §8.2.1, §32.2.4).
//!
//! ```text
//!  0 TimeStamp         EFI_TIME
//! 16 dwLength          u32, from here to the end of CertData
//! 20 wRevision         u16, 0x0200
//! 22 wCertificateType  u16, 0x0EF1: a GUID says what CertData is
//! 24 CertType          GUID of PKCS #7
//! 40 CertData          SignedData
//!    the new content of the variable
//! ```

use core::ops::Range;

use uefi_raw::{Guid, guid};

/// `EFI_CERT_TYPE_PKCS7_GUID`.
const PKCS7: Guid = guid!("4aafd29d-68df-49ee-8aa9-347d375665a7");
/// wRevision, wCertificateType (`WIN_CERT_TYPE_EFI_GUID`), CertType.
const FORM: [u8; 20] = {
    let mut form = [0; 20];
    [form[0], form[1]] = 0x0200_u16.to_le_bytes();
    [form[2], form[3]] = 0x0ef1_u16.to_le_bytes();
    let (_, kind) = form.split_at_mut(4);
    kind.copy_from_slice(&PKCS7.to_bytes());
    form
};

/// Bytes of an EFI_TIME.
pub const TIME_STAMP_SIZE: usize = 16;
/// Bytes before the SignedData.
pub const HEADER_SIZE: usize = 40;
/// Parts of EFI_TIME that have to be zero: padding, nanoseconds, time zone, daylight.
const ZEROS: Range<usize> = 7..16;

/// The parts of the data of an authenticated write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor<'a> {
    /// Bytes of an EFI_TIME in UTC, to the second.
    pub time_stamp: [u8; TIME_STAMP_SIZE],
    /// DER of the SignedData.
    pub signed_data: &'a [u8],
    /// The new content of the variable.
    pub content: &'a [u8],
}

impl<'a> Descriptor<'a> {
    /// Takes the data apart; `None` if it is not of the form that is needed.
    pub fn new(data: &'a [u8]) -> Option<Self> {
        let time_stamp = data.first_chunk::<TIME_STAMP_SIZE>()?;
        if time_stamp[ZEROS].iter().any(|&byte| byte != 0) {
            return None;
        }
        let signed_data = signed_data(data)?;
        Some(Self {
            time_stamp: *time_stamp,
            signed_data: &data[signed_data.clone()],
            content: &data[signed_data.end..],
        })
    }
}

/// Where the SignedData is in data that have the form, whatever their time stamp; `None` if they have not.
pub fn signed_data(data: &[u8]) -> Option<Range<usize>> {
    let certificate = data.get(TIME_STAMP_SIZE..HEADER_SIZE)?;
    let (length, rest) = certificate.split_first_chunk()?;
    let end = TIME_STAMP_SIZE.checked_add(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    (rest == FORM && (HEADER_SIZE..=data.len()).contains(&end)).then_some(HEADER_SIZE..end)
}

/// What is before the content of a write that nobody signed: setup mode takes it (UEFI 2.10 §8.2.6).
pub fn unsigned(mut time_stamp: [u8; TIME_STAMP_SIZE]) -> [u8; HEADER_SIZE] {
    time_stamp[ZEROS].fill(0);
    let mut header = [0; HEADER_SIZE];
    header[..TIME_STAMP_SIZE].copy_from_slice(&time_stamp);
    header[TIME_STAMP_SIZE..20].copy_from_slice(&((HEADER_SIZE - TIME_STAMP_SIZE) as u32).to_le_bytes());
    header[20..].copy_from_slice(&FORM);
    header
}

/// Whether the first of two time stamps is later.
pub fn is_later(time: &[u8; 16], than: &[u8; 16]) -> bool {
    // Year in little-endian order, month, day, hour, minute, second.
    let order = |time: &[u8; 16]| [time[1], time[0], time[2], time[3], time[4], time[5], time[6]];
    order(time) > order(than)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(length: u32) -> Vec<u8> {
        let mut data = vec![0; 16];
        data[..7].copy_from_slice(&[0xea, 0x07, 11, 28, 7, 30, 59]);
        data.extend(length.to_le_bytes());
        data.extend([0x00, 0x02, 0xf1, 0x0e]);
        data.extend(PKCS7.to_bytes());
        data.extend(b"signed content");
        data
    }

    #[test]
    fn data_is_taken_apart() {
        let data = data(24 + 6);
        let descriptor = Descriptor::new(&data).unwrap();
        assert_eq!((descriptor.signed_data, descriptor.content), (&b"signed"[..], &b" content"[..]));
        assert_eq!(descriptor.time_stamp, data[..16]);
        assert_eq!(Descriptor::new(&data[..46]).unwrap().content, b"");
    }

    #[test]
    fn other_forms_are_refused() {
        for length in [0, 23, 39, u32::MAX, u32::MAX - 15] {
            assert_eq!(Descriptor::new(&data(length)), None, "{length}");
        }
        let good = data(30);
        for end in 0..46 {
            assert_eq!(Descriptor::new(&good[..end]), None, "{end}");
        }
        for at in (7..16).chain(20..40) {
            let mut bad = good.clone();
            bad[at] ^= 0x11;
            assert_eq!(Descriptor::new(&bad), None, "{at}");
        }
    }

    #[test]
    fn time_goes_from_years_to_seconds() {
        let time = |year: u16, rest: [u8; 5]| {
            let mut time = [0; 16];
            time[..2].copy_from_slice(&year.to_le_bytes());
            time[2..7].copy_from_slice(&rest);
            time
        };
        let times = [
            time(0, [0; 5]),
            time(255, [12, 31, 23, 59, 59]),
            time(256, [1; 5]),
            time(2026, [1; 5]),
            time(2026, [1, 1, 1, 1, 2]),
        ];
        for (index, later) in times.iter().enumerate() {
            assert!(!is_later(later, later));
            assert!(times[..index].iter().all(|earlier| is_later(later, earlier) && !is_later(earlier, later)));
        }
    }
}
