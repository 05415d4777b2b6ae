//! The drive model: a mutex table and the rules by which commands change it.

use crate::Profile;
use crate::profile::{
    DestroyByHolder, Duplicate, Held, OtherClass, SharedUnlock, SharerState, ValueScope,
};
use crate::table::{Entry, Lease, Mutex, Table};
use core::time::Duration;
use idm_protocol::{
    DriveCommand, GROUP_TABLE, HostId, Limit, Mode, MutexOp, Record, Reply, ResourceId, State,
    Status, Value, ValueUpdate,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A moment on a drive's own clock, in us since the clock's zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriveTime(u64);

impl DriveTime {
    /// The moment `us` microseconds after the clock's zero.
    pub const fn from_micros(us: u64) -> DriveTime {
        DriveTime(us)
    }

    /// The moment `ms` milliseconds after the clock's zero.
    pub const fn from_millis(ms: u64) -> DriveTime {
        DriveTime(ms.saturating_mul(1000))
    }

    /// Microseconds since the clock's zero.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The end of a lease that begins now.
    pub(crate) const fn plus_millis(self, ms: u64) -> DriveTime {
        DriveTime(self.0.saturating_add(ms.saturating_mul(1000)))
    }
}

/// An IDM drive: its table, and nothing else. It has no clock; the caller passes the drive's time.
///
/// Commands are either typed ([`Drive::perform`]) or SCSI bytes ([`Drive::execute`]). Two drives
/// are equal if they would give equal answers forever.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Drive {
    profile: Profile,
    pub(crate) serial: Arc<str>,
    mutexes: Table,
    /// Values of mutexes without a record; see [`Profile::value_outlives_record`].
    orphan_values: BTreeMap<ResourceId, Value>,
}

impl Drive {
    /// A drive with an empty table.
    pub fn new(profile: Profile) -> Drive {
        Drive::with_serial(profile, "0")
    }

    /// A drive with an empty table and a serial number, from which its identity (NAA) is derived.
    pub fn with_serial(profile: Profile, serial: &str) -> Drive {
        Drive {
            profile,
            serial: serial.into(),
            mutexes: Table::default(),
            orphan_values: BTreeMap::new(),
        }
    }

    /// The drive's behaviour.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Loses the whole table, as after a firmware activation or the clear-all command
    /// (docs/protocol.md, "Removing and clearing"). It was not observed whether a power cycle does
    /// the same; hosts must expect it.
    pub fn reset(&mut self) {
        self.mutexes.clear();
        self.orphan_values.clear();
    }

    /// Executes one command at the drive's time `now`.
    pub fn perform(&mut self, now: DriveTime, command: &DriveCommand) -> Reply {
        match command {
            DriveCommand::Mutex(op, payload) => {
                Reply::Status(self.change(now, GROUP_TABLE, *op, payload))
            }
            DriveCommand::ReadTable => Reply::Table(self.table(now).into()),
        }
    }

    /// The whole table as a read at `now` returns it.
    pub fn table(&self, now: DriveTime) -> Vec<Record> {
        self.records(now).collect()
    }

    /// The record of one host for one mutex.
    pub fn record(&self, now: DriveTime, resource: &ResourceId, host: &HostId) -> Option<Record> {
        let mutex = self.mutex(resource)?;
        Some(self.shown(now, mutex, mutex.own(host)?))
    }

    /// Hosts with a running lease on the mutex, each with its mode.
    pub fn live_holders(
        &self,
        now: DriveTime,
        resource: &ResourceId,
    ) -> impl Iterator<Item = (HostId, Mode)> {
        self.mutex(resource)
            .into_iter()
            .flat_map(|mutex| &mutex.entries)
            .filter(move |e| e.is_live(now))
            .map(|e| (e.host, e.class.mode()))
    }

    /// The rest of a host's lease on a mutex; zero if the lease has expired, `None` if the host
    /// does not hold the mutex.
    pub fn lease_left(
        &self,
        now: DriveTime,
        resource: &ResourceId,
        host: &HostId,
    ) -> Option<Duration> {
        match self.mutex(resource)?.own(host)?.lease {
            Lease::Unlocked => None,
            Lease::Until(end) => Some(Duration::from_micros(end.0.saturating_sub(now.0))),
        }
    }

