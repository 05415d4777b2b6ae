//! `idmctl why`: the reasons why a lock is refused or slow.

mod bars;
mod drives;
mod holders;

use crate::cli::{Common, Why};
use crate::fleet::{Asked, Fleet, Missing, ask, wall_ms};
use crate::host::Host;
use crate::meant;
use crate::metrics::CURRENT;
use crate::output::{GOOD, Progress, WARNING, styled};
use crate::status::print_json;
use crate::view::{LockView, Maker};
use crate::{Exit, Trouble};
use idm_engine::Instant;
use idm_protocol::ResourceId;
use lvmlockd_idm::lock::{Role, role_of, vg_of};
use serde::Serialize;

/// The effect of a cause on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It is refused.
    Refused,
    /// It is granted, perhaps slowly or with nothing to spare.
    Slow,
    /// Nothing is in the way.
    Granted,
}

/// A cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// A word for programs, which docs/idmctl.md explains.
    pub code: &'static str,
    /// The result.
    pub effect: Effect,
    /// The explanation and the remedy, as sentences.
    pub text: String,
}

impl Cause {
    fn refused(code: &'static str, text: String) -> Cause {
        Cause { code, effect: Effect::Refused, text }
    }

    fn slow(code: &'static str, text: String) -> Cause {
        Cause { code, effect: Effect::Slow, text }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The lock.
    pub lock: String,
    /// The causes, the decisive one first.
    pub causes: Vec<Cause>,
}

/// A lock, and all that is known of it.
struct Case<'a> {
    host: &'a Host,
    fleet: &'a Fleet,
    asked: &'a [Asked],
    id: ResourceId,
    /// The lock's name in sentences.
    title: String,
    /// The lock in the drives' tables.
    lock: Option<LockView>,
    /// The drives that this host counts for it.
    members: Vec<usize>,
    /// The paths of the lock that lead to no drive.
    missing: Vec<&'a Missing>,
    now_ms: u64,
    /// Now, on the clock of lvmlockd's notes.
    uptime: Instant,
}

/// Reads the drives and explains.
pub fn run(host: &mut Host, common: &Common, wanted: &Why) -> Result<Exit, Trouble> {
    let fleet = Fleet::of(host);
    let mut progress = Progress::default();
    let asked = ask(&host.topology, &fleet.drives, common.timeout, false, &mut progress);
    if let Some(lvm) = &common.ask_lvm {
        host.names.add_from_lvm(lvm, common.timeout).map_err(|why| {
            Trouble::new(why, lvm.display().to_string(), "leave --ask-lvm out and give uuids")
        })?;
    }
    let id = meant::lock(host, &asked, &wanted.lock)?;
    let answer = explain(host, &fleet, &asked, id, wall_ms());
    if common.json {
        print_json(&answer)?;
    } else {
        let granted = answer.causes.iter().all(|cause| cause.effect == Effect::Granted);
        let style = if granted { GOOD } else { WARNING };
        anstream::println!("{} {}", styled(style, &format!("{}:", answer.lock)), answer.text());
    }
    Ok(match answer.causes.first().map(|cause| cause.effect) {
        Some(Effect::Refused | Effect::Slow) => Exit::Wrong,
        Some(Effect::Granted) | None => Exit::Good,
    })
}

/// The causes for which a lock is refused.
pub fn explain(host: &Host, fleet: &Fleet, asked: &[Asked], id: ResourceId, now_ms: u64) -> Answer {
    let view = Maker::new(host, fleet, asked, now_ms).view(|other| *other == id);
    let title = match role_of(&id) {
        Role::Global => "the global lock".to_owned(),
        Role::Lv => format!("the lock of LV {}", host.names.of(&id)),
        Role::Vg | Role::Membership => format!("the lock of VG {}", host.names.vg(&id)),
    };
    let (members, missing) = counted(host, fleet, &id);
    let lock = view.locks.into_iter().next();
    let uptime = lvmlockd_idm::tools::now();
    let case = Case { host, fleet, asked, id, title, lock, members, missing, now_ms, uptime };
    Answer { lock: case.title.clone(), causes: case.causes() }
}

/// The drives that this host counts for a lock, and what leads to none.
fn counted<'f>(host: &Host, fleet: &'f Fleet, id: &ResourceId) -> (Vec<usize>, Vec<&'f Missing>) {
    let of_vg = (role_of(id) != Role::Global).then(|| vg_of(id));
    let is_in = |at: &usize| match of_vg {
        Some(vg) => fleet.drives[*at].vgs.contains(&vg),
        None => fleet.drives[*at].global,
    };
    let missing = fleet.missing.iter().filter(|missing| missing.vg == of_vg).collect();
    let noted = host.saved.locks.iter().find(|(noted, _)| noted == id);
    let noted: Option<Vec<usize>> = noted.and_then(|(_, lock)| {
        let at = |it: &String| fleet.drives.iter().position(|drive| drive.identity == *it);
        lock.drives.iter().map(at).collect()
    });
    match noted {
        Some(members) => (members, Vec::new()),
        None => ((0..fleet.drives.len()).filter(is_in).collect(), missing),
    }
}

