//! ComponentStatus: whether a part of the control plane answers. It is deprecated, and read-only.
//!
//! Upstream asks the scheduler and the controller manager over the network; here they are in the same process and
//! have no address to ask, so there is nothing to list.

use coracle_clock::Timestamp;
use serde_json::Value;

use crate::kinds::{Column, NAME, NameRule, Storage};
use crate::{Object, Resource, Strategy};

/// What the pipeline knows of componentstatuses.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ComponentStatus",
    plural: "componentstatuses",
    singular: "componentstatus",
    short_names: &["cs"],
    categories: &[],
    namespaced: false,
    verbs: &["get", "list"],
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: false,
    // Nobody can write one; the server makes them up when they are read.
    storage: Storage::Own,
    deprecation: Some("v1 ComponentStatus is deprecated in v1.19+"),
    strategy: &ComponentStatus,
};

/// ComponentStatus: whether a part of the control plane answers.
pub struct ComponentStatus;

impl Strategy for ComponentStatus {
    fn cells(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        let conditions = object.at("conditions");
        let healthy = conditions
            .items()
            .find(|condition| condition.key("type").str() == "Healthy");
        let (status, message, error) = match &healthy {
            None => ("Unknown", "", ""),
            Some(condition) => (
                match condition.key("status").str() {
                    "True" => "Healthy",
                    _ => "Unhealthy",
                },
                condition.key("message").str(),
                condition.key("error").str(),
            ),
        };
        vec![
            object.name().into(),
            status.into(),
            message.into(),
            error.into(),
        ]
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string("Status", "Status of the component conditions"),
    Column::string("Message", "Message of the component conditions"),
    Column::string("Error", "Error of the component conditions"),
];