    pub(crate) fn records(&self, now: DriveTime) -> impl Iterator<Item = Record> {
        self.mutexes.iter().flat_map(move |mutex| {
            mutex.entries.iter().map(move |entry| self.shown(now, mutex, entry))
        })
    }

    pub(crate) fn record_count(&self) -> usize {
        self.mutexes.iter().map(|m| m.entries.len()).sum()
    }

    /// The number of records of the mutexes that were created in a group.
    pub(crate) fn record_count_of(&self, group: u8) -> usize {
        self.mutexes.iter().filter(|m| m.group == group).map(|m| m.entries.len()).sum()
    }

    fn mutex(&self, resource: &ResourceId) -> Option<&Mutex> {
        self.mutexes.find(resource).map(|at| &self.mutexes[at])
    }

    /// A record as a read returns it: state computed from the clock, countdown as configured,
    /// control byte of the value 0 (docs/protocol.md, "The record").
    fn shown(&self, now: DriveTime, mutex: &Mutex, entry: &Entry) -> Record {
        let several = || mutex.entries.iter().filter(|e| e.is_live(now)).count() > 1;
        let state = if !entry.is_held() {
            State::Unlocked
        } else if !entry.is_live(now) {
            State::TimedOut
        } else if self.profile.sharer_state == SharerState::MultipleLocked && several() {
            State::MultipleLocked
        } else {
            State::Locked
        };
        Record {
            state,
            modified_ms: entry.modified_ms,
            countdown_ms: entry.countdown_ms,
            class: entry.class,
            value_update: ValueUpdate::Keep,
            value: entry.value,
            resource: mutex.resource,
            metadata: entry.metadata,
            host: entry.host,
        }
    }

    /// Executes a mutex command. A refused command changes nothing
    /// (docs/protocol.md, "What each command does").
    pub(crate) fn change(
        &mut self,
        now: DriveTime,
        group: u8,
        op: MutexOp,
        payload: &Record,
    ) -> Status {
        let found = self.mutexes.find(&payload.resource);
        let done = match (op, found) {
            (MutexOp::Init | MutexOp::Trylock | MutexOp::Lock, None) => {
                self.create(now, group, payload)
            }
            (_, None) => Err(Status::NotFound),
            // INIT never touches an existing mutex. Not observed for strangers.
            (MutexOp::Init, Some(_)) => Err(Status::Conflict),
            (MutexOp::Trylock | MutexOp::Lock, Some(at)) => self.lock(now, at, payload),
            (MutexOp::Unlock, Some(at)) => self.unlock(at, payload),
            (MutexOp::Refresh, Some(at)) => self.refresh(now, at, payload),
            (MutexOp::Break, Some(at)) => self.take_from_expired(now, at, payload),
            (MutexOp::Destroy, Some(at)) => self.destroy(now, at, payload),
        };
        done.err().unwrap_or(Status::Good)
    }

    fn create(&mut self, now: DriveTime, group: u8, payload: &Record) -> Result<(), Status> {
        let limits = &self.profile.limits;
        if self.mutexes.len() >= limits.mutexes {
            return Err(Status::Full(Limit::Mutexes));
        }
        self.check_room(&payload.host)?;
        // The payload's value is stored as written (docs/protocol.md, "The value"). Not observed:
        // whether a control byte of 0 prevents it; there is no older value to keep.
        let older = self.orphan_values.remove(&payload.resource);
        let mut mutex = Mutex {
            resource: payload.resource,
            group,
            entries: vec![Entry::new(now, payload, older.unwrap_or(payload.value))],
        };
        if older.is_some() && self.profile.lock_stores_value {
            mutex.store_value(self.profile.value_scope, payload);
        }
        self.mutexes.push(mutex);
        Ok(())
    }

