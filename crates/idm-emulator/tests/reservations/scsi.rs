//! PERSISTENT RESERVE IN and OUT of a SCSI logical unit, step by step.

use idm_emulator::ScsiReply;
use idm_emulator::reservation::MOST_REGISTRANTS;
use idm_emulator::reservation::scsi::{Nexus, UnitReservations};

pub const REGISTER: u8 = 0;
pub const RESERVE: u8 = 1;
pub const RELEASE: u8 = 2;
pub const CLEAR: u8 = 3;
pub const PREEMPT: u8 = 4;
pub const PREEMPT_AND_ABORT: u8 = 5;
pub const REGISTER_AND_IGNORE: u8 = 6;
pub const REGISTER_AND_MOVE: u8 = 7;

/// Type codes.
const WRITE_EXCLUSIVE: u8 = 1;
const EXCLUSIVE_ACCESS: u8 = 3;
const WRITE_EXCLUSIVE_RO: u8 = 5;
const EXCLUSIVE_ACCESS_RO: u8 = 6;
const WRITE_EXCLUSIVE_AR: u8 = 7;
const EXCLUSIVE_ACCESS_AR: u8 = 8;
pub const TYPES: [u8; 6] = [
    WRITE_EXCLUSIVE,
    EXCLUSIVE_ACCESS,
    WRITE_EXCLUSIVE_RO,
    EXCLUSIVE_ACCESS_RO,
    WRITE_EXCLUSIVE_AR,
    EXCLUSIVE_ACCESS_AR,
];

/// APTPL in byte 20 of a parameter list.
const APTPL: u8 = 0x01;

/// End of a command: status, and sense key, ASC and ASCQ.
pub type End = (u8, u8, u8, u8);

pub const GOOD: End = (0x00, 0, 0, 0);
pub const CONFLICT: End = (0x18, 0, 0, 0);
pub const INVALID_CDB: End = (0x02, 0x05, 0x24, 0x00);
pub const INVALID_LIST: End = (0x02, 0x05, 0x26, 0x00);
const INVALID_RELEASE: End = (0x02, 0x05, 0x26, 0x04);
const LIST_LENGTH: End = (0x02, 0x05, 0x1A, 0x00);
const INSUFFICIENT: End = (0x02, 0x05, 0x55, 0x04);
const REGISTRATIONS_PREEMPTED: End = (0x02, 0x06, 0x2A, 0x05);
const RESERVATIONS_RELEASED: End = (0x02, 0x06, 0x2A, 0x04);
const RESERVATIONS_PREEMPTED: End = (0x02, 0x06, 0x2A, 0x03);
const POWER_ON: End = (0x02, 0x06, 0x29, 0x00);

const TEST_UNIT_READY: [u8; 6] = [0; 6];
pub const READ_10: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
pub const WRITE_10: [u8; 10] = [0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0];

pub fn end(reply: &ScsiReply) -> End {
    match (reply.status, &reply.sense[..]) {
        (0x02, sense) => {
            assert_eq!((sense[0], sense[7], sense.len()), (0x70, 10, 18), "fixed form");
            (0x02, sense[2], sense[12], sense[13])
        }
        (status, sense) => {
            assert_eq!(sense.len(), 0, "sense without CHECK CONDITION");
            (status, 0, 0, 0)
        }
    }
}

/// A parameter list of 24 bytes.
pub fn list(key: u64, action_key: u64, flags: u8) -> Vec<u8> {
    let mut list = Vec::new();
    list.extend(key.to_be_bytes());
    list.extend(action_key.to_be_bytes());
    list.extend([0, 0, 0, 0, flags, 0, 0, 0]);
    list
}

/// A parameter list of REGISTER AND MOVE.
pub fn move_list(key: u64, action_key: u64, flags: u8, to: Nexus) -> Vec<u8> {
    let mut list = Vec::new();
    list.extend(key.to_be_bytes());
    list.extend(action_key.to_be_bytes());
    list.extend([0, flags]);
    list.extend(to.target_port.to_be_bytes());
    list.extend(24_u32.to_be_bytes());
    list.extend([0x06, 0, 0, 0]);
    list.extend(to.initiator.to_be_bytes());
    list.extend([0; 12]);
    list
}

pub fn reserve_out(action: u8, kind: u8, list: &[u8]) -> [u8; 10] {
    let len = (list.len() as u32).to_be_bytes();
    [0x5F, action, kind, 0, 0, len[0], len[1], len[2], len[3], 0]
}

