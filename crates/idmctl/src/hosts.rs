//! `idmctl hosts`: the hosts that use a volume group.

use crate::cli::{Common, Hosts};
use crate::fleet::{ask, wall_ms};
use crate::host::Host;
use crate::meant;
use crate::output::{Progress, short, table};
use crate::status::{chosen, exit, print_json};
use crate::view::{HostView, LockView, Maker, Standing, View};
use crate::{Exit, Trouble};
use idm_protocol::ResourceId;
use lvmlockd_idm::lock::vg_of;
use serde::Serialize;
use std::collections::BTreeMap;

/// A host that uses a volume group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The volume group, or `global`.
    pub vg: String,
    /// The host.
    pub host: HostView,
    /// Whether it has the VG started.
    pub started: bool,
    /// Whether its leases run.
    pub alive: bool,
    /// The number of locks that it holds exclusively.
    pub exclusive: usize,
    /// The number of locks that it shares.
    pub shared: usize,
    /// The time since its last refresh of any of them, in ms.
    pub age_ms: i64,
}

/// Reads the drives and prints the hosts.
pub fn run(host: &mut Host, common: &Common, wanted: &Hosts) -> Result<Exit, Trouble> {
    let fleet = chosen(host, &[])?;
    let mut progress = Progress::default();
    let asked = ask(&host.topology, &fleet.drives, common.timeout, false, &mut progress);
    if let Some(lvm) = &common.ask_lvm {
        host.names.add_from_lvm(lvm, common.timeout).map_err(|why| {
            Trouble::new(why, lvm.display().to_string(), "leave --ask-lvm out and give uuids")
        })?;
    }
    let vg = wanted.vg.as_ref().map(|text| meant::vg(host, &asked, text)).transpose()?;
    let is_wanted = |id: &ResourceId| vg.is_none_or(|vg| vg_of(id) == vg);
    let view = Maker::new(host, &fleet, &asked, wall_ms()).view(is_wanted);
    let rows = rows(host, &view);
    if common.json {
        print_json(&rows)?;
    } else {
        anstream::print!("{}", text(&rows));
    }
    Ok(exit(&view))
}

/// The hosts of each volume group.
pub fn rows(host: &Host, view: &View) -> Vec<Row> {
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    for lock in &view.locks {
        let vg = lock.vg(&host.names);
        for holder in &lock.holders {
            let alive = matches!(holder.standing, Standing::Held | Standing::Unclear);
            let key = (vg.clone(), holder.host.id.clone());
            let row = rows.entry(key).or_insert_with(|| Row {
                vg: vg.clone(),
                host: holder.host.clone(),
                started: false,
                alive: false,
                exclusive: 0,
                shared: 0,
                age_ms: i64::MAX,
            });
            row.alive |= alive;
            row.age_ms = row.age_ms.min(holder.age_ms);
            match lock {
                LockView { kind: "started", .. } => row.started = true,
                _ if !alive => {}
                _ if holder.mode == "sh" => row.shared += 1,
                _ => row.exclusive += 1,
            }
        }
    }
    rows.into_values().collect()
}

/// The hosts as text.
pub fn text(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "No host holds a lock.\n".to_owned();
    }
    let row = |row: &Row| {
        vec![
            row.vg.clone(),
            row.host.shown(),
            if row.alive { "alive" } else { "timed out" }.to_owned(),
            if row.started { "yes" } else { "no" }.to_owned(),
            row.exclusive.to_string(),
            row.shared.to_string(),
            format!("{} ago", short(u64::try_from(row.age_ms).unwrap_or_default())),
            row.host.id.clone(),
        ]
    };
    let head = ["VG", "HOST", "STATE", "STARTED", "EXCLUSIVE", "SHARED", "REFRESHED", "ID"];
    table(&head, &rows.iter().map(row).collect::<Vec<_>>())
}
