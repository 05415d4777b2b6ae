//! The availability of IDM on this host, which core asks for before it has a lockspace.

use super::Manager;
use super::running::Running;
use crate::config::Config;
use crate::lockspace::Lockspace;
use crate::topology::Topology;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

/// Wait of [`Manager::is_running`] for drives that it asks, and the pause before it asks again: it
/// is called under a mutex of core, also on hosts with other lock managers.
const ASK_BOUND: Duration = Duration::from_millis(250);
const ASK_AGAIN: Duration = Duration::from_secs(10);

impl Manager {
    /// Whether IDM can be used on this host: it is configured, a VG is started, or a drive with a
    /// partition for the global lock has shown that it has IDM. A forgotten partition alone is not
    /// enough, because core uses no lock manager at all where two of them are available.
    ///
    /// The check is quick: without such a partition no thread is started, and drives that have not
    /// answered yet are asked from time to time, for [`ASK_BOUND`] at most.
    pub fn is_running(&self) -> bool {
        let Ok(config) = &self.config else {
            return false;
        };
        let started = |lockspace: &Arc<Lockspace>| !lockspace.is_global && lockspace.is_started();
        if !config.global_drives.is_empty() || self.state().lockspaces.values().any(started) {
            return true;
        }
        self.sees_global_partitions(config)
            && self.running().is_ok_and(|running| self.global_drives_have_idm(running))
    }

    /// Whether there are partitions for the global lock. Disks are listed again only after a kernel
    /// event.
    fn sees_global_partitions(&self, config: &Config) -> bool {
        if let Some(running) = self.running.get() {
            return !running.runtime.drives().inventory().global().is_empty();
        }
        let topology = Topology::new(config.emulated.clone());
        let events = topology.event_count();
        let mut partitions = self.global_drives.partitions.lock();
        match *partitions {
            Some((before, found)) if events.is_some() && before == events => found,
            _ => {
                let found = topology.inventory().is_ok_and(|disks| !disks.global().is_empty());
                *partitions = Some((events, found));
                found
            }
        }
    }

    fn global_drives_have_idm(&self, running: &Running) -> bool {
        let drives = running.runtime.drives();
        let members = drives.add_global(&mut Vec::new()).members;
        let known = || members.iter().any(|member| drives.has_idm(member.drive));
        // Other callers wait meanwhile for the same answers.
        let mut asked = self.global_drives.asked.lock();
        if known() {
            return true;
        }
        if asked.is_none_or(|at| at.elapsed() > ASK_AGAIN) {
            *asked = Some(Instant::now());
            running.runtime.read_tables(&members, 1, ASK_BOUND);
        }
        known()
    }
}
