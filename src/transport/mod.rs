//! How commands reach a drive.
