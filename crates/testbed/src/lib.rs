//! Real lvmlockd "hosts" on one machine, for the demo and the integration tests.
//!
//! A [`Testbed`] is a set of emulated IDM drives and of loop devices that act as the disks' data
//! areas. A [`Host`] is a machine that shares them: it has its own mount, UTS, PID and network
//! namespaces, its own `/run` and `/etc/lvm`, and a real lvmlockd. A [`Client`] speaks to that
//! lvmlockd as lvm commands do, for tests that need the raw result of a request.
//!
//! Nothing is left behind: the kernel ends every process when its parent ends, however that
//! happens, and detaches loop devices as well.

mod artifacts;
mod client;
mod drives;
mod host;
mod loopdev;
mod lvm_conf;
mod run;
mod testbed;
mod trace;
mod wait;

pub use artifacts::{Lvm2, RELEASES, Variant, lease, library};
pub use client::{Client, EAGAIN, ELOCKIO, Lv, Mode, Reply};
pub use drives::{Drives, Record};
pub use host::Host;
pub use loopdev::LoopDevice;
pub use lvm_conf::lvm_conf;
pub use run::{Output, bound_to_this_thread};
pub use testbed::Testbed;
pub use trace::Trace;
pub use wait::wait_until;
