//! The layout of lvmlockd's structs, in the release that loaded this library.
//!
//! Between releases `ls->pvs` moved and `lm_lock` and `lm_add_lockspace` got a second adopt
//! argument. The layout table, compiled by `lvm2/lvmlockd-idm.c` inside the lvm2 tree, gives both.
//! Without it, a fresh `struct lockspace` shows the offsets of its list heads, and the release
//! number in the executable gives the rest (docs/lvmlockd-contract.md, "Finding the layout"). A
//! layout that does not match is refused: a wrong guess would lock the wrong drives.

use super::c::{RawLockspace, Table};
use super::symbols;
use core::ffi::{CStr, c_int, c_void};
use core::fmt;
use core::ptr::NonNull;
use once_cell::sync::OnceCell;

/// Properties that differ between releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Offset of `pvs` in `struct lockspace`, in bytes.
    pub lockspace_pvs: usize,
    /// Number of adopt arguments that core passes: 1 up to 2.03.24, then 2.
    pub adopt_args: u32,
    /// Path of lvm, as lvmlockd was configured; only the layout table has it.
    pub lvm_path: Option<&'static str>,
}

/// Reason why the layout is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uncertain {
    /// The layout table has an unknown version or size.
    Table {
        /// Its version.
        version: u32,
        /// Its size in bytes.
        size: u32,
    },
    /// The layout table has an impossible value.
    TableValue,
    /// The program has neither a layout table nor `alloc_lockspace`.
    NoLockspace,
    /// No known release has its list heads at these offsets.
    ListHeads(Vec<usize>),
    /// The executable names no release. List heads alone do not distinguish a release from another
    /// one that was patched.
    NoRelease,
    /// The executable names several releases of lvmlockd.
    Releases(Vec<u32>),
    /// The executable names 2.03.`release`, but its layout belongs to other releases.
    Mismatch {
        /// The last part of the release number.
        release: u32,
        /// First release with the layout that was found.
        first: u32,
        /// Last release with it.
        last: u32,
    },
}

impl fmt::Display for Uncertain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot tell the layout of this lvmlockd's structures: ")?;
        match self {
            Uncertain::Table { version, size } => write!(
                f,
                "its layout table has version {version} and {size} bytes, which this library does \
                 not know"
            )?,
            Uncertain::TableValue => f.write_str("its layout table has impossible values")?,
            Uncertain::NoLockspace => {
                f.write_str("it has neither lvmlockd_idm_layout nor alloc_lockspace")?
            }
            Uncertain::ListHeads(heads) => {
                write!(f, "no known release has list heads at {heads:?}")?
            }
            Uncertain::NoRelease => f.write_str("it does not name its release")?,
            Uncertain::Releases(releases) => {
                f.write_str("it names several releases:")?;
                for release in releases {
                    write!(f, " 2.03.{release}")?;
                }
            }
            Uncertain::Mismatch { release, first, last } => write!(
                f,
                "it says that it is 2.03.{release}, but its layout is that of 2.03.{first} to \
                 2.03.{last}"
            )?,
        }
        f.write_str("; build lvmlockd with the lvmlockd-idm.c of this liblvmlockd_idm")
    }
}

/// The layout of the lvmlockd that loaded us, found at the first call.
pub fn layout() -> &'static Result<Layout, Uncertain> {
    static LAYOUT: OnceCell<Result<Layout, Uncertain>> = OnceCell::new();
    LAYOUT.get_or_init(|| {
        let layout = detect();
        match &layout {
            Ok(layout) => log::info!("lvmlockd's structures are known: {layout:?}"),
            Err(why) => log::error!("IDM locks cannot be used: {why}"),
        }
        layout
    })
}

fn detect() -> Result<Layout, Uncertain> {
    if let Some(table) = symbols::layout_table() {
        // SAFETY: a symbol of this name is the table of `lvm2/lvmlockd-idm.c`, of any version.
        return unsafe { Table::read(table) };
    }
    let lockspace = symbols::alloc_lockspace().ok_or(Uncertain::NoLockspace)?;
    // SAFETY: it came from malloc just now, and goes back there.
    let heads = unsafe {
        let heads = list_heads(words_of(lockspace), lockspace.as_ptr() as usize);
        libc::free(lockspace.as_ptr().cast());
        heads
    };
    decide(heads, &releases_of_executable())
}

