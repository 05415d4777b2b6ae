//! Names of VGs and LVs for the uuids on drives.
//!
//! By default only this host's own files and the kernel are looked at, because an lvm command hangs
//! where a drive hangs: the library's notes, active device-mapper devices, and lvm's backups of
//! metadata. They may be older than a rename.

use crate::output::Progress;
use idm_protocol::ResourceId;
use lvmlockd_idm::lock::{Role, dashed, lv_uuid, role_of, vg_of};
use lvmlockd_idm::recovery::active::lv_of;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The most that is read of one backup, in bytes.
const LARGEST: u64 = 64 << 20;

/// The suffix that distinguishes a VG's membership from its lock.
pub const STARTED: &str = " (started)";

/// Names by the mutex that they belong to: of an LV its own name, of a VG its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    known: BTreeMap<ResourceId, String>,
    asked_lvm: bool,
}

impl Names {
    /// Adds a name, unless there is one.
    pub fn add(&mut self, id: ResourceId, name: &str) {
        self.known.entry(id).or_insert_with(|| name.to_owned());
    }

    /// The VG's name; its uuid where that is not known.
    pub fn vg(&self, id: &ResourceId) -> String {
        let vg = vg_of(id);
        self.known(&vg).map_or_else(|| dashed(&vg.as_bytes()[..32]), str::to_owned)
    }

    /// The name of a mutex: of an LV with its VG's in front.
    pub fn of(&self, id: &ResourceId) -> String {
        match role_of(id) {
            Role::Global => "global".to_owned(),
            Role::Vg => self.vg(id),
            Role::Membership => format!("{}{STARTED}", self.vg(id)),
            Role::Lv => {
                let lv = self.known(id).map_or_else(|| lv_uuid(id), str::to_owned);
                format!("{}/{lv}", self.vg(id))
            }
        }
    }

    /// Whether lvm has given all names that it knows.
    pub fn has_asked_lvm(&self) -> bool {
        self.asked_lvm
    }

    /// The name of exactly that mutex.
    pub fn known(&self, id: &ResourceId) -> Option<&str> {
        self.known.get(id).map(String::as_str)
    }

    /// The mutexes that have names: of VGs and of LVs.
    pub fn ids(&self) -> impl Iterator<Item = &ResourceId> {
        self.known.keys()
    }

    /// The VG with this name or uuid.
    pub fn find_vg(&self, text: &str) -> Option<ResourceId> {
        let named = self.known.iter().find(|(id, name)| role_of(id) == Role::Vg && *name == text);
        named.map(|(id, _)| *id).or_else(|| ResourceId::vg(text).ok())
    }

    /// The LV with this name or uuid in a VG.
    pub fn find_lv(&self, vg: &ResourceId, text: &str) -> Option<ResourceId> {
        let named = self
            .known
            .iter()
            .find(|(id, name)| role_of(id) == Role::Lv && vg_of(id) == *vg && *name == text);
        let by_uuid = || ResourceId::lv(&dashed(&vg.as_bytes()[..32]), text).ok();
        named.map(|(id, _)| *id).or_else(by_uuid)
    }

