//! `lvmlockd --test`: locks that are always granted, without any device
//! (docs/lvmlockd-contract.md, "Test mode").

use super::host;
use crate::error::Error;
use crate::manager::{Adopt, LockspaceKey, Resource, ResourceKey, Scope, ValBlk};
use crate::recovery::store::SavedLockspace;
use crate::sync::{Mutex, MutexGuard};
use idm_protocol::Mode;
use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError};

/// `VAL_BLK_VERSION`.
const VAL_BLK_VERSION: u16 = 0x0101;

/// Stands in for the manager in test mode, with the same functions. It keeps what a drive would
/// keep: the value blocks.
#[derive(Default)]
pub struct TestMode {
    values: Mutex<HashMap<ResourceKey, ValBlk>>,
}

impl TestMode {
    /// The stand-in, if lvmlockd runs in test mode.
    pub fn get() -> Option<&'static TestMode> {
        static TEST_MODE: LazyLock<TestMode> = LazyLock::new(TestMode::default);
        host::daemon_test().then(|| &*TEST_MODE)
    }

    /// No kill command is run.
    pub fn set_lvm_path(&self, _: &str) {}

    /// Nothing to check.
    pub fn prepare_lockspace(&self, _: LockspaceKey, _: Scope) -> Result<(), Error> {
        Ok(())
    }

    /// Nothing to start.
    pub fn add_lockspace(&self, _: LockspaceKey, _: Adopt) -> Result<(), Error> {
        Ok(())
    }

    /// Nothing is on its way.
    pub fn end(&self) {}

    /// Nothing to find.
    pub fn recover(&self) {}

    /// None.
    pub fn left_lockspaces(&self) -> Vec<SavedLockspace> {
        Vec::new()
    }

    /// Nothing to stop.
    pub fn remove_lockspace(
        &self,
        _: LockspaceKey,
        _free_vg: bool,
        _may_refuse: bool,
    ) -> Result<(), Error> {
        Ok(())
    }

    /// No PV is looked at.
    pub fn set_pvs(&self, _: LockspaceKey, _: Vec<String>) {}

    /// The resource begins without a value.
    pub fn add_resource(&self, _: LockspaceKey, key: ResourceKey) {
        self.values().insert(key, ValBlk::default());
    }

    /// Forgets the value.
    pub fn remove_resource(&self, key: ResourceKey) {
        self.values().remove(&key);
    }

    /// Granted, with the value of the last writer.
    pub fn lock(
        &self,
        _: LockspaceKey,
        key: ResourceKey,
        _: Resource,
        _: Mode,
        _: Adopt,
    ) -> Result<ValBlk, Error> {
        Ok(*self.values().entry(key).or_default())
    }

    /// Done, and the value kept.
    pub fn convert(&self, key: ResourceKey, _: Mode, r_version: u32) -> Result<(), Error> {
        self.write(key, r_version);
        Ok(())
    }

    /// Done, and the value kept.
    pub fn unlock(&self, key: ResourceKey, r_version: u32, _lmu_flags: u32) {
        self.write(key, r_version);
    }

    /// No other host.
    pub fn hosts(&self, _: LockspaceKey) -> Result<u32, Error> {
        Ok(0)
    }

    /// As the test says: whether idm is the type of the global lock.
    pub fn is_running(&self) -> bool {
        host::gl_use_idm()
    }

    /// Core passes a version only where the lock is exclusive (docs/lvmlockd-contract.md,
    /// "Values").
    fn write(&self, key: ResourceKey, r_version: u32) {
        if r_version != 0 {
            let mut values = self.values();
            let value = values.entry(key).or_default();
            value.version = VAL_BLK_VERSION;
            value.r_version = r_version;
        }
    }

    fn values(&self) -> MutexGuard<'_, HashMap<ResourceKey, ValBlk>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VG: LockspaceKey = LockspaceKey(1);

    fn lock(test: &TestMode, key: ResourceKey) -> ValBlk {
        test.lock(VG, key, Resource::Vg, Mode::Shared, Adopt::default()).unwrap()
    }

    #[test]
    fn values_last_from_unlock_to_lock() {
        let test = TestMode::default();
        let (a, b) = (ResourceKey(10), ResourceKey(11));
        assert_eq!(lock(&test, a), ValBlk::default());
        test.unlock(a, 7, 0);
        let written = ValBlk { version: 0x0101, flags: 0, r_version: 7 };
        assert_eq!(lock(&test, a), written);
        assert_eq!(lock(&test, b), ValBlk::default());
        test.unlock(a, 0, 0);
        assert_eq!(lock(&test, a), written);
        test.convert(a, Mode::Shared, 8).unwrap();
        assert_eq!(lock(&test, a).r_version, 8);
        test.remove_resource(a);
        assert_eq!(lock(&test, a), ValBlk::default());
    }

    #[test]
    fn is_off_outside_of_lvmlockd() {
        assert!(TestMode::get().is_none());
    }
}
