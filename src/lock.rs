//! What a lock is, for all who speak of it: its id, what it is for, on whose behalf it is asked
//! for, how a request ends, and the value that comes with it.

mod id;
mod request;
mod spec;
mod value;

pub use id::{MEMBERSHIP, Role, dashed, lv_uuid, role_of, vg_of};
pub use request::{Adopt, LockspaceKey, Resource, ResourceKey, Scope, ValBlk};
pub use spec::{LockSpec, Owner, RequestResult};
pub use value::ValueCache;
