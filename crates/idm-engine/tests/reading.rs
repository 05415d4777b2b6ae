//! The value of a mutex that nobody takes, from the drives' tables.

mod bench;

use bench::*;
use idm_emulator::DriveTime;
use idm_engine::{Command, DriveRef, Request, ValueRead, read_value};
use idm_protocol::{MutexOp, Record, ResourceId, Status};

/// A host that only reads.
const READER: u8 = 5;

/// The VG's value that a host reads on some drives.
fn read(bench: &Bench, me: u8, on: &[usize]) -> Option<u64> {
    let now = DriveTime::from_micros(bench.now.as_micros());
    let read = |&drive: &usize| (DriveRef(drive as u32), bench.drives[drive].table(now));
    let tables: Vec<(DriveRef, Vec<Record>)> = on.iter().map(read).collect();
    let vg = ResourceId::vg(VG).expect("a good id");
    let tables = tables.iter().map(|(drive, table)| (*drive, &table[..]));
    match read_value(tables, vg, host(me), bench.drives.len()) {
        ValueRead::Known(value) => Some(value.get()),
        ValueRead::Unknown => None,
    }
}

#[test]
fn a_majority_of_the_drives_tells_the_value() {
    let (bench, _) = with_a_value(3);
    for on in [&[0, 1, 2][..], &[0, 1], &[0, 2], &[1, 2]] {
        assert_eq!(read(&bench, READER, on), Some(7), "{on:?}");
    }
    for on in [&[][..], &[0], &[2]] {
        assert_eq!(read(&bench, READER, on), None, "{on:?}");
    }
    assert_eq!(read(&Bench::new(3), READER, &[0, 1, 2]), None, "never written");
}

#[test]
fn a_holder_makes_the_value_unknown_alive_or_not() {
    for mode in [X, S] {
        let (mut bench, all) = with_a_value(3);
        let mut a = vg_lock(1);
        take(&mut bench, &mut a, mode, &all, &[]);
        assert_eq!(read(&bench, READER, &[0, 1]), None, "{mode}");
        bench.now = bench.now + LEASE * 2;
        assert_eq!(read(&bench, READER, &[0, 1]), None, "{mode}, dead");
    }
}

#[test]
fn one_drive_with_another_holder_is_enough_to_know_nothing() {
    let (mut bench, _) = with_a_value(3);
    // It counts other drives.
    take(&mut bench, &mut vg_lock(1), X, &[2], &[]);
    assert_eq!(read(&bench, READER, &[0, 1]), Some(7));
    assert_eq!(read(&bench, READER, &[0, 1, 2]), None);
}

#[test]
fn a_value_that_is_stored_on_some_drives_only_is_told_once_nobody_holds_the_others() {
    let (mut bench, all) = with_a_value(3);
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    a.request(Request::Release { value: Some(value(8)) }, bench.now).expect("held");
    let fate = |command: &Command| match (command.drive.0, op(command)) {
        (1 | 2, Some(MutexOp::Unlock)) => Fate::Open,
        _ => Fate::Answered,
    };
    let open = exchange_with(&mut bench, &mut a, fate);
    // Drives 1 and 2 have the value before, under the lock of the host that releases it.
    for me in [READER, 1] {
        for on in [&[0, 1][..], &[1, 2], &[0, 1, 2]] {
            assert_eq!(read(&bench, me, on), None, "host {me} {on:?}");
        }
    }
    bench.perform(&open[0]);
    for on in [&[0, 1][..], &[0, 1, 2]] {
        assert_eq!(read(&bench, 1, on), Some(8), "{on:?}");
    }
    assert_eq!(read(&bench, 1, &[1, 2]), None, "one vote");
    assert_eq!(read(&bench, READER, &[0, 1, 2]), None, "host 1 may hold it");
    bench.perform(&open[1]);
    assert_eq!(read(&bench, READER, &[1, 2]), Some(8));
}

#[test]
fn the_greatest_value_counts_and_a_drive_without_one_does_not() {
    let (mut bench, all) = with_a_value(3);
    let mut a = vg_lock(1);
    bench.paths[2] = Path::Cut;
    take(&mut bench, &mut a, X, &all, &[]);
    bench.run(&mut a, Request::Release { value: Some(value(8)) });
    // Drive 2 has the value before.
    assert_eq!(read(&bench, READER, &[1, 2]), Some(8));
    bench.drives[0].reset();
    assert_eq!(read(&bench, READER, &[0, 2]), None);
    assert_eq!(read(&bench, READER, &[0, 1, 2]), Some(8));
}

#[test]
fn what_a_dead_holder_left_is_not_told_after_it_was_broken() {
    let (mut bench, all) = with_a_value(3);
    take(&mut bench, &mut vg_lock(1), X, &all, &[]);
    bench.now = bench.now + LEASE * 2;
    let mut b = vg_lock(2);
    assert_eq!(take(&mut bench, &mut b, X, &all, &[]), GRANTED);
    b.request(RELEASE, bench.now).expect("held");
    // Drive 2 does not get the release.
    exchange_with(&mut bench, &mut b, |command| match command.drive.0 {
        2 => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    });
    for me in [READER, 2] {
        for on in [&[0, 1][..], &[0, 2], &[1, 2], &[0, 1, 2]] {
            assert_eq!(read(&bench, me, on), None, "host {me} {on:?}");
        }
    }
}

#[test]
fn the_value_of_another_mutex_is_none_of_this_one() {
    let (mut bench, all) = with_a_value(3);
    let mut other = lock(1, ResourceId::GLOBAL, true);
    take(&mut bench, &mut other, X, &all, &[]);
    bench.run(&mut other, Request::Release { value: Some(value(9)) });
    take(&mut bench, &mut other, X, &all, &[]);
    assert_eq!(read(&bench, READER, &[0, 1, 2]), Some(7));
}
