//! Registering this host on drives, before they count.

use crate::{Action, Answer, Key, Obstacle, Orders, Procedure, Seen};
use alloc::vec::Vec;
use idm_engine::DriveRef;
use idm_protocol::{HostId, ResourceId};

/// The outcome of an [`Enrolment`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Enrolled {
    /// Drives on which this host is registered, by one path at least, and that only registrants can
    /// write.
    pub registered: Vec<DriveRef>,
    /// Drives that do not answer. They do not count before they are registered, too.
    pub absent: Vec<DriveRef>,
    /// The reasons why this host must not use the group. The caller has to remove the registrations
    /// that were made.
    pub obstacles: Vec<Obstacle>,
}

/// The registration of this host on drives of a volume group.
///
/// A host whose devices are in use registers only where it is registered already: if it is not, it
/// was removed by a host that took its locks. Nothing is registered where a host with this library
/// uses the group without being registered, because the reservation would stop its writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Enrolment {
    me: HostId,
    own: Key,
    group: ResourceId,
    /// Whether devices of the group are in use on this host.
    is_in_use: bool,
    /// Drives on which devices of other groups are active whose locks this host may have lost.
    doubtful: Vec<DriveRef>,
    orders: Orders,
    drives: Vec<(DriveRef, State)>,
    outcome: Option<Enrolled>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Looking,
    Able(Seen),
    Registering(Seen),
    Reserving,
    /// A look shows the effect of the orders. The flag: whether one of them was to reserve.
    Confirming(bool),
    Registered,
    Absent,
    Refused(Obstacle),
}

impl Enrolment {
    /// Begins.
    pub fn new(me: HostId, group: ResourceId, drives: &[DriveRef], is_in_use: bool) -> Enrolment {
        let mut orders = Orders::default();
        drives.iter().rev().for_each(|&drive| orders.give(drive, Action::Look));
        let mut enrolment = Enrolment {
            me,
            own: Key::of(&me),
            group,
            is_in_use,
            doubtful: Vec::new(),
            orders,
            drives: drives.iter().map(|&drive| (drive, State::Looking)).collect(),
            outcome: None,
        };
        enrolment.conclude();
        enrolment
    }

    /// The same, where on these drives devices of other groups are active whose locks this host may
    /// have lost. It registers there only where it is registered already.
    pub fn beside(mut self, doubtful: &[DriveRef]) -> Enrolment {
        self.doubtful = doubtful.to_vec();
        self
    }

    /// The obstacle on a drive where this host has to be registered already and is not.
    fn removed(&self, drive: DriveRef) -> Option<Obstacle> {
        match self.is_in_use {
            true => Some(Obstacle::Removed(drive)),
            false => self.doubtful.contains(&drive).then_some(Obstacle::OthersInUse(drive)),
        }
    }

    /// The obstacle on a drive, if there is one.
    fn obstacle(&self, drive: DriveRef, seen: &Seen) -> Option<Obstacle> {
        if !seen.is_able {
            return Some(Obstacle::Unsupported(drive));
        }
        if let Some(foreign) = seen.foreign(drive) {
            return Some(foreign);
        }
        if let (Some(removed), false) = (self.removed(drive), seen.has(self.own)) {
            return Some(removed);
        }
        let unknown = |host: &HostId| *host != self.me && !seen.has(Key::of(host));
        let stranger = seen.living_in(&self.group).find(unknown);
        stranger.map(|host| Obstacle::NotRegistered(host, drive))
    }

    fn advance(&mut self, at: usize, answer: Answer) {
        let (drive, state) = &self.drives[at];
        let drive = *drive;
        let next = match (state, answer) {
            (State::Looking, Answer::Seen(seen)) => match self.obstacle(drive, &seen) {
                Some(obstacle) => State::Refused(obstacle),
                None => State::Able(seen),
            },
            (State::Looking, Answer::Unsupported) => State::Refused(Obstacle::Unsupported(drive)),
            (State::Looking, _) => State::Absent,
            (State::Registering(seen), Answer::Done) if seen.is_reserved() => {
                self.orders.give(drive, Action::Look);
                State::Confirming(true)
            }
            (State::Registering(_), Answer::Done) => {
                self.orders.give(drive, Action::Reserve);
                State::Reserving
            }
            (State::Registering(_), Answer::Conflict) => {
                State::Refused(self.removed(drive).unwrap_or(Obstacle::Removed(drive)))
            }
            // A look shows its effect, or that another host was faster.
            (state @ (State::Registering(_) | State::Reserving), _) => {
                self.orders.give(drive, Action::Look);
                State::Confirming(*state == State::Reserving)
            }
            (State::Confirming(tried), Answer::Seen(seen)) => match self.obstacle(drive, &seen) {
                Some(obstacle) => State::Refused(obstacle),
                None if !seen.has(self.own) => State::Absent,
                None if seen.reservation.is_none() && !tried => {
                    self.orders.give(drive, Action::Reserve);
                    State::Reserving
                }
                None if !seen.is_reserved() => State::Refused(Obstacle::NotReserved(drive)),
                None => State::Registered,
            },
            (State::Confirming(_), _) => State::Absent,
            (state, _) => state.clone(),
        };
        self.drives[at].1 = next;
        if self.drives.iter().all(|(_, state)| *state != State::Looking) {
            self.register();
        }
        self.conclude();
    }

    /// Registers where every drive that answers permits it.
    fn register(&mut self) {
        if self.drives.iter().any(|(_, state)| matches!(state, State::Refused(_))) {
            return;
        }
        for (drive, state) in &mut self.drives {
            if let State::Able(seen) = state {
                let anew = !self.is_in_use && !self.doubtful.contains(drive);
                self.orders.give(*drive, Action::Register { anew });
                *state = State::Registering(seen.clone());
            }
        }
    }

    fn conclude(&mut self) {
        if !self.orders.is_over() {
            return;
        }
        let mut outcome = Enrolled::default();
        for (drive, state) in &self.drives {
            match state {
                State::Registered => outcome.registered.push(*drive),
                State::Refused(obstacle) => outcome.obstacles.push(*obstacle),
                _ => outcome.absent.push(*drive),
            }
        }
        self.outcome = Some(outcome);
    }
}

impl Procedure for Enrolment {
    type Outcome = Enrolled;

    fn next(&mut self) -> Option<(DriveRef, Action)> {
        self.orders.next()
    }

    fn on_answer(&mut self, drive: DriveRef, answer: Answer) {
        self.orders.answered();
        if let Some(at) = self.drives.iter().position(|&(it, _)| it == drive) {
            self.advance(at, answer);
        }
    }

    fn outcome(&self) -> Option<&Enrolled> {
        self.outcome.as_ref()
    }
}
