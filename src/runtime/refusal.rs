//! The reason of a refusal, for the administrator: the drives that decided it, their answers, and
//! the remedy.

use super::TableRead;
use crate::drives::Drives;
use crate::lock::{AskedFor, DriveReport, LockSpec, Refused};
use crate::words::{are, list, plural};
use core::fmt;
use core::time::Duration;
use idm_engine::{Conflict, DriveRef, Instant, Member, Refusal};
use idm_protocol::{Limit, Mode, Status};

/// Time without an answer after which the message names a drive. A decision may come before all
/// drives have had the time to answer.
const SILENT: Duration = Duration::from_millis(100);

/// Remedy for the answer of a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Remedy {
    UseIdm,
    UpdateFirmware,
    BringBack,
    LookAtDrive,
    EndReservation,
    RepeatOrEndReservation,
    FreeMutexes,
    FreeHosts,
    FreeSharers,
    LetIdle,
    AskLater,
    WaitForHolder,
    NameDrives,
    WaitForRecord,
}

/// Reason why a drive did not help, and the remedy.
type Reason = (String, Remedy);

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Remedy::UseIdm => "Use drives with IDM",
            Remedy::UpdateFirmware => {
                "Update the firmware of these drives: that of May 2020 (r00d) lets only one host \
                 have a shared lock, and so start the volume group"
            }
            Remedy::BringBack => {
                "Bring back the drives that do not answer, or the paths to them (see the kernel's \
                 log), and repeat the command"
            }
            Remedy::LookAtDrive => {
                "Look at the kernel's log for these drives, and at their firmware"
            }
            Remedy::EndReservation => {
                "Another host has a persistent reservation: look for it with \"sg_persist --in \
                 --read-reservation DEVICE\", and have it removed"
            }
            Remedy::RepeatOrEndReservation => {
                "Repeat the command; if it is refused again, look for a persistent reservation \
                 with \"sg_persist --in --read-reservation DEVICE\""
            }
            Remedy::FreeMutexes => {
                "Activate fewer logical volumes on these drives, or use more drives"
            }
            Remedy::FreeHosts => "Let fewer hosts use these drives, or use more drives",
            Remedy::FreeSharers => "Let fewer hosts share this lock",
            Remedy::LetIdle => "Repeat the command when these drives are ready, or less busy",
            Remedy::AskLater => "Repeat the command then",
            Remedy::WaitForHolder => {
                "It is free when that host gives it up, or one lease after that host's death"
            }
            Remedy::NameDrives => {
                "If drives of the volume group were added or taken away, repeat \"vgchange \
                 --lockstart\" for it on each host that has it started"
            }
            Remedy::WaitForRecord => {
                "Repeat the command when these drives answer; what was left stays as it is"
            }
        })
    }
}

/// The reasons of a refusal, in a sentence for each part, with the lock's name.
pub(crate) fn text(drives: &Drives, spec: &LockSpec, refused: &Refused, now: Instant) -> String {
    format!("{spec} is refused: {}", reasons(drives, refused, now))
}

/// The same without the name.
pub(crate) fn reasons(drives: &Drives, refused: &Refused, now: Instant) -> String {
    let why = |report: &DriveReport| {
        reason(drives, refused, report, now).map(|reason| (report.drive, reason))
    };
    let reasons = refused.drives.iter().filter_map(why);
    what(refused) + &sentences(drives, reasons)
}

/// Identities of the drives that were not asked, because a command without an answer may still
/// reach them, each with the end of this time.
pub(crate) fn bars(drives: &Drives, refused: &Refused) -> Vec<(String, Instant)> {
    let Refusal::NoQuorum { barred, .. } = &refused.refusal else { return Vec::new() };
    let was_asked = |drive| {
        let report = refused.drives.iter().find(|report| report.drive == drive);
        report.is_some_and(|report| answered(drives, refused, report).is_some())
    };
    let unasked = barred.iter().filter(|(drive, _)| !was_asked(*drive));
    unasked.map(|(drive, until)| (drives.identity(*drive), *until)).collect()
}

