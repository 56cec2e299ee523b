//! CronJob: a Job made again and again, on a schedule.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::job;
use crate::core::v1::pod_spec::defaults;
use crate::core::v1::pod_spec::template::{changed, containers_and_images, template_warnings};
use crate::field_errors::ErrorType;
use crate::kinds::{
    AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age, selector_text, since_text,
};
use crate::object::{default_text, default_value};
use crate::validation::numbers;
use crate::{At, FieldErrors, Object, Resource, Strategy};

mod go;
pub mod schedule;

/// What the pipeline knows of cronjobs.
pub static RESOURCE: Resource = Resource {
    group: "batch",
    version: "v1",
    kind: "CronJob",
    plural: "cronjobs",
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &CronJob,
};

/// CronJob: a Job made again and again, on a schedule.
pub struct CronJob;

impl Strategy for CronJob {
    fn default(&self, object: &mut Object) {
        let spec = object.map_mut("spec");
        default_text(spec, "concurrencyPolicy", "Allow");
        default_value(spec, "suspend", || json!(false));
        default_value(spec, "successfulJobsHistoryLimit", || json!(3));
        default_value(spec, "failedJobsHistoryLimit", || json!(1));
        // The template gets a Job's own defaults when a Job is made of it.
        let template = object.map_mut("spec.jobTemplate.spec");
        job::policy_defaults(template);
        defaults::pod_spec(object.map_mut("spec.jobTemplate.spec.template.spec"));
    }

    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({}));
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        spec(&new.at("spec"), None, errors);
        // The names of its Jobs are eleven characters longer.
        if new.name().len() > 52 {
            errors.push(
                ErrorType::Invalid,
                "metadata.name",
                Some(new.name().into()),
                "must be no more than 52 characters",
            );
        }
    }

    fn validate_replacement(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        spec(&new.at("spec"), Some(&old.at("spec")), errors);
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let job = "spec.jobTemplate.spec";
        let mut found = template_warnings(new, old, &format!("{job}.template"));
        if changed(new, old)
            && let Some(warning) = job::size_warning(&new.at(job))
        {
            found.push(warning);
        }
        if old.is_some() && new.at("spec.schedule").str().contains("TZ") {
            found.push(
                "CRON_TZ or TZ used in spec.schedule is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .to_owned(),
            );
        }
        found
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.at("spec");
        let template = spec.at("jobTemplate.spec.template.spec");
        let (containers, images) = containers_and_images(&template);
        let last = object.at("status.lastScheduleTime");
        vec![
            object.name().into(),
            spec.key("schedule").str().into(),
            spec.key("timeZone").as_str().unwrap_or("<none>").into(),
            if spec.key("suspend").is_true() {
                "True".into()
            } else {
                "False".into()
            },
            object.at("status.active").len().into(),
            if last.exists() {
                since_text(last.str(), now)
            } else {
                "<none>".into()
            },
            age(object, now),
            containers.into(),
            images.into(),
            match spec.at("jobTemplate.spec.selector") {
                selector if selector.exists() => selector_text(&selector).into(),
                _ => "<none>".into(),
            },
        ]
    }
}

/// Reports what is wrong with the spec; an old one may keep what is not accepted any more.
fn spec(spec: &At<'_>, old: Option<&At<'_>>, errors: &mut FieldErrors) {
    let (at, zone) = (spec.key("schedule"), spec.key("timeZone"));
    if at.str().is_empty() {
        errors.required(&at, "");
    } else {
        let had_zone = old.is_some_and(|old| old.key("schedule").str().contains("TZ"));
        schedule_text(&at, had_zone, zone.exists(), errors);
    }
    numbers::non_negative(&spec.key("startingDeadlineSeconds"), errors);
    if old.is_none_or(|old| old.key("timeZone").as_str() != zone.as_str()) {
        schedule::time_zone(&zone, errors);
    }
    let policy = spec.key("concurrencyPolicy");
    if policy.str().is_empty() {
        errors.required(&policy, "");
    } else {
        errors.one_of(&policy, &["Allow", "Forbid", "Replace"]);
    }
    let template = spec.at("jobTemplate.spec");
    job::job_spec(&template, errors);
    let (selector, manual) = (template.key("selector"), template.key("manualSelector"));
    if selector.exists() {
        errors.invalid(&selector, "`selector` will be auto-generated");
    }
    if manual.is_true() {
        errors.not_supported(&manual, &["nil", "false"]);
    }
    numbers::non_negative(&spec.key("successfulJobsHistoryLimit"), errors);
    numbers::non_negative(&spec.key("failedJobsHistoryLimit"), errors);
}

/// A schedule; a time zone in it is accepted only where there was one.
fn schedule_text(at: &At<'_>, had_zone: bool, zone_field: bool, errors: &mut FieldErrors) {
    if let Err(error) = schedule::check(at.str()) {
        errors.invalid(at, error);
    }
    let has_zone = at.str().contains("TZ");
    if had_zone && has_zone && zone_field {
        errors.invalid(
            at,
            "cannot use both timeZone field and TZ or CRON_TZ in schedule",
        );
    }
    if !had_zone && has_zone {
        errors.invalid(
            at,
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        );
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Schedule",
        "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron.",
    ),
    Column::string(
        "Timezone",
        "The time zone name for the given schedule, see \
         https://en.wikipedia.org/wiki/List_of_tz_database_time_zones. If not specified, this will default to the \
         time zone of the kube-controller-manager process. The set of valid time zone names and the time zone offset \
         is loaded from the system-wide time zone database by the API server during CronJob validation and the \
         controller manager during execution. If no system-wide time zone database can be found a bundled version of \
         the database is used instead. If the time zone name becomes invalid during the lifetime of a CronJob or due \
         to a change in host configuration, the controller will stop creating new new Jobs and will create a system \
         event with the reason UnknownTimeZone. More information can be found in \
         https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones",
    ),
    Column {
        name: "Suspend",
        kind: "boolean",
        format: "",
        description: "This flag tells the controller to suspend subsequent executions, it does not apply to already \
                      started executions.  Defaults to false.",
        priority: 0,
    },
    Column::integer("Active", "A list of pointers to currently running jobs."),
    Column::string(
        "Last Schedule",
        "Information when was the last time the job was successfully scheduled.",
    ),
    AGE,
    Column::wide("Containers", "Names of each container in the template."),
    Column::wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    Column::wide(
        "Selector",
        "A label query over pods that should match the pod count. Normally, the system sets this field for you. \
         More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

#[cfg(test)]
mod tests;
