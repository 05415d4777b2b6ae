//! Reservation commands of an NVMe namespace.

use idm_emulator::reservation::Access;
use idm_emulator::reservation::nvme::{CAPABILITIES, Host, NamespaceReservations};
use idm_protocol::reservation::nvme::ReservationCommand;
use proptest::prelude::*;

const REGISTER: u8 = 0x0D;
const REPORT: u8 = 0x0E;
const ACQUIRE: u8 = 0x11;
const RELEASE: u8 = 0x15;

const A: Host = Host([0xA; 16]);
const B: Host = Host([0xB; 16]);
const C: Host = Host([0xC; 16]);

/// Reservation types.
const WRITE_EXCLUSIVE: u32 = 1;
const EXCLUSIVE_ACCESS: u32 = 2;
const WRITE_EXCLUSIVE_RO: u32 = 3;
const WRITE_EXCLUSIVE_AR: u32 = 5;

/// Statuses with "do not retry".
const SUCCESS: u16 = 0;
const CONFLICT: u16 = 0x4083;
const INVALID_FIELD: u16 = 0x4002;

const IGNORE_KEY: u32 = 1 << 3;

#[derive(Default)]
struct Namespace {
    reservations: NamespaceReservations,
}

/// Content of a report.
#[derive(Debug, PartialEq, Eq)]
struct Report {
    generation: u32,
    kind: u8,
    persistent: bool,
    /// Host, key, and whether it holds the reservation.
    registrants: Vec<(Host, u64, bool)>,
}

fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, &byte| sum * 256 + u64::from(byte))
}

impl Namespace {
    fn send(&mut self, host: Host, opcode: u8, cdw10: u32, keys: [u64; 2]) -> u16 {
        let data = keys.map(u64::to_le_bytes).concat();
        let command = ReservationCommand { opcode, cdw10, cdw11: 0 };
        self.reservations.execute(&host, &command, &data).status
    }

    fn register(&mut self, host: Host, key: u64) -> u16 {
        self.send(host, REGISTER, 0, [0, key])
    }

    fn acquire(&mut self, host: Host, key: u64, kind: u32) -> u16 {
        self.send(host, ACQUIRE, kind << 8, [key, 0])
    }

    fn preempt(&mut self, host: Host, key: u64, victims: u64, kind: u32) -> u16 {
        self.send(host, ACQUIRE, 1 | kind << 8, [key, victims])
    }

    fn raw_report(&self, dwords: u32) -> Vec<u8> {
        let command = ReservationCommand { opcode: REPORT, cdw10: dwords - 1, cdw11: 1 };
        let reply = self.reservations.clone().execute(&C, &command, &[]);
        assert_eq!(reply.status, SUCCESS);
        reply.data
    }

    fn report(&self) -> Report {
        let data = self.raw_report(1024);
        let count = little(&data[5..7]) as usize;
        assert_eq!(data.len(), 64 + 64 * count);
        assert!(data[7..9].iter().chain(&data[10..64]).all(|&byte| byte == 0));
        let entry = |entry: &[u8]| {
            assert_eq!(entry[..2], [0xFF, 0xFF], "no lasting controller");
            assert!(entry[3..8].iter().chain(&entry[32..]).all(|&byte| byte == 0));
            (Host(entry[16..32].try_into().unwrap()), little(&entry[8..16]), entry[2] == 1)
        };
        Report {
            generation: little(&data[..4]) as u32,
            kind: data[4],
            persistent: data[9] == 1,
            registrants: data[64..].chunks(64).map(entry).collect(),
        }
    }

    fn may(&self, host: Host) -> (bool, bool) {
        let may = |access| self.reservations.permits(&host, access);
        (may(Access::Read), may(Access::Write))
    }
}

/// A and B are registered with the keys 0xA and 0xB, and A has acquired.
fn acquired(kind: u32) -> Namespace {
    let mut namespace = Namespace::default();
    assert_eq!(namespace.register(A, 0xA), SUCCESS);
    assert_eq!(namespace.register(B, 0xB), SUCCESS);
    assert_eq!(namespace.acquire(A, 0xA, kind), SUCCESS);
    namespace
}

#[test]
fn a_life_cycle() {
    assert_eq!(CAPABILITIES, 0xFF);
    let mut namespace = Namespace::default();
    assert_eq!(namespace.raw_report(16), [0; 64]);
    let mut namespace_with_one = acquired(WRITE_EXCLUSIVE);
    assert_eq!(
        namespace_with_one.report(),
        Report {
            generation: 2,
            kind: 1,
            persistent: false,
            registrants: vec![(A, 0xA, true), (B, 0xB, false)],
        }
    );
    assert_eq!(namespace_with_one.raw_report(17).len(), 68, "cut to the room");
    let release = WRITE_EXCLUSIVE << 8;
    assert_eq!(namespace_with_one.send(A, RELEASE, release, [0xA, 0]), SUCCESS);
    assert_eq!(namespace_with_one.report().kind, 0);
    assert_eq!(namespace_with_one.send(B, RELEASE, 1, [0xB, 0]), SUCCESS, "clear");
    assert_eq!(namespace_with_one.report().registrants, []);
    assert_eq!(namespace_with_one.report().generation, 3);
    // Without identifiers of 128 bits there is no report.
    let short = ReservationCommand { opcode: REPORT, cdw10: 15, cdw11: 0 };
    assert_eq!(namespace.reservations.execute(&A, &short, &[]).status, 0x4018);
}