/// The reasons why too few drives of a VG can be read. `answers`: those that came within `waited`.
pub(crate) fn unread(
    drives: &Drives,
    members: &[Member],
    answers: &[(DriveRef, TableRead)],
    (needed, waited): (usize, Duration),
) -> String {
    let refused = Refused {
        refusal: Refusal::Unconfirmed,
        asked: AskedFor::Mode(Mode::Shared),
        drives: Vec::new(),
    };
    let why = |member: &Member| {
        let answer = answers.iter().find(|(drive, _)| *drive == member.drive);
        let mut report = DriveReport::new(member.drive, true);
        match answer {
            Some((_, Ok(_))) => report.read = Some(Status::Good),
            Some((_, Err(status))) => report.read = Some(*status),
            None => report.silent = Some(waited),
        }
        answered(drives, &refused, &report).map(|reason| (member.drive, reason))
    };
    let (readable, all) = (answers.iter().filter(|(_, read)| read.is_ok()).count(), members.len());
    let (noun, are) = (plural(all, "drive"), are(needed));
    format!("{readable} of {all} {noun} can be read, {needed} {are} needed")
        + &sentences(drives, members.iter().filter_map(why))
}

/// The drives with their reasons and the remedies: sentences that follow a decision.
fn sentences(drives: &Drives, reasons: impl Iterator<Item = (DriveRef, Reason)>) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut remedies: Vec<Remedy> = Vec::new();
    for (drive, (why, remedy)) in reasons {
        words.push(format!("{}: {why}", drives.name(drive)));
        remedies.push(remedy);
    }
    remedies.sort_unstable();
    remedies.dedup();
    let remedies = remedies.iter().map(ToString::to_string);
    let all = [list(words)].into_iter().chain(remedies);
    all.filter(|text| !text.is_empty()).map(|text| format!(". {text}")).collect()
}

/// The decision, without the drives.
fn what(refused: &Refused) -> String {
    let voters = refused.drives.iter().filter(|report| report.votes).count();
    match &refused.refusal {
        Refusal::Held(conflicts) if conflicts.is_empty() => {
            "drives say that another host has it, and do not show which".into()
        }
        Refusal::Held(conflicts) if only_sharers(refused, conflicts) => {
            format!("{}, which shares it", refused.refusal)
        }
        Refusal::NoQuorum { granted, needed, .. } => {
            let (drives, are) = (plural(voters, "drive"), are(*needed));
            format!("{granted} of {voters} {drives} granted it, {needed} {are} needed")
        }
        Refusal::Full => "too many of its drives have no room for it".into(),
        other => other.to_string(),
    }
}

/// Whether a request for a shared lock was refused only because of other sharers.
fn only_sharers(refused: &Refused, conflicts: &[Conflict]) -> bool {
    refused.asked == AskedFor::Mode(Mode::Shared)
        && conflicts.iter().all(|c| c.mode == Mode::Shared)
}

/// The reason why a drive did not help, and the remedy. `None` for a drive that helped, or that had
/// no part in the decision.
fn reason(
    drives: &Drives,
    refused: &Refused,
    report: &DriveReport,
    now: Instant,
) -> Option<Reason> {
    match &refused.refusal {
        Refusal::Held(conflicts) if !conflicts.is_empty() => {
            let held = conflicts.iter().find(|conflict| conflict.drive == report.drive)?;
            let (host, mode) = (held.host, held.mode);
            return Some(match only_sharers(refused, conflicts) {
                true => (format!("admits no sharer beside host {host}"), Remedy::UpdateFirmware),
                false => {
                    let remedy =
                        if held.same_set { Remedy::WaitForHolder } else { Remedy::NameDrives };
                    (format!("host {host} has it {mode}"), remedy)
                }
            });
        }
        Refusal::NoQuorum { barred, .. } => {
            let until = barred.iter().find(|(drive, _)| *drive == report.drive);
            if let Some((_, until)) = until {
                let left = (until.since(now) + Duration::from_millis(999)).as_secs();
                return Some(match answered(drives, refused, report) {
                    Some((why, remedy)) => {
                        (format!("{why} (not asked again for {left} s)"), remedy)
                    }
                    None => (
                        format!(
                            "not asked for {left} s, because a command without an answer may \
                             still reach it"
                        ),
                        Remedy::AskLater,
                    ),
                });
            }
        }
        _ => {}
    }
    answered(drives, refused, report).or_else(|| {
        // Of these, each drive that has not helped has decided.
        let all = matches!(refused.refusal, Refusal::NoQuorum { .. } | Refusal::Unconfirmed);
        let helped = [report.command, report.read].contains(&Some(Status::Good));
        (all && !helped).then(|| ("no answer".to_owned(), Remedy::BringBack))
    })
}

