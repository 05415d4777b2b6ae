//! `lvmlockd --test`: locks that are always granted, without any device
//! (docs/lvmlockd-contract.md, "Test mode").

use crate::abi::symbols;
use crate::lock::{ResourceKey, ValBlk};
use crate::sys::sync::{Mutex, MutexGuard};
use once_cell::sync::OnceCell;
use std::collections::HashMap;

/// `VAL_BLK_VERSION`.
const VAL_BLK_VERSION: u16 = 0x0101;

/// Replacement for the manager in test mode, where an answer is needed. It keeps the value blocks,
/// as a drive would.
#[derive(Default)]
pub struct TestMode {
    values: Mutex<HashMap<ResourceKey, ValBlk>>,
}

impl TestMode {
    /// The replacement, if lvmlockd runs in test mode.
    pub fn get() -> Option<&'static TestMode> {
        static TEST_MODE: OnceCell<TestMode> = OnceCell::new();
        symbols::daemon_test().then(|| TEST_MODE.get_or_init(TestMode::default))
    }

    /// Adds a resource without a value.
    pub fn add_resource(&self, key: ResourceKey) {
        self.values().insert(key, ValBlk::default());
    }

    /// Forgets the value.
    pub fn remove_resource(&self, key: ResourceKey) {
        self.values().remove(&key);
    }

    /// The value of the last writer. Every lock is granted.
    pub fn lock(&self, key: ResourceKey) -> ValBlk {
        *self.values().entry(key).or_default()
    }

    /// The same without a lock.
    pub fn value(&self, key: ResourceKey) -> ValBlk {
        self.values().get(&key).copied().unwrap_or_default()
    }

    /// Whether the test uses idm as the type of the global lock.
    pub fn is_running(&self) -> bool {
        symbols::gl_use_idm()
    }

    /// Keeps the value with which a lock is converted or given up. Core passes a version only where
    /// the lock is exclusive (docs/lvmlockd-contract.md, "Values").
    pub fn write(&self, key: ResourceKey, r_version: u32) {
        if r_version != 0 {
            let mut values = self.values();
            let value = values.entry(key).or_default();
            value.version = VAL_BLK_VERSION;
            value.r_version = r_version;
        }
    }

    fn values(&self) -> MutexGuard<'_, HashMap<ResourceKey, ValBlk>> {
        self.values.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_last_from_unlock_to_lock() {
        let test = TestMode::default();
        let (a, b) = (ResourceKey(10), ResourceKey(11));
        assert_eq!(test.lock(a), ValBlk::default());
        test.write(a, 7);
        let written = ValBlk { version: 0x0101, flags: 0, r_version: 7 };
        assert_eq!(test.lock(a), written);
        assert_eq!(test.lock(b), ValBlk::default());
        assert_eq!((test.value(a), test.value(b)), (written, ValBlk::default()));
        test.write(a, 0);
        assert_eq!(test.lock(a), written);
        test.write(a, 8);
        assert_eq!(test.lock(a).r_version, 8);
        test.remove_resource(a);
        assert_eq!(test.lock(a), ValBlk::default());
    }

    #[test]
    fn is_off_outside_of_lvmlockd() {
        assert!(TestMode::get().is_none());
    }
}