impl Case<'_> {
    fn causes(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        causes.extend(self.host_causes());
        causes.extend(self.holder_causes());
        causes.extend(self.drive_causes());
        causes.extend(self.bar_causes());
        if causes.iter().all(|cause| cause.effect != Effect::Refused) {
            causes.extend(self.conflict());
        }
        causes.extend(self.hints());
        let refused = causes.iter().any(|cause| cause.effect == Effect::Refused);
        if !refused && !causes.is_empty() {
            causes.extend(self.last_refusal().map(|text| Cause::slow("last-refusal", text)));
        }
        // What refuses a request decides, in the order in which it is looked for.
        causes.sort_by_key(|cause| cause.effect != Effect::Refused);
        if causes.is_empty() {
            causes.push(self.free());
        }
        causes
    }

    /// The last refusal of the lock, if nobody here got it since.
    fn last_refusal(&self) -> Option<String> {
        let last = self.host.refusals.last(&self.id, self.uptime)?;
        Some(format!(
            "{} ago the answer here was: {}",
            bars::seconds(last.age(self.uptime)),
            last.why
        ))
    }

    /// The answer where nothing is in the way.
    fn free(&self) -> Cause {
        let drives = self.members.len();
        let otherwise = self.last_refusal().unwrap_or_else(|| {
            "If lvm is refused all the same, look at `lvmlockctl --dump` for lines with \"idm:\""
                .to_owned()
        });
        Cause {
            code: "free",
            effect: Effect::Granted,
            text: format!(
                "nothing is in the way. Nobody has it, and all of its {drives} drives answer. \
                 {otherwise}"
            ),
        }
    }

    /// Causes on this host, whatever the drives show.
    fn host_causes(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        if let Err(why) = &self.host.config {
            causes.push(Cause::refused(
                "configuration",
                format!("lvmlockd takes no IDM lock with a broken configuration. {why}"),
            ));
        }
        if self.is_denied() {
            causes.push(Cause::refused(
                "permission",
                "the kernel does not let this program send commands to drives, so nothing is known \
                 of them. Run it as root; lvmlockd needs CAP_SYS_RAWIO for SCSI drives and \
                 CAP_SYS_ADMIN for NVMe drives"
                    .to_owned(),
            ));
        }
        if !self.host.lvmlockd {
            causes.push(Cause::refused(
                "lvmlockd",
                "lvmlockd does not run on this host, so no lock is taken here and none that this \
                 host holds is refreshed. Start it: systemctl start lvmlockd"
                    .to_owned(),
            ));
        } else if let Some(age) = self.host.metrics_age().filter(|age| *age > CURRENT) {
            causes.push(Cause::refused(
                "lvmlockd-hangs",
                format!(
                    "lvmlockd does not do anything on this host: it has not written its counters \
                     for {}, and does so every 5 s. Look whether it was stopped or waits for a \
                     disk (ps -o stat,wchan -C lvmlockd)",
                    bars::seconds(age)
                ),
            ));
        } else if role_of(&self.id) != Role::Global && !self.is_started() {
            let vg = self.host.names.vg(&self.id);
            causes.push(Cause::refused(
                "lock-start",
                format!("VG {vg} is not started on this host. Start it: vgchange --lockstart {vg}"),
            ));
        }
        causes.extend(self.killed());
        causes
    }

    fn killed(&self) -> Option<Cause> {
        let started = self.host.saved.lockspaces.iter().find(|(vg, _)| *vg == vg_of(&self.id));
        let vg = started.map(|(_, lockspace)| lockspace.name.as_str())?;
        // What a dead lvmlockd has exported is over.
        (self.host.lvmlockd && self.host.is_killed(vg)).then(|| {
            Cause::refused(
                "killed",
                format!(
                    "VG {vg} has lost locks on this host, because too few of its drives answered \
                     in time. It gets no lock before it is dropped: deactivate its LVs, then \
                     lvmlockctl --drop {vg} and vgchange --lockstart {vg}"
                ),
            )
        })
    }

    fn is_denied(&self) -> bool {
        let silent = self.fleet.drives.iter().zip(self.asked).filter_map(|(d, a)| a.silence(d));
        let whys: Vec<String> = silent.collect();
        !whys.is_empty() && whys.iter().all(|why| why.contains("CAP_SYS_"))
    }

    fn is_started(&self) -> bool {
        self.host.saved.lockspaces.iter().any(|(vg, _)| *vg == vg_of(&self.id))
    }

    /// Causes that are possible, but not certain.
    fn hints(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        let published = self.lock.as_ref().and_then(|lock| lock.value.as_ref());
        if published.is_some_and(|value| value.published_ms > self.now_ms + 2000) {
            causes.push(Cause::slow(
                "clock",
                "its value was published in the future, so this host's clock is behind that of the \
                 host which published it. Run NTP on both"
                    .to_owned(),
            ));
        }
        if published.is_some_and(|value| value.removed) {
            causes.push(Cause::slow(
                "removed",
                "its value says that the VG was removed. Hosts that had it started are told so; \
                 stop it there: vgchange --lockstop"
                    .to_owned(),
            ));
        }
        causes
    }
}

impl Answer {
    /// The decisive cause as a paragraph; what else is known follows.
    pub fn text(&self) -> String {
        let text = |cause: &Cause| format!("{}.", cause.text.trim_end_matches('.'));
        let sentences: Vec<String> = self.causes.iter().map(text).collect();
        sentences.join(" Also: ")
    }
}
