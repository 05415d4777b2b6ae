//! `idmctl release` and `idmctl clear`: giving back the locks of dead hosts.
//!
//! The library's engine takes a lock like any other host, under an id of its own, and gives it back
//! at once. So drives refuse it while a lease runs, whatever was read before. A library that runs
//! anywhere sees only another host that was quick. No command is sent in the name of another host.

mod taking;

use crate::cli::{Clear, Common, Release, Repair};
use crate::fleet::{Asked, Fleet, ask, wall_ms};
use crate::host::Host;
use crate::meant;
use crate::output::{GOOD, Progress, WARNING, short, styled};
use crate::status::{chosen, print_json};
use crate::view::{Holder, LockView, Maker, Set, Standing, View};
use crate::{Exit, Trouble};
use idm_protocol::ResourceId;
use lvmlockd_idm::lock::{Role, role_of, vg_of};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use taking::Taking;

/// One lock of a repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Job {
    /// The lock's name.
    pub lock: String,
    /// The names of the hosts that held it.
    pub hosts: BTreeSet<String>,
    /// The drives on which it is taken and given back.
    pub drives: Vec<String>,
    /// The reason why it was not given back; `None` if it was, or in a dry run.
    pub refused: Option<String>,
    #[serde(skip)]
    id: ResourceId,
    #[serde(skip)]
    destroys: bool,
}

/// A repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Whether it was carried out, and is no dry run.
    pub carried_out: bool,
    /// The hosts whose names confirm it.
    pub hosts: BTreeSet<String>,
    /// The locks.
    pub locks: Vec<Job>,
    /// Facts that the administrator has to know.
    pub stakes: Vec<String>,
}

/// Gives one lock back.
pub fn release(host: &mut Host, common: &Common, wanted: &Release) -> Result<Exit, Trouble> {
    add_names(host, common)?;
    let (fleet, asked) = look(host, common)?;
    let id = meant::lock(host, &asked, &wanted.lock)?;
    let view = Maker::new(host, &fleet, &asked, wall_ms()).view(|other| *other == id);
    let plan = plan_release(host, &view, id, &wanted.lock)?;
    finish(host, common, &wanted.repair, (&fleet, &asked), plan)
}

/// Removes everything that a volume group has left.
pub fn clear(host: &mut Host, common: &Common, wanted: &Clear) -> Result<Exit, Trouble> {
    add_names(host, common)?;
    let (fleet, asked) = look(host, common)?;
    let vg = meant::vg(host, &asked, &wanted.vg)?;
    let of_vg = |id: &ResourceId| *id != ResourceId::GLOBAL && vg_of(id) == vg;
    let view = Maker::new(host, &fleet, &asked, wall_ms()).view(of_vg);
    let plan = plan_clear(host, &view, vg, &wanted.vg)?;
    finish(host, common, &wanted.repair, (&fleet, &asked), plan)
}

fn add_names(host: &mut Host, common: &Common) -> Result<(), Trouble> {
    let Some(lvm) = &common.ask_lvm else { return Ok(()) };
    host.names.add_from_lvm(lvm, common.timeout).map_err(|why| {
        Trouble::new(why, lvm.display().to_string(), "leave --ask-lvm out and give uuids")
    })
}

fn look(host: &Host, common: &Common) -> Result<(Fleet, Vec<Asked>), Trouble> {
    let fleet = chosen(host, &[])?;
    let mut progress = Progress::default();
    let asked = ask(&host.topology, &fleet.drives, common.timeout, false, &mut progress);
    Ok((fleet, asked))
}

/// The repair of one lock, or the reason why there is none.
pub fn plan_release(host: &Host, view: &View, id: ResourceId, name: &str) -> Result<Plan, Trouble> {
    let lock = view.locks.first().filter(|lock| !lock.holders.is_empty()).ok_or_else(|| {
        let silent = silent(view);
        let (what, remedy) = match silent.is_empty() {
            true => (
                "no host holds it, so there is nothing to release".to_owned(),
                "see `idmctl status`",
            ),
            false => (
                format!("no drive that answers shows a holder; {silent} did not answer"),
                "bring the drives back and repeat the command",
            ),
        };
        Trouble::new(what, name, remedy)
    })?;
    if host.saved.locks.iter().any(|(noted, _)| *noted == id) {
        return Err(Trouble::new(
            "lvmlockd on this host has noted that it holds this lock",
            name,
            "deactivate the LV here; if lvmlockd is dead, start it",
        ));
    }
    refuse_live(lock)?;
    let job = job(lock, id)?;
    let stakes = vec![
        "The lease is over, so any host that asks for this lock gets it already. This does no \
         more than such a host does."
            .to_owned(),
        "A host is safe to name only if it is off, was reset, or has the LV deactivated. If it \
         still writes, the next user of the lock destroys data, or loses it."
            .to_owned(),
    ];
    Ok(Plan { carried_out: false, hosts: job.hosts.clone(), locks: vec![job], stakes })
}

