//! From a PV path to drives.
