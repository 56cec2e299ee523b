//! PriorityLevelConfiguration: how many requests of one level run at once, and where others wait.

use coracle_clock::Timestamp;
use serde_json::{Map, Value, json};

use super::{conditions, fixed};
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age};
use crate::object::{default_int, default_value};
use crate::strategy::ALL_METADATA;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of priority levels.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
    short_names: &[],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &PriorityLevelConfiguration,
};

/// PriorityLevelConfiguration: how many requests of one level run at once, and where others wait.
pub struct PriorityLevelConfiguration;

/// Most queues of a level.
const MOST_QUEUES: i64 = 10_000_000;
/// Bits of the hash that deals a hand of queues.
const HASH_BITS: u32 = 60;

impl Strategy for PriorityLevelConfiguration {
    fn default(&self, object: &mut Object) {
        let spec = object.map_mut("spec");
        let exempt = spec.get("type").and_then(Value::as_str) == Some("Exempt");
        if exempt {
            default_value(spec, "exempt", || json!({}));
        }
        fill(spec, "exempt", |exempt| {
            default_value(exempt, "nominalConcurrencyShares", || json!(0));
            default_value(exempt, "lendablePercent", || json!(0));
        });
        fill(spec, "limited", |limited| {
            default_value(limited, "nominalConcurrencyShares", || json!(30));
            default_value(limited, "lendablePercent", || json!(0));
            fill(limited, "limitResponse", |response| {
                fill(response, "queuing", |queuing| {
                    default_int(queuing, "queues", 64);
                    default_int(queuing, "handSize", 8);
                    default_int(queuing, "queueLengthLimit", 50);
                });
            });
        });
        object.set_default("status", json!({}));
    }

    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({}));
    }

    fn status_metadata(&self) -> &'static [&'static str] {
        ALL_METADATA
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let (name, spec) = (new.name(), new.at("spec"));
        let kind = spec.key("type");
        if (name == "exempt") != (kind.str() == "Exempt") {
            let value = Some(kind.str().into());
            let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
            errors.push(ErrorType::Invalid, kind.path(), value, detail);
        }
        let (exempt, limited) = (spec.key("exempt"), spec.key("limited"));
        match kind.str() {
            "Exempt" => {
                if limited.exists() {
                    errors.forbidden(&limited, "must be nil if the type is not Limited");
                }
                not_negative(&exempt.key("nominalConcurrencyShares"), errors);
                percentage(&exempt.key("lendablePercent"), errors);
            }
            "Limited" => {
                if exempt.exists() {
                    errors.forbidden(&exempt, "must be nil if the type is Limited");
                }
                if limited.exists() {
                    self::limited(&limited, errors);
                } else {
                    errors.required(&limited, "must not be empty when type is Limited");
                }
            }
            _ => errors.not_supported(&kind, &["Exempt", "Limited"]),
        }
        mandatory(new, errors);
        conditions(new, errors);
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut FieldErrors) {
        conditions(new, errors);
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.at("spec");
        let limited = spec.key("limited");
        let number = |path: &str| match limited.at(path).as_i64() {
            Some(number) => Value::from(number),
            None => "<none>".into(),
        };
        vec![
            object.name().into(),
            spec.key("type").str().into(),
            number("nominalConcurrencyShares"),
            number("limitResponse.queuing.queues"),
            number("limitResponse.queuing.handSize"),
            number("limitResponse.queuing.queueLengthLimit"),
            age(object, now),
        ]
    }
}

/// Calls `change` with the object in `field`, if there is one.
fn fill(map: &mut Map<String, Value>, field: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    if let Some(object) = map.get_mut(field).and_then(Value::as_object_mut) {
        change(object);
    }
}

fn not_negative(at: &At<'_>, errors: &mut FieldErrors) {
    if at.as_i64().is_some_and(|number| number < 0) {
        errors.invalid(at, "must be a non-negative integer");
    }
}

fn percentage(at: &At<'_>, errors: &mut FieldErrors) {
    if at
        .as_i64()
        .is_some_and(|number| !(0..=100).contains(&number))
    {
        errors.invalid(at, "must be between 0 and 100, inclusive");
    }
}

fn limited(limited: &At<'_>, errors: &mut FieldErrors) {
    not_negative(&limited.key("nominalConcurrencyShares"), errors);
    let response = limited.key("limitResponse");
    let queuing = response.key("queuing");
    match response.key("type").str() {
        "Reject" if queuing.exists() => errors.forbidden(
            &queuing,
            "must be nil if limited.limitResponse.type is not Limited",
        ),
        "Reject" => {}
        "Queue" if queuing.exists() => self::queuing(&queuing, errors),
        "Queue" => errors.required(
            &queuing,
            "must not be empty if limited.limitResponse.type is Limited",
        ),
        _ => errors.not_supported(&response.key("type"), &["Queue", "Reject"]),
    }
    percentage(&limited.key("lendablePercent"), errors);
    let borrowing = limited.key("borrowingLimitPercent");
    if borrowing.as_i64().is_some_and(|percent| percent < 0) {
        errors.invalid(&borrowing, "if specified, must be a non-negative integer");
    }
}

