//! Bytes that were seen on the wire, or that the first host implementation sends, compared with the
//! results of this crate. `docs/protocol.md` names the sources of the bytes.

use idm_protocol::{
    Class, HostId, IdError, Limit, Mode, MutexOp, RECORD_LEN, Record, ResourceId, State, Status,
    Value, ValueUpdate, parse_table,
    scsi::{self, Sense, decode_status},
};

/// Bytes from hexadecimal text.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let bytes = digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8);
    bytes.collect()
}

#[test]
fn mutex_commands() {
    for (op, byte_1) in [
        (MutexOp::Init, 0x10),
        (MutexOp::Trylock, 0x20),
        (MutexOp::Lock, 0x30),
        (MutexOp::Unlock, 0x40),
        (MutexOp::Refresh, 0x50),
        (MutexOp::Break, 0x60),
        (MutexOp::Destroy, 0x70),
    ] {
        let mut expected = hex("F0 00 00 00 00 00 00 00 00 00 00 00 02 00 01 00");
        expected[1] = byte_1;
        assert_eq!(scsi::mutex(op)[..], expected);
        assert_eq!(MutexOp::from_wire(op.to_wire()), Some(op));
    }
    // Operation 9 was refused as undefined (docs/protocol.md, "Status and sense codes").
    for number in [0, 8, 9, 15, 255] {
        assert_eq!(MutexOp::from_wire(number), None);
    }
}

#[test]
fn other_commands() {
    assert_eq!(
        scsi::read_table(0x0102_0304)[..],
        hex("F0 01 00 00 00 00 00 00 00 00 01 02 03 04 01 00")
    );
    assert_eq!(scsi::inquire_table()[..], hex("F0 01 00 00 00 00 00 00 00 00 00 00 00 01 FF 00"));
    // docs/protocol.md, "Removing and clearing".
    assert_eq!(scsi::clear_all()[..], hex("F0 00 00 00 00 00 00 00 00 00 00 00 02 00 FF 00"));
    assert_eq!(scsi::inquire_version()[..6], hex("12 01 C3 00 70 00"));
}

#[test]
fn counters() {
    // A recording in group 3, and one in group 2 (docs/protocol.md, "The counters").
    for bytes in ["00 20 00 00 00 00 00 20", "00 20 00 00 00 20 00 00"] {
        assert_eq!(idm_protocol::record_count(&hex(bytes)), Some(32));
    }
    assert_eq!(idm_protocol::record_count(&[0x0F]), None);
    assert_eq!(idm_protocol::record_count(&[]), None);
}

#[test]
fn version_page() {
    let mut page = vec![0; scsi::VERSION_PAGE_LEN];
    page[1] = scsi::VERSION_PAGE;
    page[96] = 8;
    assert_eq!(scsi::version(&page), Some(8));
    assert_eq!(scsi::version(&page[..97]), Some(8));
    assert_eq!(scsi::version(&page[..96]), None);
    assert_eq!(scsi::version(&[]), None);
    page[1] = 0xC2;
    assert_eq!(scsi::version(&page), None);
}

/// A descriptor-format buffer as it was recorded: the first 16 bytes, then zeros.
fn traced(first: &str, len: usize) -> Vec<u8> {
    let mut bytes = hex(first);
    bytes.resize(len, 0);
    bytes
}

