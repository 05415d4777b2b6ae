//! The functions that lvmlockd's core calls. They convert arguments, call the manager and convert
//! its answer; they contain no other logic.
//!
//! `lm_init_vg_idm` is missing on purpose: core declares it, never defines it and never calls it,
//! in any release (docs/lvmlockd-contract.md, "Functions").

use crate::abi::{
    self, Layout, ListHead, LockspaceView, Pvs, RawLockspace, RawResource, RawValBlk, ResourceType,
    ResourceView,
};
use crate::error::Error;
use crate::lock::{self, Adopt, ResourceKey};
use crate::manager::Manager;
use crate::test_mode::TestMode;
use core::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The lock manager. `None` in test mode, where nothing has to be found, started or stopped.
fn manager() -> Option<&'static Manager> {
    match TestMode::get() {
        Some(_) => None,
        None => Some(Manager::get()),
    }
}

/// Runs one call from core: logs it with one line, converts an error with `number`, and turns a
/// panic into an internal error.
///
/// `body` gets a string in which it names the lock of the call.
fn call(
    function: &str,
    number: fn(&Error) -> c_int,
    body: impl FnOnce(&mut String) -> Result<c_int, Error>,
) -> c_int {
    call_at(log::Level::Debug, function, number, body)
}

/// Like [`call`], with `level` for the log line of a success.
fn call_at(
    success: log::Level,
    function: &str,
    number: fn(&Error) -> c_int,
    body: impl FnOnce(&mut String) -> Result<c_int, Error>,
) -> c_int {
    let answer = catch_unwind(AssertUnwindSafe(|| {
        abi::start();
        let mut about = String::new();
        match body(&mut about) {
            Ok(answer) => {
                log::log!(success, "{function}{about} = {answer}");
                answer
            }
            Err(error) => {
                let answer = number(&error);
                log::log!(level(&error), "{}", error.line(function, &about, answer));
                answer
            }
        }
    }));
    // The panic hook has logged what happened and where.
    answer.unwrap_or_else(|_| number(&Error::Internal(String::new())))
}

/// The log level of an error: expected errors do not go to syslog.
fn level(error: &Error) -> log::Level {
    match error {
        Error::Held(_) | Error::Busy | Error::AdoptNone | Error::AdoptOtherMode => log::Level::Info,
        _ => log::Level::Error,
    }
}

/// For functions that core does not expect to fail.
fn never_fails(_: &Error) -> c_int {
    0
}

/// Runs when lvmlockd calls exit: main has returned, and all threads still run.
fn end() {
    call("exit", never_fails, |_| {
        if let Some(manager) = manager() {
            manager.end();
        }
        Ok(0)
    });
}

fn layout() -> Result<&'static Layout, Error> {
    abi::layout().as_ref().map_err(|why| Error::NotRunning(why.to_string()))
}

/// Up to 2.03.24 core passes one adopt argument, always 0 for idm, and the second has no defined
/// value (docs/lvmlockd-contract.md, "Adopt arguments").
fn adopt(layout: &Layout, only: c_int, ok: c_int) -> Adopt {
    if layout.adopt_args < 2 {
        return Adopt::default();
    }
    Adopt { only: only != 0, ok: ok != 0 }
}

/// Reads a VG's list of PVs again. Core may replace it at any time. It is needed only for the VG's
/// own lock, which is taken before those of the LVs.
fn refresh_pvs(manager: &Manager, ls: LockspaceView, layout: &Layout, resource: &lock::Resource) {
    if *resource != lock::Resource::Vg {
        return;
    }
    match ls.pvs(layout) {
        Ok(pvs) if !pvs.is_empty() => manager.set_pvs(ls.key(), pvs),
        Ok(_) => {}
        Err(error) => log::warn!("{ls}: {error}; the PVs that were read before are used"),
    }
}

/// The number of bytes that the lock manager needs in each `struct resource`: 0.
///
/// This is the first call, from lvmlockd's main thread, after it has become a daemon. From now on
/// the library cares for the locks that an earlier lvmlockd left behind.
#[unsafe(no_mangle)]
pub extern "C" fn lm_data_size_idm() -> c_int {
    call("lm_data_size_idm", never_fails, |_| {
        // An error in the layout is logged now, and returned by the calls that need the layout.
        let _ = abi::layout();
        abi::at_exit(end);
        if let Some(manager) = manager() {
            manager.recover();
        }
        Ok(0)
    })
}

/// Whether IDM can be used on this host: 1 or 0.
#[unsafe(no_mangle)]
pub extern "C" fn lm_is_running_idm() -> c_int {
    call("lm_is_running_idm", never_fails, |_| {
        let is_running = || match TestMode::get() {
            Some(test) => test.is_running(),
            None => Manager::get().is_running(),
        };
        Ok((abi::layout().is_ok() && is_running()).into())
    })
}

