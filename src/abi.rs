//! The interface to the process that loads this library: lvmlockd's structs, symbols and log.
//!
//! This module knows nothing about locks. The entry points use it to convert core's arguments into
//! the plain values that the manager takes.

mod borrowed;
mod c;
mod found;
mod layout;
mod log_queue;
mod logger;
pub mod symbols;
mod views;

pub use c::{ListHead, Pvs, RawLockspace, RawResource, RawValBlk};
pub use found::add_found;
pub use layout::{Layout, Uncertain, layout};
pub use views::{LockspaceView, ResourceType, ResourceView, lv_uuid, mode, take_pvs};

use once_cell::sync::OnceCell;

/// Gets the log and the panic report ready; every entry point calls it first.
///
/// An ELF constructor would be too early, because it runs before lvmlockd forks into the background
/// (docs/lvmlockd-contract.md, "Start and end of the daemon").
pub fn start() {
    static STARTED: OnceCell<()> = OnceCell::new();
    STARTED.get_or_init(|| {
        logger::install();
        // Only this hook knows where a panic came from; the entry points turn it into a number.
        std::panic::set_hook(Box::new(|panic| log::error!("internal error: {panic}")));
    });
}

/// Makes this process call `end` when it calls exit; only the first call has an effect. A child
/// that lvmlockd forks has none of our threads, so nothing is called when the child exits.
pub fn at_exit(end: fn()) {
    static END: OnceCell<(u32, fn())> = OnceCell::new();

    extern "C" fn run() {
        if let Some((process, end)) = END.get() {
            if *process == std::process::id() {
                end();
                log::logger().flush();
            }
        }
    }

    END.get_or_init(|| {
        // SAFETY: the function stays where it is, because lvmlockd never unloads the library.
        if unsafe { libc::atexit(run) } != 0 {
            log::warn!("commands on their way to drives are not waited for at exit");
        }
        (std::process::id(), end)
    });
}