#[test]
fn sense_of_the_traces() {
    let mut invalid_opcode = traced("72 05 20 00 00 00 00 1c 02 06 00 00 cf 00 00 00", 32);
    invalid_opcode[16..22].copy_from_slice(&hex("03 02 00 01 80 0e"));
    let cases = [
        (invalid_opcode, (5, 0x20, 0, 1), Status::Unsupported),
        (
            traced("72 05 21 00 00 00 00 14 03 02 00 01 80 0e 00 00", 28),
            (5, 0x21, 0, 1),
            Status::NotFound,
        ),
        (
            traced("72 07 30 00 00 00 00 14 03 02 00 02 80 0e 00 00", 28),
            (7, 0x30, 0, 2),
            Status::Failed,
        ),
        (
            traced("72 07 40 00 00 00 00 14 03 02 00 01 80 0e 00 00", 28),
            (7, 0x40, 0, 1),
            Status::Full(Limit::Mutexes),
        ),
        (
            traced("72 07 41 00 00 00 00 14 03 02 00 01 80 0e 00 00", 28),
            (7, 0x41, 0, 1),
            Status::Full(Limit::Hosts),
        ),
        (
            traced("72 07 42 00 00 00 00 14 03 02 00 01 80 0e 00 00", 28),
            (7, 0x42, 0, 1),
            Status::Full(Limit::HostsOfMutex),
        ),
    ];
    for (bytes, (key, asc, ascq, fru), status) in cases {
        let sense = Sense { key, asc, ascq, fru, deferred: false };
        assert_eq!(Sense::decode(&bytes), Some(sense));
        assert_eq!(decode_status(0x02, &bytes), status);
        // The same in fixed format.
        let mut fixed = vec![0; 18];
        (fixed[0], fixed[2], fixed[7]) = (0x70, key, 10);
        (fixed[12], fixed[13], fixed[14]) = (asc, ascq, fru);
        assert_eq!(Sense::decode(&fixed), Some(sense));
        assert_eq!(decode_status(0x02, &fixed), status);
        // The "valid" bit and, in fixed format, the bits beside the key have no effect on this.
        fixed[0] |= 0x80;
        fixed[2] |= 0xE0;
        assert_eq!(Sense::decode(&fixed), Some(sense));
    }
}

#[test]
fn sense_of_newer_firmware_and_of_other_conditions() {
    let status = |key, asc, ascq, fru| {
        let bytes = [0x72, key, asc, ascq, 0, 0, 0, 4, 0x03, 0x02, 0x00, fru];
        decode_status(0x02, &bytes)
    };
    // Documented (docs/protocol.md, "Status and sense codes").
    assert_eq!(status(0x0B, 0x55, 0x03, 0), Status::Full(Limit::Mutexes));
    assert_eq!(status(0x0B, 0x55, 0x03, 1), Status::Full(Limit::Hosts));
    assert_eq!(status(0x0B, 0x55, 0x03, 2), Status::Full(Limit::HostsOfMutex));
    assert_eq!(status(0x05, 0x20, 0x00, 0x0A), Status::Unsupported);
    for fru in 2..=4 {
        assert_eq!(status(0x04, 0x04, 0x22, fru), Status::WrongState);
        assert_eq!(status(0x04, 0x42, 0x22, fru), Status::WrongState);
    }
    // The host code of June 2020.
    assert_eq!(status(0x07, 0x30, 0x00, 1), Status::Full(Limit::Mutexes));
    // SPC-4: recovered, unit attention, not ready.
    assert_eq!(status(0x01, 0x17, 0x01, 0), Status::Good);
    assert_eq!(status(0x06, 0x29, 0x00, 0), Status::TryAgain);
    assert_eq!(status(0x02, 0x04, 0x01, 0), Status::TryAgain);
}

/// An error with sense data comes from the drive itself, and the command is over. An error without
/// sense data may come from a component on the way, and the drive may still have the command.
#[test]
fn answered_errors_are_told_from_those_of_the_way() {
    let sensed = |key, asc, ascq| [0x72, key, asc, ascq, 0, 0, 0, 0];
    for (why, status, sense, meaning) in [
        ("internal target failure", 0x02, &sensed(0x04, 0x44, 0x00)[..], Status::Failed),
        ("unrecovered read error", 0x02, &sensed(0x03, 0x11, 0x00), Status::Failed),
        ("invalid field in CDB", 0x02, &sensed(0x05, 0x24, 0x00), Status::Failed),
        ("aborted, no more said", 0x02, &sensed(0x0B, 0x00, 0x00), Status::Failed),
        ("aborted, bad CRC on the way to it", 0x02, &sensed(0x0B, 0x47, 0x03), Status::Failed),
        ("vendor's", 0x02, &sensed(0x09, 0x80, 0x00), Status::Failed),
        ("no sense", 0x02, &sensed(0x00, 0x00, 0x00), Status::Failed),
        ("no sense data", 0x02, &[], Status::Uncertain),
        ("sense data that is none", 0x02, &[0x7F; 18], Status::Uncertain),
        ("task aborted, which drivers say too", 0x40, &[], Status::Uncertain),
        ("intermediate, obsolete", 0x10, &[], Status::Uncertain),
        ("condition met, of other commands", 0x04, &[], Status::Uncertain),
        ("reserved", 0xFF, &[], Status::Uncertain),
    ] {
        assert_eq!(decode_status(status, sense), meaning, "{why}");
    }
}