/// Registers a lockspace and checks that its drives can be used. lvm shows the result to the user.
///
/// Returns 0; -212 (EARGS) if the VG's parameters cannot be used; -214 (EMANAGER) if IDM cannot be
/// used on this host; -218 (ELOCKIO) if the drives cannot be used.
///
/// # Safety
///
/// `ls` is NULL or a lockspace of core, and stays valid until lm_rem_lockspace_idm or until
/// lm_add_lockspace_idm fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lm_prepare_lockspace_idm(ls: *mut RawLockspace) -> c_int {
    call("lm_prepare_lockspace_idm", Error::start_errno, |about| {
        // SAFETY: by the contract of this function.
        let ls = unsafe { LockspaceView::new(ls) }?;
        *about = format!(" {ls}");
        let layout = layout()?;
        let manager = manager();
        if let (Some(manager), Some(path)) = (manager, layout.lvm_path) {
            manager.set_lvm_path(path);
        }
        let scope = ls.scope(layout)?;
        if let Some(manager) = manager {
            manager.prepare_lockspace(ls.key(), scope)?;
        }
        Ok(0)
    })
}

/// Starts a lockspace that was prepared. If it fails, nothing remains of the lockspace.
///
/// Returns 0, or a negative error number, which core only logs.
///
/// # Safety
///
/// As lm_prepare_lockspace_idm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lm_add_lockspace_idm(
    ls: *mut RawLockspace,
    adopt_only: c_int,
    adopt_ok: c_int,
) -> c_int {
    call("lm_add_lockspace_idm", Error::errno, |about| {
        // SAFETY: by the contract of this function.
        let ls = unsafe { LockspaceView::new(ls) }?;
        *about = format!(" {ls}");
        let adopt = adopt(layout()?, adopt_only, adopt_ok);
        if let Some(manager) = manager() {
            manager.add_lockspace(ls.key(), adopt)?;
        }
        Ok(0)
    })
}

/// Stops a lockspace. With `free_vg` its VG is being removed.
///
/// Returns 0; -16 (EBUSY) if the lockspace stays as it is, because it has locks in use that core
/// does not know of.
///
/// # Safety
///
/// As lm_prepare_lockspace_idm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lm_rem_lockspace_idm(ls: *mut RawLockspace, free_vg: c_int) -> c_int {
    call("lm_rem_lockspace_idm", Error::errno, |about| {
        // SAFETY: by the contract of this function.
        let ls = unsafe { LockspaceView::new(ls) }?;
        *about = format!(" {ls}");
        // Up to 2.03.24 core ignores a refusal.
        let may_refuse = layout().is_ok_and(|layout| layout.adopt_args >= 2);
        if let Some(manager) = manager() {
            manager.remove_lockspace(ls.key(), free_vg != 0, may_refuse)?;
        }
        Ok(0)
    })
}

/// Registers a resource. Core calls it only before it removes an LV that was never locked.
///
/// Returns 0.
///
/// # Safety
///
/// `ls` and `r` are only used as names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lm_add_resource_idm(ls: *mut RawLockspace, r: *mut RawResource) -> c_int {
    // Every lock has such calls, and other lines already log what they do.
    call_at(log::Level::Trace, "lm_add_resource_idm", never_fails, |_| {
        // The manager has no state of a resource that holds nothing.
        if let Some(test) = TestMode::get().filter(|_| !ls.is_null() && !r.is_null()) {
            test.add_resource(ResourceKey(r as usize));
        }
        Ok(0)
    })
}

/// Forgets a resource, known or not. Never unlocks a lock that another resource holds.
///
/// The lockspace may be gone already, so neither struct is read.
///
/// Returns 0.
///
/// # Safety
///
/// `r` is only used as a name; `ls` not at all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lm_rem_resource_idm(_ls: *mut RawLockspace, r: *mut RawResource) -> c_int {
    // Every lock has such calls, and other lines already log what they do.
    call_at(log::Level::Trace, "lm_rem_resource_idm", never_fails, |about| {
        *about = format!(" {r:p}");
        let key = ResourceKey(r as usize);
        match TestMode::get() {
            Some(test) => test.remove_resource(key),
            None => Manager::get().remove_resource(key),
        }
        Ok(0)
    })
}

