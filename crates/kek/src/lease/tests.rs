//! The lease, over interleavings.
