//! A host that takes its commands from `idm-protocol`, through the life of a reservation.

use idm_emulator::reservation::nvme::{Host, NamespaceReservations};
use idm_emulator::reservation::scsi::{Nexus, UnitReservations};
use idm_protocol::reservation::ReservationType::{self, WriteExclusiveAllRegistrants};
use idm_protocol::reservation::nvme::{
    self, AcquireAction, RegisterAction, ReleaseAction, ReservationCommand,
};
use idm_protocol::reservation::scsi::{
    self, Capabilities, ChangeAction, FullStatus, Holder, Keys, ParameterList, ReadAction,
};

const ALL: Option<ReservationType> = Some(WriteExclusiveAllRegistrants);

#[test]
fn of_a_logical_unit() {
    let mut unit = UnitReservations::default();
    let (a, b) = (Nexus::of_port("a.0"), Nexus::of_port("b.0"));
    let mut change = |from: &Nexus, action, keys: [u64; 2]| {
        let list = ParameterList {
            key: keys[0],
            action_key: keys[1],
            persistent: true,
            ..ParameterList::default()
        };
        unit.execute(from, &scsi::change(action, ALL), &list.encode()).status
    };
    assert_eq!(change(&a, ChangeAction::RegisterAndIgnore, [0, 0xA]), 0);
    assert_eq!(change(&b, ChangeAction::Register, [0, 0xB]), 0);
    assert_eq!(change(&a, ChangeAction::Reserve, [0xA, 0]), 0);
    assert_eq!(change(&b, ChangeAction::Reserve, [0xB, 0]), 0);
    assert_eq!(change(&b, ChangeAction::PreemptAndAbort, [0xB, 0xA]), 0);
    assert_eq!(change(&b, ChangeAction::PreemptAndAbort, [0xB, 0xA]), 0x18);
    assert_eq!(change(&a, ChangeAction::Register, [0xA, 0xA]), 0x18);
    let mut read = |action| unit.execute(&a, &scsi::read(action, 512), &[]).data;
    let keys = Keys { generation: 3, keys: vec![0xB], count: 1 };
    assert_eq!(Keys::decode(&read(ReadAction::Keys)), Some(keys));
    let reservation = Some(scsi::Reservation { key: 0, kind: ALL });
    let holder = Holder::decode(&read(ReadAction::Reservation));
    assert_eq!(holder, Some(Holder { generation: 3, reservation }));
    let status = FullStatus::decode(&read(ReadAction::FullStatus)).unwrap();
    let shown: Vec<_> =
        status.registrants.iter().map(|one| (one.key, one.holds, one.target_port)).collect();
    assert_eq!(shown, [(0xB, ALL, Some(1))]);
    let capabilities = Capabilities::decode(&read(ReadAction::Capabilities)).unwrap();
    assert!(capabilities.can_persist && capabilities.persists);
    assert_eq!(capabilities.has(WriteExclusiveAllRegistrants), Some(true));
}

#[test]
fn of_a_namespace() {
    let mut namespace = NamespaceReservations::default();
    let (a, b) = (Host([0xA; 16]), Host([0xB; 16]));
    let mut send = |from: &Host, command: ReservationCommand, keys: [u64; 2]| {
        namespace.execute(from, &command, &nvme::keys(keys[0], keys[1])).status & 0xFF
    };
    let register = nvme::register(RegisterAction::Register, false, Some(true));
    assert_eq!(send(&a, register, [0, 0xA]), 0);
    assert_eq!(send(&b, nvme::register(RegisterAction::Replace, true, None), [0, 0xB]), 0);
    let acquire = |action| nvme::acquire(action, WriteExclusiveAllRegistrants);
    assert_eq!(send(&a, acquire(AcquireAction::Acquire), [0xA, 0]), 0);
    assert_eq!(send(&b, acquire(AcquireAction::PreemptAndAbort), [0xB, 0xA]), 0);
    assert_eq!(send(&b, acquire(AcquireAction::Preempt), [0xB, 0xA]), 0x83);
    let unregister = nvme::register(RegisterAction::Unregister, false, None);
    assert_eq!(send(&a, unregister, [0xA, 0]), 0x83);
    let data = namespace.execute(&a, &nvme::report(4096), &[]).data;
    let report = nvme::Report::decode(&data).unwrap();
    assert_eq!((report.generation, report.kind, report.persists), (3, Some(ALL), true));
    assert_eq!(report.registrants, [nvme::Registrant { key: 0xB, holds: true, host: [0xB; 16] }]);
    let clear = nvme::release(ReleaseAction::Clear, WriteExclusiveAllRegistrants);
    assert_eq!(namespace.execute(&b, &clear, &0xB_u64.to_le_bytes()).status, 0);
    let report = nvme::Report::decode(&namespace.execute(&a, &nvme::report(64), &[]).data);
    assert_eq!(report.map(|report| (report.kind, report.count)), Some((None, 0)));
}
