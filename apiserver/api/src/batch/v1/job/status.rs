//! What an update of a Job's status may say: `ValidateJobUpdateStatus`.
//!
//! Counters don't go back, what has ended stays ended, and indexes make sense. Most rules look only at
//! what changes, so that an old status that breaks one can still be written.

use std::collections::HashSet;

use coracle_clock::Timestamp;
use serde_json::Value;

use super::indexes;
use crate::field_errors::ErrorType;
use crate::validation::numbers;
use crate::{At, FieldErrors, Object};

/// Whether the condition of that type is true.
pub(super) fn condition(job: &Object, kind: &str) -> bool {
    job.at("status.conditions")
        .items()
        .any(|item| item.key("type").str() == kind && item.key("status").str() == "True")
}

fn finished(job: &Object) -> bool {
    condition(job, "Complete") || condition(job, "Failed")
}

/// Reports what is wrong with the new status, by itself and against the old one.
pub(super) fn update(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let status = new.at("status");
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        numbers::non_negative(&status.key(field), errors);
    }
    uncounted(&status.key("uncountedTerminatedPods"), errors);
    let change = Change { new, old };
    change.completion(errors);
    change.end(errors);
    change.indexes(errors);
    change.counters(errors);
    change.success(errors);
    change.transitions(errors);
}

fn uncounted(pods: &At<'_>, errors: &mut FieldErrors) {
    let mut seen = HashSet::new();
    for list in ["succeeded", "failed"] {
        for uid in pods.key(list).items() {
            if uid.str().is_empty() {
                errors.push(
                    ErrorType::Invalid,
                    uid.path(),
                    Some(Value::from("")),
                    "must not be empty",
                );
            } else if !seen.insert(uid.str().to_owned()) {
                errors.duplicate(&uid);
            }
        }
    }
}

/// A status and the one before.
struct Change<'a> {
    new: &'a Object,
    old: &'a Object,
}

