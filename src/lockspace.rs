//! What a lockspace and a resource are to us; LVB cache and timestamps.
