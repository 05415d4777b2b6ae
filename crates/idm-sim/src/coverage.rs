//! Counts of events, which reveal a simulator that no longer does anything.

use core::fmt;

macro_rules! counted {
    ($($name:ident => $text:literal,)*) => {
        /// An event that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Count {
            $(#[doc = $text] $name,)*
        }

        impl Count {
            /// All events.
            pub const ALL: &'static [Count] = &[$(Count::$name,)*];

            /// The description of the event.
            pub const fn text(self) -> &'static str {
                match self { $(Count::$name => $text,)* }
            }
        }
    };
}

counted! {
    Seeds => "seeds",
    Commands => "commands sent",
    Requests => "requests",
    Contended => "seeds in which two hosts wanted the same lock at once",
    GrantedEx => "acquire granted, exclusive",
    GrantedSh => "acquire granted, shared",
    GrantedKnown => "granted with a known value",
    GrantedKnownLater => "granted with a known value that another host published",
    GrantedUnknown => "granted with an unknown value",
    GrantedFew => "granted by fewer than all drives",
    Adopted => "adopted what an earlier life held",
    AdoptedFew => "adopted on half of the drives",
    AdoptNothing => "adopt: nothing there",
    AdoptOtherMode => "adopt: held in the other mode",
    AdoptLeft => "adopt: left for another try",
    Converted => "converted",
    ConvertedLater => "converted, to be completed in the background",
    ConvertRefused => "convert refused",
    Released => "released",
    ReadKnown => "read without the lock: known",
    ReadUnknown => "read without the lock: unknown",
    Published => "released or converted with a new value",
    RefusedHeld => "refused: held",
    RefusedOtherSet => "refused: held by a host with another set of drives",
    RefusedNoQuorum => "refused: no quorum",
    RefusedFull => "refused: tables full",
    RefusedUnconfirmed => "refused: not confirmed",
    RefusalChecked => "refused by steady holders in a healthy cluster: commands counted",
    Lapsed => "lapsed",
    Regained => "regained",
    LostTaken => "lost: taken over",
    LostOtherSet => "lost: holder with another set",
    Broke => "lock of a timed-out host taken over on a drive",
    TookOverOwn => "own stale record taken over",
    DriveLost => "drive lost our lock",
    DriveGained => "drive gained after the grant",
    SplitVote => "split vote",
    Collected => "unused mutex collected",
    NotIdm => "drive taken for one without IDM",
    Unreachable => "command: unreachable",
    Lost => "command: lost",
    ReplyLost => "command: executed, reply lost",
    Ghost => "command: executed after it was given up",
    GhostHit => "command: executed after it was given up, with effect",
    Twice => "command: executed twice",
    TryAgain => "command: try again",
    Failed => "command: failed",
    Slow => "command: slow",
    TimedOut => "command: timed out",
    HeldBack => "command: held back by a frozen host",
    DriveDown => "drive gone or dead",
    DriveSlow => "drive slow or busy",
    DriveFull => "drive full",
    ResetInBudget => "drive reset, within the budget",
    ResetHeld => "drive reset under a holder, within the budget",
    ResetPutOff => "drive reset not done: beyond the budget",
    ResetBeyond => "drive reset beyond the budget",
    LossBeyond => "keep-quorum lost in resets beyond the budget",
    Noticed => "keep-quorum lost in resets beyond the budget, and noticed in time",
    Healed => "keep-quorum lost in resets beyond the budget, and got back in time",
    PathFlaps => "path flaps",
    PathDown => "path fails",
    Cut => "host cut off from all drives",
    Frozen => "host frozen",
    FrozenHolding => "host frozen while it held a lock, longer than its lease",
    Crashed => "host crashed",
    CrashedHolding => "host crashed while it held a lock",
    CrashedAsking => "host crashed while it asked for a lock and had got some drives",
    Restarted => "host restarted under its old name",
    Rebooted => "host rebooted",
    Dropped => "idle lock dropped and made anew",
    Spread => "lock spread to new drives",
    Moved => "layout changed while held",
    VotesMoved => "other drives vote for a held lock",
    VgChanged => "drives left the VG or were added to it",
    EarlierHit => "command of a host's earlier life executed, with effect",
    ListsDiffer => "seeds in which hosts know different drives",
    OldGranted => "older stack: granted",
    OldRefused => "older stack: refused",
    OldLost => "older stack: lost",
    WaivedReset => "two holders, excused: votes lost in resets and a freeze or a dead path",
    WaivedLists => "two holders, excused: lists whose difference could not be seen yet",
    Repaired => "lock taken to be given back, by an administrator",
    LoneAcquire => "lone acquire in a healthy cluster",
    Nonsense => "nonsense answered",
}

/// The number of times that each event happened.
#[derive(Clone, Debug)]
pub struct Coverage {
    counts: Vec<u64>,
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage { counts: vec![0; Count::ALL.len()] }
    }
}

impl Coverage {
    /// Counts one event.
    pub fn add(&mut self, what: Count) {
        self.counts[what as usize] += 1;
    }

    /// The number of times that an event happened.
    pub fn get(&self, what: Count) -> u64 {
        self.counts[what as usize]
    }

    /// Adds the counts of another coverage.
    pub fn merge(&mut self, other: &Coverage) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &what in Count::ALL {
            writeln!(f, "{:>12}  {}", self.get(what), what.text())?;
        }
        Ok(())
    }
}
