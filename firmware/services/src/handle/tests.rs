use super::*;
use uefi_raw::guid;

const ONE: Guid = guid!("11111111-0000-0000-0000-000000000000");
const TWO: Guid = guid!("22222222-0000-0000-0000-000000000000");

fn pointer(n: usize) -> *mut c_void {
    ptr::without_provenance_mut(n)
}

fn new_handle(handles: &mut Handles) -> Handle {
    let marker = guid!("ffffffff-0000-0000-0000-000000000000");
    handles.install(None, &[(marker, pointer(1))]).unwrap().0
}

/// A database with a handle that has `ONE`, and three other handles.
fn with_one() -> (Handles, Handle, [Handle; 3]) {
    let mut handles = Handles::new();
    let (handle, _) = handles.install(None, &[(ONE, pointer(0x1000))]).unwrap();
    let others = [(); 3].map(|()| new_handle(&mut handles));
    (handles, handle, others)
}

#[test]
fn open_attributes_follow_the_table_of_the_specification() {
    use OpenAttributes as A;
    let none: A = A::empty();
    let both = A::BY_DRIVER | A::EXCLUSIVE;
    #[derive(PartialEq, Debug)]
    enum Outcome {
        Opens,
        Denied,
        Started,
        Disconnects,
    }
    use Outcome::*;
    // What is open by another agent, what is asked for, what comes of it.
    let cases = [
        (none, A::BY_HANDLE_PROTOCOL, Opens),
        (none, A::GET_PROTOCOL, Opens),
        (none, A::TEST_PROTOCOL, Opens),
        (none, A::BY_CHILD_CONTROLLER, Opens),
        (none, A::BY_DRIVER, Opens),
        (none, A::EXCLUSIVE, Opens),
        (none, both, Opens),
        (A::BY_DRIVER, A::BY_HANDLE_PROTOCOL, Opens),
        (A::BY_DRIVER, A::GET_PROTOCOL, Opens),
        (A::BY_DRIVER, A::TEST_PROTOCOL, Opens),
        (A::BY_DRIVER, A::BY_CHILD_CONTROLLER, Opens),
        (A::BY_DRIVER, A::BY_DRIVER, Denied),
        (A::BY_DRIVER, A::EXCLUSIVE, Disconnects),
        (A::BY_DRIVER, both, Disconnects),
        (A::EXCLUSIVE, A::BY_HANDLE_PROTOCOL, Opens),
        (A::EXCLUSIVE, A::GET_PROTOCOL, Opens),
        (A::EXCLUSIVE, A::TEST_PROTOCOL, Opens),
        (A::EXCLUSIVE, A::BY_CHILD_CONTROLLER, Opens),
        (A::EXCLUSIVE, A::BY_DRIVER, Denied),
        (A::EXCLUSIVE, A::EXCLUSIVE, Denied),
        (A::EXCLUSIVE, both, Denied),
        (both, A::GET_PROTOCOL, Opens),
        (both, A::BY_DRIVER, Denied),
        (both, A::EXCLUSIVE, Denied),
        (both, both, Denied),
        (A::GET_PROTOCOL, both, Opens),
        (A::BY_CHILD_CONTROLLER, A::BY_DRIVER, Opens),
        (A::BY_CHILD_CONTROLLER, A::EXCLUSIVE, Opens),
    ];
    for (before, asked, expected) in cases {
        let (mut handles, handle, [first, second, controller]) = with_one();
        if !before.is_empty() {
            handles.open(handle, &ONE, first, controller, before).unwrap();
        }
        let outcome = match handles.open(handle, &ONE, second, controller, asked) {
            Ok(Opened::Interface(_)) => Opens,
            Ok(Opened::DisconnectFirst(drivers)) => {
                assert_eq!(drivers, [first]);
                Disconnects
            }
            Err(HandleError::InUse) => Denied,
            Err(HandleError::AlreadyStarted) => Started,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(outcome, expected, "{asked:?} with {before:?} open");
    }
}

#[test]
fn the_same_driver_is_told_that_it_has_started() {
    for attributes in [OpenAttributes::BY_DRIVER, OpenAttributes::BY_DRIVER | OpenAttributes::EXCLUSIVE] {
        let (mut handles, handle, [agent, controller, _]) = with_one();
        handles.open(handle, &ONE, agent, controller, attributes).unwrap();
        assert_eq!(handles.open(handle, &ONE, agent, controller, attributes), Err(HandleError::AlreadyStarted));
    }
}

#[test]
fn undefined_attributes_are_refused() {
    let (mut handles, handle, [agent, controller, _]) = with_one();
    for bits in [0, 0x03, 0x11, 0x28, 0x31, 0x40, 0x8000_0000] {
        let attributes = OpenAttributes::from_bits_retain(bits);
        let opened = handles.open(handle, &ONE, agent, controller, attributes);
        assert_eq!(opened, Err(HandleError::Attributes), "{bits:#x}");
    }
}

#[test]
fn each_kind_of_open_needs_the_handles_the_specification_names() {
    use OpenAttributes as A;
    let both = A::BY_DRIVER | A::EXCLUSIVE;
    let (mut handles, handle, [agent, controller, _]) = with_one();
    let none = ptr::null_mut();
    for attributes in [A::BY_CHILD_CONTROLLER, A::BY_DRIVER, both, A::EXCLUSIVE] {
        let opened = handles.open(handle, &ONE, none, controller, attributes);
        assert_eq!(opened, Err(HandleError::NoSuchAgent), "{attributes:?}");
    }
    for attributes in [A::BY_CHILD_CONTROLLER, A::BY_DRIVER, both] {
        let opened = handles.open(handle, &ONE, agent, none, attributes);
        assert_eq!(opened, Err(HandleError::NoSuchController), "{attributes:?}");
    }
    let itself = handles.open(handle, &ONE, agent, handle, A::BY_CHILD_CONTROLLER);
    assert_eq!(itself, Err(HandleError::NoSuchController));
    for attributes in [A::BY_HANDLE_PROTOCOL, A::GET_PROTOCOL, A::TEST_PROTOCOL] {
        assert!(handles.open(handle, &ONE, none, none, attributes).is_ok(), "{attributes:?}");
    }
    assert!(handles.open(handle, &ONE, agent, none, A::EXCLUSIVE).is_ok());
}

#[test]
fn repeated_opens_are_counted_in_one_entry() {
    let (mut handles, handle, [agent, controller, core]) = with_one();
    for _ in 0..3 {
        handles.open(handle, &ONE, agent, controller, OpenAttributes::GET_PROTOCOL).unwrap();
        handles.handle_protocol(handle, &ONE).unwrap();
    }
    let entry = |agent, controller, attributes| Open { agent, controller, attributes, count: 3 };
    assert_eq!(
        handles.opens(handle, &ONE, core).unwrap(),
        [
            entry(agent, controller, OpenAttributes::GET_PROTOCOL),
            entry(core, ptr::null_mut(), OpenAttributes::BY_HANDLE_PROTOCOL),
        ]
    );
}

#[test]
fn close_forgets_all_opens_of_agent_and_controller() {
    let (mut handles, handle, [agent, controller, other]) = with_one();
    handles.open(handle, &ONE, agent, controller, OpenAttributes::BY_DRIVER).unwrap();
    handles.open(handle, &ONE, agent, controller, OpenAttributes::GET_PROTOCOL).unwrap();
    handles.open(handle, &ONE, agent, other, OpenAttributes::GET_PROTOCOL).unwrap();
    handles.close(handle, &ONE, agent, controller).unwrap();
    assert_eq!(handles.opens(handle, &ONE, other).unwrap().len(), 1);
    assert_eq!(handles.close(handle, &ONE, agent, controller), Err(HandleError::NotOpen));
    assert_eq!(handles.close(handle, &TWO, agent, controller), Err(HandleError::NoSuchProtocol));
}

#[test]
fn an_install_with_a_duplicate_installs_nothing() {
    let (mut handles, handle, _) = with_one();
    let both = [(TWO, pointer(2)), (ONE, pointer(3))];
    assert_eq!(handles.install(Some(handle), &both), Err(HandleError::Duplicate));
    assert_eq!(handles.interface(handle, &TWO), Err(HandleError::NoSuchProtocol));
    let before = handles.all().len();
    assert_eq!(handles.install(None, &[(TWO, pointer(2)), (TWO, pointer(3))]), Err(HandleError::Duplicate));
    assert_eq!(handles.all().len(), before);
}

#[test]
fn an_uninstall_that_fails_uninstalls_nothing() {
    let (mut handles, handle, [agent, controller, _]) = with_one();
    handles.install(Some(handle), &[(TWO, pointer(2))]).unwrap();
    handles.open(handle, &TWO, agent, controller, OpenAttributes::BY_CHILD_CONTROLLER).unwrap();
    let both = [(ONE, pointer(0x1000)), (TWO, pointer(2))];
    assert_eq!(handles.uninstall(handle, &both), Err(HandleError::InUse));
    assert_eq!(handles.interface(handle, &ONE), Ok(pointer(0x1000)));
    assert_eq!(handles.uninstall(handle, &[(ONE, pointer(9))]), Err(HandleError::OtherInterface));
}

#[test]
fn opens_that_need_no_closing_do_not_keep_an_interface() {
    let (mut handles, handle, [agent, controller, _]) = with_one();
    for attributes in [OpenAttributes::GET_PROTOCOL, OpenAttributes::TEST_PROTOCOL, OpenAttributes::BY_HANDLE_PROTOCOL]
    {
        handles.open(handle, &ONE, agent, controller, attributes).unwrap();
    }
    handles.handle_protocol(handle, &ONE).unwrap();
    assert_eq!(handles.uninstall(handle, &[(ONE, pointer(0x1000))]), Ok(()));
}

#[test]
fn a_handle_goes_with_its_last_interface_and_its_value_is_never_used_again() {
    let (mut handles, handle, _) = with_one();
    handles.uninstall(handle, &[(ONE, pointer(0x1000))]).unwrap();
    assert!(!handles.exists(handle));
    assert_eq!(handles.interface(handle, &ONE), Err(HandleError::NoSuchHandle));
    assert!(!handles.all().contains(&handle));
    assert_ne!(new_handle(&mut handles), handle);
}

#[test]
fn values_that_are_no_handles_are_refused() {
    let (handles, handle, _) = with_one();
    for bad in [0, 1, handle.addr() + 1, handle.addr() | 1 << 40, usize::MAX, 1 << (usize::BITS - 1)] {
        assert!(!handles.exists(pointer(bad)), "{bad:#x}");
    }
}

#[test]
fn handles_are_found_in_order_of_installation() {
    let mut handles = Handles::new();
    let a = new_handle(&mut handles);
    let b = new_handle(&mut handles);
    handles.install(Some(b), &[(ONE, pointer(2))]).unwrap();
    handles.install(Some(a), &[(ONE, pointer(1))]).unwrap();
    assert_eq!(handles.instances(&ONE), [(b, pointer(2)), (a, pointer(1))]);
    assert_eq!(handles.instances(&TWO), []);
}

#[test]
fn reinstalling_replaces_the_interface_and_counts_as_new() {
    let (mut handles, handle, _) = with_one();
    let event = pointer(0xe0);
    let registration = handles.register(&ONE, event);
    assert_eq!(handles.reinstall(handle, &ONE, pointer(0x1000), pointer(0x2000)), Ok(vec![event]));
    assert_eq!(handles.instances(&ONE), [(handle, pointer(0x2000))]);
    assert_eq!(handles.peek_new(registration), Ok((handle, pointer(0x2000))));
}

#[test]
fn a_registration_sees_each_later_installation_once() {
    let (mut handles, _, _) = with_one();
    let event = pointer(0xe0);
    let registration = handles.register(&ONE, event);
    assert_eq!(handles.peek_new(registration), Err(HandleError::NothingNew));
    let (first, events) = handles.install(None, &[(ONE, pointer(1)), (TWO, pointer(2))]).unwrap();
    assert_eq!(events, [event]);
    let (second, _) = handles.install(None, &[(ONE, pointer(3))]).unwrap();
    let (third, _) = handles.install(None, &[(ONE, pointer(4))]).unwrap();
    handles.uninstall(second, &[(ONE, pointer(3))]).unwrap();
    for expected in [first, third] {
        assert_eq!(handles.peek_new(registration).map(|(handle, _)| handle), Ok(expected));
        handles.take_new(registration);
    }
    assert_eq!(handles.peek_new(registration), Err(HandleError::NothingNew));
    handles.forget_event(event);
    assert!(handles.install(None, &[(ONE, pointer(5))]).unwrap().1.is_empty());
}

#[test]
fn protocols_are_listed_by_addresses_that_stay() {
    let (mut handles, handle, _) = with_one();
    let before = handles.protocols(handle).unwrap();
    for n in 0..100_u8 {
        let guid = Guid::from_bytes([n; 16]);
        handles.install(None, &[(guid, pointer(1))]).unwrap();
    }
    assert_eq!(handles.protocols(handle).unwrap(), before);
    // SAFETY: the database is alive, so its GUIDs are.
    assert_eq!(unsafe { *before[0] }, ONE);
}

#[test]
fn drivers_and_children_are_listed_once() {
    let (mut handles, controller, [driver, child, other]) = with_one();
    handles.install(Some(controller), &[(TWO, pointer(2))]).unwrap();
    for guid in [ONE, TWO] {
        handles.open(controller, &guid, driver, controller, OpenAttributes::BY_DRIVER).unwrap();
        handles.open(controller, &guid, driver, child, OpenAttributes::BY_CHILD_CONTROLLER).unwrap();
    }
    assert_eq!(handles.drivers_managing(controller), Ok(vec![driver]));
    assert_eq!(handles.children(controller, None), Ok(vec![child]));
    assert_eq!(handles.children(controller, Some(other)), Ok(vec![]));
    handles.close_all_of(driver);
    assert_eq!(handles.drivers_managing(controller), Ok(vec![]));
}

mod order {
    use super::super::driver::{Candidate, order};
    use super::*;

    fn candidate(binding: usize, image: usize, version: u32) -> Candidate<usize> {
        Candidate { binding: pointer(binding), image: pointer(image), version, driver: binding }
    }

    fn ordered(preferred: &[usize], all: &[Candidate<usize>]) -> Vec<usize> {
        let preferred: Vec<_> = preferred.iter().map(|image| pointer(*image)).collect();
        order(&preferred, all).into_iter().map(|candidate| candidate.driver).collect()
    }

    #[test]
    fn higher_versions_come_first_and_equal_ones_stay_in_order() {
        let all = [candidate(1, 91, 10), candidate(2, 92, 30), candidate(3, 93, 10), candidate(4, 94, 20)];
        assert_eq!(ordered(&[], &all), [2, 4, 1, 3]);
    }

    #[test]
    fn preferred_images_come_before_any_version() {
        let all = [candidate(1, 91, 10), candidate(2, 92, 30), candidate(3, 91, 20), candidate(4, 94, 20)];
        assert_eq!(ordered(&[94, 91, 94, 55], &all), [4, 3, 1, 2]);
    }
}
