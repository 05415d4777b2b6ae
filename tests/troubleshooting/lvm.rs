//! The messages of lvm about an answer to core: docs/lvmlockd-contract.md, "Answers to a lock
//! request" and "Answers of the other functions".

/// A call of core's whose failure lvm or core reports.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Prepare,
    /// Its answer is only logged by core.
    Add,
    Remove,
    Hosts,
    LockGlobal,
    LockVg,
    LockLv,
    ConvertLv,
}

impl Call {
    /// The function, and the rest of its line in the log.
    pub fn function(self) -> (&'static str, &'static str) {
        match self {
            Call::Prepare => ("lm_prepare_lockspace_idm", " lvm_vg0"),
            Call::Add => ("lm_add_lockspace_idm", " lvm_vg0"),
            Call::Remove => ("lm_rem_lockspace_idm", " lvm_vg0"),
            Call::Hosts => ("lm_hosts_idm", " lvm_vg0"),
            Call::LockGlobal => ("lm_lock_idm", " lvm_global GLLK ex"),
            Call::LockVg => ("lm_lock_idm", " lvm_vg0 VGLK ex"),
            Call::LockLv => ("lm_lock_idm", " lvm_vg0 LVLVLV-0000-0000-0000-0000-0000-000001 ex"),
            Call::ConvertLv => {
                ("lm_convert_idm", " lvm_vg0 LVLVLV-0000-0000-0000-0000-0000-000001 ex version 0")
            }
        }
    }
}

const EAGAIN: i32 = -libc::EAGAIN;
const EBUSY: i32 = -libc::EBUSY;
const ENOLS: i32 = -210;
const EARGS: i32 = -212;
const EMANAGER: i32 = -214;
const EVGKILLED: i32 = -217;
const ELOCKIO: i32 = -218;
const EADOPT_NONE: i32 = -223;
const EADOPT_RETRY: i32 = -224;

/// The message of the lvm command, as 2.03.31 has it.
pub fn says(call: Call, answer: i32) -> String {
    let reason = match answer {
        EAGAIN => "held by other host".to_owned(),
        ELOCKIO => "storage errors for sanlock leases".to_owned(),
        EVGKILLED => "storage failed for sanlock leases".to_owned(),
        EADOPT_NONE => "adopt found no orphan".to_owned(),
        EADOPT_RETRY => "adopt found other mode".to_owned(),
        other => format!("error {other}"),
    };
    match (call, answer) {
        (Call::Prepare, EMANAGER) => "VG vg0 start failed: lock manager idm is not running".into(),
        (Call::Prepare, EARGS) => "VG vg0 start failed: invalid parameters for idm".into(),
        (Call::Prepare, other) => format!("VG vg0 start failed: {other}"),
        (Call::Add, _) => "nothing; later commands say that the lockspace is inactive".into(),
        (Call::Remove, EBUSY) => "VG vg0 stop failed: LVs must first be deactivated".into(),
        (Call::Remove, other) => format!("VG vg0 stop failed: {other}"),
        (Call::Hosts, _) => "nothing of its own: `vgremove` or `vgrename` fails".into(),
        (Call::LockGlobal, _) => format!("Global lock failed: {reason}"),
        (Call::LockVg, ENOLS) => "Cannot access VG vg0 due to failed lock".into(),
        (Call::LockVg, _) => format!("VG vg0 lock failed: {reason}"),
        (Call::LockLv | Call::ConvertLv, EAGAIN) => "LV locked by other host: vg0/lv".into(),
        (Call::LockLv | Call::ConvertLv, ENOLS) => {
            "LV vg0/lv lock failed: lockspace is inactive".into()
        }
        (Call::LockLv | Call::ConvertLv, _) => format!("LV vg0/lv lock failed: {reason}"),
    }
}
