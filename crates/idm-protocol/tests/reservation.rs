//! Reservation commands and their data, byte by byte from the tables of SPC-4 and of the NVM
//! Express base specification.

use idm_protocol::reservation::ReservationType;
use idm_protocol::reservation::nvme::{self, AcquireAction, RegisterAction, ReleaseAction};
use idm_protocol::reservation::scsi::{
    self, Capabilities, ChangeAction, FullStatus, Holder, Keys, ParameterList, ReadAction,
};
use proptest::prelude::*;

const ALL_REGISTRANTS: ReservationType = ReservationType::WriteExclusiveAllRegistrants;

#[test]
fn types_have_other_numbers_in_scsi_than_in_nvme() {
    assert_eq!(ReservationType::ALL.map(ReservationType::to_scsi), [1, 3, 5, 6, 7, 8]);
    assert_eq!(ReservationType::ALL.map(ReservationType::to_nvme), [1, 2, 3, 4, 5, 6]);
    for kind in ReservationType::ALL {
        assert_eq!(ReservationType::from_scsi(kind.to_scsi()), Some(kind));
        assert_eq!(ReservationType::from_nvme(kind.to_nvme()), Some(kind));
    }
    for obsolete in [0, 2, 4, 9, 0x17] {
        assert_eq!(ReservationType::from_scsi(obsolete), None);
    }
    assert_eq!((ReservationType::from_nvme(0), ReservationType::from_nvme(7)), (None, None));
}

#[test]
fn scsi_commands() {
    let keys = scsi::read(ReadAction::Keys, 0x1234);
    assert_eq!(keys, [0x5E, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 0, 0]);
    for (action, number) in [
        (ReadAction::Keys, 0),
        (ReadAction::Reservation, 1),
        (ReadAction::Capabilities, 2),
        (ReadAction::FullStatus, 3),
    ] {
        assert_eq!(scsi::read(action, 8)[1], number);
        assert_eq!(ReadAction::from_wire(number), Some(action));
    }
    let preempt = scsi::change(ChangeAction::PreemptAndAbort, Some(ALL_REGISTRANTS));
    assert_eq!(preempt, [0x5F, 5, 7, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0]);
    for (number, action) in [
        ChangeAction::Register,
        ChangeAction::Reserve,
        ChangeAction::Release,
        ChangeAction::Clear,
        ChangeAction::Preempt,
        ChangeAction::PreemptAndAbort,
        ChangeAction::RegisterAndIgnore,
        ChangeAction::RegisterAndMove,
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(scsi::change(action, None)[1..3], [number as u8, 0]);
        assert_eq!(ChangeAction::from_wire(number as u8), Some(action));
    }
    assert_eq!((ChangeAction::from_wire(8), ReadAction::from_wire(4)), (None, None));
}

#[test]
fn a_parameter_list() {
    let list = ParameterList { key: 0x0102, action_key: 0xA1B2, ..ParameterList::default() };
    let mut bytes = [0; 24];
    bytes[6..8].copy_from_slice(&[1, 2]);
    bytes[14..16].copy_from_slice(&[0xA1, 0xB2]);
    assert_eq!(list.encode(), bytes);
    for (list, flags) in [
        (ParameterList { persistent: true, ..list }, 0x01),
        (ParameterList { all_target_ports: true, ..list }, 0x04),
        (ParameterList { names_initiators: true, ..list }, 0x08),
    ] {
        bytes[20] = flags;
        assert_eq!(list.encode(), bytes);
        assert_eq!(ParameterList::decode(&bytes), list);
    }
}

#[test]
fn read_keys() {
    let data = [0, 0, 1, 2, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0xA, 0xB, 0, 0, 0, 0, 0, 0, 0];
    let two = Keys { generation: 0x102, keys: vec![0xA, 0xB << 56], count: 2 };
    assert_eq!(Keys::decode(&data), Some(two.clone()));
    // Bytes behind the list are not part of it, and keys that are cut off are counted.
    assert_eq!(Keys::decode(&[&data[..], &[7; 8]].concat()), Some(two.clone()));
    assert_eq!(Keys::decode(&data[..16]), Some(Keys { keys: vec![0xA], ..two }));
    assert_eq!(Keys::decode(&data[..7]), None);
}

#[test]
fn read_reservation() {
    let mut data = [0; 24];
    data[3] = 9;
    let none = Holder { generation: 9, reservation: None };
    assert_eq!(Holder::decode(&data[..8]), Some(none));
    (data[7], data[15], data[21]) = (16, 0xA, 0x07);
    let held = |key, kind| {
        Some(Holder { generation: 9, reservation: Some(scsi::Reservation { key, kind }) })
    };
    assert_eq!(Holder::decode(&data), held(0xA, Some(ALL_REGISTRANTS)));
    data[21] = 0x02;
    assert_eq!(Holder::decode(&data), held(0xA, None));
    assert_eq!(Holder::decode(&data[..21]), None);
}

#[test]
fn read_full_status() {
    let mut data = vec![0, 0, 0, 3, 0, 0, 0, 76];
    let mut first = [0; 24];
    (first[7], first[12], first[13], first[19], first[23]) = (0xA, 0x01, 0x07, 2, 4);
    let mut second = [0; 48];
    (second[7], second[12], second[13], second[23]) = (0xB, 0x02, 0x07, 24);
    data.extend([&first[..], &[1, 2, 3, 4], &second].concat());
    let status = FullStatus::decode(&data).unwrap();
    assert_eq!(status.generation, 3);
    let [one, two] = &status.registrants[..] else { panic!("{status:?}") };
    assert_eq!((one.key, one.holds, one.target_port), (0xA, Some(ALL_REGISTRANTS), Some(2)));
    assert_eq!((&one.transport_id[..], two.transport_id.len()), (&[1, 2, 3, 4][..], 24));
    assert_eq!((two.key, two.holds, two.target_port), (0xB, None, None));
    assert_eq!(FullStatus::decode(&data[..data.len() - 1]), None);
}

