//! NVMe commands and status codes as the first host implementation sends and expects them.

use idm_protocol::{
    Limit, MutexOp, Status,
    nvme::{self, AdminCommand, Version, decode_status},
};
use proptest::prelude::*;

const OPS: [MutexOp; 7] = [
    MutexOp::Init,
    MutexOp::Trylock,
    MutexOp::Lock,
    MutexOp::Unlock,
    MutexOp::Refresh,
    MutexOp::Break,
    MutexOp::Destroy,
];

#[test]
fn mutex_commands() {
    for (op, cdw12) in [
        (MutexOp::Trylock, 0x0120),
        (MutexOp::Unlock, 0x0140),
        (MutexOp::Refresh, 0x0150),
        (MutexOp::Break, 0x0160),
        (MutexOp::Destroy, 0x0170),
    ] {
        let expected = AdminCommand { opcode: 0xC1, cdw10: 0x80, cdw12, data_len: 512 };
        assert_eq!(nvme::mutex(op), expected, "{op:?}");
    }
}

#[test]
fn other_commands() {
    let command = |opcode, cdw10, cdw12, data_len| AdminCommand { opcode, cdw10, cdw12, data_len };
    assert_eq!(nvme::read_table(1), command(0xC2, 0x80, 0x0110, 512));
    assert_eq!(nvme::read_table(128), command(0xC2, 0x4000, 0x0110, 0x10000));
    assert_eq!(nvme::inquire_table(), command(0xC2, 0x80, 0xFF10, 512));
    assert_eq!(nvme::clear_all(), command(0xC1, 0x80, 0xFF00, 512));
    assert_eq!(nvme::identify_controller(), command(0x06, 1, 0, 4096));
}

#[test]
fn versions() {
    let mut identify = vec![0; 4096];
    assert_eq!(nvme::version(&identify), None);
    for (byte, major, minor) in [(0x10, 1, 0), (0x84, 8, 4), (0xFF, 15, 15)] {
        identify[4095] = byte;
        assert_eq!(nvme::version(&identify), Some(Version { major, minor }));
    }
    assert_eq!(nvme::version(&identify[..4095]), None);
    identify[4095] = 0x07;
    assert_eq!(nvme::version(&identify), None);
    assert!(Version { major: 2, minor: 0 } > Version { major: 1, minor: 5 });
}

#[test]
fn status_codes_of_idm() {
    for (status, meaning) in [
        (0x000, Status::Good),
        (0x1C0, Status::Failed),
        (0x1C1, Status::WrongState),
        (0x1C2, Status::WrongState),
        (0x1C3, Status::WrongState),
        (0x1C4, Status::WrongState),
        (0x1C5, Status::Unsupported),
        (0x1C6, Status::Full(Limit::Mutexes)),
        (0x1C7, Status::Full(Limit::Hosts)),
        (0x1C8, Status::Full(Limit::HostsOfMutex)),
        (0x1C9, Status::NotFound),
        (0x1CA, Status::Conflict),
        (0x1CB, Status::Terminated),
    ] {
        for op in OPS.map(Some).into_iter().chain([None]) {
            assert_eq!(decode_status(op, status), meaning, "{op:?} {status:#x}");
        }
    }
}

#[test]
fn busy_is_a_conflict_only_for_who_wants_the_mutex() {
    for op in [MutexOp::Trylock, MutexOp::Break] {
        assert_eq!(decode_status(Some(op), 0x1CC), Status::Conflict);
    }
    for op in [MutexOp::Refresh, MutexOp::Unlock, MutexOp::Destroy] {
        assert_eq!(decode_status(Some(op), 0x1CC), Status::TryAgain);
    }
    assert_eq!(decode_status(None, 0x1CC), Status::TryAgain);
}

#[test]
fn what_the_kernel_and_other_drives_say() {
    for (status, meaning) in [
        // A drive that does not know the opcode, seen with Linux: with the "do not retry" bit.
        (0x4001, Status::Unsupported),
        (0x0002, Status::Failed),
        (0x400B, Status::Failed),
        (0x0082, Status::TryAgain),
        // Media errors.
        (0x0281, Status::Failed),
        // Vendor specific.
        (0x07C9, Status::Failed),
        // No status code of IDM below C0h.
        (0x0102, Status::Failed),
        // The form that ioctl's -1 would have.
        (0xFFFF, Status::Failed),
    ] {
        for op in OPS.map(Some).into_iter().chain([None]) {
            assert_eq!(decode_status(op, status), meaning, "{op:?} {status:#x}");
        }
    }
}

/// A completion comes from the controller itself, and the command is over. A host's own report
/// about a command that it gave up says nothing about a command that the controller may still have.
#[test]
fn answered_errors_are_told_from_those_of_the_way() {
    for (why, status, meaning) in [
        ("operation failed, of IDM", 0x1C0, Status::Failed),
        ("invalid field", 0x002, Status::Failed),
        ("aborted at a loss of power", 0x005, Status::Failed),
        ("internal error", 0x006, Status::Failed),
        ("interrupted", 0x021, Status::Failed),
        ("transient transport error, that the controller saw", 0x022, Status::Failed),
        ("unrecovered read error", 0x281, Status::Failed),
        ("vendor's", 0x7C9, Status::Failed),
        ("data transfer error, or a digest that the host found bad", 0x004, Status::Uncertain),
        ("abort requested, or given up by an old kernel", 0x007, Status::Uncertain),
        ("queue deleted", 0x008, Status::Uncertain),
        ("path: internal", 0x300, Status::Uncertain),
        ("path: asymmetric access inaccessible", 0x302, Status::Uncertain),
        ("path: controller's error", 0x360, Status::Uncertain),
        ("path: the host's", 0x370, Status::Uncertain),
        ("path: aborted by the host", 0x371, Status::Uncertain),
    ] {
        for op in OPS.map(Some).into_iter().chain([None]) {
            assert_eq!(decode_status(op, status), meaning, "{why}: {op:?}");
        }
    }
}

proptest! {
    /// The code alone has no meaning: the same number with another type does not belong to IDM.
    #[test]
    fn only_command_specific_codes_are_about_mutexes(code: u8, hints in 0u16..32, op in 0usize..8) {
        let op = OPS.get(op).copied();
        let about_mutexes = |status| {
            !matches!(
                status,
                Status::Good
                    | Status::Failed
                    | Status::Uncertain
                    | Status::Unsupported
                    | Status::TryAgain
            )
        };
        for kind in 0..8u16 {
            let status = hints << 11 | kind << 8 | u16::from(code);
            let meaning = decode_status(op, status);
            // Hints about retries have no effect.
            prop_assert_eq!(meaning, decode_status(op, status & 0x7FF));
            prop_assert_eq!(meaning == Status::Good, status & 0x7FF == 0);
            if kind != 1 {
                prop_assert!(!about_mutexes(meaning), "{status:#x}: {meaning:?}");
            }
            prop_assert_eq!(nvme::is_path_error(status), kind == 3);
            if kind == 3 {
                prop_assert_eq!(meaning, Status::Uncertain);
            }
        }
    }

    #[test]
    fn any_bytes_are_identify_data(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        prop_assert_eq!(nvme::version(&bytes).is_some(), bytes.len() > 4095 && bytes[4095] >= 0x10);
    }
}
