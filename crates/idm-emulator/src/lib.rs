//! An IDM drive in software: a pure drive model, and the server that exposes it.
