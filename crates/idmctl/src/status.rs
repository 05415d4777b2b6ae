//! `idmctl status`.

use crate::cli::{Common, SortKey, Status};
use crate::fleet::{Fleet, ask, wall_ms};
use crate::host::Host;
use crate::live::{self, Live};
use crate::meant;
use crate::output::{ALARM, GOOD, Progress, WARNING, short, styled, table};
use crate::view::{
    FOREIGN_SET, Holder, LockView, Maker, OnDrive, Remark, Standing, ValueView, View,
};
use crate::{Exit, Trouble};
use idm_protocol::ResourceId;
use lvmlockd_idm::lock::vg_of;
use std::thread;

/// Reads the drives and prints the holders of all locks.
pub fn run(host: &mut Host, common: &Common, wanted: &Status) -> Result<Exit, Trouble> {
    // lvm may know what files do not.
    let lvm_says = common.ask_lvm.as_ref().and_then(|lvm| {
        let said = host.names.add_from_lvm(lvm, common.timeout);
        said.err().map(|why| format!("lvm does not name VGs and LVs: {why}"))
    });
    let Some(pause) = wanted.watch else {
        let (mut view, now_ms) = look(host, common, wanted, lvm_says.as_deref())?;
        show(&mut view, common, wanted.sort, now_ms)?;
        return Ok(exit(&view));
    };
    let live = (live::is_possible() && !common.json).then(|| Live::begin(wanted.sort));
    let live = live.transpose()?;
    loop {
        let (mut view, now_ms) = look(host, common, wanted, lvm_says.as_deref())?;
        match &live {
            Some(live) => live.show(view, now_ms),
            None => {
                show(&mut view, common, wanted.sort, now_ms)?;
                anstream::println!();
            }
        }
        thread::sleep(pause);
        host.look_again();
    }
}

fn show(
    view: &mut View,
    common: &Common,
    key: Option<SortKey>,
    now_ms: u64,
) -> Result<(), Trouble> {
    if let Some(key) = key {
        sort(view, key);
    }
    if common.json {
        return print_json(view);
    }
    anstream::print!("{}", text(view, now_ms));
    Ok(())
}

/// Reads the drives once. Returns the view and its time, in ms since 1970.
fn look(
    host: &Host,
    common: &Common,
    wanted: &Status,
    lvm_says: Option<&str>,
) -> Result<(View, u64), Trouble> {
    let fleet = chosen(host, &wanted.drives)?;
    let mut progress = Progress::default();
    let asked = ask(&host.topology, &fleet.drives, common.timeout, false, &mut progress);
    let now_ms = wall_ms();
    let vg = wanted.vg.as_ref().map(|text| meant::vg(host, &asked, text)).transpose()?;
    let is_wanted = |id: &ResourceId| vg.is_none_or(|vg| vg_of(id) == vg);
    let mut view = Maker::new(host, &fleet, &asked, now_ms).view(is_wanted);
    if !wanted.drives.is_empty() {
        // Holders count drives that were not selected.
        view.remarks.retain(|remark| remark.code != FOREIGN_SET);
    }
    view.remarks.extend(lvm_says.map(|why| Remark::new("lvm", why.to_owned())));
    Ok((view, now_ms))
}

/// Sorts the holders of each lock, and the locks by their first holders.
pub fn sort(view: &mut View, key: SortKey) {
    let of = |holder: &Holder| match key {
        SortKey::Host => (holder.host.name.clone(), 0),
        SortKey::Age => (String::new(), -i128::from(holder.age_ms)),
        SortKey::Left => (String::new(), holder.left_ms.unwrap_or(holder.lease_ms).into()),
    };
    for lock in &mut view.locks {
        lock.holders.sort_by_cached_key(of);
    }
    view.locks.sort_by_cached_key(|lock| {
        let first = lock.holders.first();
        (first.is_none(), first.map(of))
    });
}

/// The drives that are meant.
pub fn chosen(host: &Host, named: &[String]) -> Result<Fleet, Trouble> {
    let all = Fleet::of(host);
    if named.is_empty() && all.drives.is_empty() {
        return Err(Trouble::new(
            "no SCSI or NVMe drive is here",
            host.name.clone(),
            "see docs/drives.md for what can be a drive",
        ));
    }
    if named.is_empty() {
        return Ok(all);
    }
    let mut fleet = Fleet { drives: Vec::new(), missing: all.missing.clone() };
    for text in named {
        let drive = all.find(host, text).ok_or_else(|| {
            Trouble::new("this is no drive of this host", text, "see `idmctl drives`")
        })?;
        fleet.drives.push(drive.clone());
    }
    Ok(fleet)
}

