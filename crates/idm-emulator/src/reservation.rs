//! Reservations of a drive's data: the registrants, the holder of the reservation, and the hosts
//! that it excludes from the data.
//!
//! [`Reservations`] has the rules that SCSI (SPC-4, "Persistent reservations") and NVMe (base
//! specification, "Reservations") share. A *registrant* is an I_T nexus with SCSI and a host with
//! NVMe. [`scsi`] and [`nvme`] make bytes of it, with the rules in which the two differ. No clock,
//! no I/O.

pub mod nvme;
pub mod scsi;

use idm_protocol::reservation::ReservationType;

/// The most registrants. More are refused.
pub const MOST_REGISTRANTS: usize = 128;

/// The access to data that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// None: no reservation keeps the command away.
    Free,
    /// It reads data, or settings that a writer changes.
    Read,
    /// It changes data or settings.
    Write,
}

/// A notice to a registrant about the action of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Notice {
    /// Its registration was preempted.
    RegistrationPreempted,
    /// The reservation was released.
    ReservationReleased,
    /// The reservation and all registrations were cleared.
    ReservationPreempted,
}

/// Notices, each with its addressee.
pub type Notices<N> = Vec<(N, Notice)>;

/// The reason why a request was refused. It then changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The reservation or the keys do not permit it.
    Conflict,
    /// There is no such type of reservation.
    UnknownType,
    /// The type to be released is not that of the reservation.
    OtherType,
    /// The key 0 names all registrants only where each of them holds the reservation.
    KeyZero,
    /// There is no reservation to be moved.
    NoReservation,
    /// There is no room for another registrant.
    Full,
}

/// A registration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Registrant<N> {
    /// The registrant.
    pub who: N,
    /// The key; several registrants may have the same.
    pub key: u64,
}

/// The reservation. Its holder is `None` if every registrant holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Reservation<N> {
    kind: ReservationType,
    holder: Option<N>,
}

/// Registrations and the reservation of one logical unit or namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reservations<N> {
    /// In the order of registration.
    registrants: Vec<Registrant<N>>,
    reservation: Option<Reservation<N>>,
    generation: u32,
    persistent: bool,
}

impl<N> Default for Reservations<N> {
    fn default() -> Reservations<N> {
        Reservations {
            registrants: Vec::new(),
            reservation: None,
            generation: 0,
            persistent: false,
        }
    }
}

impl<N: Clone + Eq> Reservations<N> {
    /// All registrants, in the order of registration.
    pub fn registrants(&self) -> &[Registrant<N>] {
        &self.registrants
    }

    /// The key that is registered for `who`.
    pub fn key(&self, who: &N) -> Option<u64> {
        self.registrants.iter().find(|one| one.who == *who).map(|one| one.key)
    }

    /// The type of the reservation.
    pub fn kind(&self) -> Option<ReservationType> {
        self.reservation.as_ref().map(|reservation| reservation.kind)
    }

    /// Whether `who` holds the reservation.
    pub fn is_holder(&self, who: &N) -> bool {
        self.reservation.as_ref().is_some_and(|reservation| match &reservation.holder {
            Some(holder) => holder == who,
            None => self.key(who).is_some(),
        })
    }

    /// The key of the one holder; `None` without a reservation, or where all registrants hold it.
    pub fn holder_key(&self) -> Option<u64> {
        self.key(self.reservation.as_ref()?.holder.as_ref()?)
    }

    /// Number of changes to the registrations since the drive got power, modulo 2^32.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether registrations and the reservation outlive a loss of power.
    pub fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// Decides whether registrations and the reservation outlive a loss of power.
    pub fn set_persistent(&mut self, persistent: bool) {
        self.persistent = persistent;
    }

    /// Whether the reservation lets `who` have this access.
    pub fn permits(&self, who: &N, access: Access) -> bool {
        let Some(kind) = self.kind() else {
            return true;
        };
        match access {
            Access::Free => true,
            Access::Read if !kind.excludes_reads() => true,
            Access::Read | Access::Write => {
                self.is_holder(who) || kind.admits_registrants() && self.key(who).is_some()
            }
        }
    }

    /// Registers `who` with this key, or changes its key.
    pub fn register(&mut self, who: &N, key: u64) -> Result<(), Refusal> {
        self.set_key(who, key)?;
        self.count_change();
        Ok(())
    }

