//! The mutexes of a volume group, and their ids.

use idm_protocol::ResourceId;

/// The LV half of the membership mutex's id; the other half is the VG's uuid. An LVM uuid never
/// contains `*` or `-`, so it cannot be the id of an LV.
const MEMBERSHIP: [u8; 32] = *b"*members-of-the-volume-group*\0\0\0";

/// The role of one of our mutexes.
pub fn role_of(id: &ResourceId) -> Role {
    match id.as_bytes().split_at(32) {
        _ if *id == ResourceId::GLOBAL => Role::Global,
        (_, lv) if lv == MEMBERSHIP => Role::Membership,
        _ if id.is_lv() => Role::Lv,
        _ => Role::Vg,
    }
}

/// The mutex of the VG that a mutex belongs to.
pub fn vg_of(id: &ResourceId) -> ResourceId {
    let mut vg = *id.as_bytes();
    vg[32..].fill(0);
    ResourceId::from_bytes(vg)
}

/// The mutex of the hosts that have a VG started. `vg`: the mutex of the VG.
pub fn membership_of(vg: &ResourceId) -> ResourceId {
    let mut id = *vg.as_bytes();
    id[32..].copy_from_slice(&MEMBERSHIP);
    ResourceId::from_bytes(id)
}

/// The uuid of an LV's mutex as LVM prints it.
pub fn lv_uuid(id: &ResourceId) -> String {
    dashed(&id.as_bytes()[32..])
}

/// A uuid as LVM prints it.
pub fn dashed(uuid: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(uuid).into_owned();
    for at in [26, 22, 18, 14, 10, 6] {
        if text.is_char_boundary(at) {
            text.insert(at, '-');
        }
    }
    text
}

/// Role of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The global lock.
    Global,
    /// A VG's lock.
    Vg,
    /// An LV's lock.
    Lv,
    /// Shows other hosts that this one has the VG started. It is taken again when it is lost;
    /// nothing else depends on it.
    Membership,
}

impl Role {
    /// Whether the mutex carries a value that outlives the lock.
    pub fn keeps_value(self) -> bool {
        matches!(self, Role::Global | Role::Vg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_membership_id_can_be_no_lvs() {
        let text = String::from_utf8(MEMBERSHIP.to_vec()).unwrap();
        assert!(ResourceId::vg(text.trim_end_matches('\0')).is_err());
    }
}
