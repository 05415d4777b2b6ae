//! The behaviour of a drive where generations of firmware differ, or where none was observed
//! (docs/protocol.md, "Generations of firmware").

/// One behaviour. `Profile` values come from [`Profile::r00d`], [`Profile::rev2313`] and
/// [`Profile::current`]; the fields are open so that a simulation can vary them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Profile {
    /// Major IDM version in the version page.
    pub version: u8,
    /// Room in the table.
    pub limits: Limits,
    /// The sense data for a full table, and for an undefined mutex operation.
    pub limit_sense: LimitSense,
    /// Whether sense data has the fixed (70h) instead of the descriptor (72h) form. No trace has
    /// the fixed form, but a host must understand both.
    pub fixed_sense: bool,
    /// The most blocks that one read returns; the drive does not fill the others.
    pub blocks_per_read: u32,
    /// The answer to an acquire by a host that holds the mutex.
    pub duplicate: Duplicate,
    /// Whether an acquire by a holder whose lease has expired is granted, instead of answered as
    /// `duplicate`. Not observed either way.
    pub expired_holder_may_relock: bool,
    /// The answer to an acquire or break of a mutex that another host holds.
    pub held: Held,
    /// Whether further hosts can acquire a shared mutex.
    pub sharers_admitted: bool,
    /// The state that a read shows for live sharers.
    pub sharer_state: SharerState,
    /// The remains of a shared record after an unlock.
    pub shared_unlock: SharedUnlock,
    /// Whether the value of a mutex comes back with the next acquire after an unlock removed the
    /// mutex's last record. Not observed either way.
    pub value_outlives_record: bool,
    /// The owner of a value: the mutex or the record.
    pub value_scope: ValueScope,
    /// Whether acquire and break of an existing mutex store the payload's value on request.
    pub lock_stores_value: bool,
    /// Whether refresh stores the payload's value on request. Not observed either way.
    pub refresh_stores_value: bool,
    /// Whether unlock of a shared record stores the payload's value on request. Not observed either
    /// way.
    pub shared_unlock_stores_value: bool,
    /// Whether refresh stores the payload's metadata. Not observed either way.
    pub refresh_stores_metadata: bool,
    /// Whether the value survives a break. Not observed either way.
    pub break_keeps_value: bool,
    /// Whether unlock of an unlocked mutex is GOOD, for every host, instead of RESERVATION
    /// CONFLICT.
    pub repeated_unlock_good: bool,
    /// The answer to an unlock whose class is not that of the sender's record.
    pub unlock_of_other_class: OtherClass,
    /// Whether a holder may destroy without an unlock.
    pub destroy_by_holder: DestroyByHolder,
    /// Whether any host may destroy an unlocked mutex, instead of its last owner only. Not observed
    /// either way.
    pub destroy_by_stranger: bool,
    /// Whether a sharer may become exclusive when all others have timed out; it thereby removes
    /// them. Not observed either way.
    pub promotion_removes_expired: bool,
    /// Whether a shared break takes the places of timed-out sharers although others are live,
    /// instead of being refused. Not observed either way.
    pub break_beside_live_sharers: bool,
    /// Whether mutex commands conflict with a reservation of the drive's data, reads of the table
    /// like reads and all others like writes. Not observed either way.
    pub idm_commands_respect_reservations: bool,
}

/// Room in a drive's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Mutexes.
    pub mutexes: usize,
    /// Distinct hosts in the whole table.
    pub hosts: usize,
    /// Hosts of one mutex.
    pub hosts_of_mutex: usize,
    /// Records, that is (mutex, host) pairs; too many are reported like too many mutexes.
    pub records: usize,
}

/// The sense data of a full table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitSense {
    /// 07/40, 07/41, 07/42 (rev 2313).
    DataProtect,
    /// 0B/55/03 with FRU 0, 1, 2 (documented for newer firmware).
    AbortedCommand,
}

/// The answer to an acquire by a host that holds the mutex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Duplicate {
    /// RESERVATION CONFLICT (r00d).
    Conflict,
    /// COMMAND TERMINATED (since June 2020).
    Terminated,
}

/// The answer to an acquire or break of a mutex that another host holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    /// RESERVATION CONFLICT.
    Conflict,
    /// BUSY. Documented, in no trace.
    Busy,
}

/// The state that a read shows for live sharers if there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SharerState {
    /// 0x101, like a single holder.
    Locked,
    /// 0x103. Defined by the protocol, in no trace.
    MultipleLocked,
}

/// The remains of a shared record after an unlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SharedUnlock {
    /// Nothing (2022 and later).
    RecordGone,
    /// The last sharer's record stays, unlocked; the others go.
    LastStays,
    /// Every record stays, unlocked.
    EachStays,
}

/// The owner of a value. Not observed: no trace has two sharers with different values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueScope {
    /// The mutex: all its records show the same value.
    Mutex,
    /// The record: a new sharer's record shows the value of its payload, and a stored value changes
    /// the sender's record only.
    Record,
}

/// The answer to an unlock whose class is not that of the sender's record. Not observed; the first
/// host implementation handles COMMAND TERMINATED, and newer firmware has a code for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OtherClass {
    /// It unlocks.
    Accepted,
    /// COMMAND TERMINATED.
    Terminated,
    /// CHECK CONDITION 04/04/22 FRU 3.
    CheckCondition,
}

