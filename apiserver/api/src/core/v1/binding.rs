//! Binding: a Pod is put on a node.

use crate::kinds::review;
use crate::{Resource, Strategy};

/// What the pipeline knows of `bindings`, a way to write Pods that stores nothing of its own.
pub static RESOURCE: Resource = review("", "Binding", ["bindings", "binding"], true, &Binding);

/// Binding: a Pod is put on a node.
pub struct Binding;

impl Strategy for Binding {}
