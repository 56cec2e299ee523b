//! Endpoints: the addresses behind a Service, in the form that preceded EndpointSlice.

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage};
use crate::{Resource, Strategy};

/// What the pipeline knows of endpoints.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: true,
    unconditional_update: true,
    storage: Storage::Own,
    strategy: &Endpoints,
};

/// Endpoints: the addresses behind a Service, in the form that preceded EndpointSlice.
pub struct Endpoints;

impl Strategy for Endpoints {}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Endpoints",
        "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to \
         the IPs they share. A single address with multiple ports, some of which are ready and some of which \
         are not (because they come from different containers) will result in the address being displayed in \
         different subsets for the different ports. No address will appear in both Addresses and \
         NotReadyAddresses in the same subset. Sets of addresses and ports that comprise a service.",
    ),
    AGE,
];