#[test]
fn deferred_errors_are_about_another_command() {
    // In neither form does the sense data of an earlier write count as that of this command.
    let descriptor = [0x73, 0x05, 0x21, 0x00, 0, 0, 0, 0];
    let mut fixed = [0; 18];
    (fixed[0], fixed[2], fixed[7], fixed[12]) = (0x71, 0x05, 10, 0x21);
    for bytes in [&descriptor[..], &fixed[..]] {
        assert!(Sense::decode(bytes).unwrap().deferred);
        assert_eq!(decode_status(0x02, bytes), Status::TryAgain);
    }
}

#[test]
fn short_and_strange_sense_data() {
    assert_eq!(Sense::decode(&[]), None);
    assert_eq!(Sense::decode(&[0x72, 5, 0x21]), None);
    assert_eq!(Sense::decode(&[0x70, 0]), None);
    assert_eq!(Sense::decode(&[0x7F; 18]), None);
    assert_eq!(decode_status(0x02, &[]), Status::Uncertain);
    // Shortest useful forms.
    assert_eq!(decode_status(0x02, &[0x72, 5, 0x21, 0]), Status::NotFound);
    assert_eq!(Sense::decode(&[0x70, 0, 5]).unwrap().key, 5);
    // A descriptor list that announces more than there is.
    let cut = [0x72, 7, 0x40, 0, 0, 0, 0, 0xFF, 0x80, 0xFF];
    assert_eq!(Sense::decode(&cut).unwrap().fru, 0);
    // The FRU descriptor after another one, as recorded.
    let behind = hex("72 05 20 00 00 00 00 0c 02 06 00 00 cf 00 00 00 03 02 00 0a");
    assert_eq!(Sense::decode(&behind).unwrap().fru, 0x0A);
    // Beyond the additional length there is no descriptor.
    let beyond = hex("72 07 40 00 00 00 00 00 03 02 00 05");
    assert_eq!(Sense::decode(&beyond).unwrap().fru, 0);
}

#[test]
fn statuses() {
    for (status, meaning) in [
        (0x00, Status::Good),
        (0x04, Status::Uncertain),
        (0x08, Status::TryAgain),
        (0x18, Status::Conflict),
        (0x22, Status::Terminated),
        (0x28, Status::TryAgain),
        (0x30, Status::TryAgain),
        (0x40, Status::Uncertain),
        (0x10, Status::Uncertain),
        (0xFF, Status::Uncertain),
    ] {
        assert_eq!(decode_status(status, &[]), meaning, "{status:#04x}");
    }
    // Only one status gives a lock.
    for status in 1..=0xFF {
        assert_ne!(decode_status(status, &[]), Status::Good, "{status:#04x}");
    }
}

fn record() -> Record {
    Record {
        state: State::Locked,
        modified_ms: 0x0102_0304_0506_0708,
        countdown_ms: 0x7530,
        class: Class::Shared,
        value_update: ValueUpdate::Store,
        value: Value::new(u64::from_le_bytes(*b"lvb\0\0\0\0\0")).unwrap(),
        resource: ResourceId::from_bytes(core::array::from_fn(|i| i as u8)),
        metadata: core::array::from_fn(|i| 0x80 + i as u8),
        host: HostId::from_bytes(core::array::from_fn(|i| 0xC0 + i as u8)),
    }
}