impl Table {
    const MAGIC: [u8; 8] = *b"LVMLDIDM";
    const VERSION: u32 = 1;

    /// # Safety
    ///
    /// `table` points to a table of some version, with magic, version and size where they are here.
    unsafe fn read(table: NonNull<Table>) -> Result<Layout, Uncertain> {
        let table = table.as_ptr();
        // SAFETY: the first three fields are the same in every version.
        let (magic, version, size) = unsafe { ((*table).magic, (*table).version, (*table).size) };
        let expected = size_of::<Table>() as u32;
        if (magic, version, size) != (Table::MAGIC, Table::VERSION, expected) {
            return Err(Uncertain::Table { version, size });
        }
        // SAFETY: version and size are ours, so all fields are there.
        let (lockspace_pvs, adopt_args, lvm_path) =
            unsafe { ((*table).lockspace_pvs, (*table).adopt_args, (*table).lvm_path) };
        let possible = (1..=2).contains(&adopt_args)
            && lockspace_pvs % align_of::<usize>() as u32 == 0
            && (u32::from(u8::MAX)..u32::from(u16::MAX)).contains(&lockspace_pvs);
        if !possible {
            return Err(Uncertain::TableValue);
        }
        let lvm_path = NonNull::new(lvm_path.cast_mut())
            // SAFETY: a string literal of the lvm2 tree.
            .and_then(|path| unsafe { CStr::from_ptr(path.as_ptr()) }.to_str().ok());
        Ok(Layout { lockspace_pvs: lockspace_pvs as usize, adopt_args, lvm_path })
    }
}

/// Releases with the same `struct lockspace`.
struct Generation {
    /// Offsets of the list heads that `alloc_lockspace` initialises, the first being `actions`.
    heads: &'static [usize],
    /// Offset of `pvs`.
    pvs: usize,
    /// First and last release 2.03.n; 40 stands for the development version after 2.03.39.
    releases: (u32, u32),
}

/// docs/lvmlockd-contract.md, "Layouts".
const GENERATIONS: [Generation; 6] = [
    Generation { heads: &[504, 520], pvs: 376, releases: (13, 26) },
    Generation { heads: &[496, 512], pvs: 368, releases: (27, 27) },
    Generation { heads: &[432, 448], pvs: 304, releases: (28, 30) },
    Generation { heads: &[432, 448, 464], pvs: 304, releases: (31, 33) },
    Generation { heads: &[440, 456, 472], pvs: 312, releases: (34, 36) },
    Generation { heads: &[440, 456, 472, 488], pvs: 312, releases: (37, 40) },
];

const _: () = {
    let mut i = 0;
    while i < GENERATIONS.len() {
        // `actions` is 128 bytes behind `pvs` in every release: the fields between them never
        // changed.
        assert!(GENERATIONS[i].pvs + 128 == GENERATIONS[i].heads[0]);
        i += 1;
    }
};

/// The first release with two adopt arguments.
const TWO_ADOPT_ARGS: u32 = 25;

fn decide(heads: Vec<usize>, releases: &[u32]) -> Result<Layout, Uncertain> {
    let Some(generation) = GENERATIONS.iter().find(|g| g.heads == heads) else {
        return Err(Uncertain::ListHeads(heads));
    };
    let (first, last) = generation.releases;
    let adopt_args_of = |release| if release < TWO_ADOPT_ARGS { 1 } else { 2 };
    let adopt_args = match *releases {
        [release] if (first..=last).contains(&release) => adopt_args_of(release),
        [release] => {
            return Err(Uncertain::Mismatch { release, first, last });
        }
        [] => return Err(Uncertain::NoRelease),
        _ => return Err(Uncertain::Releases(releases.to_vec())),
    };
    Ok(Layout { lockspace_pvs: generation.pvs, adopt_args, lvm_path: None })
}

/// Offsets of the list heads that point to themselves, as empty ones do, in the words of a struct
/// that begins at `address`.
fn list_heads(words: &[usize], address: usize) -> Vec<usize> {
    let mut heads = Vec::new();
    let mut i = 0;
    while let [next, prev, ..] = words[i..] {
        let offset = i * size_of::<usize>();
        let here = address + offset;
        let is_head = next == here && prev == here;
        if is_head {
            heads.push(offset);
        }
        i += if is_head { 2 } else { 1 };
    }
    heads
}

