//! Drives whose data is reserved (persistent reservations): what is told of them, and whether a
//! drive may be reserved for a test.

use super::bench::{Bench, Payload};
use super::subject::{KEY, Real, Stop, Subject};
use crate::Trouble;
use crate::fleet::Drive;
use idm_protocol::reservation::ReservationType::{
    ExclusiveAccess, ExclusiveAccessAllRegistrants, ExclusiveAccessRegistrantsOnly, WriteExclusive,
    WriteExclusiveAllRegistrants, WriteExclusiveRegistrantsOnly,
};
use idm_protocol::{Mode, MutexOp, Record, Status};
use lvmlockd_idm::topology::PathAddress;
use lvmlockd_idm::transport::ReserveReport;
use rustix::fs::{Mode as FileMode, OFlags, open};
use rustix::io::Errno;

const NOT_IN_USE: &str = "--reserve is for a drive that nobody uses, on this host or another one";

/// The owner of a reservation of the data, in words; `None` where nobody has one.
pub fn told(report: &ReserveReport) -> Option<String> {
    let kind = report.reservation?;
    let kind = match kind {
        None => "of an unknown type",
        Some(WriteExclusive) => "write exclusive",
        Some(ExclusiveAccess) => "exclusive access",
        Some(WriteExclusiveRegistrantsOnly) => "write exclusive, registrants only",
        Some(ExclusiveAccessRegistrantsOnly) => "exclusive access, registrants only",
        Some(WriteExclusiveAllRegistrants) => "write exclusive, all registrants",
        Some(ExclusiveAccessAllRegistrants) => "exclusive access, all registrants",
    };
    if report.keys == [KEY] {
        return Some(format!("{kind}; that of a selftest that was killed, see --reserve"));
    }
    Some(match report.keys.len() {
        1 => format!("{kind}; 1 registration"),
        count => format!("{kind}; {count} registrations"),
    })
}

/// Why a drive that refuses this host's mutex commands is not tested.
pub fn kept_out(drive: &Drive, reservation: Option<&str>) -> Trouble {
    let (what, remedy) = match reservation {
        Some(told) => (
            format!(
                "its data is reserved for others ({told}), and it refuses this host's mutex \
                 commands, too. So nothing else can be tested, and nothing of the test is on it. \
                 This is no fault of the firmware: what is refused gives nobody a lock"
            ),
            "test it from a host that is registered, or when the reservation has ended",
        ),
        None => (
            "it answers with RESERVATION CONFLICT what it should carry out, and tells of no \
             reservation"
                .to_owned(),
            "look for one: sg_persist --in --read-reservation DEVICE, or nvme resv-report DEVICE",
        ),
    };
    Trouble::new(what, &drive.name, remedy)
}

/// Whether the drive refuses what it would carry out if nobody had reserved it.
pub fn refuses(bench: &mut Bench<'_>) -> Result<bool, Stop> {
    let payload = Payload::new(bench.fresh(), 1, Mode::Exclusive);
    let refuses = bench.send(MutexOp::Trylock, payload)? == Status::Conflict;
    if !refuses {
        bench.clear()?;
    }
    Ok(refuses)
}

/// Checks that a drive may be reserved for a test: that its reservations are by path, that nobody
/// is registered but an earlier test, and that this host does not use it.
pub fn may_be_reserved(real: &Real, drive: &Drive) -> Result<(), Trouble> {
    let refuse = |what: String, remedy: &str| Err(Trouble::new(what, &drive.name, remedy));
    let remedy = "leave --reserve out";
    let Some(report) = real.reservations() else {
        return refuse("it has no persistent reservations, or does not tell".to_owned(), remedy);
    };
    if !report.by_path {
        let remedy = "reserve it from another host (nvme resv-register, nvme resv-acquire), and \
                      test it without --reserve: the output says what it refuses then";
        return refuse(
            "it registers hosts, not paths, so this host is not kept out".into(),
            remedy,
        );
    }
    if report.keys.iter().any(|key| *key != KEY) {
        let told = told(&report).unwrap_or_else(|| "no reservation".to_owned());
        return refuse(format!("others have registered with it ({told})"), NOT_IN_USE);
    }
    if drive.global || !drive.vgs.is_empty() {
        return refuse("a volume group or the global lock uses it here".to_owned(), NOT_IN_USE);
    }
    for path in &drive.paths {
        if let PathAddress::Scsi(node) = path {
            let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::NONBLOCK | OFlags::CLOEXEC;
            if let Err(Errno::BUSY) = open(node, flags, FileMode::empty()) {
                let node = node.display();
                let remedy = "unmount it, deactivate what lies on it, and flush its multipath map";
                return refuse(format!("{node}: the kernel of this host uses it"), remedy);
            }
        }
    }
    Ok(())
}

/// Ends the reservation that a killed test has left.
pub fn end_earlier(real: &mut Real, drive: &Drive) -> Result<(), Trouble> {
    let remedy = "end it by the path that has registered: sg_persist --out --clear --param-rk=KEY";
    let failed = |what: String| Trouble::new(what, &drive.name, remedy);
    real.unreserve().map_err(|stop| failed(stop.to_string()))?;
    match real.reservations() {
        Some(ReserveReport { keys, reservation: None, .. }) if keys.is_empty() => Ok(()),
        _ => Err(failed(format!(
            "the reservation that an earlier test has left (key {KEY:#x}) cannot be ended"
        ))),
    }
}

/// Checks that nobody has a mutex on a drive that is to be reserved.
pub fn is_free(drive: &Drive, others: &[Record]) -> Result<(), Trouble> {
    if others.is_empty() {
        return Ok(());
    }
    let what = format!("{} records of other hosts are in its mutex table", others.len());
    Err(Trouble::new(what, &drive.name, NOT_IN_USE))
}

/// Checks that nobody has reserved the data, or ended that, while what the drive did was judged.
pub fn is_as_before(real: &Real, drive: &Drive, before: Option<&str>) -> Result<(), Trouble> {
    // A drive that does not answer tells nothing.
    if real.reservations().is_none_or(|report| told(&report).as_deref() == before) {
        return Ok(());
    }
    let what = "reservations of its data have changed during the test, so what it did says nothing";
    let remedy = "repeat the test while nobody reserves it, which also removes what this one has \
                  left";
    Err(Trouble::new(what, &drive.name, remedy))
}