    /// TRYLOCK and LOCK of an existing mutex. Not observed: any difference between the two.
    fn lock(&mut self, now: DriveTime, at: usize, payload: &Record) -> Result<(), Status> {
        let mutex = &self.mutexes[at];
        let holder = mutex.own(&payload.host).filter(|e| e.is_held());
        if holder.is_some_and(|e| e.is_live(now) || !self.profile.expired_holder_may_relock) {
            return Err(match self.profile.duplicate {
                Duplicate::Conflict => Status::Conflict,
                Duplicate::Terminated => Status::Terminated,
            });
        }
        // A timed-out holder keeps other hosts out like a live one: only BREAK removes it.
        if mutex.others(&payload.host).next().is_none() {
            self.take_over(now, at, payload, mutex.value_for(&payload.host))?;
        } else if self.profile.sharers_admitted
            && payload.class.mode() == Mode::Shared
            && mutex.others(&payload.host).all(Entry::is_shared)
        {
            self.join(now, at, payload)?;
        } else {
            return Err(self.held());
        }
        if self.profile.lock_stores_value {
            self.mutexes[at].store_value(self.profile.value_scope, payload);
        }
        Ok(())
    }

    fn unlock(&mut self, at: usize, payload: &Record) -> Result<(), Status> {
        let profile = self.profile;
        let mutex = &mut self.mutexes[at];
        let Some(own) = mutex.own_mut(&payload.host).filter(|e| e.is_held()) else {
            let unlocked = mutex.own(&payload.host).is_some() || !mutex.is_held();
            // GOOD here has no effect: the payload's value is not stored.
            return if unlocked && profile.repeated_unlock_good {
                Ok(())
            } else {
                Err(Status::Conflict)
            };
        };
        if own.class.mode() != payload.class.mode() {
            match profile.unlock_of_other_class {
                OtherClass::Accepted => {}
                OtherClass::Terminated => return Err(Status::Terminated),
                OtherClass::CheckCondition => return Err(Status::WrongState),
            }
        }
        // Not observed: whether UNLOCK updates the time. The documents call it the time of the last
        // update.
        own.modified_ms = payload.modified_ms;
        own.lease = Lease::Unlocked;
        let shared = own.is_shared();
        if !shared || profile.shared_unlock_stores_value {
            mutex.store_value(profile.value_scope, payload);
        }
        let stays = !shared
            || match profile.shared_unlock {
                SharedUnlock::RecordGone => false,
                SharedUnlock::LastStays => !mutex.is_held(),
                SharedUnlock::EachStays => true,
            };
        if !stays {
            self.remove_entry(at, &payload.host);
        }
        Ok(())
    }

    fn refresh(&mut self, now: DriveTime, at: usize, payload: &Record) -> Result<(), Status> {
        let profile = self.profile;
        let mutex = &mut self.mutexes[at];
        // A timed-out holder whose lock no host broke gets it back
        // (docs/protocol.md, "The lease clock").
        if !mutex.own(&payload.host).is_some_and(Entry::is_held) {
            return Err(Status::Conflict);
        }
        if payload.class.mode() == Mode::Exclusive && mutex.others(&payload.host).next().is_some() {
            let all_expired = mutex.others(&payload.host).all(|e| !e.is_live(now));
            if !(all_expired && profile.promotion_removes_expired) {
                return Err(Status::Terminated);
            }
            mutex.entries.retain(|e| e.host == payload.host);
        }
        if let Some(own) = mutex.own_mut(&payload.host) {
            let metadata = own.metadata;
            *own = Entry::new(now, payload, own.value);
            if !profile.refresh_stores_metadata {
                own.metadata = metadata;
            }
        }
        if profile.refresh_stores_value {
            mutex.store_value(profile.value_scope, payload);
        }
        Ok(())
    }

    /// BREAK.
    fn take_from_expired(
        &mut self,
        now: DriveTime,
        at: usize,
        payload: &Record,
    ) -> Result<(), Status> {
        let profile = self.profile;
        let mutex = &mut self.mutexes[at];
        if !mutex.is_held() {
            return Err(Status::Conflict);
        }
        let some_break = mutex.others(&payload.host).any(|e| e.is_breakable(now));
        let all_break = mutex.others(&payload.host).all(|e| e.is_breakable(now));
        let value =
            if profile.break_keeps_value { mutex.value_for(&payload.host) } else { Value::ZERO };
        if all_break {
            // The holder itself may break too: this renews its lock.
            self.take_over(now, at, payload, value)?;
        } else if profile.break_beside_live_sharers
            && some_break
            && payload.class.mode() == Mode::Shared
        {
            // Some holders may be broken and others not: there are several, so they share.
            let before = mutex.clone();
            mutex.entries.retain(|e| e.host == payload.host || !e.is_breakable(now));
            if let Err(full) = self.join(now, at, payload) {
                self.mutexes[at] = before;
                return Err(full);
            }
        } else {
            return Err(self.held());
        }
        if profile.lock_stores_value {
            self.mutexes[at].store_value(profile.value_scope, payload);
        }
        Ok(())
    }