/// Takes a lock. `ld_mode` is 2 (shared) or 3 (exclusive).
///
/// For an LV, `lv_uuid` is its uuid and `pvs` the PVs that it lies on. The PVs are freed: core does
/// not need them any more (and would free them twice if the client disconnected at the wrong
/// moment). `vb_out` gets the value block: zeros where there is no value.
///
/// Returns 0; -11 (EAGAIN) if another host holds it; -218 (ELOCKIO) if too few drives answer;
/// -22 (EINVAL) for invalid parameters; -210 (ENOLS), -217 (EVGKILLED), -223 (EADOPT_NONE), -224
/// (EADOPT_RETRY).
///
/// # Safety
///
/// `ls`, `r` and `lv_uuid` are NULL or belong to core, and stay valid during the call. `vb_out` is
/// NULL or writable. `pvs` is NULL or a list of strings; for an LV, strings and array come from
/// malloc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lm_lock_idm(
    ls: *mut RawLockspace,
    r: *mut RawResource,
    ld_mode: c_int,
    vb_out: *mut RawValBlk,
    lv_uuid: *mut c_char,
    pvs: *mut Pvs,
    adopt_only: c_int,
    adopt_ok: c_int,
) -> c_int {
    call("lm_lock_idm", Error::errno, |about| {
        // SAFETY: by the contract of this function, for all of these.
        let r = unsafe { ResourceView::new(r) }?;
        let resource_type = r.resource_type()?;
        let lv_pvs = match resource_type {
            // Done first, so that it happens whatever comes next. SAFETY: as above.
            ResourceType::Lv => unsafe { abi::take_pvs(pvs) },
            ResourceType::Global | ResourceType::Vg => Ok(Vec::new()),
        };
        // SAFETY: as above.
        let ls = unsafe { LockspaceView::new(ls) }?;
        *about = format!(" {ls} {r}");
        let layout = layout()?;
        let mode = abi::mode(ld_mode)?;
        *about += &format!(" {mode}");
        let resource = match resource_type {
            ResourceType::Global => lock::Resource::Global,
            ResourceType::Vg => lock::Resource::Vg,
            ResourceType::Lv => lock::Resource::Lv {
                // SAFETY: as above.
                uuid: unsafe { abi::lv_uuid(lv_uuid) }?,
                pvs: lv_pvs?,
            },
        };
        let value = match TestMode::get() {
            Some(_) if r.test_remote_excludes(mode) => {
                return Err(Error::Held("held by a remote host of the test".into()));
            }
            Some(test) => test.lock(r.key()),
            None => {
                let manager = Manager::get();
                refresh_pvs(manager, ls, layout, &resource);
                let adopt = adopt(layout, adopt_only, adopt_ok);
                manager.lock(ls.key(), r.key(), resource, mode, adopt)?
            }
        };
        if !vb_out.is_null() {
            // SAFETY: as above.
            unsafe { vb_out.write_unaligned(value.into()) };
        }
        Ok(0)
    })
}

/// Reads the value block of a lock. The lock is neither taken nor disturbed. lvmlockd does not call
/// this function, because it gets the value with the lock.
///
/// `vb_out` gets the value at some moment of the call. It is the value that a majority of the
/// drives shows, or that this host knows if it has the lock. It is all zero if there is no value,
/// as for the lock of an LV, or if the value is not known, for example because another host has the
/// lock.
///
/// Returns 0; -218 (ELOCKIO) if too few drives answer; -22 (EINVAL) for invalid parameters; -210
/// (ENOLS); -217 (EVGKILLED). `vb_out` is written only with an answer of 0.
///
/// # Safety
///
/// `ls` and `r` are NULL or core's, for the duration of the call. `vb_out` is NULL or may be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lm_get_lvb_idm(
    ls: *mut RawLockspace,
    r: *mut RawResource,
    vb_out: *mut RawValBlk,
) -> c_int {
    call("lm_get_lvb_idm", Error::errno, |about| {
        // SAFETY: by the contract of this function, for both.
        let (ls, r) = unsafe { (LockspaceView::new(ls)?, ResourceView::new(r)?) };
        *about = format!(" {ls} {r}");
        if vb_out.is_null() {
            return Err(Error::Invalid("there is no place for the value".into()));
        }
        let layout = layout()?;
        let resource = match r.resource_type()? {
            ResourceType::Global => lock::Resource::Global,
            ResourceType::Vg => lock::Resource::Vg,
            ResourceType::Lv => lock::Resource::Lv { uuid: r.name()?, pvs: Vec::new() },
        };
        let value = match TestMode::get() {
            Some(test) => test.value(r.key()),
            None => {
                let manager = Manager::get();
                refresh_pvs(manager, ls, layout, &resource);
                manager.read_value(ls.key(), &resource)?
            }
        };
        // SAFETY: as above.
        unsafe { vb_out.write_unaligned(value.into()) };
        Ok(0)
    })
}

