//! ServiceCIDR: a range of addresses for Services.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age};
use crate::strategy::ALL_METADATA;
use crate::validation::address;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of service ranges.
pub static RESOURCE: Resource = Resource {
    group: "networking.k8s.io",
    version: "v1",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    singular: "servicecidr",
    short_names: &[],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ServiceCIDR,
};

/// ServiceCIDR: a range of addresses for Services, or one of each family.
pub struct ServiceCIDR;

impl Strategy for ServiceCIDR {
    /// Upstream's `pkg/registry/networking/servicecidr/strategy.go` clears nothing.
    fn main_takes_status(&self) -> bool {
        true
    }

    fn status_metadata(&self) -> &'static [&'static str] {
        ALL_METADATA
    }

    fn validate_create(&self, new: &Object, errors: &mut FieldErrors) {
        ranges(&new.at("spec"), errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let (now, before) = (new.at("spec.cidrs"), old.at("spec.cidrs"));
        let same = |index: usize| now.index(index).value() == before.index(index).value();
        let changed = "field is immutable";
        match (before.len(), now.len()) {
            (had, has) if had == has => {
                for index in (0..has).filter(|index| !same(*index)) {
                    errors.invalid(&now.index(index), changed);
                }
            }
            // A second range makes it a pair, one of each family.
            (1, 2) => {
                if !same(0) {
                    errors.invalid(&now.index(0), changed);
                }
                ranges(&new.at("spec"), errors);
            }
            _ => errors.invalid(&now, changed),
        }
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let cidrs = object.at("spec.cidrs");
        let texts: Vec<String> = cidrs.items().map(|cidr| cidr.str().to_owned()).collect();
        vec![
            object.name().into(),
            texts.join(",").into(),
            age(object, now),
        ]
    }
}

/// Reports what is wrong with the ranges: one, or one of each family.
fn ranges(spec: &At<'_>, errors: &mut FieldErrors) {
    let cidrs = spec.key("cidrs");
    match cidrs.len() {
        0 => return errors.required(&cidrs, "at least one CIDR required"),
        1 | 2 => {}
        _ => {
            let shown = json!({"CIDRs": cidrs.value()});
            return errors.invalid_as(&cidrs, shown, "may only hold up to 2 values");
        }
    }
    for cidr in cidrs.items() {
        address::canonical_cidr(&cidr, errors);
    }
    let family = |index: usize| {
        address::parse_cidr(cidrs.index(index).str()).map(|(address, _)| address.is_ipv4())
    };
    if cidrs.len() == 2 && family(0).is_some() && family(0) == family(1) {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(&cidrs, detail);
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "CIDRs",
        "CIDRs defines the IP blocks in CIDR notation (e.g. \"192.168.0.0/24\" or \"2001:db8::/64\") from which \
         to assign service cluster IPs. Max of two CIDRs is allowed, one of each IP family. This field is \
         immutable.",
    ),
    AGE,
];