/// Whether a holder may destroy without an unlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DestroyByHolder {
    /// Never.
    Refused,
    /// While its lease runs. This is the only rule that fits every observed step of r00d
    /// (docs/protocol.md, "Removing and clearing").
    WhileLive,
    /// Always.
    Allowed,
}

impl Profile {
    /// Firmware r00d of May 2020. Its traces mostly show exclusive use; its limits are unknown.
    pub const fn r00d() -> Profile {
        Profile {
            version: 1,
            duplicate: Duplicate::Conflict,
            sharers_admitted: false,
            repeated_unlock_good: false,
            ..Profile::rev2313()
        }
    }

    /// Firmware revision 2313 of June 2020. For a point that its traces do not show,
    /// [`Profile::r00d`] counts if its traces show it, otherwise [`Profile::current`]. The runs on
    /// real drives three weeks later show that the last sharer's record and value stayed
    /// (docs/protocol.md, "Shared mutexes").
    pub const fn rev2313() -> Profile {
        Profile {
            version: 1,
            limits: Limits { mutexes: 128, hosts: 32, hosts_of_mutex: 32, records: 128 * 32 },
            limit_sense: LimitSense::DataProtect,
            blocks_per_read: 128,
            shared_unlock: SharedUnlock::LastStays,
            ..Profile::current()
        }
    }

    /// Firmware of 2022 and later, according to hardware tests. About 4000 records are documented,
    /// and no other limit. A point without observation follows the apparent intention: a refused
    /// command changes nothing, only BREAK takes over, a value belongs to the mutex.
    pub const fn current() -> Profile {
        Profile {
            version: 8,
            limits: Limits { mutexes: 4000, hosts: 4000, hosts_of_mutex: 4000, records: 4000 },
            limit_sense: LimitSense::AbortedCommand,
            fixed_sense: false,
            blocks_per_read: 8192,
            duplicate: Duplicate::Terminated,
            expired_holder_may_relock: false,
            held: Held::Conflict,
            sharers_admitted: true,
            sharer_state: SharerState::Locked,
            shared_unlock: SharedUnlock::RecordGone,
            value_outlives_record: false,
            value_scope: ValueScope::Mutex,
            lock_stores_value: true,
            refresh_stores_value: true,
            shared_unlock_stores_value: true,
            refresh_stores_metadata: true,
            break_keeps_value: true,
            repeated_unlock_good: true,
            unlock_of_other_class: OtherClass::Accepted,
            destroy_by_holder: DestroyByHolder::WhileLive,
            destroy_by_stranger: true,
            promotion_removes_expired: false,
            break_beside_live_sharers: false,
            idm_commands_respect_reservations: false,
        }
    }

    /// All profiles with a name: the generations, and [`Profile::current`] with one uncertain point
    /// changed. A host must be safe with each of them, and with mixtures of them.
    pub fn named() -> Vec<(&'static str, Profile)> {
        let mut profiles = vec![
            ("current", Profile::current()),
            ("rev2313", Profile::rev2313()),
            ("r00d", Profile::r00d()),
        ];
        let mut variant = |name, change: fn(&mut Profile)| {
            let mut profile = Profile::current();
            change(&mut profile);
            profiles.push((name, profile));
        };
        variant("current+small", |p| p.limits = Profile::rev2313().limits);
        variant("current+fixed-sense", |p| p.fixed_sense = true);
        variant("current+relock", |p| p.expired_holder_may_relock = true);
        variant("current+busy", |p| p.held = Held::Busy);
        variant("current+multiple-locked", |p| {
            p.sharer_state = SharerState::MultipleLocked;
        });
        variant("current+last-stays", |p| {
            p.shared_unlock = SharedUnlock::LastStays;
        });
        variant("current+each-stays", |p| {
            p.shared_unlock = SharedUnlock::EachStays;
        });
        variant("current+value-outlives", |p| p.value_outlives_record = true);
        variant("current+value-per-record", |p| {
            p.value_scope = ValueScope::Record;
        });
        variant("current+value-on-unlock-only", |p| {
            p.lock_stores_value = false;
            p.refresh_stores_value = false;
        });
        variant("current+metadata-on-lock-only", |p| {
            p.refresh_stores_metadata = false;
        });
        variant("current+break-drops-value", |p| p.break_keeps_value = false);
        variant("current+repeated-unlock-conflict", |p| {
            p.repeated_unlock_good = false;
        });
        variant("current+class-terminated", |p| {
            p.unlock_of_other_class = OtherClass::Terminated;
        });
        variant("current+class-checked", |p| {
            p.unlock_of_other_class = OtherClass::CheckCondition;
        });
        variant("current+destroy-refused", |p| {
            p.destroy_by_holder = DestroyByHolder::Refused;
            p.destroy_by_stranger = false;
        });
        variant("current+destroy-allowed", |p| {
            p.destroy_by_holder = DestroyByHolder::Allowed;
        });
        variant("current+promotion-removes-expired", |p| {
            p.promotion_removes_expired = true;
        });
        variant("current+break-beside-live", |p| {
            p.break_beside_live_sharers = true;
        });
        variant("current+respects-reservations", |p| {
            p.idm_commands_respect_reservations = true;
        });
        profiles
    }

    /// The profile with this name; see [`Profile::named`].
    pub fn by_name(name: &str) -> Option<Profile> {
        Profile::named().into_iter().find_map(|(known, profile)| (known == name).then_some(profile))
    }
}
