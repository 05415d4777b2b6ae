//! The boundary to lvmlockd: its structs, its symbols, its log.
