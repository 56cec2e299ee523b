//! What a pod is called on its own network: `GeneratePodHostNameAndDomain` and `GetNodenameForKernel` of upstream's
//! kubelet.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

/// What `struct utsname` of Linux holds, which `setHostnameAsFQDN` must fit into.
const LONGEST: usize = 64;

/// The names of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PodNames {
    /// What guests see as their host name.
    pub(crate) hostname: String,
    /// Its name with its domain, which only a pod with a `subdomain` has.
    pub(crate) full_name: Option<String>,
}

/// A pod that wants to be called by its full name, which is too long for that.
#[derive(Debug, thiserror::Error)]
#[error(
    "failed to construct FQDN from pod hostname and cluster domain, FQDN {0} is too long ({LONGEST} characters is \
     the max, {length} characters requested)",
    length = .0.len()
)]
pub(crate) struct FullNameTooLong(String);

/// The names of `pod` in a cluster with that domain.
pub(crate) fn pod_names(pod: &Pod, cluster_domain: &str) -> Result<PodNames, FullNameTooLong> {
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    if let Some(name) = given(&spec.hostname_override) {
        return Ok(PodNames {
            hostname: name.to_owned(),
            full_name: None,
        });
    }
    let host = given(&spec.hostname).unwrap_or_else(|| short_name(pod));
    let full_name = given(&spec.subdomain).map(|subdomain| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        format!("{host}.{subdomain}.{namespace}.svc.{cluster_domain}")
    });
    let hostname = match &full_name {
        Some(full) if spec.set_hostname_as_fqdn == Some(true) => {
            if full.len() > LONGEST {
                return Err(FullNameTooLong(full.clone()));
            }
            full.clone()
        }
        _ => host.to_owned(),
    };
    Ok(PodNames {
        hostname,
        full_name,
    })
}

/// A host name has at most 63 characters and does not end in a dash or a dot (upstream's
/// `truncatePodHostnameIfNeeded`).
fn short_name(pod: &Pod) -> &str {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    name.get(..63).unwrap_or(name).trim_end_matches(['-', '.'])
}

fn given(field: &Option<String>) -> Option<&str> {
    field.as_deref().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(name: &str, spec: serde_json::Value) -> Result<(String, Option<String>), String> {
        let pod = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        let pod = serde_json::from_value(pod).expect("valid");
        pod_names(&pod, "cluster.local")
            .map(|names| (names.hostname, names.full_name))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_pod_is_called_by_its_name_or_its_hostname() {
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(10));
        for (name, spec, hostname) in [
            ("web", json!({"containers": []}), "web"),
            ("web", json!({"containers": [], "hostname": "tom"}), "tom"),
            (&long, json!({"containers": []}), &"a".repeat(62)),
            (
                "web",
                json!({"containers": [], "setHostnameAsFQDN": true}),
                "web",
            ),
        ] {
            assert_eq!(names(name, spec), Ok((hostname.to_owned(), None)));
        }
    }

    #[test]
    fn a_pod_with_a_subdomain_has_a_full_name_which_may_be_its_host_name() {
        let full = "tom.nook.shop.svc.cluster.local".to_owned();
        for (as_full, hostname) in [(false, "tom"), (true, full.as_str())] {
            let spec = json!({"containers": [], "hostname": "tom", "subdomain": "nook", "setHostnameAsFQDN": as_full});
            assert_eq!(
                names("web", spec),
                Ok((hostname.to_owned(), Some(full.clone())))
            );
        }
    }

    #[test]
    fn a_full_name_that_is_no_host_name_stops_only_pods_that_want_it_as_one() {
        let spec =
            |as_full| json!({"containers": [], "subdomain": "nook", "setHostnameAsFQDN": as_full});
        let name = "a".repeat(50);
        let error = names(&name, spec(true)).unwrap_err();
        assert!(
            error.ends_with("is too long (64 characters is the max, 78 characters requested)"),
            "{error}"
        );
        assert_eq!(names(&name, spec(false)).unwrap().0, name);
    }

    #[test]
    fn an_override_stands_above_all_other_names() {
        let spec = json!({"containers": [], "hostname": "tom", "subdomain": "nook", "hostnameOverride": "www.example.com"});
        assert_eq!(names("web", spec), Ok(("www.example.com".to_owned(), None)));
    }
}
