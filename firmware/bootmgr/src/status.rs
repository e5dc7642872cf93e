//! Status codes in words.

use alloc::format;
use alloc::string::{String, ToString};

use services::Status;

/// A status as a person reads it.
pub fn status_text(status: Status) -> String {
    let text = match status {
        Status::SUCCESS => "success",
        Status::LOAD_ERROR => "load error",
        Status::INVALID_PARAMETER => "invalid parameter",
        Status::UNSUPPORTED => "unsupported",
        Status::BUFFER_TOO_SMALL => "buffer too small",
        Status::NOT_READY => "not ready",
        Status::DEVICE_ERROR => "device error",
        Status::WRITE_PROTECTED => "write protected",
        Status::OUT_OF_RESOURCES => "out of memory",
        Status::VOLUME_CORRUPTED => "file system is damaged",
        Status::VOLUME_FULL => "volume is full",
        Status::NO_MEDIA => "no medium",
        Status::NOT_FOUND => "not found",
        Status::ACCESS_DENIED => "access denied",
        Status::TIMEOUT => "timed out",
        Status::ABORTED => "aborted",
        Status::SECURITY_VIOLATION => "refused by Secure Boot",
        other => return format!("status {:#x}", other.0),
    };
    text.to_string()
}
