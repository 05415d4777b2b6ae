//! Causes that are other hosts.

use super::{Case, Cause};
use crate::output::short;
use crate::view::{Holder, LockView, Set, Standing};
use idm_engine::acquire_quorum;
use lvmlockd_idm::lock::{Role, role_of};
use std::time::Duration;

impl Case<'_> {
    pub(super) fn holder_causes(&self) -> Vec<Cause> {
        let Some(lock) = &self.lock else { return Vec::new() };
        let mut causes = Vec::new();
        causes.extend(self.two_holders(lock));
        for holder in &lock.holders {
            causes.extend(self.of_holder(holder));
            causes.extend(clock(holder));
        }
        causes.extend(self.split(lock));
        causes
    }

    fn of_holder(&self, holder: &Holder) -> Option<Cause> {
        let who = holder.host.shown();
        match holder.standing {
            Standing::Held if holder.host.this_host => self.of_this_host(holder),
            Standing::Held => Some(self.held(holder)),
            Standing::Unclear if !holder.host.this_host => Some(Cause::refused(
                "unclear",
                format!(
                    "{who} has it on {} of the drives that answer, and those that do not answer \
                     decide whether it is enough. {}",
                    holder.live(),
                    until(holder)
                ),
            )),
            Standing::TimedOut if !holder.host.this_host => Some(Cause::slow(
                "timed-out",
                format!(
                    "{who} had it and has not refreshed it for {}, so it has died or reaches no \
                     drive. The next request takes the lock over; what is cached under it is read \
                     anew",
                    age(holder)
                ),
            )),
            Standing::Clearing => Some(Cause::slow(
                "clearing",
                format!("{who} has it for a moment, to remove it from a full table"),
            )),
            _ => None,
        }
    }

    fn of_this_host(&self, holder: &Holder) -> Option<Cause> {
        if !self.host.lvmlockd {
            return Some(Cause::refused(
                "orphaned",
                format!(
                    "this host holds it, and nobody refreshes it. {}. Start lvmlockd before that, \
                     and nothing is lost",
                    until(holder)
                ),
            ));
        }
        if self.host.saved.locks.iter().all(|(noted, _)| *noted != self.id) {
            return Some(Cause::slow(
                "not-noted",
                format!(
                    "this host has a record of it and no note, so it is being given up, or the \
                     notes were lost. {}",
                    until(holder)
                ),
            ));
        }
        if holder.is_silent() {
            return Some(Cause::slow(
                "not-refreshed",
                format!(
                    "this host holds it and has not refreshed it for {}: lvmlockd hangs, or its \
                     drives do not answer. {}",
                    age(holder),
                    until(holder)
                ),
            ));
        }
        let why = match role_of(&self.id) {
            Role::Lv => "the LV is active here",
            _ => "a command here uses it, and others wait; `lvmlockctl --info` shows which",
        };
        Some(Cause::slow(
            "held-here",
            format!("this host holds it itself ({}): {why}", mode(holder)),
        ))
    }

    fn held(&self, holder: &Holder) -> Cause {
        let who = holder.host.shown();
        let (mode, until) = (mode(holder), until(holder));
        match holder.set {
            Set::Foreign => {
                return Cause::refused(
                    "held-other-set",
                    format!(
                        "{who} holds it ({mode}), and counts drives for it that this host does not \
                         know. {until}. Make both hosts see the same drives, then repeat vgchange \
                         --lockstart on each (docs/locking.md, \"Hosts that count different \
                         drives\")"
                    ),
                );
            }
            Set::OlderStack => {
                return Cause::refused(
                    "held-older-stack",
                    format!(
                        "{who} holds it ({mode}) with another program than this library. {until}. \
                         Use one lock manager on all hosts"
                    ),
                );
            }
            Set::Moving | Set::Known => {}
        }
        if holder.host.earlier_life {
            return Cause::refused(
                "earlier-life",
                format!(
                    "this host held it ({mode}) before it was booted, and drives cannot know that \
                     this has ended. {until}; then the next request takes it over"
                ),
            );
        }
        if self.counts_others(holder) {
            return Cause::refused(
                "held-other-drives",
                format!(
                    "{who} holds it ({mode}) and counts the drives {} for it, where this host \
                     counts {}. {until}. Repeat vgchange --lockstart on both hosts, so that they \
                     count the same",
                    holder.counts.as_deref().unwrap_or_default().join(", "),
                    self.names(&self.members).join(", ")
                ),
            );
        }
        if holder.is_silent() {
            return Cause::refused(
                "held-dying",
                format!(
                    "{who} holds it ({mode}) and has not refreshed it for {}, so it has died or \
                     reaches no drive. {until}; then the next request takes it over",
                    age(holder)
                ),
            );
        }
        self.held_by_a_living_host(holder)
    }

    fn held_by_a_living_host(&self, holder: &Holder) -> Cause {
        let who = holder.host.shown();
        let (mode, left) = (mode(holder), holder.left());
        let shared = if holder.mode == "sh" {
            " A request to share it is granted, one to have it alone is not."
        } else {
            ""
        };
        let lease = if self.differs_in_lease(holder) {
            format!(
                " Its lease of {} is not this host's; lease_ms should be the same on all.",
                short(holder.lease_ms)
            )
        } else {
            String::new()
        };
        let code = if holder.mode == "sh" { "held-shared" } else { "held" };
        Cause::refused(
            code,
            format!(
                "{who} holds it ({mode}) and {}.{shared}{lease} It must be given up there: \
                 deactivate the LV, or wait for the command that uses it. If {who} dies, others \
                 can take it in {left}",
                if holder.clocks_differ() {
                    "its lease runs".to_owned()
                } else {
                    format!("refreshed it {} ago", age(holder))
                }
            ),
        )
    }

    fn differs_in_lease(&self, holder: &Holder) -> bool {
        Duration::from_millis(holder.lease_ms) != self.host.settings().lease
    }

    /// Whether a holder counts other drives than this host. An LV's lock is on the LV's drives,
    /// which are not known here.
    fn counts_others(&self, holder: &Holder) -> bool {
        let Some(counts) = &holder.counts else { return false };
        let ours = self.names(&self.members);
        let known = !self.members.is_empty() && self.missing.is_empty();
        match role_of(&self.id) {
            Role::Lv => known && counts.iter().any(|drive| !ours.contains(drive)),
            _ => known && (counts.len() != ours.len() || counts.iter().any(|d| !ours.contains(d))),
        }
    }

    pub(super) fn names(&self, at: &[usize]) -> Vec<String> {
        at.iter().map(|&at| self.fleet.drives[at].name.clone()).collect()
    }

    fn two_holders(&self, lock: &LockView) -> Option<Cause> {
        let held: Vec<&Holder> =
            lock.holders.iter().filter(|it| it.standing == Standing::Held).collect();
        let alone = held.iter().any(|it| it.mode != "sh");
        (held.len() > 1 && alone).then(|| {
            let hosts: Vec<String> = held.iter().map(|it| it.host.shown()).collect();
            Cause::refused(
                "two-holders",
                format!(
                    "{} have it at once, and not shared. Stop using it on all hosts but one, and \
                     look at their logs",
                    hosts.join(" and ")
                ),
            )
        })
    }

    /// Hosts that have some drives each, none of which has enough.
    fn split(&self, lock: &LockView) -> Option<Cause> {
        let few = lock.holders.iter().filter(|it| {
            it.standing == Standing::TooFewDrives && it.live() > 0 && !it.host.this_host
        });
        let few: Vec<&Holder> = few.collect();
        let taken: usize = few.iter().map(|it| it.live()).sum();
        let count = self.members.len() + self.missing.len();
        let left = self.usable().len().saturating_sub(taken);
        if few.is_empty() || count == 0 || left >= acquire_quorum(count) {
            return None;
        }
        let hosts: Vec<String> = few.iter().map(|it| it.host.shown()).collect();
        let ends = few.iter().filter_map(|it| it.on.iter().filter_map(|on| on.left_ms).max());
        let ends = ends.max().map_or_else(String::new, |ms| {
            format!(" Its records stand in the way for {} more, if it has died.", short(ms))
        });
        Some(Cause::refused(
            "split",
            format!(
                "{} have some of its drives each, and none has enough to hold it: requests at the \
                 same time, or what is left of one that failed. Repeat the request.{ends}",
                hosts.join(" and ")
            ),
        ))
    }
}

/// A clock that is so wrong that leases cannot be computed.
fn clock(holder: &Holder) -> Option<Cause> {
    let who = holder.host.shown();
    holder.clocks_differ().then(|| {
        Cause::slow(
            "clock",
            format!(
                "by the time in the record of {who} its lease is over or has not begun, and it \
                 runs: the clocks of {who} and this host differ (run NTP on both), or the drives \
                 do not store the time of a refresh"
            ),
        )
    })
}

fn mode(holder: &Holder) -> &'static str {
    match holder.mode {
        "sh" => "shared",
        "ex" => "exclusive",
        _ => "its mode is changing",
    }
}

fn age(holder: &Holder) -> String {
    short(u64::try_from(holder.age_ms).unwrap_or_default())
}

fn until(holder: &Holder) -> String {
    format!("Its lease ends in {}", holder.left())
}