/// # Safety
///
/// `lockspace` is a live block from malloc that nobody writes.
unsafe fn words_of<'a>(lockspace: NonNull<RawLockspace>) -> &'a [usize] {
    let start = lockspace.as_ptr();
    // SAFETY: malloc's blocks are aligned for words, and readable up to their usable size.
    unsafe {
        let bytes = libc::malloc_usable_size(start.cast());
        core::slice::from_raw_parts(start.cast(), bytes / size_of::<usize>())
    }
}

/// The text in front of the release number, in every release of lvmlockd.
const VERSION_PREFIX: &[u8] = b"lvmlockd version: 2.03.";

/// The different n of all `lvmlockd version: 2.03.n(` in `image`.
fn releases(image: &[u8]) -> Vec<u32> {
    let mut found = Vec::new();
    let candidates = image
        .windows(VERSION_PREFIX.len())
        .enumerate()
        .filter(|(_, window)| *window == VERSION_PREFIX)
        .map(|(at, _)| &image[at + VERSION_PREFIX.len()..]);
    for rest in candidates {
        if let Some(release) = leading_number(rest) {
            if !found.contains(&release) {
                found.push(release);
            }
        }
    }
    found
}

/// The number before the `(` of `16(2) (2022-05-18)`.
fn leading_number(text: &[u8]) -> Option<u32> {
    let end = text.iter().take(4).position(|&b| b == b'(')?;
    let digits = core::str::from_utf8(&text[..end]).ok()?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// [`releases`] of the program that loaded us, from its read-only segments.
fn releases_of_executable() -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    // SAFETY: the callback gets what it expects, and `found` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(scan_executable), (&raw mut found).cast()) };
    found
}

