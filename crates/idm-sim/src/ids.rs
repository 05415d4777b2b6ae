//! Numbers of hosts, drives, locks and slots, with sets and tables of them.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{BitAnd, BitOr, Index, IndexMut, Sub};
use idm_engine::{DriveRef, Member};

/// The largest number of drives in a world.
pub const MAX_DRIVES: usize = 9;
/// The largest number of hosts in a world.
pub const MAX_HOSTS: usize = 8;

/// A number that only indexes tables of its own kind.
pub trait Ix: Copy {
    /// The `i`th number.
    fn new(i: usize) -> Self;
    /// The index.
    fn get(self) -> usize;
}

macro_rules! index {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u8);

        impl Ix for $name {
            fn new(i: usize) -> $name {
                $name(i as u8)
            }

            fn get(self) -> usize {
                usize::from(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

index!(
    /// A host.
    HostIx, "h"
);
index!(
    /// A drive.
    DriveIx, "d"
);
index!(
    /// A lock.
    LockIx, "l"
);
index!(
    /// One host's side of one lock.
    SlotIx, "s"
);

macro_rules! set {
    ($(#[$doc:meta])* $name:ident of $member:ident, $bits:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name($bits);

        impl $name {
            /// The set with no member.
            pub const EMPTY: $name = $name(0);

            /// The set of the members whose bits are 1.
            pub const fn from_bits(bits: $bits) -> $name {
                $name(bits)
            }

            /// The set of the first `n`.
            pub const fn first(n: usize) -> $name {
                $name(((1u32 << n) - 1) as $bits)
            }

            /// The members as bits.
            pub const fn bits(self) -> $bits {
                self.0
            }

            /// The number of members.
            pub const fn len(self) -> usize {
                self.0.count_ones() as usize
            }

            /// Whether it has no member.
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Whether `member` is in it.
            pub fn contains(self, member: $member) -> bool {
                self.0 & (1 << member.0) != 0
            }

            /// Adds `member`.
            pub fn insert(&mut self, member: $member) {
                self.0 |= 1 << member.0;
            }

            /// Takes `member` out.
            pub fn remove(&mut self, member: $member) {
                self.0 &= !(1 << member.0);
            }

            /// The members in ascending order.
            pub fn iter(self) -> impl Iterator<Item = $member> {
                (0..<$bits>::BITS as u8).filter(move |i| self.0 & (1 << i) != 0).map($member)
            }
        }

        impl BitOr for $name {
            type Output = $name;
            fn bitor(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }
        }

        impl BitAnd for $name {
            type Output = $name;
            fn bitand(self, other: $name) -> $name {
                $name(self.0 & other.0)
            }
        }

        impl Sub for $name {
            type Output = $name;
            fn sub(self, other: $name) -> $name {
                $name(self.0 & !other.0)
            }
        }

        impl FromIterator<$member> for $name {
            fn from_iter<I: IntoIterator<Item = $member>>(members: I) -> $name {
                let mut set = $name::EMPTY;
                members.into_iter().for_each(|member| set.insert(member));
                set
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("{")?;
                for (i, member) in self.iter().enumerate() {
                    write!(f, "{}{member}", if i == 0 { "" } else { " " })?;
                }
                f.write_str("}")
            }
        }
    };
}

set!(
    /// A set of drives.
    DriveSet of DriveIx, u16
);
set!(
    /// A set of hosts.
    HostSet of HostIx, u8
);

impl DriveSet {
    /// The number of these drives that is just more than half.
    pub const fn majority(self) -> usize {
        self.len() / 2 + 1
    }

    /// The number of these drives that a holder must keep, so that the others are no majority.
    pub const fn keep_quorum(self) -> usize {
        self.len() - self.len() / 2
    }

    /// The drives in the engine's form.
    pub fn members(self) -> Vec<Member> {
        self.iter().map(|d| Member { drive: d.drive_ref(), identity: vec![b'd', d.0] }).collect()
    }
}

impl DriveIx {
    /// The engine's reference to the drive.
    pub fn drive_ref(self) -> DriveRef {
        DriveRef(u32::from(self.0))
    }

    /// The drive with this reference of the engine.
    pub fn of(drive: DriveRef) -> DriveIx {
        DriveIx(drive.0 as u8)
    }
}

/// A table with its own kind of index.
#[derive(Clone, Debug)]
pub struct Table<I, T> {
    entries: Vec<T>,
    index: PhantomData<I>,
}

impl<I: Ix, T> Table<I, T> {
    /// A table without entries.
    pub const fn new() -> Table<I, T> {
        Table { entries: Vec::new(), index: PhantomData }
    }

    /// Adds an entry at the end.
    pub fn push(&mut self, entry: T) {
        self.entries.push(entry);
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries' numbers.
    pub fn ids(&self) -> impl Iterator<Item = I> + use<I, T> {
        (0..self.entries.len()).map(I::new)
    }

    /// The entries with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.entries.iter().enumerate().map(|(i, entry)| (I::new(i), entry))
    }
}

impl<I: Ix, T> Default for Table<I, T> {
    fn default() -> Table<I, T> {
        Table::new()
    }
}

impl<I: Ix, T> FromIterator<T> for Table<I, T> {
    fn from_iter<S: IntoIterator<Item = T>>(entries: S) -> Table<I, T> {
        Table { entries: entries.into_iter().collect(), index: PhantomData }
    }
}

impl<I: Ix, T> Index<I> for Table<I, T> {
    type Output = T;
    fn index(&self, i: I) -> &T {
        &self.entries[i.get()]
    }
}

impl<I: Ix, T> IndexMut<I> for Table<I, T> {
    fn index_mut(&mut self, i: I) -> &mut T {
        &mut self.entries[i.get()]
    }
}

macro_rules! row {
    ($(#[$doc:meta])* $name:ident by $index:ident, $most:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name<T>([T; $most]);

        impl<T: Copy> $name<T> {
            /// A table with the same entry for all.
            pub const fn all(entry: T) -> $name<T> {
                $name([entry; $most])
            }
        }

        impl<T> $name<T> {
            /// The entries.
            pub fn iter(&self) -> impl Iterator<Item = &T> {
                self.0.iter()
            }

            /// The entries, for changes.
            pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
                self.0.iter_mut()
            }
        }

        impl<T> Index<$index> for $name<T> {
            type Output = T;
            fn index(&self, i: $index) -> &T {
                &self.0[i.get()]
            }
        }

        impl<T> IndexMut<$index> for $name<T> {
            fn index_mut(&mut self, i: $index) -> &mut T {
                &mut self.0[i.get()]
            }
        }
    };
}

row!(
    /// A table with an entry for each drive.
    PerDrive by DriveIx, MAX_DRIVES
);
row!(
    /// A table with an entry for each host.
    PerHost by HostIx, MAX_HOSTS
);
