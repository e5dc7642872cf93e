use super::*;
use variables::remote::WINDOW_SIZE;

const KEY: Key<'static> = Key::new(uefi_raw::Guid::ZERO, &[0x41, 0x42]);

/// A window to a daemon that a test scripts: it sees the request and returns what it replies.
struct Scripted<F> {
    window: Vec<u8>,
    buffer: Vec<u8>,
    daemon: F,
    /// Highest byte of the buffer that was written by a fetch.
    fetched: usize,
}

impl<F: FnMut(&mut [u8])> Window for Scripted<F> {
    fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn exchange(&mut self, length: usize) {
        self.window[..length].copy_from_slice(&self.buffer[..length]);
        (self.daemon)(&mut self.window);
    }

    fn fetch(&mut self, from: usize, to: usize) {
        self.buffer[from..to].copy_from_slice(&self.window[from..to]);
        self.fetched = self.fetched.max(to);
    }
}

fn window<F: FnMut(&mut [u8])>(daemon: F) -> Scripted<F> {
    Scripted { window: vec![0xA5; WINDOW_SIZE], buffer: vec![0x5A; WINDOW_SIZE], daemon, fetched: 0 }
}

fn serving<F: FnMut(&mut [u8])>(daemon: F) -> Daemon<Scripted<F>> {
    Daemon { window: window(daemon), at_runtime: false }
}

fn replies(reply: Reply<'static>) -> impl FnMut(&mut [u8]) {
    move |window| assert!(reply.encode(window).is_some())
}

const INFO: Info = Info { maximum_storage: 3, remaining_storage: 2, maximum_variable: 1 };

#[test]
fn without_a_daemon_nothing_but_the_head_of_the_memory_is_touched() {
    let (window, absence) = Daemon::find(window(|_| {})).map(drop).unwrap_err();
    assert_eq!(absence, Absence::Unanswered);
    assert!(window.window[REPLY_HEAD..].iter().all(|&byte| byte == 0xA5));
    assert!(window.buffer[REPLY_HEAD..].iter().all(|&byte| byte == 0x5A));
}

#[test]
fn a_daemon_is_found_and_one_that_fails_is_told_apart() {
    assert_eq!(Daemon::find(window(replies(Reply::Info(INFO)))).map(|found| found.1).ok(), Some(INFO));
    let absence = |daemon: fn(&mut [u8])| Daemon::find(window(daemon)).map(drop).map_err(|error| error.1);
    let refuses = |window: &mut [u8]| assert!(Reply::Status(Status::DEVICE_ERROR).encode(window).is_some());
    assert_eq!(absence(refuses), Err(Absence::Failed(Status::DEVICE_ERROR)));
    assert_eq!(absence(|window| window.fill(0xFE)), Err(Absence::Failed(Status(usize::from_ne_bytes([0xFE; 8])))));
    assert_eq!(absence(|window| window.fill(0x7E)), Err(Absence::Failed(Status::PROTOCOL_ERROR)));
}

#[test]
fn a_variable_is_read_with_all_its_data() {
    let mut daemon = serving(replies(Reply::Variable { attributes: ACCESS, data: &[7; 50_000] }));
    let variable = daemon.get(KEY).unwrap();
    assert_eq!((variable.attributes, variable.data), (ACCESS, &[7; 50_000][..]));
    assert_eq!(daemon.window.fetched, 50_020);
}

#[test]
fn a_name_gets_its_terminator() {
    let mut daemon = serving(replies(Reply::Next { vendor: KEY.vendor, name: b"B\0c\0" }));
    assert_eq!(daemon.next(KEY).unwrap().name, b"B\0c\0\0\0");
}

#[test]
fn requests_say_who_asks() {
    let mut seen = Vec::new();
    let mut daemon = serving(|window: &mut [u8]| {
        let request = Request::decode(window, &mut [0; NAME_UNITS]).map(|request| request.at_runtime());
        seen.push(request.unwrap());
        Reply::Status(Status::NOT_FOUND).encode(window).unwrap();
    });
    assert_eq!(daemon.get(KEY), Err(Status::NOT_FOUND));
    daemon.set_at_runtime();
    assert_eq!(daemon.set(KEY, ACCESS, b"x"), Err(Status::NOT_FOUND));
    assert_eq!(daemon.next(KEY), Err(Status::NOT_FOUND));
    assert_eq!(seen, [Some(false), Some(true), Some(true)]);
}

#[test]
fn what_does_not_fit_a_request_is_refused_without_asking() {
    let mut daemon = serving(|_: &mut [u8]| panic!("asked"));
    let long = vec![0x41; NAME_UNITS + 1];
    let key = Key::new(KEY.vendor, &long);
    assert_eq!(daemon.get(key), Err(Status::NOT_FOUND));
    assert_eq!(daemon.next(key), Err(Status::INVALID_PARAMETER));
    assert_eq!(daemon.set(key, ACCESS, b"x"), Err(Status::INVALID_PARAMETER));
    assert_eq!(daemon.set(Key::new(KEY.vendor, &[]), ACCESS, b"x"), Err(Status::INVALID_PARAMETER));
    assert_eq!(daemon.set(KEY, ACCESS, &[0; WINDOW_SIZE]), Err(Status::OUT_OF_RESOURCES));
    for attributes in [VariableAttributes::empty(), VariableAttributes::RUNTIME_ACCESS] {
        assert_eq!(daemon.query(attributes), Err(Status::INVALID_PARAMETER));
    }
    daemon.set_at_runtime();
    assert_eq!(daemon.query(VariableAttributes::BOOTSERVICE_ACCESS), Err(Status::INVALID_PARAMETER));
}

#[test]
fn a_daemon_that_has_gone_or_lies_is_a_device_error() {
    let lies: [fn(&mut [u8]); 5] = [
        |_| {},
        |window| window.fill(0),
        |window| window.fill(0x7F),
        |window| assert!(Reply::TooSmall { needed: 1 }.encode(window).is_some()),
        // More data than the window holds.
        |window| {
            window.fill(0);
            window[12..20].fill(0xFF);
        },
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let mut daemon = serving(lie);
        if number != 1 {
            assert_eq!(daemon.get(KEY), Err(Status::DEVICE_ERROR), "{number}");
        }
        assert_eq!(daemon.next(KEY), Err(Status::DEVICE_ERROR), "{number}");
        if number == 0 || number == 2 || number == 3 {
            assert_eq!(daemon.set(KEY, ACCESS, b"x"), Err(Status::DEVICE_ERROR), "{number}");
        }
    }
}