/// Called by `dl_iterate_phdr` for each object. Only the first one, the executable, is scanned.
unsafe extern "C" fn scan_executable(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    found: *mut c_void,
) -> c_int {
    // SAFETY: the C library hands out a valid info, and `found` comes from our caller.
    unsafe {
        let info = &*info;
        let found = &mut *found.cast::<Vec<u32>>();
        let headers = core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
        for header in headers {
            let read_only = header.p_flags & (libc::PF_R | libc::PF_W) == libc::PF_R;
            if header.p_type != libc::PT_LOAD || !read_only {
                continue;
            }
            let start = (info.dlpi_addr + header.p_vaddr) as *const u8;
            let segment = core::slice::from_raw_parts(start, header.p_filesz as usize);
            for release in releases(segment) {
                if !found.contains(&release) {
                    found.push(release);
                }
            }
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The words of a lockspace at `address` with empty list heads at `heads`, and other pointers
    /// elsewhere.
    fn memory(address: usize, size: usize, heads: &[usize]) -> Vec<usize> {
        let mut words = vec![0; size / 8];
        // A list that is not empty, a single pointer to itself, and the first word of a head
        // without its second.
        words[0] = address + 512;
        words[5] = address + 5 * 8;
        words[9] = address + 8 * 8;
        for head in heads {
            words[head / 8] = address + head;
            words[head / 8 + 1] = address + head;
        }
        words
    }

    #[test]
    fn every_generation_is_recognised() {
        // (size, list heads, release, pvs, adopt arguments).
        let cases: [(usize, &[usize], u32, usize, u32); 13] = [
            (536, &[504, 520], 13, 376, 1),
            (536, &[504, 520], 16, 376, 1),
            (536, &[504, 520], 24, 376, 1),
            (536, &[504, 520], 25, 376, 2),
            (536, &[504, 520], 26, 376, 2),
            (528, &[496, 512], 27, 368, 2),
            (464, &[432, 448], 28, 304, 2),
            (464, &[432, 448], 30, 304, 2),
            (480, &[432, 448, 464], 31, 304, 2),
            (480, &[432, 448, 464], 33, 304, 2),
            (488, &[440, 456, 472], 34, 312, 2),
            (504, &[440, 456, 472, 488], 37, 312, 2),
            (504, &[440, 456, 472, 488], 40, 312, 2),
        ];
        for (size, heads, release, pvs, adopt_args) in cases {
            let address = 0x5555_0000_1230;
            let found = list_heads(&memory(address, size, heads), address);
            assert_eq!(found, heads, "2.03.{release}");
            let layout = decide(found, &[release]).unwrap();
            assert_eq!(
                (layout.lockspace_pvs, layout.adopt_args),
                (pvs, adopt_args),
                "2.03.{release}"
            );
        }
    }

    /// The row of each release in the page that packagers read: offset of `pvs`, adopt arguments.
    fn rows_of_page() -> Vec<(u32, usize, u32)> {
        let page = include_str!("../../docs/lvm2-releases.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| 2.03."));
        let row = |line: &str| {
            let mut cells = line.split('|').map(str::trim);
            let mut cell = || cells.next().unwrap().parse().unwrap();
            (cell(), cell() as usize, cell())
        };
        rows.map(row).collect()
    }

    #[test]
    fn the_page_of_releases_says_what_is_taken_for_true() {
        let rows = rows_of_page();
        let releases: Vec<u32> = rows.iter().map(|row| row.0).collect();
        assert_eq!(releases, (13..=40).collect::<Vec<u32>>());
        for (release, pvs, adopt_args) in rows {
            let generation = GENERATIONS
                .iter()
                .find(|g| (g.releases.0..=g.releases.1).contains(&release))
                .unwrap();
            let layout = decide(generation.heads.to_vec(), &[release]).unwrap();
            assert_eq!((layout.lockspace_pvs, layout.adopt_args), (pvs, adopt_args), "{release}");
        }
    }

    /// Changes that a patch may make to `struct lockspace` of one release: list heads, and `pvs`.
    fn mutations(generation: &Generation) -> Vec<(Vec<usize>, usize)> {
        let (heads, pvs) = (generation.heads, generation.pvs);
        let moved = |from: usize, by: isize| -> Vec<usize> {
            let at = |(i, &head): (usize, &usize)| match i >= from {
                true => head.checked_add_signed(by).unwrap(),
                false => head,
            };
            heads.iter().enumerate().map(at).collect()
        };
        let mut mutations = Vec::new();
        for by in [-16, -8, 8, 16] {
            // A field before pvs, one between pvs and the lists, and one between the lists.
            mutations.push((moved(0, by), pvs.checked_add_signed(by).unwrap()));
            mutations.push((moved(0, by), pvs));
            mutations.push((moved(1, by), pvs));
        }
        // A list less, a list more, in front and behind.
        mutations.push((heads[1..].to_vec(), pvs));
        mutations.push((heads[..heads.len() - 1].to_vec(), pvs));
        let more = moved(0, 16).into_iter().chain([heads[0]]);
        let mut more: Vec<usize> = more.collect();
        more.sort_unstable();
        mutations.push((more, pvs));
        let last = heads[heads.len() - 1];
        mutations.push((heads.iter().copied().chain([last + 16]).collect(), pvs));
        mutations
    }

    #[test]
    fn no_mutated_layout_is_taken_for_another() {
        let mut tried = 0;
        for generation in &GENERATIONS {
            for (heads, pvs) in mutations(generation) {
                let (first, last) = generation.releases;
                for named in [vec![], vec![first], vec![last]] {
                    tried += 1;
                    if let Ok(layout) = decide(heads.clone(), &named) {
                        assert_eq!(layout.lockspace_pvs, pvs, "{heads:?} named {named:?}");
                    }
                }
            }
        }
        assert!(tried >= 40);
    }

    #[test]
    fn without_release_nothing_is_certain() {
        for generation in &GENERATIONS {
            assert_eq!(decide(generation.heads.to_vec(), &[]), Err(Uncertain::NoRelease));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(
            decide(vec![504, 520], &[31]),
            Err(Uncertain::Mismatch { release: 31, first: 13, last: 26 })
        );
        assert!(matches!(
            decide(vec![440, 456, 472, 488], &[41]),
            Err(Uncertain::Mismatch { release: 41, .. })
        ));
        assert_eq!(decide(vec![504, 520], &[16, 25]), Err(Uncertain::Releases(vec![16, 25])));
        for heads in [vec![], vec![504], vec![504, 520, 536], vec![448, 464, 480]] {
            assert_eq!(decide(heads.clone(), &[31]), Err(Uncertain::ListHeads(heads)));
        }
    }

    #[test]
    fn release_literals() {
        let debian = b"\0--help\0lvmlockd version: 2.03.16(2) (2022-05-18)\0%s\0";
        assert_eq!(releases(debian), [16]);
        let git = b"lvmlockd version: 2.03.40(2)-git (2026-04-01)\n";
        assert_eq!(releases(git), [40]);
        let none: [&[u8]; 6] = [
            b"",
            b"lvmlockd version: 2.03.",
            b"lvmlockd version: 2.03.16",
            b"lvmlockd version: 2.03.(2)",
            b"lvmlockd version: 2.03.+6(2)",
            b"lvmlockd version: 2.02.16(2)",
        ];
        for image in none {
            assert_eq!(releases(image), [0; 0], "{}", image.escape_ascii());
        }
    }

    #[test]
    fn executable_is_searched() {
        // This program contains the texts of the test above.
        let mut found = releases_of_executable();
        found.sort();
        assert_eq!(found, [16, 40]);
    }

    #[test]
    fn this_test_program_is_no_lvmlockd() {
        assert_eq!(detect(), Err(Uncertain::NoLockspace));
    }

    fn table(lockspace_pvs: u32, adopt_args: u32) -> Table {
        Table {
            magic: Table::MAGIC,
            version: Table::VERSION,
            size: size_of::<Table>() as u32,
            lockspace_pvs,
            adopt_args,
            lvm_path: c"/sbin/lvm".as_ptr(),
        }
    }

    fn read(table: &Table) -> Result<Layout, Uncertain> {
        // SAFETY: it is a whole table.
        unsafe { Table::read(NonNull::from(table)) }
    }

    #[test]
    fn table_tells_the_layout() {
        assert_eq!(
            read(&table(376, 1)),
            Ok(Layout { lockspace_pvs: 376, adopt_args: 1, lvm_path: Some("/sbin/lvm") })
        );
        let mut without_path = table(304, 2);
        without_path.lvm_path = core::ptr::null();
        assert_eq!(read(&without_path).unwrap().lvm_path, None);
    }

    #[test]
    fn table_that_is_not_ours_is_refused() {
        let mut newer = table(376, 1);
        newer.version = 2;
        assert_eq!(read(&newer), Err(Uncertain::Table { version: 2, size: 32 }));
        let mut foreign = table(376, 1);
        foreign.magic = *b"LVMLDIDN";
        assert!(matches!(read(&foreign), Err(Uncertain::Table { .. })));
        for (pvs, adopt_args) in [(0, 1), (375, 1), (100_000, 1), (376, 0), (376, 3)] {
            assert_eq!(read(&table(pvs, adopt_args)), Err(Uncertain::TableValue));
        }
    }

    proptest! {
        #[test]
        fn any_release_number_is_found(
            before in proptest::collection::vec(any::<u8>(), 0..200),
            release in 0u32..1000,
            after in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut image = before;
            image.extend(format!("lvmlockd version: 2.03.{release}(2) (").bytes());
            image.extend(after);
            prop_assert_eq!(releases(&image), [release]);
        }

        #[test]
        fn no_image_is_too_strange(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just(VERSION_PREFIX.to_vec()),
                    proptest::collection::vec(any::<u8>(), 0..8),
                    "[0-9]{0,6}\\(?".prop_map(String::into_bytes),
                ],
                0..20,
            ),
        ) {
            let image = pieces.concat();
            for release in releases(&image) {
                let text = format!("2.03.{release}(");
                // Leading zeros are the only other way to write it.
                prop_assert!(release < 1000, "{}", text);
            }
        }

        #[test]
        fn list_heads_are_those_that_point_to_themselves(
            words in proptest::collection::vec(0usize..64, 0..64),
        ) {
            // With address 0 and small words, hits are frequent.
            let words: Vec<usize> = words.into_iter().map(|w| w * 8).collect();
            for head in list_heads(&words, 0) {
                prop_assert_eq!(words[head / 8], head);
                prop_assert_eq!(words[head / 8 + 1], head);
            }
        }
    }
}
