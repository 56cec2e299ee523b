//! Objects that no request brings, such as the manifests of static pods: read, given their defaults and checked as those
//! that are created.

use coracle_api::{FieldErrors, Object, Resource};
use serde_json::Value;

use crate::decode::{self, Expected};
use crate::metadata;
use crate::options::FieldValidation;
use crate::status::{ApiError, Result};
use crate::verbs::set_defaults;

/// A manifest as an object of its kind.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// With all defaults.
    pub object: Object,
    /// What in it the kind does not know.
    pub warnings: Vec<String>,
}

impl Manifest {
    /// Reads `manifest` as a new object of `resource`; the error says, in the words of an answer, what is wrong with it.
    /// Admission, which knows the cluster, has no part in this.
    pub fn read(manifest: Value, resource: &Resource) -> Result<Self> {
        let expected = Expected::of(resource);
        let decode::Body {
            mut object,
            warnings,
        } = decode::value(manifest, expected, FieldValidation::Warn)?;
        set_defaults(&mut object, resource);
        let mut errors = FieldErrors::default();
        metadata::validate(&object, resource, &mut errors);
        resource.strategy.validate(&object, &mut errors);
        resource.strategy.validate_create(&object, &mut errors);
        if errors.is_empty() {
            return Ok(Self { object, warnings });
        }
        errors.show_empties(&object);
        Err(ApiError::invalid(resource, object.name(), &errors))
    }
}

#[cfg(test)]
mod tests {
    use coracle_api::core::v1::pod;
    use serde_json::json;

    use super::*;

    fn read(spec: Value) -> Result<Manifest> {
        let pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec});
        Manifest::read(pod, &pod::RESOURCE)
    }

    #[test]
    fn a_manifest_has_the_defaults_of_its_kind_and_says_what_is_not_known() {
        let spec = json!({"containers": [{"name": "a", "image": "a", "imagePolicy": "x"}]});
        let Manifest { object, warnings } = read(spec).expect("a pod");
        assert_eq!(object.at("spec.restartPolicy").str(), "Always");
        let container = object.at("spec.containers").index(0);
        assert_eq!(container.key("imagePullPolicy").str(), "Always");
        assert_eq!(
            warnings,
            [r#"unknown field "spec.containers[0].imagePolicy""#]
        );
    }

    #[test]
    fn a_manifest_is_refused_in_the_words_of_a_create() {
        let error = read(json!({"containers": []})).expect_err("no containers");
        assert_eq!(
            error.to_string(),
            r#"Pod "web" is invalid: spec.containers: Required value"#
        );
    }
}