    fn set_key(&mut self, who: &N, key: u64) -> Result<(), Refusal> {
        if let Some(known) = self.registrants.iter_mut().find(|one| one.who == *who) {
            known.key = key;
        } else if self.registrants.len() < MOST_REGISTRANTS {
            self.registrants.push(Registrant { who: who.clone(), key });
        } else {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    /// Removes the registration of `who`, and the reservation if nobody is left to hold it.
    pub fn unregister(&mut self, who: &N) -> Notices<N> {
        let before = self.kind();
        self.remove(|one| one.who == *who);
        self.count_change();
        match before {
            Some(kind) if self.reservation.is_none() && kind.admits_registrants() => {
                self.notices_but(who, Notice::ReservationReleased)
            }
            _ => Vec::new(),
        }
    }

    /// Reserves for the registrant `who`.
    pub fn reserve(&mut self, who: &N, kind: ReservationType) -> Result<(), Refusal> {
        match self.kind() {
            None => {
                self.establish(who, kind);
                Ok(())
            }
            Some(same) if same == kind && self.is_holder(who) => Ok(()),
            Some(_) => Err(Refusal::Conflict),
        }
    }

    /// Releases the reservation if the registrant `who` holds it. `kind` must be its type then.
    pub fn release(
        &mut self,
        who: &N,
        kind: Option<ReservationType>,
    ) -> Result<Notices<N>, Refusal> {
        let Some(held) = self.kind().filter(|_| self.is_holder(who)) else {
            return Ok(Vec::new());
        };
        if kind != Some(held) {
            return Err(Refusal::OtherType);
        }
        self.reservation = None;
        if held.admits_registrants() {
            Ok(self.notices_but(who, Notice::ReservationReleased))
        } else {
            Ok(Vec::new())
        }
    }

    /// Removes the reservation and all registrations at the request of `who`.
    pub fn clear(&mut self, who: &N) -> Notices<N> {
        let notices = self.notices_but(who, Notice::ReservationPreempted);
        self.reservation = None;
        self.registrants.clear();
        self.count_change();
        notices
    }

    /// Removes the registrants with the key `victims` at the request of the registrant `who`. If
    /// one of them is the holder, `who` then holds a reservation of the type `kind`. Where all
    /// registrants are holders, the key 0 means all others.
    pub fn preempt(
        &mut self,
        who: &N,
        victims: u64,
        kind: Option<ReservationType>,
    ) -> Result<Notices<N>, Refusal> {
        let all = self.kind().is_some_and(ReservationType::is_held_by_all);
        if victims == 0 && !all {
            return Err(Refusal::KeyZero);
        }
        let takes_over = victims == 0 || self.holder_key() == Some(victims);
        let is_victim = |one: &Registrant<N>| victims == 0 || one.key == victims;
        if !takes_over {
            if !self.registrants.iter().any(is_victim) {
                return Err(Refusal::Conflict);
            }
            let removed = self.remove(is_victim);
            self.count_change();
            return Ok(preempted(removed, who));
        }
        let kind = kind.ok_or(Refusal::UnknownType)?;
        let before = self.kind();
        let removed = self.remove(|one| is_victim(one) && one.who != *who);
        self.establish(who, kind);
        self.count_change();
        let mut notices = preempted(removed, who);
        if before != Some(kind) {
            notices.extend(self.notices_but(who, Notice::ReservationReleased));
        }
        Ok(notices)
    }

    /// Whether the registrant `from` may move the reservation. Returns its type.
    pub fn check_move(&self, from: &N) -> Result<ReservationType, Refusal> {
        match self.kind() {
            None => Err(Refusal::NoReservation),
            Some(kind) if !kind.is_held_by_all() && self.is_holder(from) => Ok(kind),
            Some(_) => Err(Refusal::Conflict),
        }
    }

    /// Registers `to` with `key` and makes it the holder in place of the registrant `from`, which
    /// stays registered unless `unregister` is set.
    pub fn move_to(&mut self, from: &N, to: &N, key: u64, unregister: bool) -> Result<(), Refusal> {
        let kind = self.check_move(from)?;
        self.set_key(to, key)?;
        self.establish(to, kind);
        if unregister {
            self.remove(|one| one.who == *from);
        }
        self.count_change();
        Ok(())
    }

    /// Loses power. Registrations and the reservation are gone unless they are persistent, and the
    /// generation counter begins anew.
    pub fn power_loss(&mut self) {
        if !self.persistent {
            self.registrants.clear();
            self.reservation = None;
        }
        self.generation = 0;
    }

    fn establish(&mut self, who: &N, kind: ReservationType) {
        let holder = (!kind.is_held_by_all()).then(|| who.clone());
        self.reservation = Some(Reservation { kind, holder });
    }

    /// Removes registrants, and the reservation if its holder, or the last of them, is among them.
    fn remove(&mut self, which: impl Fn(&Registrant<N>) -> bool) -> Vec<Registrant<N>> {
        let (removed, kept) = std::mem::take(&mut self.registrants).into_iter().partition(which);
        self.registrants = kept;
        let is_held = match self.reservation.as_ref().map(|reservation| &reservation.holder) {
            Some(Some(holder)) => self.key(holder).is_some(),
            Some(None) => !self.registrants.is_empty(),
            None => false,
        };
        if !is_held {
            self.reservation = None;
        }
        removed
    }

    fn count_change(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    fn notices_but(&self, who: &N, notice: Notice) -> Notices<N> {
        let others = self.registrants.iter().filter(|one| one.who != *who);
        others.map(|one| (one.who.clone(), notice)).collect()
    }

    /// The state as text, for people and tests; `who` returns the name of a registrant.
    pub(crate) fn text(&self, who: impl Fn(&N) -> String) -> String {
        let mut text = format!(
            "generation {}\npersistent {}\nreservation {}\n",
            self.generation,
            if self.persistent { "yes" } else { "no" },
            self.kind().map_or("none", ReservationType::word),
        );
        for Registrant { who: one, key } in &self.registrants {
            let holds = if self.is_holder(one) { "  holder" } else { "" };
            text.push_str(&format!("{key:#018x}  {}{holds}\n", who(one)));
        }
        text
    }
}

fn preempted<N: Eq>(removed: Vec<Registrant<N>>, by: &N) -> Notices<N> {
    let others = removed.into_iter().filter(|one| one.who != *by);
    others.map(|one| (one.who, Notice::RegistrationPreempted)).collect()
}
