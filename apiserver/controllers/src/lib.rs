//! coracle-controllers
