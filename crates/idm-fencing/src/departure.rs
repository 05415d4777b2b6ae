//! Giving up the registrations of a host that has stopped a volume group.

use crate::rules::{Rules, broken};
use crate::{Action, Answer, Key, Orders, Procedure, Seen};
use alloc::vec::Vec;
use idm_engine::DriveRef;
use idm_protocol::{HostId, ResourceId};

/// The removal of this host's own registrations.
///
/// The reservation ends with its last registrant, and a host that was removed could write again. So
/// a host keeps its registration on the drive if no other host has the group started, or if its own
/// membership is still seen. Of two hosts that go at the same time, at least one then sees that the
/// other has gone, and stays registered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Departure {
    me: HostId,
    group: ResourceId,
    rules: Rules,
    orders: Orders,
    unknown: Vec<DriveRef>,
    outcome: Option<Vec<DriveRef>>,
}

impl Departure {
    /// Begins.
    pub fn new(me: HostId, group: ResourceId, drives: &[DriveRef], rules: Rules) -> Departure {
        Departure::begin(me, group, rules, (drives, Action::Look), Vec::new())
    }

    /// Begins for a group that does not exist any more, so that no data is left to protect.
    pub fn of_gone(me: HostId, group: ResourceId, drives: &[DriveRef]) -> Departure {
        let all = (drives, Action::Unregister);
        Departure::begin(me, group, Rules::default(), all, drives.to_vec())
    }

    fn begin(
        me: HostId,
        group: ResourceId,
        rules: Rules,
        (drives, action): (&[DriveRef], Action),
        unknown: Vec<DriveRef>,
    ) -> Departure {
        let mut orders = Orders::default();
        drives.iter().rev().for_each(|&drive| orders.give(drive, action));
        let outcome = orders.is_over().then(Vec::new);
        Departure { me, group, rules, orders, unknown, outcome }
    }

    /// Whether another host keeps the reservation of a drive, and cannot count on this one.
    fn is_kept(&self, seen: &Seen) -> bool {
        let living = || seen.living_in(&self.group);
        let has_gone = living().all(|host| host != self.me);
        let keeps = |host: HostId| host != self.me && seen.has(Key::of(&host));
        has_gone && living().any(keeps) || broken!(self.rules, LastOneLeaves)
    }
}

impl Procedure for Departure {
    /// Drives for which it is not known whether the registration was removed, or may still be.
    type Outcome = Vec<DriveRef>;

    fn next(&mut self) -> Option<(DriveRef, Action)> {
        self.orders.next()
    }

    fn on_answer(&mut self, drive: DriveRef, answer: Answer) {
        self.orders.answered();
        match answer {
            Answer::Seen(seen) if seen.has(Key::of(&self.me)) && self.is_kept(&seen) => {
                self.orders.give(drive, Action::Unregister);
                self.unknown.push(drive);
            }
            Answer::Done | Answer::Conflict => self.unknown.retain(|&it| it != drive),
            _ => {}
        }
        if self.orders.is_over() {
            self.outcome = Some(self.unknown.clone());
        }
    }

    fn outcome(&self) -> Option<&Vec<DriveRef>> {
        self.outcome.as_ref()
    }
}