/// The repair of all locks of a volume group, or the reason why there is none.
pub fn plan_clear(host: &Host, view: &View, vg: ResourceId, name: &str) -> Result<Plan, Trouble> {
    let silent = silent(view);
    if !silent.is_empty() {
        return Err(Trouble::new(
            format!("{silent} did not answer, so a lease may run there"),
            name,
            "bring the drives back and repeat the command, or release single locks",
        ));
    }
    if host.saved.lockspaces.iter().any(|(started, _)| *started == vg) {
        return Err(Trouble::new(
            "the volume group is started on this host",
            name,
            "stop it (vgchange --lockstop) and repeat the command",
        ));
    }
    for lock in &view.locks {
        refuse_live(lock)?;
    }
    let jobs = view.locks.iter().filter(|lock| is_left(lock));
    let jobs: Vec<Job> =
        jobs.map(|lock| job(lock, lock.id())).collect::<Result<Vec<Job>, Trouble>>()?;
    if jobs.is_empty() {
        let what = "no drive has anything of it that can be removed";
        return Err(Trouble::new(what, name, "see `idmctl status --vg`"));
    }
    let hosts = jobs.iter().flat_map(|job| job.hosts.clone()).collect();
    let stakes = vec![
        "No host has the volume group started, as far as the drives show, and no lease on any of \
         its locks runs."
            .to_owned(),
        "A host is safe to name only if it is off, was reset, or has all LVs of the volume group \
         deactivated. If it still writes, the next user of an LV destroys data, or loses it."
            .to_owned(),
    ];
    Ok(Plan { carried_out: false, hosts, locks: jobs, stakes })
}

/// Whether a lock can be removed: the value of a volume group that exists is left alone.
fn is_left(lock: &LockView) -> bool {
    let removed = lock.value.as_ref().is_some_and(|value| value.removed);
    !lock.holders.is_empty() || lock.kind != "vg" || removed
}

fn silent(view: &View) -> String {
    let silent = view.drives.iter().filter(|drive| drive.state == "silent");
    let names: Vec<&str> = silent.map(|drive| drive.name.as_str()).collect();
    names.join(", ")
}

/// Fails if a lease runs on any drive.
fn refuse_live(lock: &LockView) -> Result<(), Trouble> {
    let is_live = |holder: &&Holder| {
        holder.on.iter().any(|it| it.lease_runs) || holder.standing == Standing::Unclear
    };
    let Some(holder) = lock.holders.iter().find(is_live) else { return Ok(()) };
    let runs: Vec<&str> =
        holder.on.iter().filter(|it| it.lease_runs).map(|it| it.drive.as_str()).collect();
    let (who, lease) = (holder.host.shown(), short(holder.lease_ms));
    let what = match runs.is_empty() {
        true => format!("drives that do not answer decide whether {who} holds it"),
        false => format!("the lease of {who} runs on {}", runs.join(", ")),
    };
    let remedy = match runs.is_empty() {
        true => "bring the drives back and repeat the command".to_owned(),
        false => format!(
            "give the lock up on that host; if the host is dead, its lease ends at most {lease} \
             after its last refresh"
        ),
    };
    Err(Trouble::new(what, lock.title(), remedy))
}

