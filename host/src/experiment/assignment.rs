//! How a router assigned a request: the marks of its response and of its records in the prediction log.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use smallvec::SmallVec;

use super::Arm;
use crate::prediction_log::record::Exposure;

/// Names the variant that could not serve the request, if control served instead.
const FAILED_OVER: HeaderName = HeaderName::from_static("spinfer-failed-over");
/// Replaces the `Cache-Control` of the variant's component: an assigned response is valid for its
/// unit only, and until a ramp. The host's response cache follows the component's header.
const NOT_FOR_CACHES: HeaderValue = HeaderValue::from_static("private, no-cache");

/// The assignment of a request. The default is that of a request that is not in the experiment.
#[derive(Clone, Debug, Default)]
pub struct ServedAssignment {
    /// The variant that serves the request; `None` if it is not in the experiment.
    pub arm: Option<Arc<Arm>>,
    /// Keyed hash of the unit, 16 hexadecimal digits.
    pub unit: Option<Arc<str>>,
    /// The probability with which the variant was drawn; `None` if it was not.
    pub propensity: Option<f64>,
    /// The variant that could not serve the request, if control does.
    pub failed_over: Option<Arc<Arm>>,
    /// Values of `Set-Cookie`.
    pub cookies: SmallVec<[HeaderValue; 1]>,
}

impl ServedAssignment {
    /// That of a copy for the shadow `arm`, of a request of `unit`.
    #[must_use]
    pub fn of_copy(arm: Arc<Arm>, unit: Option<Arc<str>>) -> Self {
        Self { arm: Some(arm), unit, ..Self::default() }
    }

    /// The request is served by `arm` instead of its variant.
    pub fn fail_over(&mut self, arm: Arc<Arm>) {
        self.failed_over = self.arm.replace(arm);
        // The variant that serves was not drawn.
        self.propensity = None;
    }

    /// The variant that was drawn for the request; `None` if none was.
    #[must_use]
    pub fn drawn(&self) -> Option<&Arc<Arm>> {
        self.arm.as_ref().filter(|_| self.propensity.is_some())
    }

    /// The exposure to be recorded; `None` if the request is not in the experiment.
    #[must_use]
    pub fn exposure(&self) -> Option<Exposure> {
        let arm = self.arm.as_ref()?;
        Some(Exposure {
            experiment: Arc::clone(&arm.experiment),
            variant: Arc::clone(&arm.variant),
            unit: self.unit.clone(),
            propensity: self.propensity,
            failed_over: self.failed_over.as_ref().map(|arm| Arc::clone(&arm.variant)),
            covariate: arm.covariate.clone(),
            run: Arc::clone(&arm.run),
        })
    }

    /// Marks a response with the assignment. The response cache never sees these headers.
    pub fn mark(&self, headers: &mut HeaderMap) {
        if let Some(allowed) = headers.get_mut(CACHE_CONTROL) {
            *allowed = NOT_FOR_CACHES;
        }
        for cookie in &self.cookies {
            headers.append(SET_COOKIE, cookie.clone());
        }
        if let Some(arm) = &self.arm {
            arm.mark(headers);
        }
        if let Some(arm) = &self.failed_over {
            headers.insert(FAILED_OVER, arm.variant_header());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(variant: &str) -> Arc<Arm> {
        Arc::new(Arm::new("iris", variant, "iris-classifier-2").unwrap())
    }

    #[test]
    fn assigned_response_is_marked_and_not_for_shared_caches() {
        let assignment =
            ServedAssignment { arm: Some(arm("treatment")), ..ServedAssignment::default() };
        let mut headers = HeaderMap::new();
        assignment.mark(&mut headers);
        assert_eq!(headers["spinfer-experiment"], "iris");
        assert_eq!(headers["spinfer-variant"], "treatment");
        assert!(!headers.contains_key(CACHE_CONTROL) && !headers.contains_key(SET_COOKIE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        headers.insert("spinfer-variant", HeaderValue::from_static("of another router"));
        assignment.mark(&mut headers);
        assert_eq!(headers[CACHE_CONTROL], "private, no-cache");
        assert_eq!(headers["spinfer-variant"], "treatment");
    }

    #[test]
    fn response_outside_of_the_experiment_has_a_cookie_but_no_names() {
        let cookie = HeaderValue::from_static("unit=7");
        let assignment = ServedAssignment { cookies: [cookie].into(), ..Default::default() };
        let mut headers = HeaderMap::from_iter([
            (CACHE_CONTROL, HeaderValue::from_static("max-age=60")),
            (SET_COOKIE, HeaderValue::from_static("of=the component")),
        ]);
        assignment.mark(&mut headers);
        assert_eq!(headers[CACHE_CONTROL], "private, no-cache");
        let cookies: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(cookies, ["of=the component", "unit=7"]);
        assert_eq!(headers.keys().count(), 2);
        assert_eq!(assignment.exposure(), None);
    }

    #[test]
    fn failed_over_request_is_one_of_control_that_was_not_drawn() {
        let mut assignment = ServedAssignment {
            arm: Some(arm("treatment")),
            unit: Some("0123456789abcdef".into()),
            propensity: Some(0.5),
            ..Default::default()
        };
        let drawn = assignment.exposure().unwrap();
        assert_eq!((&*drawn.variant, drawn.propensity), ("treatment", Some(0.5)));
        assert_eq!(drawn.failed_over, None);
        assignment.fail_over(arm("control"));
        let exposure = assignment.exposure().unwrap();
        assert_eq!((&*exposure.variant, exposure.propensity), ("control", None));
        assert_eq!(exposure.failed_over.as_deref(), Some("treatment"));
        assert_eq!(exposure.unit, drawn.unit);
        let mut headers = HeaderMap::new();
        assignment.mark(&mut headers);
        assert_eq!(headers["spinfer-variant"], "control");
        assert_eq!(headers["spinfer-failed-over"], "treatment");
    }
}
