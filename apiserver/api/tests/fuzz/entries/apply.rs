use coracle_api::apply::FieldManager;
use coracle_api::schema::{SchemaRef, decode_value, parse_json};
use coracle_api::{Object, Registry};
use serde_json::Value;

use super::{group_version, object, two_lines};

const NOW: &str = "2030-01-01T00:00:00Z";
const LATER: &str = "2030-01-01T00:01:00Z";

/// A configuration (first line) applies to an object with any `managedFields` (second line) or is refused; what was
/// applied by force changes nothing when it is applied again, not even a time, if it is stored as it was given.
pub(crate) fn apply(input: &[u8]) {
    let (config, live) = two_lines(input);
    let Ok(config) = parse_json(config) else {
        return;
    };
    let Some((manager, schema)) = manager_of(&config) else {
        return;
    };
    // A live object comes from the store, hence was decoded by its schema.
    let (live, _) = object(live);
    let live = decode_value(live, &schema)
        .ok()
        .and_then(|live| Object::from_value(live.value));
    let live = live.filter(|live| live.root().get("kind") == config.get("kind"));
    let plain = manager.apply(live.as_ref(), &config, "fuzz", false, NOW);
    let Ok(forced) = manager.apply(live.as_ref(), &config, "fuzz", true, NOW) else {
        assert!(plain.is_err(), "force never makes it worse");
        return;
    };
    if let Ok(plain) = plain {
        assert_eq!(plain, forced, "without conflicts there is nothing to force");
    }
    let Ok(stored) = decode_value(forced.object.clone(), &schema) else {
        return;
    };
    let settled = stored.value == forced.object;
    let stored = Object::from_value(stored.value).expect("an object");
    let mut updated = stored.clone();
    manager.update(Some(&stored), &mut updated, "other", LATER);
    assert_eq!(updated, stored, "an update without changes owns nothing");
    let again = manager
        .apply(Some(&stored), &config, "fuzz", true, LATER)
        .expect("what was applied applies again");
    if settled {
        assert_eq!(again.object, stored.into_value());
    }
}

fn manager_of(config: &Value) -> Option<(FieldManager, SchemaRef)> {
    let (group, version) = group_version(config["apiVersion"].as_str()?);
    let kind = config["kind"].as_str()?;
    let resource = Registry::builtin().by_kind(group, version, kind)?;
    let schema = SchemaRef::for_kind(group, version, kind)?;
    Some((FieldManager::new(resource, ""), schema))
}
