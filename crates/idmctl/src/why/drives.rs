//! Causes that are drives.

use super::bars::{Bar, seconds};
use super::{Case, Cause};
use crate::drives::fill;
use idm_engine::{acquire_quorum, keep_quorum};
use lvmlockd_idm::lock::{Role, role_of};

/// The reason why a drive cannot grant a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unusable {
    Missing,
    Silent,
    NoIdm,
    Full,
    Barred,
}

impl Unusable {
    fn code(self) -> &'static str {
        match self {
            Unusable::Missing => "missing",
            Unusable::Silent => "silent",
            Unusable::NoIdm => "no-idm",
            Unusable::Full => "full",
            Unusable::Barred => "barred",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Unusable::Missing => {
                "bring the device back, or reduce the VG (vgreduce --removemissing)"
            }
            Unusable::Silent => "look at its cables and the kernel's log",
            Unusable::NoIdm => "replace it by a drive with IDM",
            Unusable::Full => {
                "deactivate LVs that are not used, or wait for the leases of dead hosts"
            }
            Unusable::Barred => {
                "repeat the command then; the kernel's log tells why there was no answer"
            }
        }
    }
}

impl Case<'_> {
    pub(super) fn drive_causes(&self) -> Vec<Cause> {
        let count = self.members.len() + self.missing.len();
        if count == 0 {
            return self.no_drives().into_iter().collect();
        }
        let unusable = self.unusable();
        if unusable.is_empty() {
            return Vec::new();
        }
        let usable = count - unusable.len();
        let needed = acquire_quorum(count);
        // The cause that stops most drives is named first.
        let kinds = [
            Unusable::Missing,
            Unusable::Silent,
            Unusable::NoIdm,
            Unusable::Full,
            Unusable::Barred,
        ];
        let number = |kind| unusable.iter().filter(|(it, _)| *it == kind).count();
        let Some(kind) = kinds.into_iter().rev().max_by_key(|kind| number(*kind)) else {
            return Vec::new();
        };
        let whys: Vec<&str> = unusable.iter().map(|(_, why)| why.as_str()).collect();
        let whys = whys.join("; ");
        let remedy = kind.remedy();
        if usable < needed {
            // A lock that this host holds is refreshed even on a drive that it does not ask for new
            // locks.
            let kept = if usable + number(Unusable::Barred) < keep_quorum(count) {
                "What is held is lost when its leases end"
            } else {
                "What is held is kept"
            };
            return vec![Cause::refused(
                kind.code(),
                format!(
                    "of its {count} drives only {usable} can be used, and {needed} are needed: \
                     {whys}. {kept}. Remedy: {remedy}"
                ),
            )];
        }
        let code = match kind {
            Unusable::Missing => "one-missing",
            Unusable::Silent => "one-silent",
            Unusable::NoIdm => "one-no-idm",
            Unusable::Full => "one-full",
            Unusable::Barred => "one-barred",
        };
        let spare = usable - needed;
        vec![Cause::slow(
            code,
            format!(
                "{usable} of its {count} drives can be used, which is enough, with {spare} to \
                 spare: {whys}. Remedy: {remedy}"
            ),
        )]
    }

    fn no_drives(&self) -> Option<Cause> {
        match role_of(&self.id) {
            Role::Global => Some(Cause::refused(
                "no-global-drives",
                "no drive carries the global lock. Name the same drives on every host in \
                 /etc/lvm/lvmlockd-idm.conf as [global] drives, or give a GPT partition on each \
                 the name \"propeller\""
                    .to_owned(),
            )),
            // The drives of a VG are known where the VG is started.
            _ => None,
        }
    }

    /// The members that can give the lock.
    pub(super) fn usable(&self) -> Vec<usize> {
        self.members.iter().copied().filter(|&at| self.trouble(at).is_none()).collect()
    }

    fn unusable(&self) -> Vec<(Unusable, String)> {
        let missing = self.missing.iter().map(|it| (Unusable::Missing, it.why.clone()));
        let members = self.members.iter().filter_map(|&at| self.trouble(at));
        missing.chain(members).collect()
    }

    fn trouble(&self, at: usize) -> Option<(Unusable, String)> {
        let (drive, asked) = (&self.fleet.drives[at], &self.asked[at]);
        let name = &drive.name;
        if let Some(why) = asked.silence(drive) {
            return Some((Unusable::Silent, format!("{name} does not answer ({why})")));
        }
        let Some((version, records)) = asked.table() else {
            return Some((Unusable::NoIdm, format!("{name} has no IDM")));
        };
        let fill = fill(version, records);
        let [most_records, most_mutexes, most_hosts] = fill.limits;
        let known = records.iter().any(|record| record.resource == self.id);
        let guest = self.host.id.is_some_and(|id| records.iter().any(|it| it.host == id));
        let full = fill.records >= most_records
            || (!known && fill.mutexes >= most_mutexes)
            || (!guest && fill.hosts >= most_hosts);
        if full {
            let what = format!(
                "the table of {name} is full ({} records of {} mutexes and {} hosts)",
                fill.records, fill.mutexes, fill.hosts
            );
            return Some((Unusable::Full, what));
        }
        let Some(Bar::Refuses(left)) = self.bar(at) else { return None };
        let what = format!(
            "{name} is not asked for it for {} more, because a command of this host that had no \
             answer may still reach it",
            seconds(left)
        );
        Some((Unusable::Barred, what))
    }
}
