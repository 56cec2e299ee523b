//! The kinds of `apiextensions.k8s.io/v1`.

mod columns;
mod conversion;
pub mod custom_resource_definition;
mod declared;
mod schema;
mod structural;

#[cfg(test)]
mod tests;
