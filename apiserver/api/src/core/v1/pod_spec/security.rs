//! Validation of security contexts, of pods and of containers.

use serde_json::{Value, json};

use crate::field_errors::ErrorType;
use crate::validation::numbers;
use crate::{At, FieldErrors};

/// Reports what is wrong with a pod's security context.
pub fn pod(context: &At<'_>, spec: &At<'_>, errors: &mut FieldErrors) {
    let share = spec.key("shareProcessNamespace");
    if spec.key("hostPID").is_true() && share.is_true() {
        errors.invalid(
            &share,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    if !context.exists() {
        return;
    }
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        numbers::within(&context.key(field), 0, i64::from(i32::MAX), errors);
    }
    for group in context.key("supplementalGroups").items() {
        numbers::within(&group, 0, i64::from(i32::MAX), errors);
    }
    sysctls(&context.key("sysctls"), errors);
    optional(
        &context.key("fsGroupChangePolicy"),
        &["Always", "OnRootMismatch"],
        errors,
    );
    profile("seccomp", &context.key("seccompProfile"), errors);
    optional(
        &context.key("supplementalGroupsPolicy"),
        &["Merge", "Strict"],
        errors,
    );
    optional(
        &context.key("seLinuxChangePolicy"),
        &["MountOption", "Recursive"],
        errors,
    );
    profile("appArmor", &context.key("appArmorProfile"), errors);
}

/// A pod with users of its own has the host's other namespaces not either.
pub fn own_users(spec: &At<'_>, errors: &mut FieldErrors) {
    if spec.key("hostUsers").as_bool() != Some(false) {
        return;
    }
    // Upstream's names of the fields.
    for (field, shown) in [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ] {
        if spec.key(field).is_true() {
            let place = format!("{}.{shown}", spec.path());
            let at = At::maybe(spec.key(field).value(), place);
            errors.forbidden(&at, "when `hostUsers` is false");
        }
    }
}

/// A pod that says it is for Linux has no options for Windows.
pub fn linux(spec: &At<'_>, errors: &mut FieldErrors) {
    const NOT_FOR_LINUX: &str = "windows options cannot be set for a linux pod";
    let options = spec.at("securityContext.windowsOptions");
    if options.exists() {
        errors.forbidden(&options, NOT_FOR_LINUX);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.key(list).items() {
            let options = container.at("securityContext.windowsOptions");
            if options.exists() {
                errors.forbidden(&options, NOT_FOR_LINUX);
            }
        }
    }
}

/// Reports what is wrong with a container's security context.
pub fn container(context: &At<'_>, spec: &At<'_>, errors: &mut FieldErrors) {
    if !context.exists() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        numbers::within(&context.key(field), 0, i64::from(i32::MAX), errors);
    }
    let proc_mount = context.key("procMount");
    optional(&proc_mount, &["Default", "Unmasked"], errors);
    if proc_mount.str() == "Unmasked" && spec.key("hostUsers").as_bool() != Some(false) {
        errors.invalid(&proc_mount, "`hostUsers` must be false to use `Unmasked`");
    }
    profile("seccomp", &context.key("seccompProfile"), errors);
    let escalation = context.key("allowPrivilegeEscalation");
    if escalation.as_bool() == Some(false) {
        if context.key("privileged").is_true() {
            errors.invalid(
                context,
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        let added = context.at("capabilities.add");
        if added
            .items()
            .any(|capability| capability.str() == "CAP_SYS_ADMIN")
        {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(context, detail);
        }
    }
    profile("appArmor", &context.key("appArmorProfile"), errors);
}

fn optional(at: &At<'_>, supported: &[&str], errors: &mut FieldErrors) {
    if at.exists() {
        errors.one_of(at, supported);
    }
}

/// The longest name of an AppArmor profile.
pub(super) const LONGEST: usize = 4095;

/// A seccomp or AppArmor profile: its type, and a local profile's name only where it belongs.
fn profile(name: &str, profile: &At<'_>, errors: &mut FieldErrors) {
    if !profile.exists() {
        return;
    }
    let (kind, local) = (profile.key("type"), profile.key("localhostProfile"));
    match kind.str() {
        "" => errors.required(&kind, format!("type is required when {name}Profile is set")),
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        _ => errors.not_supported(&kind, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
    let is_local = kind.str() == "Localhost";
    if name == "seccomp" {
        if is_local && local.str().is_empty() {
            errors.required(&local, "must be set when seccomp type is Localhost");
        } else if is_local {
            descending_path(&local, errors);
        } else if local.exists() {
            let whole = json!({"Type": kind.str(), "LocalhostProfile": local.str()});
            let detail = "can only be set when seccomp type is Localhost";
            errors.push(ErrorType::Invalid, local.path(), Some(whole), detail);
        }
    } else if is_local && local.str().is_empty() {
        errors.required(&local, "must be set when AppArmor type is Localhost");
    } else if is_local {
        if local.str().trim() != local.str() {
            errors.invalid(&local, "must not be padded with whitespace");
        }
        if local.str().len() > LONGEST {
            errors.too_long(&local, LONGEST);
        }
    } else if !is_local && local.exists() {
        errors.invalid(&local, "can only be set when AppArmor type is Localhost");
    }
}

pub(super) fn descending_path(path: &At<'_>, errors: &mut FieldErrors) {
    if path.str().starts_with('/') {
        errors.invalid(path, "must be a relative path");
    }
    if path.str().split('/').any(|part| part == "..") {
        errors.invalid(path, "must not contain '..'");
    }
}

fn sysctls(list: &At<'_>, errors: &mut FieldErrors) {
    const FORM: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    let mut taken = std::collections::HashSet::new();
    for sysctl in list.items() {
        let name = sysctl.key("name");
        let text = name.str();
        if text.is_empty() {
            errors.required(&name, "");
        } else if text.len() > 253 || !text.split(['.', '/']).all(is_sysctl_part) {
            let detail = format!("must have at most 253 characters and match regex {FORM}");
            errors.push(
                ErrorType::Invalid,
                name.path(),
                Some(Value::from(text)),
                detail,
            );
        } else if !taken.insert(text) {
            errors.duplicate(&name);
        }
    }
}

fn is_sysctl_part(part: &str) -> bool {
    let alphanumeric =
        |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    alphanumeric(part.bytes().next())
        && alphanumeric(part.bytes().last())
        && part
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}
