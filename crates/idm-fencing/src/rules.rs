//! The safety rules, each in one place.

/// A safety rule that a build for tests can switch off.
#[cfg(feature = "broken-rules")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BrokenRule {
    /// A host is removed from the drives before its locks are taken: here, never.
    GrantBeforePreempt,
    /// A host is removed from every drive: here, from the first one only.
    PreemptOneDrive,
    /// A host is registered before it counts: here, a host that sees a drive again registers there,
    /// although it may have been removed meanwhile.
    RegisterAfterCounting,
    /// The keys that are removed are those of hosts that do not live: here, those of the others.
    KeyOfWrongHost,
    /// Removal is confirmed by a look: here, an answer to the order is enough.
    NoConfirmation,
    /// The result of a look is old after a lease: here, it never is.
    OldVerdict,
    /// The last host leaves its registration, and the reservation with it: here, it does not.
    LastOneLeaves,
    /// A host whose lease runs anywhere is not removed: here, it is.
    RemoveTheLiving,
    /// Nothing is taken beside a holder whose lease runs, because it may end before the command
    /// arrives: here, it is left to the drive to refuse.
    TakeBesideTheLiving,
    /// Most of the group's drives are read: here, most of those with a registration of this host.
    CountRegistered,
}

/// The rules that are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    /// The one that is not.
    #[cfg(feature = "broken-rules")]
    pub broken: Option<BrokenRule>,
}

/// Whether a rule is broken; never in a product.
macro_rules! broken {
    ($rules:expr, $rule:ident) => {{
        #[cfg(feature = "broken-rules")]
        let broken = $rules.broken == Some($crate::rules::BrokenRule::$rule);
        #[cfg(not(feature = "broken-rules"))]
        let broken = {
            let _ = $rules;
            false
        };
        broken
    }};
}
pub(crate) use broken;
