//! Types for locks that all modules share: the id and the role of a lock, its owner, the result of
//! a request, and the lock's value.

mod id;
mod refused;
mod request;
mod spec;
mod value;

pub use id::{Role, dashed, lv_uuid, membership_of, role_of, vg_of};
pub use refused::{AskedFor, DriveReport, Refused};
pub use request::{Adopt, LockspaceKey, Resource, ResourceKey, Scope, ValBlk};
pub use spec::{LockSpec, Owner, RequestResult, same_drives};
pub use value::{ValueCache, published};
