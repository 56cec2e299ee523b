//! A pod runtime that runs nothing.
