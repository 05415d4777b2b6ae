//! The value block that a host caches for a mutex, and the timestamp that stands for it.

use super::ValBlk;
use idm_engine::ValueRead;
use idm_protocol::Value;

/// The last value block of a mutex that this host knows.
///
/// A drive keeps 7 bytes with a mutex, too few for lvmlockd's block. So they hold a timestamp: us
/// since 1970, greater with every write. The block itself stays with the host that wrote it, and is
/// valid as long as the drives have the timestamp of that write.
///
/// The lowest bit is a mark: the VG was removed at the time that the other bits give.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ValueCache {
    /// Start time of the lockspace, in us since 1970.
    since_us: u64,
    /// Greatest value that was seen or written.
    greatest: Value,
    written: Option<(Value, ValBlk)>,
}

/// `VAL_BLK_VERSION` of lvmlockd.
const VERSION: u16 = 0x0101;
/// `VBF_REMOVED` of lvmlockd.
const REMOVED: u16 = 1;
/// The block that core gets for a VG that another host has removed; core requires a version.
const REMOVED_BLOCK: ValBlk = ValBlk { version: VERSION, flags: REMOVED, r_version: 1 };
/// The largest accepted lag in us, compared with ours, of the clock of the host that removed a VG.
const CLOCKS_DIFFER_US: u64 = 10_000_000;

/// The time when a value was published, in us since 1970, and whether the VG was removed then.
pub fn published(value: Value) -> (u64, bool) {
    (value.get() >> 1, value.get() & 1 != 0)
}

impl ValueCache {
    /// An empty cache for a lockspace that was started at this time.
    pub fn since(since_us: u64) -> ValueCache {
        ValueCache { since_us, ..ValueCache::default() }
    }

    /// The block for a value that came with a lock. If another host has or may have written since,
    /// the cached block is dropped.
    pub fn read(&mut self, read: ValueRead) -> ValBlk {
        let block = self.block(read);
        if let ValueRead::Known(value) = read {
            self.greatest = self.greatest.max(value);
        }
        if !self.written.is_some_and(|(timestamp, _)| read == ValueRead::Known(timestamp)) {
            self.written = None;
        }
        block
    }

    /// The block for a value. It is all zero, which makes lvmlockd read again, where another host
    /// has or may have written since.
    pub fn block(&self, read: ValueRead) -> ValBlk {
        let ValueRead::Known(value) = read else { return ValBlk::default() };
        if let Some((_, block)) = self.written.filter(|(timestamp, _)| *timestamp == value) {
            return block;
        }
        // A VG that was started after its removal has been restored since.
        let (us, removed) = published(value);
        if removed && us + CLOCKS_DIFFER_US >= self.since_us {
            return REMOVED_BLOCK;
        }
        ValBlk::default()
    }

    /// The value to write next; `removes` sets the mark of a VG that is being removed.
    pub fn next(&self, now_us: u64, removes: bool) -> Value {
        let after = (self.greatest.get() >> 1).saturating_add(1);
        let value = |us: u64| Value::new(us << 1 | u64::from(removes));
        // A drive with the greatest possible value would stop the count. A smaller value still
        // differs, and readers only check for a difference.
        value(now_us.max(after)).or_else(|| value(now_us)).unwrap_or(Value::ZERO)
    }

    /// Records a value that was written, and returns its block.
    pub fn wrote(&mut self, timestamp: Value, r_version: u32) -> ValBlk {
        self.greatest = self.greatest.max(timestamp);
        let block = ValBlk { version: VERSION, flags: 0, r_version };
        self.written = Some((timestamp, block));
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(value: u64) -> ValueRead {
        ValueRead::Known(Value::new(value).unwrap())
    }

    #[test]
    fn a_block_is_good_while_its_timestamp_stands() {
        let mut cache = ValueCache::default();
        assert_eq!(cache.read(known(0)), ValBlk::default());
        let timestamp = cache.next(1000, false);
        assert_eq!(timestamp.get(), 2000);
        cache.wrote(timestamp, 7);
        let block = cache.read(known(2000));
        assert_eq!((block.version, block.r_version, block.flags), (VERSION, 7, 0));
        assert_eq!(cache.read(known(2002)), ValBlk::default());
        assert_eq!(cache.read(known(2000)), ValBlk::default());
    }

    #[test]
    fn an_unknown_value_invalidates() {
        let mut cache = ValueCache::default();
        cache.wrote(cache.next(1000, false), 7);
        assert_eq!(cache.read(known(2000)).r_version, 7);
        assert_eq!(cache.read(ValueRead::Unknown), ValBlk::default());
        assert_eq!(cache.read(known(2000)), ValBlk::default());
    }

    #[test]
    fn a_look_without_a_lock_changes_nothing() {
        let mut cache = ValueCache::default();
        cache.wrote(cache.next(1000, false), 7);
        for read in [ValueRead::Unknown, known(2002)] {
            assert_eq!(cache.block(read), ValBlk::default());
        }
        assert_eq!(cache.block(known(2000)).r_version, 7);
        assert_eq!(cache.next(10, false).get(), 2002);
        assert_eq!(cache.read(known(2000)).r_version, 7);
    }

    #[test]
    fn timestamps_never_repeat() {
        let mut cache = ValueCache::default();
        let us = |cache: &ValueCache, now_us: u64| cache.next(now_us, false).get() >> 1;
        cache.read(known(10_001));
        assert_eq!(us(&cache, 10), 5001);
        cache.wrote(cache.next(10, false), 1);
        assert_eq!(us(&cache, 10), 5002);
        assert_eq!(us(&cache, 9000), 9000);
        cache.read(known(Value::MAX.get()));
        assert_eq!(us(&cache, 9000), 9000);
        // The format has room for all times until the year 3000.
        let year_3000 = 1030 * 365 * 86_400 * 1_000_000;
        assert_eq!(us(&ValueCache::default(), year_3000), year_3000);
    }

    #[test]
    fn a_removed_vg_is_told_to_those_that_had_it_started() {
        const S: u64 = 1_000_000;
        let removed_at = |us: u64| ValueRead::Known(ValueCache::default().next(us, true));
        let started = || ValueCache::since(1000 * S);
        assert_eq!(started().read(removed_at(2000 * S)), REMOVED_BLOCK);
        assert_eq!(started().read(removed_at(995 * S)), REMOVED_BLOCK);
        // Started after the removal: it is another VG with the same uuid, restored from a backup.
        assert_eq!(started().read(removed_at(980 * S)), ValBlk::default());
        // The next writer removes the mark.
        let mut cache = started();
        cache.read(removed_at(2000 * S));
        let next = ValueRead::Known(cache.next(1500 * S, false));
        assert_eq!(started().read(next), ValBlk::default());
    }
}