/// A registration as READ FULL STATUS shows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    pub key: u64,
    pub holds: bool,
    pub scope_and_type: u8,
    pub nexus: Nexus,
}

/// A logical unit with three nexuses.
pub struct Unit {
    pub reservations: UnitReservations,
}

fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, &byte| sum * 256 + u64::from(byte))
}

pub fn nexus(number: usize) -> Nexus {
    Nexus::of_port(["a.0", "a.1", "b.0"][number])
}

impl Unit {
    pub fn new() -> Unit {
        let mut unit = Unit { reservations: UnitReservations::default() };
        for number in 0..3 {
            assert_eq!(unit.attention(number), GOOD);
        }
        unit
    }

    /// The answer to TEST UNIT READY.
    fn attention(&mut self, number: usize) -> End {
        let reply = self.reservations.before(&nexus(number), "port", &TEST_UNIT_READY);
        reply.map_or(GOOD, |reply| end(&reply))
    }

    fn send(&mut self, number: usize, cdb: &[u8], data: &[u8]) -> End {
        end(&self.reservations.execute(&nexus(number), cdb, data))
    }

    pub fn out(&mut self, number: usize, action: u8, kind: u8, key: u64, action_key: u64) -> End {
        let list = list(key, action_key, 0);
        self.send(number, &reserve_out(action, kind, &list), &list)
    }

    pub fn read(&self, action: u8, room: u16) -> Vec<u8> {
        let room = room.to_be_bytes();
        let cdb = [0x5E, action, 0, 0, 0, 0, 0, room[0], room[1], 0];
        let reply = self.reservations.clone().execute(&nexus(0), &cdb, &[]);
        assert_eq!(end(&reply), GOOD);
        reply.data
    }

    pub fn generation(&self) -> u32 {
        big(&self.read(0, 8)[..4]) as u32
    }

    pub fn keys(&self) -> Vec<u64> {
        let data = self.read(0, 0xFFFF);
        assert_eq!(big(&data[4..8]) as usize, data.len() - 8);
        data[8..].chunks(8).map(big).collect()
    }

    /// Key, and scope and type.
    pub fn reservation(&self) -> Option<(u64, u8)> {
        let data = self.read(1, 0xFFFF);
        match big(&data[4..8]) {
            0 => {
                assert_eq!(data.len(), 8);
                None
            }
            length => {
                assert_eq!((length, data.len()), (16, 24));
                assert_eq!(data[16..21], [0; 5]);
                Some((big(&data[8..16]), data[21]))
            }
        }
    }

    pub fn full_status(&self) -> Vec<Shown> {
        let data = self.read(3, 0xFFFF);
        assert_eq!(big(&data[4..8]) as usize, data.len() - 8);
        let (mut rest, mut all) = (&data[8..], Vec::new());
        while !rest.is_empty() {
            let more = big(&rest[20..24]) as usize;
            let transport_id = &rest[24..24 + more];
            assert_eq!((more, transport_id[0]), (24, 0x06), "a TransportID of SAS");
            assert_eq!(rest[12] & !0x01, 0, "ALL_TG_PT");
            all.push(Shown {
                key: big(&rest[..8]),
                holds: rest[12] & 0x01 != 0,
                scope_and_type: rest[13],
                nexus: Nexus {
                    initiator: big(&transport_id[4..12]),
                    target_port: big(&rest[18..20]) as u16,
                },
            });
            rest = &rest[24 + more..];
        }
        all
    }

    pub fn permits(&self, number: usize, cdb: &[u8]) -> bool {
        self.reservations.permits(&nexus(number), cdb, false)
    }
}

/// A unit on which a.0 and b.0 are registered with the keys 0xA and 0xB, and a.0 has reserved.
fn reserved(kind: u8) -> Unit {
    let mut unit = Unit::new();
    assert_eq!(unit.out(0, REGISTER, 0, 0, 0xA), GOOD);
    assert_eq!(unit.out(2, REGISTER, 0, 0, 0xB), GOOD);
    assert_eq!(unit.out(0, RESERVE, kind, 0xA, 0), GOOD);
    unit
}