/// The same, by its answers, for a drive that is not known to be another host's.
fn answered(drives: &Drives, refused: &Refused, report: &DriveReport) -> Option<Reason> {
    let trouble = drives.trouble(report.drive);
    if let Some(silent) = report.silent {
        if silent < SILENT {
            return None;
        }
        let seconds = (silent + Duration::from_millis(500)).as_secs().max(1);
        return Some((format!("no answer for {seconds} s"), Remedy::BringBack));
    }
    let words = |otherwise: &str| trouble.clone().unwrap_or_else(|| otherwise.to_owned());
    let conflicts = [Status::Conflict, Status::Terminated, Status::WrongState];
    let said = report.command.filter(|status| *status != Status::Good).or(report.read)?;
    Some(match (said, report.read) {
        (_, Some(Status::Conflict)) => {
            ("RESERVATION CONFLICT also to reads".into(), Remedy::EndReservation)
        }
        (said, Some(Status::Good)) if conflicts.contains(&said) => {
            let why = "a conflict, but its table shows no holder".into();
            (why, Remedy::RepeatOrEndReservation)
        }
        (said, Some(_)) if conflicts.contains(&said) => {
            let why = words("no answer");
            (format!("a conflict, and its table cannot be read ({why})"), Remedy::BringBack)
        }
        (said, None) if conflicts.contains(&said) => {
            ("a conflict".into(), Remedy::RepeatOrEndReservation)
        }
        (Status::Good, _) if refused.asked == AskedFor::Adoption => {
            ("no record of this host".into(), Remedy::WaitForRecord)
        }
        (Status::Good, _) => return None,
        (Status::Full(limit), _) => full(limit),
        (Status::TryAgain, _) => (words("BUSY"), Remedy::LetIdle),
        (Status::Unsupported, _) => ("it has no IDM".into(), Remedy::UseIdm),
        (Status::NotFound, _) => ("it does not have the lock any more".into(), Remedy::LookAtDrive),
        (Status::Failed, _) => (words("an answer that makes no sense"), Remedy::LookAtDrive),
        (Status::Unreachable | Status::Uncertain, _) => (words("no answer"), Remedy::BringBack),
        (Status::Conflict | Status::Terminated | Status::WrongState, _) => {
            ("a conflict".into(), Remedy::RepeatOrEndReservation)
        }
    })
}

