//! coracle-services