#[test]
fn record_layout() {
    let block = record().encode();
    assert_eq!(block[..8], hex("00 00 00 00 00 00 01 01"));
    // The host's own time (docs/protocol.md, "The record").
    assert_eq!(block[8..16], hex("01 02 03 04 05 06 07 08"));
    assert_eq!(block[16..24], hex("00 00 00 00 00 00 75 30"));
    assert_eq!(block[24..32], hex("00 00 00 00 00 00 00 02"));
    // The value "lvb" of an UNLOCK, as the first host implementation sends it over NVMe.
    assert_eq!(block[32..40], hex("01 00 00 00 00 62 76 6c"));
    // These are zero in every record.
    assert!(block[0x28..0x40].iter().all(|&b| b == 0));
    assert!(block[0xE0..].iter().all(|&b| b == 0));
    // Ids are reversed as whole arrays; metadata is not.
    for i in 0..64 {
        assert_eq!(block[0x40 + i], 63 - i as u8);
        assert_eq!(block[0x80 + i], 0x80 + i as u8);
    }
    for i in 0..32 {
        assert_eq!(block[0xC0 + i], 0xC0 + 31 - i as u8);
    }
    assert_eq!(Record::decode(&block), record());
}

#[test]
fn values_of_the_traces() {
    // As read back: byte 0 is 00, seven bytes are the value (docs/protocol.md, "The value").
    for (bytes, number) in [
        ("00 EE FF FF FF FF FF 11", 0x00EE_FFFF_FFFF_FF11),
        ("00 00 11 11 33 21 2E EE", 0x0000_1111_3321_2EEE),
    ] {
        let mut block = [0; RECORD_LEN];
        block[0x20..0x28].copy_from_slice(&hex(bytes));
        let record = Record::decode(&block);
        assert_eq!(record.value.get(), number);
        assert_eq!(record.value_update, ValueUpdate::Keep);
    }
    // "abcdefg" comes back in the same order.
    let abc = Value::new(u64::from_le_bytes(*b"abcdefg\0")).unwrap();
    let block = Record { value: abc, ..record() }.encode();
    assert_eq!(block[0x21..0x28], *b"gfedcba");
    assert_eq!(Value::new(1 << 56), None);
    assert_eq!(Value::new((1 << 56) - 1), Some(Value::MAX));
}

#[test]
fn states_and_classes() {
    for (number, state, live, is_record) in [
        (0, State::Uninitialized, false, false),
        (0x101, State::Locked, true, true),
        (0x102, State::Unlocked, false, true),
        (0x103, State::MultipleLocked, true, true),
        (0x104, State::TimedOut, false, true),
        (0xDEAD, State::EndOfTable, false, false),
        (0x105, State::Other(0x105), true, true),
    ] {
        assert_eq!(State::from_wire(number), state);
        assert_eq!(state.to_wire(), number);
        assert_eq!(state.is_live(), live, "{state:?}");
        assert_eq!(state.is_record(), is_record, "{state:?}");
    }
    for (number, class, mode) in [
        (0, Class::Exclusive, Mode::Exclusive),
        (1, Class::ProtectedWrite, Mode::Exclusive),
        (2, Class::Shared, Mode::Shared),
        (9, Class::Other(9), Mode::Exclusive),
    ] {
        assert_eq!(Class::from_wire(number), class);
        assert_eq!(class.to_wire(), number);
        assert_eq!(class.mode(), mode);
    }
}

#[test]
fn tables() {
    let end = Record::end_of_table().encode();
    // 0xDEAD, and 504 zero bytes.
    assert_eq!(end[..8], hex("00 00 00 00 00 00 DE AD"));
    assert!(end[8..].iter().all(|&b| b == 0));
    let one = record();
    let two = Record { host: HostId::from_bytes([7; 32]), ..record() };
    // As drives return it, and as it was written: they differ only in the control byte.
    let (one_block, two_block) = (one.encode(), two.encode());
    // Longer than the table, equal to it, unfilled, empty, cut short
    // (docs/protocol.md, "Reading the table").
    let long = [one_block, two_block, end, end].concat();
    assert_eq!(parse_table(&long), [one.clone(), two.clone()]);
    let equal = [one_block, two_block].concat();
    assert_eq!(parse_table(&equal), [one.clone(), two]);
    let unfilled = [one_block, [0; RECORD_LEN], two_block].concat();
    assert_eq!(parse_table(&end), []);
    assert_eq!(parse_table(&[]), []);
    let one = [one];
    assert_eq!(parse_table(&unfilled), one);
    assert_eq!(parse_table(&equal[..RECORD_LEN + 511]), one);
}

