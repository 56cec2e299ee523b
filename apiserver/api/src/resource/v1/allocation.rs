//! What a claim got: its status.

use serde_json::Value;

use super::claim::{request_ref, request_refs};
use super::parts::{
    MOST_ITEMS, binding_conditions, driver, each, each_once, object, opaque, pool, tolerations,
};
use crate::core::v1::pod_spec::scheduling::node_selector;
use crate::field_errors::ErrorType;
use crate::schema::internal_form;
use crate::validation::conditions::conditions;
use crate::validation::names;
use crate::{At, FieldErrors, Object};

/// Most users of a claim.
const MOST_USERS: usize = 256;
/// Most conditions of an allocated device.
const MOST_CONDITIONS: usize = 8;
/// Most bytes of what a driver says of a device.
const MOST_DATA: usize = 10 * 1024;
/// Most addresses of a network device.
const MOST_ADDRESSES: usize = 16;

/// Reports what is wrong with a change of a claim's status.
pub(super) fn status(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let (status, before) = (new.at("status"), old.at("status"));
    let users = status.key("reservedFor");
    let uid = |user: &At<'_>| user.key("uid").str().to_owned();
    each_once(&users, MOST_USERS, errors, uid, |user, errors| {
        for field in ["resource", "name", "uid"] {
            if user.key(field).is_empty() {
                errors.required(&user.key(field), "");
            }
        }
    });
    let allocation = status.key("allocation");
    let devices = status.key("devices");
    each_once(&devices, usize::MAX, errors, device_id, |device, errors| {
        device_status(device, &allocation, errors);
    });
    if !users.is_empty() && !allocation.exists() {
        errors.forbidden(&users, "may not be specified when `allocated` is not set");
    } else if new.is_terminating() {
        let known = before.key("reservedFor");
        let added = users
            .items()
            .any(|user| known.items().all(|other| other.value() != user.value()));
        if added {
            errors.forbidden(
                &users,
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set",
            );
        }
    }
    let was = before.key("allocation");
    if was.exists() && allocation.exists() {
        if was.value() != allocation.value() {
            let definition = "io.k8s.api.resource.v1.AllocationResult";
            let shown = internal_form(definition, allocation.value());
            let detail = "field is immutable";
            errors.push(ErrorType::Invalid, allocation.path(), Some(shown), detail);
        }
    } else if allocation.exists() {
        result(&allocation, &new.at("spec.devices"), errors);
    }
}

fn device_id(device: &At<'_>) -> String {
    let id = ["driver", "pool", "device"]
        .map(|field| device.key(field).str())
        .join("/");
    match device.key("shareID").as_str() {
        Some(share) => format!("{id}/{share}"),
        None => id,
    }
}

fn device_status(device: &At<'_>, allocation: &At<'_>, errors: &mut FieldErrors) {
    driver(&device.key("driver"), errors);
    pool(&device.key("pool"), errors);
    errors.text(&device.key("device"), names::dns1123_label);
    let id = device_id(device);
    let results = allocation.at("devices.results");
    if !results.items().any(|result| device_id(&result) == id) {
        let shown = Some(Value::from(id));
        let detail = "must be an allocated device in the claim";
        errors.push(ErrorType::Invalid, device.path(), shown, detail);
    }
    let all = device.key("conditions");
    if all.len() > MOST_CONDITIONS {
        errors.too_many(&all, MOST_CONDITIONS);
    }
    conditions(&all, errors);
    if device.key("data").exists() {
        object(&device.key("data"), MOST_DATA, errors);
    }
    let network = device.key("networkData");
    for (field, most) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        if network.key(field).str().len() > most {
            errors.too_long(&network.key(field), most);
        }
    }
    let own = |address: &At<'_>| address.str().to_owned();
    each_once(
        &network.key("ips"),
        MOST_ADDRESSES,
        errors,
        own,
        |address, errors| {
            if crate::validation::address::parse_cidr(address.str()).is_none() {
                errors.invalid(
                    address,
                    "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)",
                );
            }
        },
    );
}

fn result(allocation: &At<'_>, devices: &At<'_>, errors: &mut FieldErrors) {
    let results = allocation.at("devices.results");
    each(&results, MOST_ITEMS, errors, |result, errors| {
        request_ref(&result.key("request"), devices, errors);
        driver(&result.key("driver"), errors);
        pool(&result.key("pool"), errors);
        errors.text(&result.key("device"), names::dns1123_label);
        binding_conditions(result, errors);
        tolerations(&result.key("tolerations"), errors);
    });
    let config = allocation.at("devices.config");
    each(&config, 2 * MOST_ITEMS, errors, |config, errors| {
        let source = config.key("source");
        if source.is_empty() {
            errors.required(&source, "");
        } else {
            errors.one_of(&source, &["FromClaim", "FromClass"]);
        }
        request_refs(&config.key("requests"), devices, errors);
        opaque(config, errors);
    });
    let nodes = allocation.key("nodeSelector");
    if nodes.exists() {
        node_selector(&nodes, errors);
    }
}
