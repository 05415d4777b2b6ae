//! Settings, from a file.