/// Prints the output for programs.
pub fn print_json(what: &impl serde::Serialize) -> Result<(), Trouble> {
    let text = serde_json::to_string_pretty(what)
        .map_err(|error| Trouble::new(error.to_string(), "JSON", "report this"))?;
    anstream::println!("{text}");
    Ok(())
}

/// The exit status for a view.
pub fn exit(view: &View) -> Exit {
    if view.remarks.iter().any(|remark| remark.alarm) {
        Exit::Wrong
    } else if view.drives.iter().any(|drive| drive.state == "silent") {
        Exit::Silent
    } else {
        Exit::Good
    }
}

/// The view as text.
pub fn text(view: &View, now_ms: u64) -> String {
    let (table, rest) = parts(view, now_ms);
    table + &rest
}

/// The same in two parts: the table, and the remarks below it.
pub fn parts(view: &View, now_ms: u64) -> (String, String) {
    let mut text = String::new();
    let rows: Vec<Vec<String>> = view.locks.iter().flat_map(|lock| rows(lock, now_ms)).collect();
    let answering = view.drives.iter().filter(|drive| drive.state == "answers").count();
    if rows.is_empty() {
        let silent = view.drives.iter().any(|drive| drive.state == "silent");
        text.push_str(match (answering, silent) {
            (0, true) => "",
            (_, true) => "No drive that answers has a lock.\n",
            (_, false) => "No drive has a lock.\n",
        });
    } else {
        let head = ["LOCK", "HOST", "MODE", "STATE", "DRIVES", "REFRESHED", "LEASE LEFT", "VALUE"];
        text.push_str(&table(&head, &rows));
    }
    let table = std::mem::take(&mut text);
    let with_idm: Vec<&str> = view
        .drives
        .iter()
        .filter(|drive| drive.state != "no-idm")
        .map(|drive| drive.name.as_str())
        .collect();
    let without = view.drives.len() - with_idm.len();
    text.push_str(&format!(
        "{answering} of {} drives with IDM answer: {}",
        with_idm.len(),
        with_idm.join(", ")
    ));
    text.push_str(&match without {
        0 => "\n".to_owned(),
        n => format!("; {n} without IDM\n"),
    });
    for remark in &view.remarks {
        let style = if remark.alarm { ALARM } else { WARNING };
        text.push_str(&format!("{} {}\n", styled(style, "*"), remark.text));
    }
    if view.remarks.is_empty() {
        text.push_str(&format!("{}\n", styled(GOOD, "Nothing is wrong.")));
    }
    (table, text)
}

fn rows(lock: &LockView, now_ms: u64) -> Vec<Vec<String>> {
    let value = lock.value.as_ref().map_or("-".to_owned(), |value| shown(value, now_ms));
    if lock.holders.is_empty() {
        let dash = || "-".to_owned();
        return vec![vec![
            lock.name.clone(),
            dash(),
            dash(),
            "free".to_owned(),
            lock.free_on.len().to_string(),
            dash(),
            dash(),
            value,
        ]];
    }
    lock.holders.iter().map(|holder| row(lock, holder, &value)).collect()
}

fn row(lock: &LockView, holder: &Holder, value: &str) -> Vec<String> {
    let state = match holder.standing {
        Standing::Held => "held",
        Standing::TooFewDrives => "not held",
        Standing::Unclear => "unclear",
        Standing::TimedOut => "timed out",
        Standing::Clearing => "removing",
    };
    let live = holder.live();
    let of = holder.counts.as_ref().map_or("?".to_owned(), |counts| counts.len().to_string());
    let mut drives = format!("{live}/{of}");
    if live > 0 && holder.counts.as_ref().map(Vec::len) != Some(live) {
        let name = |on: &OnDrive| match on.lease_runs {
            true => format!(" {}", on.drive),
            false => format!(" ({})", on.drive),
        };
        drives.extend(holder.on.iter().map(name));
    }
    let left = match (holder.standing, holder.left_ms) {
        (Standing::TimedOut, _) => "over".to_owned(),
        (_, Some(0)) => "-".to_owned(),
        (_, Some(left)) => short(left),
        (_, None) => format!("<= {}", short(holder.lease_ms)),
    };
    let age = match u64::try_from(holder.age_ms) {
        Ok(age) => format!("{} ago", short(age)),
        Err(_) => "in the future".to_owned(),
    };
    vec![
        lock.name.clone(),
        holder.host.shown(),
        holder.mode.to_owned(),
        state.to_owned(),
        drives,
        age,
        left,
        value.to_owned(),
    ]
}

fn shown(value: &ValueView, now_ms: u64) -> String {
    let what = if value.removed { "VG removed" } else { "written" };
    match now_ms.checked_sub(value.published_ms) {
        Some(age) => format!("{what} {} ago", short(age)),
        None => format!("{what} in the future"),
    }
}
