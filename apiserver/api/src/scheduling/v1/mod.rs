//! Version v1 of the group.

pub mod priority_class;

#[cfg(test)]
mod tests;
