//! Reading core's structs: raw addresses in, plain values out.
//!
//! Fields that never moved are read at fixed offsets (docs/lvmlockd-contract.md, "Layouts"), the
//! others through the [`Layout`]. All values are copied at once; no pointer is kept for later.

use super::Layout;
use super::borrowed::{self, Copied};
use super::c::{Pvs, RawLockspace, RawResource};
use crate::error::Error;
use crate::lock::{LockspaceKey, ResourceKey, Scope};
use core::ffi::{c_char, c_int};
use core::fmt;
use core::ptr::{self, NonNull};
use idm_protocol::Mode;

/// Number of copies of a list before it is given up.
const COPIES: usize = 1000;

/// Size of `char name[MAX_NAME + 1]` and similar arrays.
pub const NAME_SIZE: usize = 65;

/// Offsets in `struct lockspace`.
pub mod lockspace {
    pub const NAME: usize = 16;
    pub const VG_NAME: usize = 81;
    pub const VG_UUID: usize = 146;
    /// Size of the only array that is not 65 bytes long.
    pub const VG_UUID_SIZE: usize = 64;
}

/// Offsets in `struct resource`.
mod resource {
    pub const NAME: usize = 16;
    pub const TYPE: usize = 81;
    /// The byte with the `test_remote_*` bits of 2.03.40; in older releases it is padding or
    /// unused bits, which are zero because core clears the whole struct
    /// (docs/lvmlockd-contract.md, "Layouts").
    pub const FLAGS: usize = 100;
    pub const TEST_REMOTE_EX: u8 = 1 << 4;
    pub const TEST_REMOTE_SH: u8 = 1 << 5;
}

/// `S_NAME_GL_IDM`: the lockspace of the global lock.
pub const GLOBAL_LOCKSPACE: &str = "lvm_global";

/// A `struct lockspace` during one call.
#[derive(Clone, Copy)]
pub struct LockspaceView {
    base: NonNull<u8>,
}

impl LockspaceView {
    /// # Safety
    ///
    /// `ls` is NULL or points to a `struct lockspace` that stays as long as the view.
    pub unsafe fn new(ls: *mut RawLockspace) -> Result<LockspaceView, Error> {
        match NonNull::new(ls.cast()) {
            Some(base) => Ok(LockspaceView { base }),
            None => Err(Error::unfit("lvmlockd passed no lockspace")),
        }
    }

    /// The key of this library's state for it.
    pub fn key(self) -> LockspaceKey {
        LockspaceKey(self.base.as_ptr() as usize)
    }

    /// `lvm_global` or `lvm_` and the VG's name.
    fn name(self) -> Result<String, Error> {
        self.string(lockspace::NAME, NAME_SIZE, "lockspace name")
    }

    /// The scope of the lockspace, with its current PVs.
    pub fn scope(self, layout: &Layout) -> Result<Scope, Error> {
        let name = self.string(lockspace::VG_NAME, NAME_SIZE, "VG name")?;
        if name.is_empty() {
            return match self.name()?.as_str() {
                GLOBAL_LOCKSPACE => Ok(Scope::Global),
                other => Err(Error::unfit(format!("lockspace {other} is of no VG"))),
            };
        }
        Ok(Scope::Vg {
            name,
            uuid: self.string(lockspace::VG_UUID, lockspace::VG_UUID_SIZE, "VG uuid")?,
            pvs: self.pvs(layout)?,
        })
    }

    /// Paths of the VG's PVs; none for the global lockspace.
    ///
    /// A repeated start of the VG frees and replaces the list from core's client thread, without a
    /// lock that this library could take (docs/lvmlockd-contract.md, "Lists of PVs"). So it is
    /// copied in a way that is safe with freed memory, until two copies are equal. A race in core
    /// remains: both copies may come from the list before the replacement, or from freed strings
    /// that still look like text; the next lock of the VG corrects this.
    pub fn pvs(self, layout: &Layout) -> Result<Vec<String>, Error> {
        let mut before = None;
        for _ in 0..COPIES {
            // SAFETY: the layout was checked against this release of lvmlockd, and the contract of
            // `new` covers the struct.
            let copied =
                unsafe { borrowed::copy(self.base.add(layout.lockspace_pvs).cast().as_ptr()) };
            match copied {
                Some(list) if before.as_ref() == Some(&list) => return paths(&list),
                copied => before = copied,
            }
        }
        Err(Error::Invalid("lvmlockd replaces its list of PVs all the time".into()))
    }