/// Changes the mode of a held lock. `r_version` is a version to publish, or 0.
///
/// Returns 0 or, with the lock in its old mode, a negative error number as lm_lock_idm.
///
/// # Safety
///
/// `ls` and `r` are NULL or belong to core, and stay valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lm_convert_idm(
    ls: *mut RawLockspace,
    r: *mut RawResource,
    ld_mode: c_int,
    r_version: u32,
) -> c_int {
    call("lm_convert_idm", Error::errno, |about| {
        // SAFETY: by the contract of this function, for both.
        let (ls, r) = unsafe { (LockspaceView::new(ls)?, ResourceView::new(r)?) };
        *about = format!(" {ls} {r}");
        let mode = abi::mode(ld_mode)?;
        *about += &format!(" {mode} version {r_version}");
        match TestMode::get() {
            Some(test) => test.write(r.key(), r_version),
            None => Manager::get().convert(r.key(), mode, r_version)?,
        }
        Ok(0)
    })
}

/// Gives up a lock. `r_version` is a version to publish, or 0; `lmu_flags` is 1 when the VG is
/// being removed.
///
/// Always returns 0: with an error, core's state would stay wrong for ever. Drives that did not
/// take the release are followed up in the background.
///
/// # Safety
///
/// `ls` and `r` are NULL or belong to core, and stay valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lm_unlock_idm(
    ls: *mut RawLockspace,
    r: *mut RawResource,
    r_version: u32,
    lmu_flags: u32,
) -> c_int {
    call("lm_unlock_idm", never_fails, |about| {
        // SAFETY: by the contract of this function, for both.
        let (ls, r) = unsafe { (LockspaceView::new(ls)?, ResourceView::new(r)?) };
        *about = format!(" {ls} {r} version {r_version} flags {lmu_flags}");
        match TestMode::get() {
            Some(test) => test.write(r.key(), r_version),
            None => Manager::get().unlock(r.key(), r_version, lmu_flags),
        }
        Ok(0)
    })
}

/// The number of other hosts that have the lockspace started, or a negative error number. `notify`
/// is not used, as in core's other lock managers.
///
/// # Safety
///
/// As lm_prepare_lockspace_idm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lm_hosts_idm(ls: *mut RawLockspace, _notify: c_int) -> c_int {
    call("lm_hosts_idm", Error::errno, |about| {
        // SAFETY: by the contract of this function.
        let ls = unsafe { LockspaceView::new(ls) }?;
        *about = format!(" {ls}");
        let hosts = manager().map_or(Ok(0), |manager| manager.hosts(ls.key()))?;
        Ok(c_int::try_from(hosts).unwrap_or(c_int::MAX))
    })
}

/// Adds the lockspaces that a dead lvmlockd left behind to the list `ls_rejoin`, each as core's
/// `alloc_lockspace` makes it, with name, VG name, uuid, type and PVs. No release of core calls
/// it yet.
///
/// Returns 0, or -218 (ELOCKIO) where core's structures are not known.
///
/// # Safety
///
/// `ls_rejoin` is NULL or a list of core that no other thread uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lm_get_lockspaces_idm(ls_rejoin: *mut ListHead) -> c_int {
    call("lm_get_lockspaces_idm", Error::errno, |_| {
        if ls_rejoin.is_null() {
            return Ok(0);
        }
        for found in manager().map_or_else(Vec::new, Manager::left_lockspaces) {
            // SAFETY: by the contract of this function.
            unsafe { abi::add_found(ls_rejoin, layout()?, &found) }?;
        }
        Ok(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_errors() -> Vec<Error> {
        let why = String::new;
        vec![
            Error::Held(why()),
            Error::Storage(why()),
            Error::Invalid(why()),
            Error::NotRunning(why()),
            Error::NoLockspace,
            Error::Killed,
            Error::Busy,
            Error::AdoptNone,
            Error::AdoptOtherMode,
            Error::Internal(why()),
        ]
    }

    #[test]
    fn panic_becomes_an_error() {
        let answer = call("lm_test", Error::errno, |_| panic!("a bug"));
        assert_eq!(answer, -218);
        let answer = call("lm_test", never_fails, |_| panic!("a bug"));
        assert_eq!(answer, 0);
    }

    #[test]
    fn core_gets_no_number_that_it_takes_for_something_else() {
        for error in all_errors() {
            for number in [Error::errno, Error::start_errno] {
                let answer = call("lm_test", number, |_| Err(error.clone()));
                assert!(answer < 0, "{error:?}");
                assert!(answer != -libc::EUNATCH && answer != -1000, "{error:?}");
            }
            assert_eq!(call("lm_test", never_fails, |_| Err(error.clone())), 0);
        }
    }

    #[test]
    fn second_adopt_argument_is_garbage_in_old_releases() {
        let layout = |adopt_args| Layout { lockspace_pvs: 376, adopt_args, lvm_path: None };
        assert_eq!(adopt(&layout(1), 0, 77), Adopt::default());
        assert_eq!(adopt(&layout(1), 1, 0), Adopt::default());
        let both = Adopt { only: true, ok: true };
        assert_eq!(adopt(&layout(2), 1, 77), both);
        assert_eq!(adopt(&layout(2), 0, 0), Adopt::default());
    }
}
