//! One reactor that owns the engines; workers that block in the kernel.