    fn string(self, offset: usize, size: usize, what: &str) -> Result<String, Error> {
        // SAFETY: the field is inside the struct, by the contract of `new`.
        unsafe { bounded_string(self.base.as_ptr().add(offset).cast(), size, what) }
    }
}

/// The paths in a copied list.
fn paths(list: &Copied) -> Result<Vec<String>, Error> {
    if list.num < 0 && list.is_there() {
        return Err(Error::unfit(format!("a list of {} PVs", list.num)));
    }
    let string = |text: &Option<Vec<u8>>| {
        let text = text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        // SAFETY: NULL, or a copy that has its end or as many bytes as that.
        unsafe { bounded_string(text.cast(), libc::PATH_MAX as usize, "PV path") }
    };
    list.paths.iter().map(string).collect()
}

/// The name, for the log, whatever it is.
impl fmt::Display for LockspaceView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().as_deref().unwrap_or("?"))
    }
}

/// The kind of lock that a `struct resource` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceType {
    /// `LD_RT_GL`.
    Global,
    /// `LD_RT_VG`.
    Vg,
    /// `LD_RT_LV`.
    Lv,
}

/// A `struct resource` during one call.
#[derive(Clone, Copy)]
pub struct ResourceView {
    base: NonNull<u8>,
}

impl ResourceView {
    /// # Safety
    ///
    /// `r` is NULL or points to a `struct resource` that stays as long as the view.
    pub unsafe fn new(r: *mut RawResource) -> Result<ResourceView, Error> {
        match NonNull::new(r.cast()) {
            Some(base) => Ok(ResourceView { base }),
            None => Err(Error::unfit("lvmlockd passed no resource")),
        }
    }

    /// The key of this library's state for it.
    pub fn key(self) -> ResourceKey {
        ResourceKey(self.base.as_ptr() as usize)
    }

    /// `GLLK`, `VGLK` or the LV's uuid.
    pub fn name(self) -> Result<String, Error> {
        // SAFETY: the field is inside the struct, by the contract of `new`.
        unsafe {
            let name = self.base.as_ptr().add(resource::NAME);
            bounded_string(name.cast(), NAME_SIZE, "resource name")
        }
    }

    /// The kind of lock that it stands for.
    pub fn resource_type(self) -> Result<ResourceType, Error> {
        match self.byte(resource::TYPE) {
            1 => Ok(ResourceType::Global),
            2 => Ok(ResourceType::Vg),
            3 => Ok(ResourceType::Lv),
            other => Err(Error::unfit(format!("resource type {other} is unknown"))),
        }
    }

    /// Whether a test has set another host as holder in a mode that excludes `mode`
    /// (`lvmlockctl --set-remote-lv-lock`, test mode of lvm2 2.03.40).
    pub fn test_remote_excludes(self, mode: Mode) -> bool {
        let flags = self.byte(resource::FLAGS);
        flags & resource::TEST_REMOTE_EX != 0
            || flags & resource::TEST_REMOTE_SH != 0 && mode == Mode::Exclusive
    }

    fn byte(self, offset: usize) -> u8 {
        // SAFETY: the field is inside the struct, by the contract of `new`.
        unsafe { *self.base.as_ptr().add(offset) }
    }
}

/// The name, for the log, whatever it is.
impl fmt::Display for ResourceView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().as_deref().unwrap_or("?"))
    }
}

/// Converts a lock mode of core.
pub fn mode(ld_mode: c_int) -> Result<Mode, Error> {
    match ld_mode {
        2 => Ok(Mode::Shared),
        3 => Ok(Mode::Exclusive),
        other => Err(Error::unfit(format!("lock mode {other} is unknown"))),
    }
}

/// The uuid of the LV in a request.
///
/// # Safety
///
/// `uuid` is NULL or a string.
pub unsafe fn lv_uuid(uuid: *const c_char) -> Result<String, Error> {
    // SAFETY: by the contract of this function.
    unsafe { bounded_string(uuid, NAME_SIZE, "LV uuid") }
}