    /// Adds those of active LVs, as the kernel lists their devices below `block`.
    pub fn add_active(&mut self, block: &Path) {
        for entry in fs::read_dir(block).into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(entry.path().join("dm").join(name)).ok();
            let (Some(uuid), Some(name)) = (read("uuid"), read("name")) else { continue };
            // A layer has a longer uuid, and a longer name.
            let (Some(id), true) = (lv_of(uuid.trim_end()), uuid.trim_end().len() == 68) else {
                continue;
            };
            if let Some((vg, lv)) = split(name.trim_end()) {
                self.add(vg_of(&id), &vg);
                self.add(id, &lv);
            }
        }
    }

    /// Adds those in lvm's backups of metadata.
    pub fn add_backups(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let is_file = entry.file_type().is_ok_and(|it| it.is_file());
            let Some(file) = is_file.then(|| fs::File::open(entry.path()).ok()).flatten() else {
                continue;
            };
            let mut text = String::new();
            if file.take(LARGEST).read_to_string(&mut text).is_ok() {
                self.add_metadata(&text);
            }
        }
    }

    /// Adds those in one text of metadata: sections in braces, with `id = "…"` in them.
    fn add_metadata(&mut self, text: &str) {
        let mut sections: Vec<&str> = Vec::new();
        let mut vg: Option<(String, ResourceId)> = None;
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_suffix('{') {
                sections.push(name.trim());
            } else if line == "}" {
                sections.pop();
            } else if let Some(id) = line.strip_prefix("id = \"").and_then(|l| l.strip_suffix('"'))
            {
                match (sections.as_slice(), &vg) {
                    ([name], _) => {
                        let Ok(resource) = ResourceId::vg(id) else { continue };
                        self.add(resource, name);
                        vg = Some((id.to_owned(), resource));
                    }
                    ([_, "logical_volumes", name], Some((vg, _))) => {
                        if let Ok(lv) = ResourceId::lv(vg, id) {
                            self.add(lv, name);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Adds the names from lvm's output within `time`. An error has the reason why there was none.
    pub fn add_from_lvm(&mut self, lvm: &Path, time: Duration) -> Result<(), String> {
        let mut wait = Wait { begin: Instant::now(), time, progress: Progress::default() };
        // Without a logical volume, a volume group is in the first list only.
        for line in said(lvm, &["vgs", "-o", "vg_uuid,vg_name"], &mut wait)?.lines() {
            let Some((uuid, vg)) = line.trim().split_once('|') else { continue };
            if let Ok(id) = ResourceId::vg(uuid) {
                self.add(id, vg);
            }
        }
        let columns = "vg_uuid,vg_name,lv_uuid,lv_name";
        for line in said(lvm, &["lvs", "--all", "-o", columns], &mut wait)?.lines() {
            let cells: Vec<&str> = line.trim().split('|').collect();
            let [vg_uuid, vg, lv_uuid, lv] = cells[..] else { continue };
            let (Ok(id), Ok(lv_id)) = (ResourceId::vg(vg_uuid), ResourceId::lv(vg_uuid, lv_uuid))
            else {
                continue;
            };
            self.add(id, vg);
            self.add(lv_id, lv.trim_matches(['[', ']']));
        }
        self.asked_lvm = true;
        Ok(())
    }
}

/// The output of an lvm command that takes no lock. An error has the reason why there is none.
fn said(lvm: &Path, arguments: &[&str], wait: &mut Wait) -> Result<String, String> {
    let mut child = Command::new(lvm)
        .args(arguments)
        .args(["--nolocking", "--noheadings", "--separator", "|"])
        .env("LVM_SUPPRESS_FD_WARNINGS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.map(|pipe| pipe.take(LARGEST).read_to_string(&mut text));
        text
    });
    let ended = wait.until_ended(&mut child);
    wait.progress.done();
    ended?;
    Ok(reader.join().unwrap_or_default())
}

/// The time that lvm's commands have together.
struct Wait {
    begin: Instant,
    time: Duration,
    progress: Progress,
}

impl Wait {
    /// Waits for the end of a child, and kills it when the time is over. A child that hangs in the
    /// kernel ends later.
    fn until_ended(&mut self, child: &mut Child) -> Result<(), String> {
        loop {
            match child.try_wait() {
                Ok(Some(_)) => return Ok(()),
                Ok(None) if self.begin.elapsed() < self.time => {
                    self.progress.wait_for(&["lvm"], self.begin.elapsed(), self.time);
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(None) => {
                    let _ = child.kill();
                    return Err(format!("no answer within {} s", self.time.as_secs_f64()));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// The names of VG and LV in the name of a device: a single dash separates them, and a dash in a
/// name is doubled.
fn split(device: &str) -> Option<(String, String)> {
    let bytes = device.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'-', Some(b'-')) => at += 2,
            (b'-', _) => {
                let plain = |text: &str| text.replace("--", "-");
                return Some((plain(&device[..at]), plain(&device[at + 1..])));
            }
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const VG: &str = "0123456789abcdefghijklmnopqrstuv";
    const EMPTY: &str = "vutsrqponmlkjihgfedcba9876543210";
    const LV: &str = "wxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!#";

    #[test]
    fn metadata_names_vgs_and_lvs_and_nothing_else() {
        let text = format!(
            "contents = \"Text Format Volume Group\"\nvg-0 {{\n\tid = \"{}\"\n\
             \tphysical_volumes {{\n\t\tpv0 {{\n\t\t\tid = \"{LV}\"\n\t\t}}\n\t}}\n\
             \tlogical_volumes {{\n\t\tdata {{\n\t\t\tid = \"{}\"\n\t\t\tsegment1 {{\n\t\t\t}}\n\
             \t\t}}\n\t}}\n}}\n",
            dashed(VG.as_bytes()),
            dashed(LV.as_bytes())
        );
        let mut names = Names::default();
        names.add_metadata(&text);
        let lv = ResourceId::lv(VG, LV).unwrap();
        assert_eq!(names.known.len(), 2);
        assert_eq!(names.of(&lv), "vg-0/data");
        assert_eq!(names.of(&vg_of(&lv)), "vg-0");
        assert_eq!(names.find_vg("vg-0"), Some(vg_of(&lv)));
        assert_eq!(names.find_lv(&vg_of(&lv), "data"), Some(lv));
        assert_eq!(names.find_lv(&vg_of(&lv), LV), Some(lv));
        for length in 0..text.len() {
            Names::default().add_metadata(&text[..length]);
        }
    }

    #[test]
    fn active_devices_name_their_lv_and_layers_do_not() {
        let sysfs = tempfile::tempdir().unwrap();
        let add = |device: &str, uuid: &str, name: &str| {
            let dm = sysfs.path().join(device).join("dm");
            fs::create_dir_all(&dm).unwrap();
            fs::write(dm.join("uuid"), uuid).unwrap();
            fs::write(dm.join("name"), name).unwrap();
        };
        add("dm-0", &format!("LVM-{VG}{LV}-real\n"), "a--b-c-real\n");
        add("dm-1", &format!("LVM-{VG}{LV}\n"), "a--b-c--d\n");
        add("dm-2", "mpath-36000\n", "mpatha\n");
        let mut names = Names::default();
        names.add_active(sysfs.path());
        assert_eq!(names.of(&ResourceId::lv(VG, LV).unwrap()), "a-b/c-d");
        assert_eq!(names.known.len(), 2);
    }

    #[test]
    fn an_lvm_that_hangs_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt;
            let path = directory.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let mut names = Names::default();
        let hangs = script("hangs", "exec sleep 5");
        let begin = Instant::now();
        let time = Duration::from_millis(50);
        assert!(names.add_from_lvm(&hangs, time).unwrap_err().contains("no answer"));
        assert!(begin.elapsed() < Duration::from_secs(4));
        let vgs = format!("echo '  {VG}|vg'; echo '  {EMPTY}|empty'");
        let lvs = format!("echo '  {VG}|vg|{LV}|[pool_tdata]'");
        let says = script("says", &format!("case $1 in vgs) {vgs} ;; lvs) {lvs} ;; esac"));
        assert!(!names.has_asked_lvm());
        names.add_from_lvm(&says, Duration::from_secs(30)).unwrap();
        assert!(names.has_asked_lvm());
        assert_eq!(names.of(&ResourceId::lv(VG, LV).unwrap()), "vg/pool_tdata");
        assert_eq!(names.of(&ResourceId::vg(EMPTY).unwrap()), "empty");
        assert!(names.add_from_lvm(Path::new("/nonexistent"), time).is_err());
    }

    #[test]
    fn what_has_no_name_is_shown_by_its_uuid() {
        let names = Names::default();
        let lv = ResourceId::lv(VG, LV).unwrap();
        let expected = format!("{}/{}", dashed(VG.as_bytes()), dashed(LV.as_bytes()));
        assert_eq!(names.of(&lv), expected);
        assert_eq!(names.of(&ResourceId::GLOBAL), "global");
    }
}