#[test]
fn a_life_cycle_in_bytes() {
    let mut unit = Unit::new();
    assert_eq!(unit.read(0, 0xFFFF), [0; 8]);
    assert_eq!(unit.read(2, 0xFFFF), [0, 8, 0x01, 0xB0, 0xEA, 0x01, 0, 0]);
    assert_eq!(unit.out(0, REGISTER, 0, 0, 0x1122_3344_5566_7788), GOOD);
    let keys = [0, 0, 0, 1, 0, 0, 0, 8, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
    assert_eq!(unit.read(0, 0xFFFF), keys);
    // The length in the header does not depend on the room.
    assert_eq!(unit.read(0, 9), keys[..9]);
    assert_eq!(unit.out(0, RESERVE, 5, 0x1122_3344_5566_7788, 0), GOOD);
    let mut reservation = vec![0, 0, 0, 1, 0, 0, 0, 16];
    reservation.extend(&keys[8..]);
    reservation.extend([0, 0, 0, 0, 0, 0x05, 0, 0]);
    assert_eq!(unit.read(1, 0xFFFF), reservation);
    let shown =
        Shown { key: 0x1122_3344_5566_7788, holds: true, scope_and_type: 5, nexus: nexus(0) };
    assert_eq!(unit.full_status(), [shown]);
    assert_eq!(unit.out(0, RELEASE, 5, 0x1122_3344_5566_7788, 0), GOOD);
    assert_eq!(unit.reservation(), None);
    assert_eq!(unit.out(0, REGISTER, 0, 0x1122_3344_5566_7788, 0), GOOD);
    assert_eq!(unit.read(0, 0xFFFF), [0, 0, 0, 2, 0, 0, 0, 0]);
}

#[test]
fn ports_are_nexuses_of_their_own() {
    assert_eq!((nexus(0).target_port, nexus(1).target_port, nexus(2).target_port), (1, 2, 1));
    assert_ne!(nexus(0).initiator, nexus(1).initiator);
    assert_eq!(Nexus::of_port("host").target_port, 1);
    assert_eq!(Nexus::of_port("a.65535").target_port, 65_535);
    let mut unit = reserved(WRITE_EXCLUSIVE);
    // The other path of the holder's host is not registered.
    assert!(!unit.permits(1, &WRITE_10));
    assert_eq!(unit.out(1, RESERVE, WRITE_EXCLUSIVE, 0xA, 0), CONFLICT);
}

/// SPC-4, "Register behaviors" of REGISTER and of REGISTER AND IGNORE EXISTING KEY.
#[test]
fn registering() {
    let mut unit = Unit::new();
    assert_eq!(unit.out(0, REGISTER, 0, 0, 0), GOOD);
    assert_eq!(unit.out(0, REGISTER_AND_IGNORE, 0, 7, 0), GOOD);
    assert_eq!((unit.generation(), unit.keys()), (0, vec![]), "nothing to do");
    assert_eq!(unit.out(0, REGISTER, 0, 1, 2), CONFLICT);
    assert_eq!(unit.out(0, REGISTER, 0, 0, 1), GOOD);
    assert_eq!(unit.out(0, REGISTER, 0, 0, 2), CONFLICT);
    assert_eq!(unit.out(0, REGISTER, 0, 1, 2), GOOD);
    assert_eq!(unit.out(2, REGISTER_AND_IGNORE, 0, 99, 2), GOOD);
    assert_eq!((unit.generation(), unit.keys()), (3, vec![2, 2]));
    assert_eq!(unit.out(0, REGISTER_AND_IGNORE, 0, 99, 3), GOOD);
    assert_eq!((unit.generation(), unit.keys()), (4, vec![3, 2]));
    assert_eq!(unit.out(0, REGISTER_AND_IGNORE, 0, 99, 0), GOOD);
    assert_eq!((unit.generation(), unit.keys()), (5, vec![2]));
}

/// According to ATP_C and SIP_C, these bits are not supported.
#[test]
fn unsupported_bits_are_refused() {
    for flag in [0x04, 0x08] {
        for action in [REGISTER, REGISTER_AND_IGNORE] {
            let mut unit = Unit::new();
            let mut list = list(0, 1, flag);
            assert_eq!(unit.send(0, &reserve_out(action, 0, &list), &list), INVALID_LIST);
            if flag == 0x08 {
                // TransportIDs would follow.
                list.extend([0; 28]);
                assert_eq!(unit.send(0, &reserve_out(action, 0, &list), &list), INVALID_LIST);
            }
            assert_eq!((unit.generation(), unit.keys()), (0, vec![]));
        }
    }
}

#[test]
fn malformed_commands_are_refused() {
    let mut unit = reserved(WRITE_EXCLUSIVE);
    let before = unit.reservations.clone();
    let good = list(0xA, 0, 0);
    for action in 0x08..=0x1F {
        assert_eq!(unit.send(0, &reserve_out(action, 1, &good), &good), INVALID_CDB);
    }
    for action in 0x04..=0x1F {
        assert_eq!(unit.send(0, &[0x5E, action, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0], &[]), INVALID_CDB);
    }
    for action in 0x00..=0x07 {
        for len in [0, 8, 23] {
            let cdb = reserve_out(action, 1, &good[..len]);
            assert_eq!(unit.send(0, &cdb, &good[..len]), LIST_LENGTH, "{action} {len}");
        }
        // Less data came than the CDB has announced.
        assert_eq!(unit.send(0, &reserve_out(action, 1, &good), &good[..23]), LIST_LENGTH);
    }
    for action in 0x00..=0x06 {
        let long = [&good[..], &[0]].concat();
        assert_eq!(unit.send(0, &reserve_out(action, 1, &long), &long), LIST_LENGTH);
    }
    for wrong in [0x00, 0x02, 0x04, 0x09, 0x0F, 0x11, 0xF1] {
        assert_eq!(unit.out(0, RESERVE, wrong, 0xA, 0), INVALID_CDB, "{wrong:#x}");
        assert_eq!(unit.out(0, RELEASE, wrong, 0xA, 0), INVALID_RELEASE, "{wrong:#x}");
        assert_eq!(unit.out(2, PREEMPT, wrong, 0xB, 0xA), INVALID_CDB, "{wrong:#x}");
    }
    assert_eq!(unit.send(0, &[0x5E], &[]), INVALID_CDB);
    assert_eq!(unit.reservations, before);
}

#[test]
fn who_is_not_registered_or_has_another_key_is_refused() {
    let mut unit = reserved(WRITE_EXCLUSIVE);
    let before = unit.reservations.clone();
    for action in [RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT] {
        assert_eq!(unit.out(1, action, 1, 0xA, 0xA), CONFLICT, "{action}");
        assert_eq!(unit.out(1, action, 1, 0, 0xA), CONFLICT, "{action}");
        assert_eq!(unit.out(2, action, 1, 0xA, 0xA), CONFLICT, "{action}");
    }
    assert_eq!(unit.reservations, before);
}

#[test]
fn reserving_again_is_no_error_and_changing_is_one() {
    for kind in TYPES {
        let mut unit = reserved(kind);
        assert_eq!(unit.generation(), 2, "RESERVE is not counted");
        assert_eq!(unit.out(0, RESERVE, kind, 0xA, 0), GOOD);
        let by_other = if kind >= 7 { GOOD } else { CONFLICT };
        assert_eq!(unit.out(2, RESERVE, kind, 0xB, 0), by_other);
        for other in TYPES.into_iter().filter(|&other| other != kind) {
            assert_eq!(unit.out(0, RESERVE, other, 0xA, 0), CONFLICT);
            assert_eq!(unit.out(2, RESERVE, other, 0xB, 0), CONFLICT);
        }
        let key = if kind >= 7 { 0 } else { 0xA };
        assert_eq!(unit.reservation(), Some((key, kind)));
        let holds: Vec<_> = unit.full_status().iter().map(|one| one.holds).collect();
        assert_eq!(holds, [true, kind >= 7]);
    }
}

#[test]
fn releasing() {
    for kind in TYPES {
        let mut unit = reserved(kind);
        let other = TYPES[usize::from(kind == TYPES[0])];
        assert_eq!(unit.out(0, RELEASE, other, 0xA, 0), INVALID_RELEASE);
        if kind < 7 {
            // Not the holder: nothing happens, whatever the type.
            assert_eq!(unit.out(2, RELEASE, kind, 0xB, 0), GOOD);
            assert_eq!(unit.out(2, RELEASE, 0xF, 0xB, 0), GOOD);
        }
        assert!(unit.reservation().is_some());
        assert_eq!(unit.out(0, RELEASE, kind, 0xA, 0), GOOD);
        assert_eq!((unit.reservation(), unit.keys()), (None, vec![0xA, 0xB]));
        assert_eq!(unit.generation(), 2, "RELEASE is not counted");
        assert_eq!(unit.attention(0), GOOD);
        let told = if kind >= 5 { RESERVATIONS_RELEASED } else { GOOD };
        assert_eq!((unit.attention(2), unit.attention(2)), (told, GOOD));
        assert_eq!(unit.attention(1), GOOD, "not registered");
        assert_eq!(unit.out(0, RELEASE, 0xF, 0xA, 0), GOOD, "there is none");
    }
}

#[test]
fn a_holder_that_unregisters() {
    for kind in TYPES {
        let mut unit = reserved(kind);
        assert_eq!(unit.out(0, REGISTER, 0, 0xA, 0), GOOD);
        let stays = (kind >= 7).then_some((0, kind));
        assert_eq!((unit.reservation(), unit.keys()), (stays, vec![0xB]));
        let told = if [5, 6].contains(&kind) { RESERVATIONS_RELEASED } else { GOOD };
        assert_eq!(unit.attention(2), told);
        assert_eq!(unit.out(2, REGISTER, 0, 0xB, 0), GOOD);
        assert_eq!((unit.reservation(), unit.keys()), (None, vec![]), "the last one");
        assert_eq!(unit.generation(), 4);
    }
}

#[test]
fn clearing() {
    let mut unit = reserved(EXCLUSIVE_ACCESS);
    assert_eq!(unit.out(2, CLEAR, 0xF, 0xB, 0), GOOD);
    assert_eq!((unit.reservation(), unit.keys(), unit.generation()), (None, vec![], 3));
    assert_eq!((unit.attention(0), unit.attention(2)), (RESERVATIONS_PREEMPTED, GOOD));
}

#[test]
fn preempting_the_holder() {
    for action in [PREEMPT, PREEMPT_AND_ABORT] {
        let mut unit = reserved(WRITE_EXCLUSIVE_RO);
        assert_eq!(unit.out(1, REGISTER, 0, 0, 0xC), GOOD);
        // Same type: the remaining registrants get no condition.
        assert_eq!(unit.out(2, action, 5, 0xB, 0xA), GOOD);
        assert_eq!((unit.reservation(), unit.keys()), (Some((0xB, 5)), vec![0xB, 0xC]));
        assert_eq!(unit.attention(0), REGISTRATIONS_PREEMPTED);
        assert_eq!((unit.attention(1), unit.attention(2)), (GOOD, GOOD));
        assert_eq!(unit.generation(), 4);
        // Another type: they get one.
        assert_eq!(unit.out(1, action, 6, 0xC, 0xB), GOOD);
        assert_eq!((unit.reservation(), unit.keys()), (Some((0xC, 6)), vec![0xC]));
        assert_eq!(unit.attention(2), REGISTRATIONS_PREEMPTED);
        assert_eq!(unit.out(0, REGISTER, 0, 0, 0xA), GOOD);
        // The holder itself, to change the type.
        assert_eq!(unit.out(1, action, 1, 0xC, 0xC), GOOD);
        assert_eq!((unit.reservation(), unit.keys()), (Some((0xC, 1)), vec![0xC, 0xA]));
        assert_eq!((unit.attention(0), unit.attention(1)), (RESERVATIONS_RELEASED, GOOD));
    }
}

#[test]
fn preempting_two_paths_of_the_holder() {
    let mut unit = reserved(WRITE_EXCLUSIVE);
    assert_eq!(unit.out(1, REGISTER, 0, 0, 0xA), GOOD);
    assert_eq!(unit.out(2, PREEMPT, 3, 0xB, 0xA), GOOD);
    assert_eq!((unit.reservation(), unit.keys()), (Some((0xB, 3)), vec![0xB]));
    assert_eq!(unit.attention(0), REGISTRATIONS_PREEMPTED);
    assert_eq!(unit.attention(1), REGISTRATIONS_PREEMPTED);
}

#[test]
fn preempting_who_holds_nothing() {
    let mut unit = reserved(WRITE_EXCLUSIVE);
    assert_eq!(unit.out(0, PREEMPT, 0xF, 0xA, 0xB), GOOD, "the type is ignored");
    assert_eq!((unit.reservation(), unit.keys()), (Some((0xA, 1)), vec![0xA]));
    assert_eq!(unit.attention(2), REGISTRATIONS_PREEMPTED);
    assert_eq!(unit.out(0, PREEMPT, 1, 0xA, 0xB), CONFLICT, "no such key");
    assert_eq!(unit.out(0, PREEMPT, 1, 0xA, 0), INVALID_LIST, "no key");
    assert_eq!(unit.generation(), 3);
    // Its own key, where it holds nothing.
    assert_eq!(unit.out(2, REGISTER, 0, 0, 0xB), GOOD);
    assert_eq!(unit.out(2, PREEMPT, 1, 0xB, 0xB), GOOD);
    assert_eq!((unit.reservation(), unit.keys()), (Some((0xA, 1)), vec![0xA]));
    assert_eq!((unit.attention(0), unit.attention(2)), (GOOD, GOOD));
    // Without a reservation nothing is reserved.
    assert_eq!(unit.out(0, RELEASE, 1, 0xA, 0), GOOD);
    assert_eq!(unit.out(2, REGISTER, 0, 0, 0xB), GOOD);
    assert_eq!(unit.out(0, PREEMPT, 1, 0xA, 0xB), GOOD);
    assert_eq!((unit.reservation(), unit.keys()), (None, vec![0xA]));
}

#[test]
fn preempting_where_all_are_holders() {
    for kind in [WRITE_EXCLUSIVE_AR, EXCLUSIVE_ACCESS_AR] {
        let mut unit = reserved(kind);
        assert_eq!(unit.out(1, REGISTER, 0, 0, 0xC), GOOD);
        assert_eq!(unit.out(0, PREEMPT, 0xF, 0xA, 0xC), GOOD, "one key");
        assert_eq!((unit.reservation(), unit.keys()), (Some((0, kind)), vec![0xA, 0xB]));
        assert_eq!((unit.attention(1), unit.attention(2)), (REGISTRATIONS_PREEMPTED, GOOD));
        assert_eq!(unit.out(0, PREEMPT_AND_ABORT, 1, 0xA, 0), GOOD, "all others");
        assert_eq!((unit.reservation(), unit.keys()), (Some((0xA, 1)), vec![0xA]));
        assert_eq!((unit.attention(0), unit.attention(2)), (GOOD, REGISTRATIONS_PREEMPTED));

        let mut unit = reserved(kind);
        assert_eq!(unit.out(0, PREEMPT, kind, 0xA, 0xA), GOOD, "its own key");
        assert_eq!((unit.reservation(), unit.keys()), (Some((0, kind)), vec![0xB]));
        assert_eq!(unit.out(2, PREEMPT, kind, 0xB, 0xB), GOOD, "the last one");
        assert_eq!((unit.reservation(), unit.keys()), (None, vec![]));
    }
}

#[test]
fn register_and_move() {
    let to_b = |flags| move_list(0xA, 0xC, flags, nexus(2));
    let send = |unit: &mut Unit, number, list: &[u8]| {
        unit.send(number, &reserve_out(REGISTER_AND_MOVE, 0xFF, list), list)
    };
    let mut unit = reserved(WRITE_EXCLUSIVE);
    assert_eq!(send(&mut unit, 1, &to_b(0)), CONFLICT, "not registered");
    assert_eq!(send(&mut unit, 2, &move_list(0xB, 0xC, 0, nexus(0))), CONFLICT, "no holder");
    assert_eq!(send(&mut unit, 0, &move_list(0xF, 0xC, 0, nexus(2))), CONFLICT, "another key");
    assert_eq!(send(&mut unit, 0, &move_list(0xA, 0, 0, nexus(2))), INVALID_LIST, "key 0");
    assert_eq!(send(&mut unit, 0, &move_list(0xA, 1, 0, nexus(0))), INVALID_LIST, "itself");
    let other_path = Nexus { target_port: 2, ..nexus(0) };
    assert_eq!(send(&mut unit, 0, &move_list(0xA, 1, 0, other_path)), INVALID_LIST);
    for (at, byte) in [(24, 0x05), (24, 0x46), (19, 0)] {
        let mut wrong = to_b(0);
        wrong[at] = byte;
        assert_eq!(send(&mut unit, 0, &wrong), INVALID_LIST, "byte {at} is {byte}");
    }
    assert_eq!(send(&mut unit, 0, &to_b(0)[..47]), LIST_LENGTH);
    assert_eq!(unit.generation(), 2);
    // APTPL, and a.0 stays registered.
    assert_eq!(send(&mut unit, 0, &to_b(0x01)), GOOD);
    assert_eq!((unit.reservation(), unit.keys()), (Some((0xC, 1)), vec![0xA, 0xC]));
    assert_eq!((unit.generation(), unit.read(2, 8)[3] & 1), (3, 1));
    // UNREG, to a port that has never sent a command.
    let stranger = Nexus { initiator: 0x5000_C500_1234_5678, target_port: 2 };
    assert_eq!(send(&mut unit, 2, &move_list(0xC, 0xD, 0x02, stranger)), GOOD);
    assert_eq!((unit.reservation(), unit.keys()), (Some((0xD, 1)), vec![0xA, 0xD]));
    assert_eq!((unit.full_status()[1].nexus, unit.read(2, 8)[3] & 1), (stranger, 0));
    // Without a reservation, and where all are holders.
    assert_eq!(unit.out(0, CLEAR, 0, 0xA, 0), GOOD);
    assert_eq!(unit.out(0, REGISTER, 0, 0, 0xA), GOOD);
    assert_eq!(send(&mut unit, 0, &to_b(0)), INVALID_CDB);
    assert_eq!(unit.out(0, RESERVE, 7, 0xA, 0), GOOD);
    assert_eq!(send(&mut unit, 0, &to_b(0)), CONFLICT);
}

#[test]
fn a_loss_of_power() {
    for flags in [0, APTPL] {
        let mut unit = reserved(WRITE_EXCLUSIVE_AR);
        // The bit that was sent last counts.
        for flags in [APTPL, flags] {
            let list = list(0xB, 0xB, flags);
            assert_eq!(unit.send(2, &reserve_out(REGISTER, 0, &list), &list), GOOD);
        }
        assert_eq!(unit.read(2, 8)[3] & 1, flags);
        assert_eq!(unit.out(1, REGISTER, 0, 0xF, 0xC), CONFLICT);
        unit.reservations.power_cycle();
        assert_eq!(unit.generation(), 0);
        let left = if flags == 0 { vec![] } else { vec![0xA, 0xB] };
        assert_eq!((unit.keys(), unit.reservation().is_some()), (left, flags != 0));
        for number in 0..3 {
            assert_eq!((unit.attention(number), unit.attention(number)), (POWER_ON, GOOD));
        }
    }
}

#[test]
fn there_is_room_for_so_many() {
    let mut unit = Unit::new();
    let register = list(0, 1, 0);
    let cdb = reserve_out(REGISTER, 0, &register);
    for number in 0..MOST_REGISTRANTS {
        let nexus = Nexus { initiator: number as u64, target_port: 1 };
        assert_eq!(end(&unit.reservations.execute(&nexus, &cdb, &register)), GOOD);
    }
    let before = unit.reservations.clone();
    assert_eq!(unit.out(0, REGISTER, 0, 0, 1), INSUFFICIENT);
    assert_eq!(unit.reservations, before);
}

#[test]
fn conditions_are_told_once_and_as_each_command_has_it() {
    let mut unit = reserved(WRITE_EXCLUSIVE_RO);
    assert_eq!(unit.out(2, PREEMPT, 5, 0xB, 0xA), GOOD);
    assert_eq!(unit.out(0, REGISTER, 0, 0, 0xA), GOOD);
    assert_eq!(unit.out(2, RELEASE, 5, 0xB, 0), GOOD);
    let before = |unit: &mut Unit, cdb: &[u8]| unit.reservations.before(&nexus(0), "a.0", cdb);
    for silent in [0x12, 0xA0] {
        assert!(unit.reservations.is_quiet(&nexus(0), &[silent, 0, 0, 0, 0, 0]));
        assert_eq!(before(&mut unit, &[silent, 0, 0, 0, 0, 0]), None);
    }
    assert!(!unit.reservations.is_quiet(&nexus(0), &READ_10));
    // REQUEST SENSE reports it as data, in the requested form.
    let told = before(&mut unit, &[0x03, 0, 0, 0, 18, 0]).unwrap();
    assert_eq!((told.status, told.sense.len()), (0, 0));
    assert_eq!((told.data[2], told.data[12], told.data[13]), (0x06, 0x2A, 0x05));
    let told = before(&mut unit, &[0x03, 1, 0, 0, 8, 0]).unwrap();
    assert_eq!(told.data[..4], [0x72, 0x06, 0x2A, 0x04]);
    assert_eq!(told.data.len(), 8);
    assert_eq!(before(&mut unit, &[0x03, 0, 0, 0, 18, 0]), None);
    assert!(unit.reservations.is_quiet(&nexus(0), &READ_10));
}

/// Commands that no reservation keeps away.
const FREE: [&[u8]; 9] = [
    &TEST_UNIT_READY,
    &[0x03, 0, 0, 0, 18, 0],
    &[0x12, 0, 0, 0, 36, 0],
    &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0],
    &[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0],
    &[0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 0],
    // START, and ALLOW MEDIUM REMOVAL.
    &[0x1B, 0, 0, 0, 0x01, 0],
    &[0x1E, 0, 0, 0, 0, 0],
];
/// Commands that read data or settings.
const READS: [&[u8]; 7] = [
    &[0x08, 0, 0, 0, 1, 0],
    &READ_10,
    &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
    &[0x2F, 0, 0, 0, 0, 0, 0, 0, 1, 0],
    &[0x8F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
    &[0x1A, 0, 0x08, 0, 0xFF, 0],
    &[0x5A, 0, 0x08, 0, 0, 0, 0, 0, 0xFF, 0],
];
/// Commands that change data or settings.
const WRITES: [&[u8]; 11] = [
    &[0x0A, 0, 0, 0, 1, 0],
    &WRITE_10,
    &[0x8A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
    &[0x2E, 0, 0, 0, 0, 0, 0, 0, 1, 0],
    &[0x8E, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
    &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0],
    &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    // STOP, STANDBY by power condition, and PREVENT MEDIUM REMOVAL.
    &[0x1B, 0, 0, 0, 0x00, 0],
    &[0x1B, 0, 0, 0, 0x31, 0],
    &[0x1E, 0, 0, 0, 0x01, 0],
];

/// The commands that are allowed in the presence of reservations, according to SPC-4 and SBC-3.
#[test]
fn commands_that_conflict() {
    for kind in TYPES {
        let unit = reserved(kind);
        // By reservation type: reads and writes of another registrant, then of a stranger.
        let allowed = match kind {
            WRITE_EXCLUSIVE => [(true, false), (true, false)],
            EXCLUSIVE_ACCESS => [(false, false), (false, false)],
            WRITE_EXCLUSIVE_RO | WRITE_EXCLUSIVE_AR => [(true, true), (true, false)],
            _ => [(true, true), (false, false)],
        };
        for (number, (read, write)) in [(0, (true, true)), (2, allowed[0]), (1, allowed[1])] {
            for cdb in FREE {
                assert!(unit.permits(number, cdb), "{kind} {number} {cdb:x?}");
            }
            for cdb in READS {
                assert_eq!(unit.permits(number, cdb), read, "{kind} {number} {cdb:x?}");
            }
            for cdb in WRITES {
                assert_eq!(unit.permits(number, cdb), write, "{kind} {number} {cdb:x?}");
            }
        }
    }
    for cdb in FREE.into_iter().chain(READS).chain(WRITES) {
        assert!(Unit::new().permits(1, cdb), "no reservation: {cdb:x?}");
    }
}

#[test]
fn mutex_commands_conflict_where_the_profile_says_so() {
    let unit = reserved(EXCLUSIVE_ACCESS);
    let trylock = idm_protocol::scsi::mutex(idm_protocol::MutexOp::Trylock);
    let table = idm_protocol::scsi::read_table(1);
    let stranger = |cdb: &[u8], idm| unit.reservations.permits(&nexus(1), cdb, idm);
    for cdb in [&trylock[..], &table[..]] {
        assert!(stranger(cdb, false) && !stranger(cdb, true));
    }
    let unit = reserved(WRITE_EXCLUSIVE);
    assert!(unit.reservations.permits(&nexus(1), &table, true));
    assert!(!unit.reservations.permits(&nexus(1), &trylock, true));
    assert!(unit.reservations.permits(&nexus(0), &trylock, true));
}

#[test]
fn the_text_names_ports_keys_and_holders() {
    let mut unit = reserved(WRITE_EXCLUSIVE);
    let move_to = Nexus { initiator: 0x5000_C500_0000_0001, target_port: 3 };
    let list = move_list(0xA, 0xD, 0, move_to);
    assert_eq!(unit.send(0, &reserve_out(REGISTER_AND_MOVE, 0, &list), &list), GOOD);
    let text = unit.reservations.text();
    assert_eq!(
        text,
        "generation 3\npersistent no\nreservation write-exclusive\n\
         0x000000000000000a  port\n0x000000000000000b  port\n\
         0x000000000000000d  5000c50000000001:3  holder\n"
    );
}
