//! coracle-image
