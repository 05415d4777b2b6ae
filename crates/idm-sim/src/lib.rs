//! Deterministic simulation of hosts and drives around the real lock engine.
//!
//! Hosts (2 to 8), drives (1 to 9) and locks (1 to 3) live in one process and in virtual time. The
//! hosts run the real [`idm_engine::Lock`], or, some of them, the older stack
//! ([`old_stack::OldLock`]); the drives are the real drive model [`idm_emulator::Drive`]. One `u64`
//! seed decides everything: the size of the world, its clocks, delays, firmware and faults, and the
//! requests of the callers. The same seed always gives the same run, so a failing seed is a bug
//! report that anybody can replay:
//!
//! ```text
//! idm-sim run --seeds 1000000      many seeds, with progress
//! idm-sim search --minutes 10      rare interleavings, guided by what came up so far ([`search`])
//! idm-sim replay 4711              everything that happens in one of them
//! idm-sim replay 4711@120:9,300:1  the same with other chances from two events on ([`schedule`])
//! idm-sim replay 4711 --svg FILE   the same as a picture
//! idm-sim run --aim room           worlds that are aimed at one kind of fault ([`plan::Aim`])
//! idm-sim coverage --seeds 1000    how often each fault and each outcome comes up
//! idm-sim diagrams DIRECTORY       pictures of the scenarios in `docs/locking.md`
//! ```
//!
//! Pictures show the record of an observer of the world ([`observe`]). A [`scenario::Scenario`] has
//! no random choices: callers follow a script, and faults come as planned.
//!
//! # The fault budget
//!
//! A lock that rests on a majority of drives cannot survive everything. It must survive these
//! faults:
//!
//! * **Commands** may be lost before or after they had their effect, be executed twice (a retry
//!   below the engine; the reply is that of the last time), be late, overtake those of other locks,
//!   hosts and drives, be refused as "not now", or fail without an indication of their effect. A
//!   command that was reported as uncertain may still be executed later, but no later than
//!   [`Timing::linger`] after it was sent, on the sender's clock: the transport aborts a command
//!   before it reports it.
//! * **Drives** may hang, disappear, be slow, be full, or have no IDM. They behave as one of the
//!   recorded firmware generations, or differently in any point that no recording settles
//!   ([`idm_emulator::Profile`]).
//! * **A drive that loses its state** has lost its vote, and its holders cannot know that before
//!   they ask it again. For *n* drives a majority is `n/2 + 1` and a holder must keep `n - n/2`:
//!   while that many drives really have its record, the others are no majority. So a drive may lose
//!   its state if every host with its vote, in the mode that the host believes in, keeps that many
//!   votes of *other* drives. With all of three drives held that is one drive, with two of three it
//!   is none. In the lease after a reset a holder still counts the lost vote. If it stands still in
//!   that time, or is cut off from the others, further leases end, and nothing can save it. Only
//!   then are two holders excused: one of them has too few real votes, and would have enough with
//!   the votes that a reset took from it in the last lease without its knowledge.
//! * **Hosts** may die at any time, stand still for any time while their boot-time clock goes on
//!   (replies then arrive all at once, in any order, and commands that had not left yet are still
//!   sent), and be late with their timers. A host may come back under a new name at any time. It
//!   may come back under its old name after all commands of its earlier life have ended: a process
//!   does not end while the kernel executes a command for it.
//! * **Clocks** of hosts and drives start anywhere and are each wrong by up to 500 ppm.
//! * **Paths** between any host and any drive may fail and come back, all at once or one by one.
//! * **Drive lists** may differ between hosts. Two sets are safe by themselves if one host's keep
//!   quorum and a majority of the other's drives always share a drive. Otherwise two holders are
//!   excused while neither has met the other: no drive that answered a holder had the other's
//!   record. A host must not ignore a conflict that a drive reported before a grant. It must give
//!   way to a holder that it sees later, once that holder has stayed longer than any host whose
//!   attempt fails. Such sets have no budget for resets: one host's keep quorum may be no majority
//!   of the other's set.
//! * **LV locks** may change their layout while they are held: the holder spreads its lock to the
//!   new drives first. Others use the new layout once the lock is there on so many drives that the
//!   rest is no majority. A host that takes an LV lock must hold or have read more than half of the
//!   VG's drives.
//! * **Values** are numbers that grow with every publication of any host.
//!
//! The budget also excludes the following:
//!
//! * A drive that keeps several records of an unlocked mutex, each with a value of its own, and
//!   shows the next owner that owner's old value. It could not carry a value for any protocol.
//! * Hosts of the older stack that stand still or die, and drives that let them break live sharers
//!   or destroy held mutexes: the older stack's own rules do not survive that. A value after a host
//!   of the older stack broke a lock: such a break leaves no trace.
//!
//! [`plan::WorldKind::Beyond`] goes beyond the budget on purpose: drives lose their state in
//! bursts. Then the only promise is that the loss is noticed: once every drive was refreshed, a
//! holder that has lost its keep quorum must know. In [`plan::WorldKind::Nonsense`] drives answer
//! anything at all, and the engine must not panic, storm or hang. In
//! [`plan::WorldKind::SomeNonsense`] a minority of the drives behaves arbitrarily and answers
//! anything but GOOD; that is within the budget. So is [`plan::WorldKind::Aimed`], where the
//! conditions for one kind of fault are frequent.
//!
//! # What is checked
//!
//! These invariants are checked after every call of an engine, and at the last moment of every
//! belief:
//!
//! * **Mutual exclusion.** A host *believes* to hold a lock while `mode()` returns a mode and its
//!   own clock is before `safe_until()`; a host that stands still believes until then. No two hosts
//!   believe in conflicting modes.
//! * **A belief stands on a keep quorum** of drives that have the host's live record in that mode,
//!   on their own clocks. This is stronger, and finds states that are one coincidence away from a
//!   violation of the first invariant.
//! * **Never silently regained:** a host does not come back to a belief after another was granted
//!   the lock in a conflicting mode.
//! * **Values:** a value that is reported as known is at least the last one whose publication was
//!   complete when the request began. A holder that died, or lost the lock, in the middle of a
//!   change spoils all older values.
//! * **Adoption:** a restarted host adopts nothing that another was granted in between, unless a
//!   late TRYLOCK of its earlier life got it a drive after that. It adopts no exclusive lock as
//!   shared, and does not receive "nothing" while a majority of the drives has its records.
//! * **Only timed-out holders are broken**, and conflicts with other sets are not ignored.
//! * **Records show which drives are counted:** a keep quorum of a believer's records names no
//!   drives that another host counts and the believer does not.
//! * **Room:** no host uses a mutex that a lock removes from a full drive.
//! * A lapse is reported when it happens, has a cause, and has a deadline before it happens. A
//!   grant is good when it is reported. A release is finished at once, and everything is cleaned up
//!   in the end.
//! * Every request is answered within its patience. In a healthy cluster some host gets a free
//!   lock, a lone host gets it at once, and a refusal by steady holders takes at most three round
//!   trips and four commands per drive.
//!
//! `tests/mutation.rs` (feature `broken-rules`) breaks each safety rule of the engine in turn, and
//! requires that the rule's invariant fails. `tests/model.rs` checks small worlds exhaustively.
//!
//! [`Timing::linger`]: idm_engine::Timing::linger

#![forbid(unsafe_code)]

pub mod campaign;
pub mod clock;
pub mod coverage;
pub mod diagrams;
pub mod features;
pub mod ids;
pub mod observe;
pub mod old_stack;
pub mod picture;
pub mod plan;
pub mod scenario;
pub mod schedule;
pub mod search;
pub mod world;