#[test]
fn registering() {
    let mut namespace = Namespace::default();
    assert_eq!(namespace.register(A, 1), SUCCESS);
    assert_eq!(namespace.register(A, 1), SUCCESS, "the same key");
    assert_eq!(namespace.register(A, 2), CONFLICT, "another key");
    assert_eq!(namespace.send(A, REGISTER, 2, [9, 2]), CONFLICT, "replace, wrong key");
    assert_eq!(namespace.send(A, REGISTER, 2, [1, 2]), SUCCESS, "replace");
    assert_eq!(namespace.send(A, REGISTER, 2 | IGNORE_KEY, [9, 3]), SUCCESS);
    assert_eq!(namespace.send(B, REGISTER, 2, [0, 4]), CONFLICT, "not registered");
    assert_eq!(namespace.send(B, REGISTER, 2 | IGNORE_KEY, [0, 4]), SUCCESS);
    assert_eq!(namespace.report().registrants, [(A, 3, false), (B, 4, false)]);
    assert_eq!(namespace.report().generation, 5);
    assert_eq!(namespace.send(A, REGISTER, 1, [9, 0]), CONFLICT, "unregister, wrong key");
    assert_eq!(namespace.send(C, REGISTER, 1, [0, 0]), CONFLICT, "not registered");
    assert_eq!(namespace.send(A, REGISTER, 1, [3, 0]), SUCCESS);
    assert_eq!(namespace.send(B, REGISTER, 1 | IGNORE_KEY, [9, 0]), SUCCESS);
    assert_eq!(namespace.report().registrants, []);
}

#[test]
fn malformed_commands_are_refused() {
    let mut namespace = acquired(WRITE_EXCLUSIVE);
    let before = namespace.reservations.clone();
    for action in 3..8 {
        assert_eq!(namespace.send(A, REGISTER, action, [0xA, 1]), INVALID_FIELD);
        assert_eq!(namespace.send(A, ACQUIRE, action | 0x100, [0xA, 0xB]), INVALID_FIELD);
        assert_eq!(namespace.send(A, RELEASE, action | 0x100, [0xA, 0]), INVALID_FIELD);
    }
    assert_eq!(namespace.send(A, REGISTER, 1 << 30, [0, 0xA]), INVALID_FIELD, "CPTPL 01b");
    for kind in [0, 7, 0xFF] {
        assert_eq!(namespace.acquire(A, 0xA, kind), INVALID_FIELD, "type {kind}");
        assert_eq!(namespace.preempt(B, 0xB, 0xA, kind), INVALID_FIELD, "type {kind}");
    }
    assert_eq!(namespace.send(A, RELEASE, 2 << 8, [0xA, 0]), INVALID_FIELD, "another type");
    assert_eq!(namespace.send(A, ACQUIRE, IGNORE_KEY | 0x100, [0, 0]), INVALID_FIELD);
    assert_eq!(namespace.send(A, RELEASE, IGNORE_KEY | 0x100, [0, 0]), INVALID_FIELD);
    assert_eq!(namespace.preempt(A, 0xA, 0, 1), INVALID_FIELD, "no key");
    for opcode in [REGISTER, ACQUIRE, RELEASE] {
        let command = ReservationCommand { opcode, cdw10: 0x100, cdw11: 0 };
        assert_eq!(namespace.reservations.execute(&A, &command, &[0; 7]).status, 0x0004);
    }
    assert_eq!(namespace.reservations, before);
}

#[test]
fn keys_and_holders_are_checked() {
    let mut namespace = acquired(EXCLUSIVE_ACCESS);
    let before = namespace.reservations.clone();
    assert_eq!(namespace.acquire(C, 0xA, 2), CONFLICT, "not registered");
    assert_eq!(namespace.acquire(B, 0xA, 2), CONFLICT, "the key of another one");
    assert_eq!(namespace.acquire(B, 0xB, 2), CONFLICT, "it is held");
    assert_eq!(namespace.acquire(A, 0xA, 1), CONFLICT, "another type");
    assert_eq!(namespace.acquire(A, 0xA, 2), SUCCESS, "held already");
    assert_eq!(namespace.preempt(C, 0xC, 0xA, 2), CONFLICT);
    assert_eq!(namespace.preempt(B, 0xB, 0xF, 2), CONFLICT, "no such key");
    assert_eq!(namespace.send(C, RELEASE, 0x201, [0xC, 0]), CONFLICT, "clear");
    assert_eq!(namespace.send(B, RELEASE, 0x200, [0xB, 0]), SUCCESS, "not the holder");
    assert_eq!(namespace.reservations, before);
}