#[test]
fn capabilities() {
    let all = Capabilities::decode(&[0, 8, 0x0D, 0x81, 0xEA, 0x01, 0, 0]).unwrap();
    assert!(all.can_persist && all.persists && all.all_target_ports && all.names_initiators);
    assert!(ReservationType::ALL.iter().all(|&kind| all.has(kind) == Some(true)));
    let some = Capabilities::decode(&[0, 8, 0x01, 0x80, 0x0A, 0x01, 0, 0]).unwrap();
    assert!(some.can_persist && !some.persists && !some.all_target_ports);
    assert_eq!(some.has(ALL_REGISTRANTS), Some(false));
    assert_eq!(some.has(ReservationType::ExclusiveAccessAllRegistrants), Some(true));
    let silent = Capabilities::decode(&[0, 8, 0, 0, 0xEA, 0x01, 0, 0]).unwrap();
    assert_eq!((silent.can_persist, silent.has(ALL_REGISTRANTS)), (false, None));
    assert_eq!(Capabilities::decode(&[0, 8, 1, 0, 0, 0, 0]), None);
}

#[test]
fn nvme_commands() {
    for (command, opcode, cdw10, cdw11) in [
        (nvme::register(RegisterAction::Register, false, None), 0x0D, 0x0000_0000, 0),
        (nvme::register(RegisterAction::Unregister, false, Some(false)), 0x0D, 0x8000_0001, 0),
        (nvme::register(RegisterAction::Replace, true, Some(true)), 0x0D, 0xC000_000A, 0),
        (nvme::acquire(AcquireAction::Acquire, ALL_REGISTRANTS), 0x11, 0x0500, 0),
        (nvme::acquire(AcquireAction::Preempt, ReservationType::WriteExclusive), 0x11, 0x0101, 0),
        (nvme::acquire(AcquireAction::PreemptAndAbort, ALL_REGISTRANTS), 0x11, 0x0502, 0),
        (nvme::release(ReleaseAction::Release, ALL_REGISTRANTS), 0x15, 0x0500, 0),
        (nvme::release(ReleaseAction::Clear, ReservationType::ExclusiveAccess), 0x15, 0x0201, 0),
        // NUMD is zero-based.
        (nvme::report(4096), 0x0E, 1023, 1),
    ] {
        assert_eq!(command, nvme::ReservationCommand { opcode, cdw10, cdw11 });
    }
    let keys = nvme::keys(0x0102, 0xA1B2);
    assert_eq!(keys, [2, 1, 0, 0, 0, 0, 0, 0, 0xB2, 0xA1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn an_nvme_report() {
    let mut data = vec![0; 64 + 2 * 64];
    (data[0], data[1], data[4], data[5], data[9]) = (2, 1, 5, 2, 1);
    data[64..67].copy_from_slice(&[0xFF, 0xFF, 1]);
    data[72] = 0xA;
    data[80..96].copy_from_slice(&[7; 16]);
    data[143] = 0xB;
    let report = nvme::Report::decode(&data).unwrap();
    assert_eq!((report.generation, report.kind), (0x102, Some(Some(ALL_REGISTRANTS))));
    assert_eq!((report.persists, report.count), (true, 2));
    let one = nvme::Registrant { key: 0xA, holds: true, host: [7; 16] };
    let two = nvme::Registrant { key: 0xB << 56, holds: false, host: [0; 16] };
    assert_eq!(report.registrants, [one, two]);
    // Registrants that are cut off are counted, and zeros behind the list are no registrants.
    let cut = nvme::Report::decode(&data[..191]).unwrap();
    assert_eq!((cut.count, &cut.registrants[..]), (2, &[one][..]));
    data.resize(4096, 0);
    assert_eq!(nvme::Report::decode(&data).as_ref(), Some(&report));
    data[4] = 0;
    assert_eq!(nvme::Report::decode(&data).unwrap().kind, None);
    data[4] = 9;
    assert_eq!(nvme::Report::decode(&data).unwrap().kind, Some(None));
    assert_eq!(nvme::Report::decode(&data[..63]), None);
}

proptest! {
    #[test]
    fn lists_arrive_as_they_were_sent(
        key: u64, action_key: u64, names_initiators: bool, all_target_ports: bool, persistent: bool,
    ) {
        let list =
            ParameterList { key, action_key, names_initiators, all_target_ports, persistent };
        prop_assert_eq!(ParameterList::decode(&list.encode()), list);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(data in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Some(keys) = Keys::decode(&data) {
            prop_assert!(keys.keys.len() <= keys.count);
        }
        if let Some(report) = nvme::Report::decode(&data) {
            prop_assert!(report.registrants.len() <= report.count);
        }
        if let Some(status) = FullStatus::decode(&data) {
            prop_assert!(status.registrants.len() * 24 <= data.len());
        }
        prop_assert_eq!(Capabilities::decode(&data).is_some(), data.len() >= 8);
        prop_assert!(Holder::decode(&data).is_none() || data.len() >= 8);
    }
}