fn queuing(queuing: &At<'_>, errors: &mut FieldErrors) {
    let (queues, hand) = (queuing.key("queues"), queuing.key("handSize"));
    let number = |at: &At<'_>| at.as_i64().unwrap_or(0);
    let (deck, cards) = (number(&queues), number(&hand));
    let length = queuing.key("queueLengthLimit");
    if number(&length) <= 0 {
        errors.invalid(&length, "must be positive");
    }
    if deck <= 0 {
        errors.invalid(&queues, "must be positive");
    } else if deck > MOST_QUEUES {
        errors.invalid(&queues, format!("must not be greater than {MOST_QUEUES}"));
    }
    if cards <= 0 {
        errors.invalid(&hand, "must be positive");
    } else if cards > deck {
        errors.invalid(&hand, format!("should not be greater than queues ({deck})"));
    } else if (deck as f64).log2() * cards as f64 > f64::from(HASH_BITS) {
        errors.invalid(
            &hand,
            format!(
                "required entropy bits of deckSize {deck} and handSize {cards} should not be greater than {HASH_BITS}"
            ),
        );
    }
}

/// The two levels that are always there keep their specs; the shares of the exempt one may be changed.
fn mandatory(new: &Object, errors: &mut FieldErrors) {
    let (name, spec) = (new.name(), new.at("spec"));
    let (wanted, except) = match name {
        "exempt" => (json!({"type": "Exempt"}), " except the 'spec.exempt' field"),
        "catch-all" => {
            let limited = json!({
                "nominalConcurrencyShares": 5,
                "limitResponse": {"type": "Reject"},
                "lendablePercent": 0,
            });
            (json!({"type": "Limited", "limited": limited}), "")
        }
        _ => return,
    };
    let mut given = spec.value().cloned().unwrap_or_default();
    if let Some(given) = given.as_object_mut() {
        given.retain(|field, value| !value.is_null() && (field != "exempt" || except.is_empty()));
    }
    if given != wanted {
        let detail = format!("spec of '{name}'{except} must equal the fixed value");
        fixed(new, "PriorityLevelConfigurationSpec", detail, errors);
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Type",
        "`type` indicates whether this priority level is subject to limitation on request execution.  A \
         value of `\"Exempt\"` means that requests of this priority level are not subject to a limit (and \
         thus are never queued) and do not detract from the capacity made available to other priority \
         levels.  A value of `\"Limited\"` means that (a) requests of this priority level _are_ subject to \
         limits and (b) some of the server's limited capacity is made available exclusively to this priority \
         level. Required.",
    ),
    Column::string(
        "NominalConcurrencyShares",
        "`nominalConcurrencyShares` (NCS) contributes to the computation of the NominalConcurrencyLimit \
         (NominalCL) of this level. This is the number of execution seats available at this priority level. \
         This is used both for requests dispatched from this priority level as well as requests dispatched \
         from other priority levels borrowing seats from this level. The server's concurrency limit \
         (ServerCL) is divided among the Limited priority levels in proportion to their NCS \
         values:\n\nNominalCL(i)  = ceil( ServerCL * NCS(i) / sum_ncs ) sum_ncs = sum[priority level k] \
         NCS(k)\n\nBigger numbers mean a larger nominal concurrency limit, at the expense of every other \
         priority level.\n\nIf not specified, this field defaults to a value of 30.\n\nSetting this field to \
         zero supports the construction of a \"jail\" for this priority level that is used to hold some \
         request(s)",
    ),
    Column::string(
        "Queues",
        "`queues` is the number of queues for this priority level. The queues exist independently at each \
         apiserver. The value must be positive.  Setting it to 1 effectively precludes shufflesharding and \
         thus makes the distinguisher method of associated flow schemas irrelevant.  This field has a \
         default value of 64.",
    ),
    Column::string(
        "HandSize",
        "`handSize` is a small positive number that configures the shuffle sharding of requests into \
         queues.  When enqueuing a request at this priority level the request's flow identifier (a string \
         pair) is hashed and the hash value is used to shuffle the list of queues and deal a hand of the \
         size specified here.  The request is put into one of the shortest queues in that hand. `handSize` \
         must be no larger than `queues`, and should be significantly smaller (so that a few heavy flows do \
         not saturate most of the queues).  See the user-facing documentation for more extensive guidance on \
         setting this field.  This field has a default value of 8.",
    ),
    Column::string(
        "QueueLengthLimit",
        "`queueLengthLimit` is the maximum number of requests allowed to be waiting in a given queue of this \
         priority level at a time; excess requests are rejected.  This value must be positive.  If not \
         specified, it will be defaulted to 50.",
    ),
    AGE,
];