#[test]
fn preempting() {
    for action in [1, 2] {
        let mut namespace = acquired(WRITE_EXCLUSIVE_RO);
        let preempt = |namespace: &mut Namespace, host, keys, kind: u32| {
            namespace.send(host, ACQUIRE, action | kind << 8, keys)
        };
        assert_eq!(preempt(&mut namespace, B, [0xB, 0xA], 1), SUCCESS);
        let report = namespace.report();
        assert_eq!((report.generation, report.kind), (3, 1));
        assert_eq!(report.registrants, [(B, 0xB, true)]);
        assert_eq!((namespace.may(A), namespace.may(B)), ((true, false), (true, true)));

        let mut namespace = acquired(WRITE_EXCLUSIVE_AR);
        assert_eq!(namespace.register(C, 0xC), SUCCESS);
        assert_eq!(preempt(&mut namespace, A, [0xA, 0xC], 5), SUCCESS);
        assert_eq!(namespace.report().registrants, [(A, 0xA, true), (B, 0xB, true)]);
        assert_eq!((namespace.may(B), namespace.may(C)), ((true, true), (true, false)));
        assert_eq!(preempt(&mut namespace, B, [0xB, 0], 5), SUCCESS);
        assert_eq!(namespace.report().registrants, [(B, 0xB, true)]);
    }
}

/// NVM Express base specification, "Command Behavior in the Presence of a Reservation".
#[test]
fn accesses_that_conflict() {
    let (all, reads, none) = ((true, true), (true, false), (false, false));
    // The holder, another registrant, a stranger.
    let table = [
        (1, [all, reads, reads]),
        (2, [all, none, none]),
        (3, [all, all, reads]),
        (4, [all, all, none]),
        (5, [all, all, reads]),
        (6, [all, all, none]),
    ];
    for (kind, expected) in table {
        let namespace = acquired(kind);
        assert_eq!([A, B, C].map(|host| namespace.may(host)), expected, "type {kind}");
        let holds: Vec<_> = namespace.report().registrants.iter().map(|one| one.2).collect();
        assert_eq!(holds, [true, kind >= 5], "type {kind}");
    }
    assert_eq!(Namespace::default().may(A), all);
}

#[test]
fn a_loss_of_power() {
    for (cptpl, outlives) in [(0b10, false), (0b11, true)] {
        let mut namespace = acquired(WRITE_EXCLUSIVE_AR);
        namespace.reservations.set_persistent(true);
        assert_eq!(namespace.send(A, REGISTER, 0, [0, 0xA]), SUCCESS);
        assert!(namespace.report().persistent, "CPTPL 00b changes nothing");
        assert_eq!(namespace.send(A, REGISTER, cptpl << 30, [0, 0xA]), SUCCESS);
        namespace.reservations.power_cycle();
        let report = namespace.report();
        assert_eq!((report.generation, report.persistent), (0, outlives));
        assert_eq!((report.registrants.len(), report.kind), if outlives { (2, 5) } else { (0, 0) });
    }
}

#[test]
fn the_text_names_hosts() {
    let text = acquired(WRITE_EXCLUSIVE).reservations.text();
    assert_eq!(
        text,
        "generation 2\npersistent no\nreservation write-exclusive\n\
         0x000000000000000a  0a0a0a0a-0a0a-0a0a-0a0a-0a0a0a0a0a0a  holder\n\
         0x000000000000000b  0b0b0b0b-0b0b-0b0b-0b0b-0b0b0b0b0b0b\n"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_is_sent(
        steps in prop::collection::vec(
            (
                prop::sample::select(&[A, B, C][..]),
                prop::sample::select(&[REGISTER, ACQUIRE, RELEASE][..]),
                0..4_u32,
                any::<bool>(),
                0..8_u32,
                [0..3_u64, 0..3],
            ),
            1..40,
        ),
    ) {
        let mut namespace = Namespace::default();
        for (host, opcode, action, ignores, kind, keys) in steps {
            let (before, old) = (namespace.reservations.clone(), namespace.report());
            let cdw10 = action | u32::from(ignores) << 3 | kind << 8;
            let status = namespace.send(host, opcode, cdw10, keys);
            let report = namespace.report();
            let holders = report.registrants.iter().filter(|one| one.2).count();
            match report.kind {
                0 => prop_assert_eq!(holders, 0),
                1..=4 => prop_assert_eq!(holders, 1),
                _ => prop_assert!(holders > 0 && holders == report.registrants.len()),
            }
            if status != SUCCESS {
                prop_assert_eq!(&namespace.reservations, &before);
            }
            let counted = status == SUCCESS
                && match opcode {
                    REGISTER => true,
                    ACQUIRE => action != 0,
                    _ => action == 1,
                };
            prop_assert_eq!(report.generation, old.generation + u32::from(counted));
        }
    }

    #[test]
    fn any_bytes(
        opcode: u8,
        cdw10: u32,
        cdw11: u32,
        data in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut namespace = acquired(WRITE_EXCLUSIVE_RO);
        let command = ReservationCommand { opcode, cdw10, cdw11 };
        namespace.reservations.execute(&A, &command, &data);
    }
}