/// Removes the PV paths of an LV request from the action that owns `pvs`, and returns them.
///
/// Core frees them twice if the client disconnects while the request is in progress and the lock
/// is then granted: it copies the whole action for the unlock, and with it the pointers. Core does
/// not read the paths of an LV request again, so with an empty list nothing is freed twice
/// (docs/lvmlockd-contract.md, "The LV paths that core frees twice").
///
/// # Safety
///
/// `pvs` is NULL or points to a `struct pvs` whose strings and array come from malloc and have no
/// other owner.
pub unsafe fn take_pvs(pvs: *mut Pvs) -> Result<Vec<String>, Error> {
    if pvs.is_null() {
        return Ok(Vec::new());
    }
    let empty = Pvs { path: ptr::null_mut(), num: 0 };
    // SAFETY: by the contract of this function; the strings are freed after they were copied, and
    // nobody else finds them any more.
    unsafe {
        let taken = ptr::replace(pvs, empty);
        let copy = copy_pvs(&taken);
        if !taken.path.is_null() {
            for i in 0..usize::try_from(taken.num).unwrap_or(0) {
                libc::free((*taken.path.add(i)).cast());
            }
            libc::free(taken.path.cast());
        }
        copy
    }
}

/// Copies the paths. Empty if there is no array, whatever the stated length.
///
/// # Safety
///
/// The array is NULL or has `num` entries, each NULL or a string.
unsafe fn copy_pvs(pvs: &Pvs) -> Result<Vec<String>, Error> {
    if pvs.path.is_null() {
        return Ok(Vec::new());
    }
    let Ok(count) = usize::try_from(pvs.num) else {
        return Err(Error::unfit(format!("a list of {} PVs", pvs.num)));
    };
    (0..count)
        // SAFETY: by the contract of this function.
        .map(|i| unsafe { bounded_string(*pvs.path.add(i), libc::PATH_MAX as usize, "PV path") })
        .collect()
}

