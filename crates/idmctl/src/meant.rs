//! The volume group or the lock that a user names.
//!
//! A uuid does not show whether it is a VG's or an LV's. Files of this host and the drives' tables
//! show it, if they have it.

use crate::Trouble;
use crate::fleet::Asked;
use crate::host::Host;
use idm_protocol::ResourceId;
use lvmlockd_idm::lock::{Role, role_of, vg_of};

/// The VG of that name or uuid. An unknown uuid counts as that of a VG.
pub fn vg(host: &Host, asked: &[Asked], text: &str) -> Result<ResourceId, Trouble> {
    let found = host.names.find_vg(text).ok_or_else(|| match host.names.has_asked_lvm() {
        true => Trouble::new("lvm knows no such volume group", text, "look at `vgs`"),
        false => Trouble::new(
            "no file of this host tells the uuid of a volume group of this name",
            text,
            "look at `vgs`, and give its uuid (vgs -o vg_uuid) or --ask-lvm",
        ),
    })?;
    match lv_with_uuid_of(host, asked, &found) {
        Some(lv) if !is_known(host, asked, &found) => Err(Trouble::new(
            "this is the uuid of an LV, and a volume group is wanted",
            text,
            format!("give the volume group of the LV: {}", host.names.vg(&lv)),
        )),
        _ => Ok(found),
    }
}

/// The lock that is meant: `global`, a VG's, or an LV's. An LV has its VG in front, or is given by
/// its uuid alone if that is known.
pub fn lock(host: &Host, asked: &[Asked], text: &str) -> Result<ResourceId, Trouble> {
    if text == "global" {
        return Ok(ResourceId::GLOBAL);
    }
    let Some((in_vg, lv)) = text.split_once('/') else {
        let alone = host.names.find_vg(text).filter(|found| !is_known(host, asked, found));
        let Some(uuid) = alone else { return vg(host, asked, text) };
        return lv_with_uuid_of(host, asked, &uuid).ok_or_else(|| unknown_uuid(host, text));
    };
    let vg = vg(host, asked, in_vg)?;
    host.names.find_lv(&vg, lv).ok_or_else(|| match host.names.has_asked_lvm() {
        true => Trouble::new("lvm knows no such logical volume", text, "look at `lvs -a`"),
        false => Trouble::new(
            "no file of this host tells the uuid of a logical volume of this name",
            text,
            "look at `lvs -a`, and give VG/UUID (lvs -o lv_uuid) or --ask-lvm",
        ),
    })
}

fn unknown_uuid(host: &Host, text: &str) -> Trouble {
    if host.names.has_asked_lvm() {
        let what = "lvm knows no volume group and no LV of this uuid";
        return Trouble::new(what, text, "look at `vgs` and `lvs -a`");
    }
    Trouble::new(
        "no file of this host and no drive that answers knows a volume group or an LV of this uuid",
        text,
        "give VG/UUID for an LV; if it is a volume group's, no host has it started \
         (vgchange --lockstart); or give --ask-lvm",
    )
}

/// All mutexes that are known here, or that drives show.
fn known<'a>(host: &'a Host, asked: &'a [Asked]) -> impl Iterator<Item = &'a ResourceId> {
    let tables = asked.iter().filter_map(Asked::table).flat_map(|(_, records)| records);
    let notes = host.saved.locks.iter().map(|(id, _)| id);
    let started = host.saved.lockspaces.iter().map(|(id, _)| id);
    host.names.ids().chain(notes).chain(started).chain(tables.map(|record| &record.resource))
}

/// Whether a VG is known, or any lock of it.
fn is_known(host: &Host, asked: &[Asked], vg: &ResourceId) -> bool {
    known(host, asked).any(|id| vg_of(id) == *vg)
}

/// The LV with the uuid of `vg`, which counted as a VG.
fn lv_with_uuid_of(host: &Host, asked: &[Asked], vg: &ResourceId) -> Option<ResourceId> {
    let uuid = &vg.as_bytes()[..32];
    let has_it = |id: &&ResourceId| role_of(id) == Role::Lv && id.as_bytes()[32..] == *uuid;
    known(host, asked).find(has_it).copied()
}