fn job(lock: &LockView, id: ResourceId) -> Result<Job, Trouble> {
    let foreign = lock.holders.iter().find(|it| matches!(it.set, Set::Foreign | Set::Moving));
    if let Some(holder) = foreign {
        return Err(Trouble::new(
            format!("{} counts drives for it that this host does not know", holder.host.shown()),
            lock.title(),
            "repeat the command on a host that sees all drives of the volume group",
        ));
    }
    let mut drives: BTreeSet<String> = lock.free_on.iter().cloned().collect();
    for holder in &lock.holders {
        drives.extend(holder.on.iter().map(|it| it.drive.clone()));
        drives.extend(holder.counts.iter().flatten().cloned());
    }
    Ok(Job {
        lock: lock.name.clone(),
        hosts: lock.holders.iter().map(|holder| holder.host.plain()).collect(),
        drives: drives.into_iter().collect(),
        refused: None,
        id,
        destroys: role_of(&id) == Role::Vg && lock.holders.is_empty(),
    })
}

/// Carries the repair out, if it is confirmed, and prints it.
fn finish(
    host: &Host,
    common: &Common,
    wanted: &Repair,
    (fleet, asked): (&Fleet, &[Asked]),
    mut plan: Plan,
) -> Result<Exit, Trouble> {
    if wanted.yes {
        confirm(&plan, &wanted.dead)?;
        carry_out(host, &mut plan, fleet, asked)?;
    }
    if common.json {
        print_json(&plan)?;
    } else {
        anstream::print!("{}", text(&plan));
    }
    let refused = plan.locks.iter().any(|job| job.refused.is_some());
    Ok(if refused { Exit::Wrong } else { Exit::Good })
}

/// Fails unless exactly the hosts of the plan were named.
fn confirm(plan: &Plan, dead: &[String]) -> Result<(), Trouble> {
    let named: BTreeSet<String> = dead.iter().cloned().collect();
    if named == plan.hosts {
        return Ok(());
    }
    let list = |hosts: &BTreeSet<String>| match hosts.is_empty() {
        true => "no host".to_owned(),
        false => hosts.iter().cloned().collect::<Vec<String>>().join(", "),
    };
    Err(Trouble::new(
        format!("--dead has to name {}, and names {}", list(&plan.hosts), list(&named)),
        "nothing was changed",
        "look again with the command without --yes",
    ))
}

/// Takes each lock of a confirmed plan and gives it back.
pub fn carry_out(
    host: &Host,
    plan: &mut Plan,
    fleet: &Fleet,
    asked: &[Asked],
) -> Result<(), Trouble> {
    let stop = Arc::new(AtomicBool::new(false));
    // A signal ends the repair between two locks.
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|error| Trouble::new(error.to_string(), "signals", "report this"))?;
    }
    let taking = Taking::new(host, fleet, asked)?;
    let mut progress = Progress::default();
    let count = plan.locks.len();
    plan.carried_out = true;
    for (at, job) in plan.locks.iter_mut().enumerate() {
        if stop.load(Ordering::Relaxed) {
            job.refused = Some("interrupted before it was begun".to_owned());
            continue;
        }
        progress.say(&format!("lock {} of {count}: {}", at + 1, job.lock));
        job.refused = taking.take_and_give_back(job).err();
    }
    progress.done();
    Ok(())
}

/// The plan, or its result, as text.
pub fn text(plan: &Plan) -> String {
    let mut text = String::new();
    if !plan.carried_out {
        for stake in &plan.stakes {
            text.push_str(&format!("{stake}\n"));
        }
        text.push('\n');
    }
    for job in &plan.locks {
        let hosts: Vec<String> = job.hosts.iter().cloned().collect();
        let held = match hosts.is_empty() {
            true => "nobody holds it".to_owned(),
            false => format!("was held by {}", hosts.join(", ")),
        };
        let (style, what) = match (&job.refused, plan.carried_out) {
            (Some(why), _) => (WARNING, format!("NOT given back: {why}")),
            (None, true) => (GOOD, "given back".to_owned()),
            (None, false) => (WARNING, "would be given back".to_owned()),
        };
        let drives = job.drives.join(", ");
        text.push_str(&format!(
            "{}: {held}; {what} on {drives}\n",
            job.lock,
            what = styled(style, &what)
        ));
    }
    if !plan.carried_out {
        let named: Vec<String> = plan.hosts.iter().map(|host| format!(" --dead {host}")).collect();
        text.push_str(&format!(
            "\nThis was a dry run: nothing was changed. To carry it out, add --yes{}\n",
            named.concat()
        ));
    }
    text
}

/// The drives of a fleet by name.
fn by_name(fleet: &Fleet) -> BTreeMap<&str, usize> {
    fleet.drives.iter().enumerate().map(|(at, drive)| (drive.name.as_str(), at)).collect()
}