/// Copies a string that ends within `size` bytes. `what` names it in the error.
///
/// # Safety
///
/// `text` is NULL, or is readable up to its terminator or `size` bytes, whichever comes first.
unsafe fn bounded_string(text: *const c_char, size: usize, what: &str) -> Result<String, Error> {
    if text.is_null() {
        return Err(Error::unfit(format!("lvmlockd passed no {what}")));
    }
    // SAFETY: by the contract of this function; strnlen reads no further than that.
    let bytes = unsafe {
        let length = libc::strnlen(text, size);
        core::slice::from_raw_parts(text.cast::<u8>(), length)
    };
    if bytes.len() == size {
        return Err(Error::unfit(format!("the {what} is too long")));
    }
    match core::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Error::Invalid(format!(
            "the {what} is not UTF-8: {}; rename what it names",
            bytes.escape_ascii()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ffi::CStr;
    use proptest::prelude::*;

    const LAYOUT: Layout = Layout { lockspace_pvs: 304, adopt_args: 2, lvm_path: None };

    /// A `struct lockspace` of 2.03.31, as bytes.
    #[repr(C, align(16))]
    struct Memory([u8; 480]);

    impl Memory {
        fn new(name: &[u8], vg_name: &[u8], vg_uuid: &[u8]) -> Memory {
            let mut memory = Memory([0; 480]);
            for (offset, text) in [(16, name), (81, vg_name), (146, vg_uuid)] {
                memory.0[offset..offset + text.len()].copy_from_slice(text);
            }
            memory
        }

        fn set_pvs(&mut self, pvs: Pvs) {
            // SAFETY: 304 + 16 bytes are inside, and 304 is a multiple of the alignment.
            unsafe { self.0.as_mut_ptr().add(304).cast::<Pvs>().write(pvs) };
        }

        fn view(&mut self) -> LockspaceView {
            // SAFETY: the tests keep the memory as long as the view.
            unsafe { LockspaceView::new(self.0.as_mut_ptr().cast()) }.unwrap()
        }
    }

    /// A list from malloc, in core's form.
    fn core_pvs(paths: &[Option<&CStr>]) -> Pvs {
        // SAFETY: every entry is written before the list is used; the array is big enough.
        unsafe {
            let path: *mut *mut c_char = libc::calloc(paths.len().max(1), 8).cast();
            for (i, text) in paths.iter().enumerate() {
                *path.add(i) = text.map_or(ptr::null_mut(), |text| libc::strdup(text.as_ptr()));
            }
            Pvs { path, num: paths.len() as c_int }
        }
    }

    const UUID: &[u8] = b"Fw4xZP-2NTq-Ysm0-7dHj-b2nS-xBcf-PfAQ9g";

    #[test]
    fn global_lockspace() {
        let mut memory = Memory::new(b"lvm_global", b"", b"");
        memory.set_pvs(Pvs { path: ptr::null_mut(), num: 3 });
        assert_eq!(memory.view().scope(&LAYOUT), Ok(Scope::Global));
        assert_eq!(memory.view().pvs(&LAYOUT), Ok(vec![]));
        // A VG named "global" has the same lockspace name.
        let mut memory = Memory::new(b"lvm_global", b"global", UUID);
        assert!(matches!(
            memory.view().scope(&LAYOUT),
            Ok(Scope::Vg { name, .. }) if name == "global"
        ));
        let mut memory = Memory::new(b"lvm_", b"", b"");
        assert!(memory.view().scope(&LAYOUT).is_err());
    }

    #[test]
    fn vg_lockspace_with_its_pvs() {
        let mut memory = Memory::new(b"lvm_vg0", b"vg0", UUID);
        let mut pvs = core_pvs(&[Some(c"/dev/sda"), Some(c"/dev/mapper/mpatha")]);
        memory.set_pvs(Pvs { path: pvs.path, num: pvs.num });
        let expected = vec!["/dev/sda".to_owned(), "/dev/mapper/mpatha".to_owned()];
        assert_eq!(
            memory.view().scope(&LAYOUT),
            Ok(Scope::Vg {
                name: "vg0".into(),
                uuid: String::from_utf8(UUID.to_vec()).unwrap(),
                pvs: expected.clone()
            })
        );
        assert_eq!(memory.view().to_string(), "lvm_vg0");
        // SAFETY: made above; the lockspace is not looked at again.
        assert_eq!(unsafe { take_pvs(&mut pvs) }, Ok(expected));
    }

    /// A core that replaces the list as fast as it can, like repeated starts of the VG.
    #[test]
    fn a_list_that_is_replaced_meanwhile_is_one_of_both() {
        use core::sync::atomic::{AtomicBool, Ordering};
        let mut memory = Memory::new(b"lvm_vg0", b"vg0", UUID);
        memory.set_pvs(core_pvs(&[Some(c"/dev/sda"), Some(c"/dev/mapper/mpatha")]));
        let view = memory.view();
        let place = view.base.as_ptr() as usize + 304;
        let over = AtomicBool::new(false);
        let replace = |round: usize| {
            let place = place as *mut Pvs;
            let two: &[Option<&CStr>] = &[Some(c"/dev/sda"), Some(c"/dev/mapper/mpatha")];
            let many = vec![Some(c"/dev/disk/by-id/wwn-0x5000c500a1b2c3d4"); 3000];
            // SAFETY: the memory outlives the thread, and nobody else writes it.
            unsafe {
                take_pvs(place).unwrap();
                let new = core_pvs(if round % 2 == 0 { &many } else { two });
                ptr::write_volatile(&raw mut (*place).path, new.path);
                ptr::write_volatile(&raw mut (*place).num, new.num);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..).take_while(|_| !over.load(Ordering::Relaxed)).for_each(replace);
            });
            let begin = std::time::Instant::now();
            while begin.elapsed() < core::time::Duration::from_millis(500) {
                if let Ok(pvs) = view.pvs(&LAYOUT) {
                    let known = |pv: &String| pv.starts_with("/dev/");
                    assert!(matches!(pvs.len(), 0 | 2 | 3000) && pvs.iter().all(known), "{pvs:?}");
                }
            }
            over.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn names_without_end_are_refused() {
        let mut memory = Memory::new(&[b'x'; 65], &[b'y'; 65], &[b'z'; 64]);
        let error = memory.view().scope(&LAYOUT).unwrap_err().to_string();
        assert!(error.starts_with("the VG name is too long"), "{error}");
        assert_eq!(memory.view().to_string(), "?");
        let mut memory = Memory::new(b"lvm_v", b"v", &[b'z'; 64]);
        let error = memory.view().scope(&LAYOUT).unwrap_err().to_string();
        assert!(error.starts_with("the VG uuid is too long"), "{error}");
        let mut memory = Memory::new(b"lvm_v", b"v\xff", UUID);
        let error = memory.view().scope(&LAYOUT).unwrap_err().to_string();
        assert!(error.starts_with("the VG name is not UTF-8: v\\xff;"), "{error}");
    }

    #[test]
    fn taken_lists_are_empty_whatever_was_in_them() {
        let cases: [&[Option<&CStr>]; 4] = [
            &[],
            &[Some(c"/dev/sda"), None, Some(c"/dev/sdb")],
            &[Some(c"/dev/\xff")],
            &[Some(c"/dev/sda"), Some(c"/dev/sdb")],
        ];
        for (paths, good) in cases.into_iter().zip([true, false, false, true]) {
            let mut pvs = core_pvs(paths);
            // SAFETY: made above.
            let taken = unsafe { take_pvs(&mut pvs) };
            assert_eq!(taken.is_ok(), good, "{paths:?}");
            assert!(pvs.path.is_null() && pvs.num == 0, "{paths:?}");
        }
        let mut stale = Pvs { path: ptr::null_mut(), num: 7 };
        // SAFETY: NULL or no array.
        unsafe {
            assert_eq!(take_pvs(&mut stale), Ok(vec![]));
            assert_eq!(take_pvs(ptr::null_mut()), Ok(vec![]));
        }
        assert_eq!(stale.num, 0);
    }

    #[test]
    fn resources_by_type() {
        let mut memory = [0u8; 224];
        memory[16..20].copy_from_slice(b"VGLK");
        let expected = [
            (1, Some(ResourceType::Global)),
            (2, Some(ResourceType::Vg)),
            (3, Some(ResourceType::Lv)),
            (0, None),
            (4, None),
            (255, None),
        ];
        for (value, resource_type) in expected {
            memory[81] = value;
            // SAFETY: as large as the largest struct resource.
            let view = unsafe { ResourceView::new(memory.as_mut_ptr().cast()) }.unwrap();
            assert_eq!(view.resource_type().ok(), resource_type);
            assert_eq!(view.to_string(), "VGLK");
        }
        // SAFETY: NULL is allowed.
        assert!(unsafe { ResourceView::new(ptr::null_mut()) }.is_err());
    }

    #[test]
    fn test_remote_bits() {
        let mut memory = [0u8; 224];
        for (flags, excludes) in [
            (0b0000_1111, (false, false)),
            (0b0001_0000, (true, true)),
            (0b0010_0000, (false, true)),
        ] {
            memory[100] = flags;
            // SAFETY: as large as the largest struct resource.
            let view = unsafe { ResourceView::new(memory.as_mut_ptr().cast()) }.unwrap();
            let found = (
                view.test_remote_excludes(Mode::Shared),
                view.test_remote_excludes(Mode::Exclusive),
            );
            assert_eq!(found, excludes, "{flags:08b}");
        }
    }

    #[test]
    fn modes() {
        assert_eq!(mode(2), Ok(Mode::Shared));
        assert_eq!(mode(3), Ok(Mode::Exclusive));
        for other in [-1, 0, 1, 4, c_int::MAX, c_int::MIN] {
            assert!(mode(other).is_err());
        }
    }

    proptest! {
        #[test]
        fn strings_end_where_c_says(bytes in proptest::collection::vec(any::<u8>(), 1..100)) {
            // SAFETY: nothing beyond `bytes` may be read.
            let text = unsafe { bounded_string(bytes.as_ptr().cast(), bytes.len(), "text") };
            match CStr::from_bytes_until_nul(&bytes).ok().map(CStr::to_str) {
                Some(Ok(expected)) => prop_assert_eq!(text, Ok(expected.to_owned())),
                Some(Err(_)) | None => prop_assert!(matches!(text, Err(Error::Invalid(_)))),
            }
        }
    }
}
