//! Keys and updates made on the spot by openssl and efitools.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use uefi_raw::table::runtime::{VariableAttributes, VariableVendor};
use uefi_raw::{Guid, guid};

pub const PKCS7: Guid = guid!("4aafd29d-68df-49ee-8aa9-347d375665a7");
pub const OWNER: &str = "77777777-8888-9999-aaaa-bbbbbbbbbbbb";

/// Attributes of keys and signature databases.
pub const AUTHENTICATED: VariableAttributes = VariableAttributes::NON_VOLATILE
    .union(VariableAttributes::BOOTSERVICE_ACCESS)
    .union(VariableAttributes::RUNTIME_ACCESS)
    .union(VariableAttributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS);
pub const APPEND: VariableAttributes = VariableAttributes::APPEND_WRITE;

/// A private key and its certificate.
#[derive(Clone)]
pub struct Signer {
    pub key: PathBuf,
    pub certificate: PathBuf,
    /// Certificates to send along.
    pub chain: Vec<PathBuf>,
}

static SERIAL: AtomicU32 = AtomicU32::new(1);

/// How a signature is made.
#[derive(Clone)]
pub struct Form {
    pub digest: &'static str,
    pub options: Vec<&'static str>,
    pub content_info: bool,
}

impl Default for Form {
    fn default() -> Self {
        Self { digest: "sha256", options: vec!["-noattr"], content_info: true }
    }
}

/// Runs a program; panics with what it says if it fails.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| {
        panic!("{program} does not run: {error}; tests/setup installs it");
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// A file of this run of the tests.
pub fn file(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = env::temp_dir().join(format!("signed-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for temporary files");
        folder
    });
    folder.join(name)
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A key of `kind` (openssl's `-newkey`) with a certificate that it has signed itself.
pub fn self_signed(name: &str, kind: &str) -> Signer {
    let (key, certificate) = (file(&format!("{name}.key")), file(&format!("{name}.crt")));
    let subject = format!("/CN={name}/");
    let mut arguments = vec!["req", "-x509", "-nodes", "-sha256", "-days", "3650", "-subj", &subject, "-newkey"];
    arguments.extend(kind.split(' '));
    arguments.extend(["-keyout", text(&key), "-out", text(&certificate)]);
    run("openssl", &arguments);
    Signer { key, certificate, chain: vec![] }
}

/// A key whose certificate `issuer` has signed, with these extensions.
pub fn issued(name: &str, issuer: &Signer, extensions: &str) -> Signer {
    let (key, certificate) = (file(&format!("{name}.key")), file(&format!("{name}.crt")));
    let (request, options) = (file(&format!("{name}.csr")), file(&format!("{name}.ext")));
    fs::write(&options, extensions).expect("written");
    let subject = format!("/CN={name}/");
    run(
        "openssl",
        &["req", "-nodes", "-newkey", "rsa:2048", "-subj", &subject, "-keyout", text(&key), "-out", text(&request)],
    );
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed).to_string();
    let authority = ["-CA", text(&issuer.certificate), "-CAkey", text(&issuer.key), "-set_serial", &serial];
    let files = ["-in", text(&request), "-out", text(&certificate), "-extfile", text(&options)];
    run("openssl", &[&["x509", "-req", "-sha256", "-days", "3650"], &authority[..], &files[..]].concat());
    Signer { key, certificate, chain: vec![] }
}

/// A file that no other thread uses.
fn own_file(suffix: &str) -> PathBuf {
    file(&format!("{:?}.{suffix}", std::thread::current().id()))
}

/// A certificate as DER.
pub fn der(certificate: &Path) -> Vec<u8> {
    let out = own_file("der");
    run("openssl", &["x509", "-in", text(certificate), "-outform", "DER", "-out", text(&out)]);
    fs::read(out).expect("made by openssl")
}

/// A signature list with the certificate, made by efitools.
pub fn list(signer: &Signer) -> Vec<u8> {
    let out = own_file("esl");
    run("cert-to-efi-sig-list", &["-g", OWNER, text(&signer.certificate), text(&out)]);
    fs::read(out).expect("made by cert-to-efi-sig-list")
}

/// An update of a variable, made by efitools: what SetVariable takes.
pub fn update(signer: &Signer, variable: &str, time: &str, append: bool, content: &[u8]) -> Vec<u8> {
    let (list, out) = (own_file("content"), own_file("auth"));
    fs::write(&list, content).expect("written");
    let mut arguments = vec!["-t", time, "-k", text(&signer.key), "-c", text(&signer.certificate)];
    if append {
        arguments.push("-a");
    }
    arguments.extend([variable, text(&list), text(&out)]);
    run("sign-efi-sig-list", &arguments);
    fs::read(out).expect("made by sign-efi-sig-list")
}

/// The same with openssl, in any form.
pub fn signed(
    signer: &Signer,
    form: &Form,
    variable: (Guid, &str),
    attributes: VariableAttributes,
    second: u8,
    content: &[u8],
) -> Vec<u8> {
    let mut message: Vec<u8> = variable.1.encode_utf16().flat_map(u16::to_le_bytes).collect();
    message.extend(variable.0.to_bytes());
    message.extend(attributes.bits().to_le_bytes());
    message.extend(time(second));
    message.extend(content);
    descriptor(&time(second), &signature(signer, form, &message), content)
}

/// An EFI_VARIABLE_AUTHENTICATION_2 and the content.
pub fn descriptor(time: &[u8; 16], signed_data: &[u8], content: &[u8]) -> Vec<u8> {
    let mut data = time.to_vec();
    data.extend((24 + signed_data.len() as u32).to_le_bytes());
    data.extend([0x00, 0x02, 0xf1, 0x0e]);
    data.extend(PKCS7.to_bytes());
    data.extend(signed_data);
    data.extend(content);
    data
}

/// An EFI_TIME.
pub fn time(second: u8) -> [u8; 16] {
    [0xea, 0x07, 1, 1, 0, 0, second, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

fn signature(signer: &Signer, form: &Form, message: &[u8]) -> Vec<u8> {
    let (input, output, chain) = (own_file("in"), own_file("p7"), own_file("pem"));
    fs::write(&input, message).expect("written");
    let mut arguments = vec!["smime", "-sign", "-binary", "-outform", "DER", "-md", form.digest];
    arguments.extend(&form.options);
    arguments.extend(["-signer", text(&signer.certificate), "-inkey", text(&signer.key)]);
    if !signer.chain.is_empty() {
        let pem: Vec<u8> = signer.chain.iter().flat_map(|path| fs::read(path).expect("a certificate")).collect();
        fs::write(&chain, pem).expect("written");
        arguments.extend(["-certfile", text(&chain)]);
    }
    arguments.extend(["-in", text(&input), "-out", text(&output)]);
    run("openssl", &arguments);
    let signed = fs::read(output).expect("made by openssl");
    if form.content_info { signed } else { without_content_info(&signed) }
}

/// Takes the SignedData out of a ContentInfo: SEQUENCE (4), OID (11), [0] (4).
fn without_content_info(signed: &[u8]) -> Vec<u8> {
    assert_eq!((&signed[..2], &signed[15..17]), (&[0x30, 0x82][..], &[0xa0, 0x82][..]));
    signed[19..].to_vec()
}

/// Vendor and name of a variable as the store has it.
pub fn variable(name: &str) -> (Guid, &str) {
    let vendor = if ["PK", "KEK"].contains(&name) {
        VariableVendor::GLOBAL_VARIABLE
    } else {
        VariableVendor::IMAGE_SECURITY_DATABASE
    };
    (vendor.0, name)
}
