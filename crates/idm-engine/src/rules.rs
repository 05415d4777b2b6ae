//! The safety rules, each in one place.
//!
//! Every rule here is one whose violation lets two hosts hold a lock, or makes a stale value look
//! current. With the cargo feature `broken-rules` a test can switch a single one off, to see that
//! the simulator notices.

/// A safety rule that a test build can break.
#[cfg(feature = "broken-rules")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BrokenRule {
    /// Half of the drives are enough to acquire.
    AcquireQuorum,
    /// One drive is enough to keep.
    KeepQuorum,
    /// A lease is dated from its reply.
    LeaseFromReply,
    /// Holders that count other drives are ignored once there is a majority.
    Fingerprint,
    /// A drive that told of a conflict counts as silent once it does not answer.
    ConflictStands,
    /// The VG's other drives are not read.
    ConfirmByReading,
    /// Holders are broken although some of them are alive.
    BreakOnlyTimedOut,
    /// A drive is used again at once after an UNLOCK or DESTROY whose fate is unknown.
    ReleaseOrder,
    /// A drive counts as exclusive although an older demotion may still reach it.
    DemoteOrder,
    /// Drives that lost the lock are taken again after the lease has run out.
    RetakeOnlyWhileSafe,
    /// A lock is adopted with a keep-quorum, although another host may have as many.
    AdoptQuorum,
    /// A drive that has no record of this host is taken, too, when a lock is adopted.
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
    /// Drives that must grant a lock, of `n`: any two such sets share a drive.
    pub(crate) fn acquire_quorum(self, n: usize) -> usize {
        if broken!(self, AcquireQuorum) { n.div_ceil(2) } else { n / 2 + 1 }
    }

    /// Drives that must still hold a lock, of `n`: so many that the others are no acquire quorum.
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
