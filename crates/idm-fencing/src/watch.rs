//! Looking whether this host is still registered.

use crate::rules::{Rules, broken};
use crate::{Action, Answer, Key, Obstacle, Orders, Procedure, Seen};
use alloc::vec::Vec;
use idm_engine::DriveRef;
use idm_protocol::{HostId, ResourceId};

/// The outcome of a [`Watch`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Findings {
    /// A drive that another host has removed this one from.
    pub removed: Option<DriveRef>,
    /// Drives that answer and have no registration of this host, or not by every path, or no
    /// reservation. An [`Enrolment`](crate::Enrolment) may follow. Empty if this host was removed,
    /// or if no drive shows that it was not; without drives that something else reserves.
    pub to_enrol: Vec<DriveRef>,
    /// Signs that something else reserves a drive, one for each.
    pub foreign: Vec<Obstacle>,
    /// Hosts that use the group and are not registered, so that their writes fail.
    pub strangers: Vec<HostId>,
}

/// A look at all drives of a volume group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Watch {
    me: HostId,
    own: Key,
    group: ResourceId,
    rules: Rules,
    orders: Orders,
    /// Each with whether this host has registered there.
    drives: Vec<(DriveRef, bool, Option<Seen>)>,
    findings: Option<Findings>,
}

impl Watch {
    /// Begins to look at the drives on which this host has registered, and at others.
    pub fn new(
        me: HostId,
        group: ResourceId,
        registered: &[DriveRef],
        others: &[DriveRef],
        rules: Rules,
    ) -> Watch {
        let known = registered.iter().map(|&drive| (drive, true, None));
        let drives: Vec<_> =
            known.chain(others.iter().map(|&drive| (drive, false, None))).collect();
        let mut orders = Orders::default();
        drives.iter().rev().for_each(|&(drive, ..)| orders.give(drive, Action::Look));
        let mut watch =
            Watch { me, own: Key::of(&me), group, rules, orders, drives, findings: None };
        watch.conclude();
        watch
    }

    fn conclude(&mut self) {
        if !self.orders.is_over() {
            return;
        }
        let seen = |known: bool| {
            let of = self.drives.iter().filter(move |&&(_, registered, _)| registered == known);
            of.filter_map(|(drive, _, seen)| Some((*drive, seen.as_ref()?)))
        };
        let removed = seen(true).find(|(_, seen)| !seen.has(self.own)).map(|(drive, _)| drive);
        let proven = seen(true).any(|(_, seen)| seen.has(self.own));
        let blind = broken!(self.rules, RegisterAfterCounting);
        let mut to_enrol = Vec::new();
        if removed.is_none() && proven || blind {
            let lacks = |seen: &Seen| !seen.has_all_paths(self.own) || !seen.is_reserved();
            let all = seen(true).chain(seen(false));
            let own = all.filter(|(drive, seen)| seen.foreign(*drive).is_none());
            to_enrol.extend(own.filter(|(_, seen)| lacks(seen)).map(|(drive, _)| drive));
        }
        let all = seen(true).chain(seen(false));
        let foreign = all.filter_map(|(drive, seen)| seen.foreign(drive)).collect();
        let mut strangers: Vec<HostId> = seen(true)
            .flat_map(|(_, seen)| {
                let registered = |host: &HostId| *host == self.me || seen.has(Key::of(host));
                seen.living_in(&self.group).filter(move |host| !registered(host))
            })
            .collect();
        strangers.sort_unstable();
        strangers.dedup();
        self.findings = Some(Findings { removed, to_enrol, foreign, strangers });
    }
}

impl Procedure for Watch {
    type Outcome = Findings;

    fn next(&mut self) -> Option<(DriveRef, Action)> {
        self.orders.next()
    }

    fn on_answer(&mut self, drive: DriveRef, answer: Answer) {
        self.orders.answered();
        if let Some((_, _, seen)) = self.drives.iter_mut().find(|(it, ..)| *it == drive) {
            *seen = match answer {
                Answer::Seen(seen) => Some(seen),
                _ => None,
            };
        }
        self.conclude();
    }

    fn outcome(&self) -> Option<&Findings> {
        self.findings.as_ref()
    }
}