#[test]
fn resource_ids() {
    let vg_uuid = "Qqd3EM-vaul-JeE7-Vz7E-Dl28-JJdo-GgLlOm";
    let lv_uuid = "9bPzDd-0000-0000-0000-0000-0000-00!#Az";
    let vg = ResourceId::vg(vg_uuid).unwrap();
    assert_eq!(&vg.as_bytes()[..32], b"Qqd3EMvaulJeE7Vz7EDl28JJdoGgLlOm");
    assert_eq!(vg.as_bytes()[32..], [0; 32]);
    assert!(!vg.is_lv());
    assert_eq!(vg.to_string(), "vg Qqd3EMvaulJeE7Vz7EDl28JJdoGgLlOm");
    let lv = ResourceId::lv(vg_uuid, lv_uuid).unwrap();
    assert_eq!(lv.as_bytes()[..32], vg.as_bytes()[..32]);
    assert_eq!(&lv.as_bytes()[32..], b"9bPzDd0000000000000000000000!#Az");
    assert!(lv.is_lv());
    // Dashes have no meaning, wherever they are.
    assert_eq!(ResourceId::vg(&vg_uuid.replace('-', "")), Ok(vg));
    assert_eq!(ResourceId::GLOBAL.as_bytes(), &[0; 64]);
    assert_eq!(ResourceId::GLOBAL.to_string(), "global");
    assert_eq!(ResourceId::vg(""), Err(IdError::Length(0)));
    assert_eq!(ResourceId::vg(&"a".repeat(31)), Err(IdError::Length(31)));
    assert_eq!(ResourceId::vg(&"a".repeat(33)), Err(IdError::Length(33)));
    let slash = "/".repeat(32);
    assert_eq!(ResourceId::vg(&slash), Err(IdError::Character('/')));
    let umlaut = "ä".repeat(32);
    assert_eq!(ResourceId::vg(&umlaut), Err(IdError::Character('ä')));
    assert_eq!(ResourceId::lv(vg_uuid, "x"), Err(IdError::Length(1)));
}

#[test]
fn host_ids() {
    let host = HostId::new([0xAB; 16], "node-1");
    assert_eq!(host.as_bytes()[..16], [0xAB; 16]);
    assert_eq!(&host.as_bytes()[16..22], b"node-1");
    assert_eq!(host.as_bytes()[22..], [0; 10]);
    assert_eq!(host.name(), "node-1");
    assert_eq!(host.to_string(), format!("node-1 ({})", "ab".repeat(16)));
    // A long name is cut off; two boots of one host are two hosts.
    assert_eq!(HostId::new([0; 16], "a-very-long-host-name").name(), "a-very-long-host");
    assert_ne!(HostId::new([1; 16], "n"), HostId::new([2; 16], "n"));
    // Ids of other hosts are shown unchanged.
    assert_eq!(HostId::from_bytes([0x11; 32]).to_string(), "11".repeat(32));
    assert_eq!(HostId::new([0; 16], "").to_string(), "00".repeat(32));
}

#[test]
fn modes() {
    use Mode::{Exclusive, Shared};
    assert!(Shared.compatible(Shared));
    assert!(!Shared.compatible(Exclusive));
    assert!(!Exclusive.compatible(Shared));
    assert!(!Exclusive.compatible(Exclusive));
    assert_eq!(Class::from(Shared).mode(), Shared);
    assert_eq!(Class::from(Exclusive).mode(), Exclusive);
    assert_eq!((Shared.to_string(), Exclusive.to_string()), ("sh".into(), "ex".into()));
}