impl<'a> Change<'a> {
    fn at(&self, field: &str) -> At<'a> {
        self.new.at("status").key(field)
    }

    fn was(&self, field: &str) -> At<'a> {
        self.old.at("status").key(field)
    }

    fn differs(&self, field: &str) -> bool {
        self.at(field).value() != self.was(field).value()
    }

    fn turned(&self, kind: &str) -> bool {
        condition(self.new, kind) != condition(self.old, kind)
    }

    fn turned_finished(&self) -> bool {
        finished(self.new) != finished(self.old)
    }

    fn is(&self, kind: &str) -> bool {
        condition(self.new, kind)
    }

    fn number(&self, field: &str) -> i64 {
        self.at(field).as_i64().unwrap_or(0)
    }

    fn conditions(&self, detail: impl Into<String>, errors: &mut FieldErrors) {
        errors.push(ErrorType::Invalid, "status.conditions", None, detail);
    }

    /// Completion and its time.
    fn completion(&self, errors: &mut FieldErrors) {
        let (time, complete) = (self.at("completionTime"), self.is("Complete"));
        let turned = self.turned("Complete");
        if (turned || self.turned("Failed")) && complete && self.is("Failed") {
            self.conditions(
                "cannot set Complete=True and Failed=true conditions",
                errors,
            );
        }
        if (turned || self.turned("FailureTarget")) && complete && self.is("FailureTarget") {
            self.conditions(
                "cannot set Complete=True and FailureTarget=true conditions",
                errors,
            );
        }
        if turned || self.differs("completionTime") {
            if time.exists() && !complete {
                errors.invalid(
                    &time,
                    "cannot set completionTime when there is no Complete=True condition",
                );
            }
            if !time.exists() && complete {
                errors.required(&time, "completionTime is required for Complete jobs");
            }
        }
        let moment = |at: At<'_>| at.as_str().and_then(|text| text.parse::<Timestamp>().ok());
        if (self.differs("startTime") || self.differs("completionTime"))
            && let (Some(start), Some(end)) = (moment(self.at("startTime")), moment(time.clone()))
            && end < start
        {
            errors.invalid(&time, "completionTime cannot be set before startTime");
        }
        if (self.turned("Failed") || self.turned("FailureTarget"))
            && self.is("Failed")
            && !self.is("FailureTarget")
        {
            self.conditions(
                "cannot set Failed=True condition without the FailureTarget=true condition",
                errors,
            );
        }
        if (turned || self.turned("SuccessCriteriaMet"))
            && complete
            && !self.is("SuccessCriteriaMet")
        {
            self.conditions(
                "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
                errors,
            );
        }
    }

    /// What a Job that has ended may not have any more.
    fn end(&self, errors: &mut FieldErrors) {
        if !finished(self.new) {
            return;
        }
        let turned = self.turned_finished();
        if (turned || self.differs("active")) && self.number("active") > 0 {
            errors.invalid(&self.at("active"), "active>0 is invalid for finished job");
        }
        let spec = self.new.at("spec");
        let never_ran =
            spec.key("suspend").is_true() && spec.key("completions").as_i64() == Some(0);
        if (turned || self.differs("startTime")) && !never_ran && !self.at("startTime").exists() {
            errors.required(
                &self.at("startTime"),
                "startTime is required for finished job",
            );
        }
        let pods = self.at("uncountedTerminatedPods");
        if (turned || self.differs("uncountedTerminatedPods"))
            && pods.key("failed").len() + pods.key("succeeded").len() > 0
        {
            errors.push(
                ErrorType::Invalid,
                pods.path(),
                Some(crate::schema::internal_form(
                    "io.k8s.api.batch.v1.UncountedTerminatedPods",
                    pods.value(),
                )),
                "uncountedTerminatedPods needs to be empty for finished job",
            );
        }
    }

    fn indexes(&self, errors: &mut FieldErrors) {
        let spec = self.new.at("spec");
        let (completed, failed) = (self.at("completedIndexes"), self.at("failedIndexes"));
        let new_completed = completed.str() != self.was("completedIndexes").str();
        let new_failed = self.differs("failedIndexes");
        let completions = spec.key("completions").as_i64();
        let per_index = spec.key("backoffLimitPerIndex").exists();
        if let Some(completions) = completions {
            if new_completed && let Err(error) = indexes::count(completed.str(), completions) {
                errors.invalid(
                    &completed,
                    format!("error parsing completedIndexes: {error}"),
                );
            }
            if new_failed
                && per_index
                && let Err(error) = indexes::count(failed.str(), completions)
            {
                errors.invalid(&failed, format!("error parsing failedIndexes: {error}"));
            }
        }
        if new_completed
            && !completed.str().is_empty()
            && spec.key("completionMode").str() != "Indexed"
        {
            errors.invalid(
                &completed,
                "cannot set non-empty completedIndexes when non-indexed completion mode",
            );
        }
        if new_failed && failed.exists() && !per_index {
            errors.invalid(
                &failed,
                "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
            );
        }
        if (new_failed || new_completed)
            && let Some(completions) = completions
            && let Some(detail) = indexes::overlap(completed.str(), failed.str(), completions)
        {
            errors.invalid(&failed, detail);
        }
    }

    fn counters(&self, errors: &mut FieldErrors) {
        let terminating = self.number("terminating") > 0 && finished(self.new);
        if (self.turned_finished() || self.differs("terminating")) && terminating {
            errors.invalid(
                &self.at("terminating"),
                "terminating>0 is invalid for finished job",
            );
        }
        if (self.differs("ready") || self.differs("active"))
            && self.at("ready").exists()
            && self.number("ready") > self.number("active")
        {
            errors.invalid(&self.at("ready"), "cannot set more ready pods than active");
        }
    }

    fn success(&self, errors: &mut FieldErrors) {
        let met = self.is("SuccessCriteriaMet");
        for other in ["Failed", "FailureTarget"] {
            if met && self.is(other) {
                self.conditions(
                    format!("cannot set SuccessCriteriaMet=True and {other}=true conditions"),
                    errors,
                );
            }
        }
        if self.new.at("spec.successPolicy").exists() && !met && self.is("Complete") {
            self.conditions(
                "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
                errors,
            );
        }
    }

    fn transitions(&self, errors: &mut FieldErrors) {
        for kind in ["Failed", "Complete", "FailureTarget"] {
            if condition(self.old, kind) && !self.is(kind) {
                self.conditions(
                    format!("cannot disable the terminal {kind}=True condition"),
                    errors,
                );
            }
        }
        let spec = self.new.at("spec");
        let elastic = spec.key("completionMode").str() == "Indexed"
            && spec.key("completions").as_i64() == spec.key("parallelism").as_i64();
        for (field, may_shrink) in [("failed", false), ("succeeded", elastic)] {
            if !may_shrink && self.number(field) < self.was(field).as_i64().unwrap_or(0) {
                numbers::number_invalid(
                    &self.at(field),
                    &format!("cannot decrease the {field} counter"),
                    errors,
                );
            }
        }
        let (end, was_end) = (self.at("completionTime"), self.was("completionTime"));
        if end.exists() && was_end.exists() && end.value() != was_end.value() {
            errors.invalid(&end, "completionTime cannot be mutated");
        }
        if self.was("startTime").exists()
            && self.differs("startTime")
            && !spec.key("suspend").is_true()
        {
            errors.required(
                &self.at("startTime"),
                "startTime cannot be removed for unsuspended job",
            );
        }
        let (was_met, met) = (
            condition(self.old, "SuccessCriteriaMet"),
            self.is("SuccessCriteriaMet"),
        );
        if was_met && !met {
            self.conditions(
                "cannot disable the SuccessCriteriaMet=True condition",
                errors,
            );
        }
        if condition(self.old, "Complete") && !was_met && met {
            self.conditions(
                "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
                errors,
            );
        }
    }
}
