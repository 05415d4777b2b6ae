//! Names and payloads as the hardware tests use them.
#![allow(dead_code)] // Each test program uses a part.

use idm_protocol::{Class, HostId, Mode, Record, ResourceId, State, Value, ValueUpdate};

pub const EX: Mode = Mode::Exclusive;
pub const SH: Mode = Mode::Shared;

/// The lock of most cases: '0' 64 times.
pub const L0: ResourceId = ResourceId::from_bytes([b'0'; 64]);
/// A second lock: '0' 63 times, then '1'.
pub const L1: ResourceId = {
    let mut bytes = [b'0'; 64];
    bytes[63] = b'1';
    ResourceId::from_bytes(bytes)
};

/// A host by its number: H0 is '0' 32 times, and so on.
pub fn host(number: u8) -> HostId {
    let mut bytes = [b'0'; 32];
    bytes[31] = b'0'.wrapping_add(number);
    HostId::from_bytes(bytes)
}

/// The payload of a command that does not change the value.
pub fn payload(resource: ResourceId, mode: Mode, by: HostId, lease_ms: u64) -> Record {
    Record {
        state: State::Uninitialized,
        modified_ms: 0x0102_0304_0506_0708,
        countdown_ms: lease_ms,
        class: Class::from(mode),
        value_update: ValueUpdate::Keep,
        value: Value::ZERO,
        resource,
        metadata: [0; 64],
        host: by,
    }
}

/// The same payload, which stores a value.
pub fn storing(value: u64, payload: Record) -> Record {
    Record {
        value_update: ValueUpdate::Store,
        value: Value::new(value).expect("a value has 56 bits"),
        ..payload
    }
}
