//! Causes that are commands of this host without an answer, which may still reach drives.

use super::{Case, Cause};
use crate::output::short;
use lvmlockd_idm::lock::{Role, role_of};
use std::time::Duration;

/// The effect on a request of a drive that the library does not ask for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bar {
    /// A request waits for this time.
    Waits(Duration),
    /// A request is refused for this time.
    Refuses(Duration),
}

impl Case<'_> {
    /// The bar of a drive for a request, if there is one.
    pub(super) fn bar(&self, at: usize) -> Option<Bar> {
        let identity = &self.fleet.drives[at].identity;
        let until = self.host.refusals.barred(&self.id, identity, self.uptime)?;
        let left = until.since(self.uptime);
        let waits = left <= self.host.settings().timing().patience;
        Some(if waits { Bar::Waits(left) } else { Bar::Refuses(left) })
    }

    pub(super) fn bar_causes(&self) -> Vec<Cause> {
        let mut causes: Vec<Cause> = self.earlier_lvmlockd().into_iter().collect();
        let waits = self.members.iter().filter_map(|&at| match self.bar(at) {
            Some(Bar::Waits(left)) => Some((self.fleet.drives[at].name.as_str(), left)),
            _ => None,
        });
        let waits: Vec<(&str, Duration)> = waits.collect();
        if let Some(left) = waits.iter().map(|(_, left)| left).max() {
            let names: Vec<&str> = waits.iter().map(|(name, _)| *name).collect();
            causes.push(Cause::slow(
                "barred-briefly",
                format!(
                    "a command of this host that had no answer may still reach {}, so a request \
                     may have to wait for {}",
                    names.join(", "),
                    seconds(*left)
                ),
            ));
        }
        causes
    }

    /// A conflict that no table explains.
    pub(super) fn conflict(&self) -> Option<Cause> {
        let last = self.host.refusals.last(&self.id, self.uptime).filter(|it| it.conflict)?;
        let age = seconds(last.age(self.uptime));
        Some(Cause::refused(
            "conflict",
            format!(
                "the last request of this host was refused {age} ago, because drives answered \
                 with RESERVATION CONFLICT, and their tables show no holder. Their data may be \
                 reserved for other hosts: sg_persist --in --read-reservation DEVICE, or nvme \
                 resv-report DEVICE"
            ),
        ))
    }

    /// The wait for commands of an lvmlockd that has died here.
    fn earlier_lvmlockd(&self) -> Option<Cause> {
        if !self.host.lvmlockd {
            return None;
        }
        let [any, alone] = self.host.refusals.earlier(&self.id, self.uptime);
        let until = any.or(alone)?;
        let which = match (any, role_of(&self.id)) {
            (None, Role::Lv) => "a request to activate the LV exclusively",
            (None, _) => "a request to change something under it",
            (Some(_), _) => "a request",
        };
        let left = until.since(self.uptime);
        let why = "commands of an earlier lvmlockd of this host may still reach the drives, and \
                   could undo a new lock";
        // As the library decides.
        if left <= self.host.settings().timing().patience * 4 / 5 {
            let text = format!("{why}, so {which} has to wait for {}", seconds(left));
            return Some(Cause::slow("barred-briefly", text));
        }
        let text =
            format!("{why}, so {which} is refused for {} more. Repeat it then", seconds(left));
        Some(Cause::refused("barred", text))
    }
}

/// The rest of a time.
pub(super) fn seconds(left: Duration) -> String {
    short(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
}