fn full(limit: Limit) -> Reason {
    let (what, remedy) = match limit {
        Limit::Mutexes => ("mutex", Remedy::FreeMutexes),
        Limit::Hosts => ("host", Remedy::FreeHosts),
        Limit::HostsOfMutex => ("host in this mutex", Remedy::FreeSharers),
    };
    (format!("its table has no room for another {what}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{Owner, Role};
    use crate::topology::Topology;
    use crate::transport::Limits;
    use idm_engine::Timing;
    use idm_protocol::{HostId, ResourceId};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    /// Three drives without a path, whose identities are their names.
    fn drives() -> Drives {
        let connect = Box::new(|_: &_, _: &_| unreachable!("there is no path"));
        let limits = Limits::new(&Timing::for_lease(Duration::from_secs(60)));
        let drives = Drives::new(Topology::new(BTreeMap::new()), connect, limits);
        ["naa.0", "naa.1", "naa.2"].iter().for_each(|identity| drop(drives.member(identity)));
        drives
    }

    fn spec() -> LockSpec {
        let owner = Arc::new(Owner::new("volume group vg0".into(), Some("vg0".into())));
        LockSpec { resource: ResourceId::GLOBAL, role: Role::Vg, owner }
    }

    fn report(drive: u32, command: Option<Status>, read: Option<Status>) -> DriveReport {
        DriveReport { command, read, ..DriveReport::new(DriveRef(drive), true) }
    }

    fn said(refusal: Refusal, reports: &[DriveReport]) -> String {
        let asked = AskedFor::Mode(Mode::Exclusive);
        let refused = Refused { refusal, asked, drives: reports.to_vec() };
        text(&drives(), &spec(), &refused, Instant::from_micros(1_000_000))
    }

    fn no_quorum(granted: usize, needed: usize) -> Refusal {
        Refusal::NoQuorum { granted, needed, barred: Vec::new() }
    }

    const BRING_BACK: &str = "Bring back the drives that do not answer, or the paths to them (see \
                              the kernel's log), and repeat the command";

    #[test]
    fn one_drive_and_two_drives_are_counted_in_english() {
        let silent = DriveReport {
            silent: Some(Duration::from_millis(4800)),
            ..DriveReport::new(DriveRef(0), true)
        };
        assert_eq!(
            said(no_quorum(0, 1), &[silent]),
            format!(
                "the lock of volume group vg0 is refused: 0 of 1 drive granted it, 1 is needed. \
                 naa.0: no answer for 5 s. {BRING_BACK}"
            )
        );
        let granted = report(1, Some(Status::Good), None);
        assert_eq!(
            said(no_quorum(1, 2), &[silent, granted]),
            format!(
                "the lock of volume group vg0 is refused: 1 of 2 drives granted it, 2 are \
                 needed. naa.0: no answer for 5 s. {BRING_BACK}"
            )
        );
    }

    #[test]
    fn a_drive_without_any_answer_is_named_too() {
        let asked_just_now = DriveReport {
            silent: Some(Duration::from_millis(1)),
            ..DriveReport::new(DriveRef(0), true)
        };
        for report in [asked_just_now, DriveReport::new(DriveRef(0), true)] {
            let text = said(no_quorum(0, 1), &[report]);
            assert!(text.contains("naa.0: no answer. "), "{text}");
        }
    }

    #[test]
    fn what_each_drive_said_is_told_apart() {
        use Status::{Conflict, Failed, Full, Good, TryAgain, Unsupported};
        let held = || Refusal::Held(Vec::new());
        for (refusal, command, read, why, remedy) in [
            (held(), Some(Conflict), Some(Conflict), "RESERVATION CONFLICT", "have it removed"),
            (held(), Some(Conflict), Some(Good), "its table shows no holder", "Repeat"),
            (held(), Some(Conflict), Some(Failed), "its table cannot be read", "Bring back"),
            (no_quorum(0, 1), Some(TryAgain), None, "BUSY", "less busy"),
            (no_quorum(0, 1), Some(Unsupported), None, "no IDM", "Use drives with IDM"),
            (no_quorum(0, 1), Some(Failed), None, "makes no sense", "firmware"),
            (Refusal::Full, Some(Full(Limit::Mutexes)), Some(Good), "another mutex", "fewer"),
            (Refusal::Full, Some(Full(Limit::Hosts)), None, "another host", "fewer hosts"),
            (Refusal::Full, Some(Full(Limit::HostsOfMutex)), None, "in this mutex", "share"),
        ] {
            let text = said(refusal, &[report(1, command, read)]);
            assert!(text.contains("naa.1: ") && text.contains(why), "{why}: {text}");
            assert!(text.contains(remedy), "{remedy}: {text}");
        }
    }

    #[test]
    fn a_drive_that_may_not_be_asked_yet_is_named_with_its_seconds() {
        let until = Instant::from_micros(1_000_000) + Duration::from_millis(12_001);
        let refused = |report| Refused {
            refusal: Refusal::NoQuorum {
                granted: 0,
                needed: 1,
                barred: vec![(DriveRef(2), until)],
            },
            asked: AskedFor::Mode(Mode::Exclusive),
            drives: vec![report],
        };
        for report in [DriveReport::new(DriveRef(2), true), report(2, None, Some(Status::Good))] {
            let text = said(refused(report).refusal, &[report]);
            assert!(text.contains("naa.2: not asked for 13 s"), "{text}");
            assert_eq!(bars(&drives(), &refused(report)), [("naa.2".to_owned(), until)]);
        }
        // A drive that got a command of this very request, and did not answer.
        let asked = report(2, Some(Status::Uncertain), None);
        assert_eq!(bars(&drives(), &refused(asked)), []);
        let text = said(refused(asked).refusal, &[asked]);
        assert!(text.contains("naa.2: no answer (not asked again for 13 s)"), "{text}");
        assert!(text.contains(BRING_BACK), "{text}");
    }

    #[test]
    fn holders_are_named_and_sharers_that_are_not_admitted_are_the_firmwares_fault() {
        let host = HostId::new([7; 16], "bravo");
        let conflict = |mode| Conflict { host, mode, drive: DriveRef(0), same_set: true };
        let refused = |asked, mode| Refused {
            refusal: Refusal::Held(vec![conflict(mode)]),
            asked: AskedFor::Mode(asked),
            drives: vec![report(0, Some(Status::Conflict), Some(Status::Good))],
        };
        let said =
            |asked, mode| text(&drives(), &spec(), &refused(asked, mode), Instant::default());
        let text = said(Mode::Shared, Mode::Exclusive);
        assert!(text.contains("bravo") && text.contains("when that host gives it up"), "{text}");
        let text = said(Mode::Shared, Mode::Shared);
        assert!(text.contains("naa.0: admits no sharer") && text.contains("r00d"), "{text}");
    }
}
