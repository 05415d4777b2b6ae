//! The safety rules, each in one place.
//!
//! The violation of a rule in this file lets two hosts hold a lock, or makes a stale value look
//! current. With the cargo feature `broken-rules` a test can switch a single rule off, to prove
//! that the simulator notices.

/// A safety rule that a test build can break.
#[cfg(feature = "broken-rules")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BrokenRule {
    /// Half of the drives are enough to acquire.
    AcquireQuorum,
    /// One drive is enough to keep a lock.
    KeepQuorum,
    /// A lease begins with its reply.
    LeaseFromReply,
    /// Holders that count other drives are ignored once there is a majority.
    Fingerprint,
    /// A drive that reported a conflict counts as silent if it does not answer later.
    ConflictStands,
    /// The VG's other drives are not read.
    ConfirmByReading,
    /// A lock whose votes have moved need not be on the drives that the VG has now.
    SeenByVg,
    /// Records of holders are broken although some of the holders are alive.
    BreakOnlyTimedOut,
    /// A drive is used again at once after an UNLOCK or DESTROY whose fate is unknown.
    ReleaseOrder,
    /// A drive counts as exclusive although an older demotion may still reach it.
    DemoteOrder,
    /// Drives that lost the lock are taken again after the lease has expired.
    RetakeOnlyWhileSafe,
    /// A lock is adopted with a keep quorum, although another host may have as many.
    AdoptQuorum,
    /// An adoption also takes a drive that has no record of this host.
    AdoptOnlyOwn,
    /// A value is believed although fewer than a majority of the drives have one.
    ValueQuorum,
    /// A value is believed although the last holder was broken.
    ValueAfterBreak,
    /// A value is believed although others share the lock.
    ValueBesideSharers,
}

/// The rules as this build applies them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rules {
    #[cfg(feature = "broken-rules")]
    pub(crate) broken: Option<BrokenRule>,
}

/// `true` where a test build has switched the rule off.
macro_rules! broken {
    ($rules:expr, $rule:ident) => {{
        #[cfg(feature = "broken-rules")]
        let broken = $rules.broken == Some($crate::rules::BrokenRule::$rule);
        #[cfg(not(feature = "broken-rules"))]
        let broken = {
            let _ = &$rules;
            false
        };
        broken
    }};
}
pub(crate) use broken;

impl Rules {
    /// The number of drives, of `n`, that must grant a lock: any two such sets share a drive.
    pub(crate) fn acquire_quorum(self, n: usize) -> usize {
        if broken!(self, AcquireQuorum) { n.div_ceil(2) } else { n / 2 + 1 }
    }

    /// The number of drives, of `n`, that must still hold a lock: the others are too few to acquire
    /// it.
    pub(crate) fn keep_quorum(self, n: usize) -> usize {
        if broken!(self, KeepQuorum) { 1 } else { n - n / 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::Rules;

    #[test]
    fn quorums_intersect() {
        let rules = Rules::default();
        for n in 1..=512 {
            let (acquire, keep) = (rules.acquire_quorum(n), rules.keep_quorum(n));
            assert!(2 * acquire > n, "two acquire quorums of {n} share a drive");
            assert!(acquire + keep > n, "an acquire and a keep quorum of {n} share a drive");
            assert!(acquire <= n && keep <= acquire);
        }
    }
}