    fn destroy(&mut self, now: DriveTime, at: usize, payload: &Record) -> Result<(), Status> {
        let mutex = &self.mutexes[at];
        let own = mutex.own(&payload.host);
        let allowed = if mutex.others(&payload.host).next().is_some() {
            // Not observed for timed-out strangers; only BREAK takes over.
            false
        } else {
            match own {
                Some(own) if own.is_held() => match self.profile.destroy_by_holder {
                    DestroyByHolder::Refused => false,
                    DestroyByHolder::WhileLive => own.is_live(now),
                    DestroyByHolder::Allowed => true,
                },
                Some(_) => true,
                None => self.profile.destroy_by_stranger,
            }
        };
        if !allowed {
            return Err(Status::Conflict);
        }
        self.mutexes.remove(at);
        Ok(())
    }

    /// Makes the payload's host the only one in the mutex.
    fn take_over(
        &mut self,
        now: DriveTime,
        at: usize,
        payload: &Record,
        value: Value,
    ) -> Result<(), Status> {
        let leaving = core::mem::take(&mut self.mutexes[at].entries);
        // The host limit applies to the state after the change. Not observed.
        if let Err(full) = self.check_room(&payload.host) {
            self.mutexes[at].entries = leaving;
            return Err(full);
        }
        self.mutexes[at].entries = vec![Entry::new(now, payload, value)];
        Ok(())
    }

    /// Makes the payload's host one more sharer. Expired sharers stay
    /// (docs/protocol.md, "The lease clock").
    fn join(&mut self, now: DriveTime, at: usize, payload: &Record) -> Result<(), Status> {
        let scope = self.profile.value_scope;
        let mutex = &mut self.mutexes[at];
        if let Some(own) = mutex.own_mut(&payload.host) {
            *own = Entry::new(now, payload, own.value);
            return Ok(());
        }
        // The mutex's own limit is checked first (docs/protocol.md, "Order of checks").
        if mutex.entries.len() >= self.profile.limits.hosts_of_mutex {
            return Err(Status::Full(Limit::HostsOfMutex));
        }
        let value = match scope {
            ValueScope::Mutex => mutex.value_for(&payload.host),
            ValueScope::Record => payload.value,
        };
        self.check_room(&payload.host)?;
        self.mutexes[at].entries.push(Entry::new(now, payload, value));
        Ok(())
    }

    /// Whether one more record of this host fits into the table.
    fn check_room(&self, host: &HostId) -> Result<(), Status> {
        let records = self.record_count();
        if records >= self.profile.limits.records {
            return Err(Status::Full(Limit::Mutexes));
        }
        // There are no more hosts than records, so the hosts are rarely counted.
        if records >= self.profile.limits.hosts {
            let entries = self.mutexes.iter().flat_map(|m| &m.entries);
            let hosts: BTreeSet<&HostId> = entries.map(|e| &e.host).collect();
            if !hosts.contains(host) && hosts.len() >= self.profile.limits.hosts {
                return Err(Status::Full(Limit::Hosts));
            }
        }
        Ok(())
    }

    fn remove_entry(&mut self, at: usize, host: &HostId) {
        let mutex = &mut self.mutexes[at];
        let value = mutex.value_for(host);
        mutex.entries.retain(|e| e.host != *host);
        if mutex.entries.is_empty() {
            let mutex = self.mutexes.remove(at);
            if self.profile.value_outlives_record {
                self.orphan_values.insert(mutex.resource, value);
            }
        }
    }

    fn held(&self) -> Status {
        match self.profile.held {
            Held::Conflict => Status::Conflict,
            Held::Busy => Status::TryAgain,
        }
    }
}
