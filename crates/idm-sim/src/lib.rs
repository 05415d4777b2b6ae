//! Deterministic simulation of hosts and drives around the real lock engine.
//!
//! Hosts (2 to 8), drives (1 to 9) and locks (1 to 3) live in one process and in virtual time. The
//! hosts run the real [`idm_engine::Lock`], or, some of them, the older stack
//! ([`old_stack::OldLock`]); the drives are the real drive model [`idm_emulator::Drive`]. One `u64`
//! seed decides everything: the size of the world, its clocks, delays, firmware, faults, and what
//! the callers want. The same seed always gives the same run, so a seed that fails is a bug report
//! that anybody can replay:
//!
//! ```text
//! idm-sim run --seeds 1000000      many seeds, with progress
//! idm-sim search --minutes 10      rare interleavings, guided by what came up so far ([`search`])
//! idm-sim replay 4711              everything that happens in one of them
//! idm-sim replay 4711@120:9,300:1  the same with other chances from two events on ([`schedule`])
//! idm-sim replay 4711 --svg FILE   the same as a picture
//! idm-sim run --aim room           worlds that are aimed at one kind of fault ([`plan::Aim`])
//! idm-sim coverage --seeds 1000    how often each fault and each outcome comes up
//! idm-sim diagrams DIRECTORY       pictures of the scenarios that `docs/locking.md` tells
//! ```
//!
//! Pictures are drawn from what an observer of the world records ([`observe`]). In a
//! [`scenario::Scenario`] nothing is drawn by lot: callers follow a script, and faults come as
//! planned.
//!
//! # The fault budget
//!
//! A lock that rests on a majority of drives cannot survive everything. What it must survive:
//!
//! * **Commands** may be lost before or after they had their effect, be executed twice (a retry
//!   below the engine; the reply is that of the last time), be late, overtake those of other locks,
//!   hosts and drives, be refused as "not now", or fail without a word on their effect. A command
//!   that was reported as uncertain may still be executed later, but no later than
//!   [`Timing::linger`] after it was sent, on the sender's clock: the transport aborts a command
//!   before it reports it.
//! * **Drives** may hang, disappear, be slow, be full, or have no IDM. They behave as one of the
//!   firmware generations that were recorded, or in any other way in every point that no recording
//!   settles ([`idm_emulator::Profile`]).
//! * **A drive that loses its state** has lost its vote, and its holders cannot know before they
//!   ask it again. For *n* drives a majority is `n/2 + 1` and a holder must keep `n - n/2`: as long
//!   as that many drives really stand for it, the others are no majority. So a drive may lose its
//!   state whenever every host that has its vote, in the mode that it believes in, keeps that many
//!   votes of *other* drives. With all of three drives held that is one drive, with two of three it
//!   is none. In the lease after a reset a holder still counts the lost vote; if in that time it
//!   stands still or is cut off from the others, so that further leases end, nothing can save it.
//!   Two holders are excused then, and only then: when one of them has too few real votes, and the
//!   votes that a reset took from it in the last lease, and that it has not heard of, make the
//!   difference.
//! * **Hosts** may die at any time, stand still for any time while their boot-time clock goes on
//!   (replies then arrive all at once, in any order, and commands that had not left yet are sent
//!   after all), and be late with their timers. A host may come back under a new name at any time,
//!   and under its old name when no command of its earlier life is on its way any more: a process
//!   does not end while the kernel carries out a command for it.
//! * **Clocks** of hosts and drives start anywhere and are each wrong by up to 500 ppm.
//! * **Paths** between any host and any drive may fail and come back, all at once or one by one.
//! * **Drive lists** may differ between hosts. Two sets are safe by themselves if what one host
//!   keeps and a majority of the other's drives always have a drive in common. Otherwise two
//!   holders are excused while neither has met the other: none of the drives that answered it had
//!   the other's record. A conflict that a drive has told of must be heeded before a grant; a
//!   holder that is seen later must be given way to, once it has stayed for longer than any
//!   passer-by. Such sets have no budget for resets: what one host keeps may be no majority of what
//!   the other counts.
//! * **LV locks** whose layout changes while they are held: the holder spreads its lock to the new
//!   drives first, and others use the new layout when it is there on so many of them that the rest
//!   is no majority. Who takes an LV lock must hold or have read more than half of the VG's drives.
//! * **Values** are numbers that grow with every publication of any host.
//!
//! Not within the budget, besides the above:
//!
//! * A drive that keeps several records of an unlocked mutex, each with a value of its own, and
//!   shows the next owner its own old one. It could not carry a value for any protocol.
//! * Hosts of the older stack that stand still or die, and drives that let them break live sharers
//!   or destroy what is held: the older stack does not survive that by its own rules. A value after
//!   a host of the older stack broke a lock: it leaves no trace of that.
//!
//! [`plan::WorldKind::Beyond`] goes beyond the budget on purpose: drives lose their state in
//! bursts. Then nothing can be promised but that the loss is noticed: when every drive was
//! refreshed once, a holder that has lost its keep-quorum must know. In
//! [`plan::WorldKind::Nonsense`] drives answer anything at all, and the engine must not panic,
//! storm or hang. In [`plan::WorldKind::SomeNonsense`] a minority of the drives does whatever it
//! wants and answers anything but GOOD; that is within the budget. So is
//! [`plan::WorldKind::Aimed`], where what one kind of fault takes is frequent.
//!
//! # What is checked
//!
//! After every call of an engine, and at the last moment of every belief:
//!
//! * **Mutual exclusion.** A host *believes* to hold a lock while `mode()` says so and its own
//!   clock is before `safe_until()`; a host that stands still believes until then. No two hosts
//!   believe in conflicting modes.
//! * **A belief stands on a keep-quorum** of drives that have the host's live record in that mode,
//!   on their own clocks. This is stronger, and finds what would need one more coincidence to
//!   become a violation of the first.
//! * **Never silently regained:** a host does not come back to a belief after another was granted
//!   the lock in a conflicting mode.
//! * **Values:** a value that is told as known is at least the last whose publication was complete
//!   when the request began. A holder that died, or lost the lock, in the middle of a change spoils
//!   all older values.
//! * **Adoption:** a restarted host adopts nothing that another was granted in between (unless a
//!   late TRYLOCK of its earlier life got it a drive after that), nothing exclusive as shared, and
//!   is not told "nothing" while a majority of the drives has its records.
//! * **Only timed-out holders are broken**, and conflicts with other sets are heeded.
//! * **Records tell which drives are counted:** a keep-quorum of a believer's records names no
//!   drives that another host counts and the believer does not.
//! * **Room:** what a lock removes from a full drive is in nobody's use, of whichever host.
//! * A lapse is told when it happens, has a cause, and has a deadline before it happens. A grant is
//!   good when it is told. A release is finished at once, and everything is cleaned up in the end.
//! * Every request is answered within its patience. In a healthy cluster somebody gets a free lock,
//!   a lone host gets it at once, and a refusal by steady holders takes at most three round trips
//!   and four commands a drive.
//!
//! `tests/mutation.rs` (feature `broken-rules`) breaks each safety rule of the engine in turn, and
//! requires that the invariant that the rule is there for fails. `tests/model.rs` checks small
//! worlds exhaustively.
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
