//! Well-known GUIDs by name: vendors of variables, file systems, files.

use uefi_raw::{Guid, guid};

/// Name and GUID. Names are those of UEFI, EDK2 or whoever made the GUID.
const NAMES: [(&str, Guid); 22] = [
    ("EfiGlobalVariable", guid!("8be4df61-93ca-11d2-aa0d-00e098032b8c")),
    ("EfiImageSecurityDatabase", guid!("d719b2cb-3d3a-4596-a3bc-dad00e67656f")),
    ("EfiSecureBootEnableDisable", guid!("f0a30bc7-af08-4556-99c4-001009c93a44")),
    ("EfiCustomModeEnable", guid!("c076ec0c-7028-4399-a072-71ee5c448b9f")),
    ("EfiVendorKeysNv", guid!("9073e4e0-60ec-4b6e-9903-4c223c260f3c")),
    ("EfiCertDb", guid!("d9bee56e-75dc-49d9-b4d7-b534210f637a")),
    ("EfiMemoryTypeInformation", guid!("4c19049f-4137-4dd3-9c10-8b97a83ffdfa")),
    ("MtcVendor", guid!("eb704011-1402-11d3-8e77-00a0c969723b")),
    ("IScsiConfig", guid!("4b47d616-a8d6-4552-9d44-ccad2e0f4cf9")),
    ("EfiIp4Config2Protocol", guid!("5b446ed1-e30b-4faa-871a-3654eca36080")),
    ("EfiIp6ConfigProtocol", guid!("937fe521-95ae-4d1a-8929-48bcd90ad31a")),
    ("EfiIScsiInitiatorNameProtocol", guid!("59324945-ec44-4c0d-b1cd-9db139df070c")),
    ("EfiDhcp6ServiceBindingProtocol", guid!("9fb9a8a1-2f4a-43a6-889c-d0f7b6c47ad5")),
    ("EfiTlsCaCertificate", guid!("fd2340d0-3dab-4349-a6c7-3b4f12b48eae")),
    ("MemoryOverwriteControl", guid!("e20939be-32d4-41be-a150-897f85d49829")),
    ("MemoryOverwriteRequestControlLock", guid!("bb983ccf-151d-40e1-a07b-4a17be168292")),
    ("MicrosoftVendor", guid!("77fa9abd-0359-4d32-bd60-28f4e78f784b")),
    ("Shim", guid!("605dab50-e046-4300-abb6-3dd810dd8b23")),
    ("LoaderInfo", guid!("4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")),
    ("FirmwareFileSystem2", guid!("8c8ce578-8a3d-4f1c-9935-896185c32dd3")),
    ("FirmwareFileSystem3", guid!("5473c07a-3dcb-4dca-bd6f-1e9689e7349a")),
    ("VolumeTopFile", guid!("1ba0062e-c779-4582-8566-336ae8f78f09")),
];

/// `EFI_GLOBAL_VARIABLE`.
pub const GLOBAL: Guid = NAMES[0].1;

/// The name of a GUID, or the GUID itself.
#[must_use]
pub fn name(guid: Guid) -> String {
    known(guid).map_or_else(|| guid.to_string(), str::to_owned)
}

/// The name of a GUID that has one.
#[must_use]
pub fn known(guid: Guid) -> Option<&'static str> {
    NAMES.iter().find(|(_, known)| *known == guid).map(|(name, _)| *name)
}

/// The GUID of a name or of the usual text.
///
/// # Errors
/// It is neither; the message says what would be.
pub fn parse(text: &str) -> Result<Guid, String> {
    if let Some((_, guid)) = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Ok(*guid);
    }
    Guid::try_parse(text).map_err(|_| {
        format!("not a GUID such as {GLOBAL}, and not a known name such as {} or {}", NAMES[0].0, NAMES[1].0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_guids_are_each_there_once() {
        for (index, (name, guid)) in NAMES.iter().enumerate() {
            assert!(NAMES[..index].iter().all(|(other, same)| other != name && same != guid), "{name}");
        }
    }

    #[test]
    fn a_guid_is_read_by_name_and_as_text() {
        assert_eq!(parse("efiglobalvariable"), Ok(GLOBAL));
        assert_eq!(parse("8BE4DF61-93CA-11D2-AA0D-00E098032B8C"), Ok(GLOBAL));
        assert!(parse("8be4df61").unwrap_err().contains("EfiGlobalVariable"));
        assert_eq!(name(GLOBAL), "EfiGlobalVariable");
    }
}
