//! Properties of patches, of server-side apply and of selectors, each against a model that is plain or against a law.

mod apply;
mod field_selector;
mod json_patch;
mod label_selector;
mod merge_patch;
mod objects;
mod scanning;
mod strategic_patch;
