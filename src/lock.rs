//! Types for locks that all modules share: the id and the role of a lock, its owner, the result of
//! a request, and the lock's value.

mod id;
mod request;
mod spec;
mod value;

pub use id::{MEMBERSHIP, Role, dashed, lv_uuid, role_of, vg_of};
pub use request::{Adopt, LockspaceKey, Resource, ResourceKey, Scope, ValBlk};
pub use spec::{LockSpec, Owner, RequestResult};
pub use value::ValueCache;
