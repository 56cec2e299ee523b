//! coracle-network
