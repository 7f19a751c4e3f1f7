//! Why a request failed, and the one map from failure to HTTP status.

use http::StatusCode;

use crate::http::authority::HostError;
use crate::http::content_encoding::SUPPORTED;
use crate::prediction_log::unlogged::Unlogged;

/// A failure of a request on the host's side. A response of the component, an error included, is not a
/// failure.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("{host} is an internal host name: only components of this application can use it")]
    InternalHost { host: String },
    #[error("{path} supports only GET and HEAD")]
    MethodNotAllowed { path: String },
    #[error("not ready: {reason}")]
    NotReady { reason: String },
    #[error("no route matches {path}{}", suggestion(nearest))]
    NoRoute { path: String, nearest: Vec<String> },
    #[error("the request body exceeds this route's limit of {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("the request body did not arrive in time")]
    BodyTimeout,
    #[error("the request body could not be read: {0}")]
    BodyBroken(String),
    #[error("the request body arrives in too many tiny parts; send chunks of 16 bytes or more")]
    BodyFragmented,
    #[error("the request body is not valid {coding}, its Content-Encoding: {problem}")]
    BodyUndecodable { coding: &'static str, problem: &'static str },
    #[error(
        "unsupported Content-Encoding of the request body: {encoding}; send it without one, or with one \
         of: {SUPPORTED}"
    )]
    UnsupportedEncoding { encoding: String },
    #[error("all {limit} instances of component `{component}` are busy; try again")]
    Busy { component: String, limit: usize },
    #[error(
        "all {instances} instances of component `{component}` are busy and {queue} requests wait; \
         try again"
    )]
    QueueFull { component: String, queue: usize, instances: usize },
    #[error(
        "the request has passed through {hops} components: they probably call each other in a loop"
    )]
    Loop { hops: usize },
    #[error("there is no component `{component}`")]
    NoComponent { component: String },
    #[error("the host's instance pool is full; try again")]
    InstancePoolFull,
    #[error("the memory budget for request and response bodies is exhausted; try again")]
    MemoryBudgetExhausted,
    #[error(
        "no response to this request is cached that is fresh enough, and only-if-cached excludes a new one"
    )]
    NotCached,
    #[error("component `{component}` cannot be instantiated")]
    Instantiation { component: String },
    #[error("component `{component}` failed")]
    Trap { component: String },
    #[error("component `{component}` did not respond before the deadline")]
    Deadline { component: String },
    #[error("component `{component}` returned an invalid response: {problem}")]
    InvalidResponse { component: String, problem: String },
    #[error(
        "the response is withheld, as its records cannot be stored in the prediction log: {0}; try again"
    )]
    NotLogged(#[from] Unlogged),
}

/// `; did you mean /a/... or /b?`
fn suggestion(nearest: &[String]) -> String {
    if nearest.is_empty() {
        String::new()
    } else {
        format!("; did you mean {}?", nearest.join(" or "))
    }
}

impl Failure {
    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Host(_)
            | Self::InternalHost { .. }
            | Self::BodyBroken(_)
            | Self::BodyFragmented
            | Self::BodyUndecodable { .. } => StatusCode::BAD_REQUEST,
            Self::UnsupportedEncoding { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute { .. } | Self::NoComponent { .. } => StatusCode::NOT_FOUND,
            Self::Loop { .. } => StatusCode::LOOP_DETECTED,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Busy { .. }
            | Self::QueueFull { .. }
            | Self::InstancePoolFull
            | Self::MemoryBudgetExhausted
            | Self::NotLogged(_)
            | Self::NotReady { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Instantiation { .. } | Self::Trap { .. } | Self::InvalidResponse { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            // RFC 9111, 5.2.1.7.
            Self::Deadline { .. } | Self::NotCached => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The kind of failure, by which it is counted.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Host(HostError::Missing | HostError::Repeated) => Reason::NoHost,
            Self::Host(HostError::Invalid(_) | HostError::Mismatch) => Reason::InvalidHost,
            Self::InternalHost { .. } => Reason::InternalHost,
            Self::MethodNotAllowed { .. } => Reason::MethodNotAllowed,
            Self::NotReady { .. } => Reason::NotReady,
            Self::NoRoute { .. } => Reason::NoRoute,
            Self::BodyTooLarge { .. } => Reason::BodyTooLarge,
            Self::BodyTimeout => Reason::BodyTimeout,
            Self::BodyBroken(_) => Reason::BodyBroken,
            Self::BodyFragmented => Reason::BodyFragmented,
            Self::BodyUndecodable { .. } => Reason::BodyUndecodable,
            Self::UnsupportedEncoding { .. } => Reason::UnsupportedEncoding,
            Self::Busy { .. } => Reason::Busy,
            Self::QueueFull { .. } => Reason::QueueFull,
            Self::Loop { .. } => Reason::Loop,
            Self::NoComponent { .. } => Reason::NoComponent,
            Self::InstancePoolFull => Reason::InstancePoolFull,
            Self::MemoryBudgetExhausted => Reason::MemoryBudgetExhausted,
            Self::NotCached => Reason::NotCached,
            Self::Instantiation { .. } => Reason::Instantiation,
            Self::Trap { .. } => Reason::Trap,
            Self::Deadline { .. } => Reason::Deadline,
            Self::InvalidResponse { .. } => Reason::InvalidResponse,
            Self::NotLogged(_) => Reason::NotLogged,
        }
    }
}

/// A kind of [`Failure`]: the `reason` of `spinfer_request_failures_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    // before the route is known
    NoHost,
    InvalidHost,
    InternalHost,
    // there, and behind a router
    NoRoute,
    NoComponent,
    Loop,
    // between route and component, and in the component
    BodyTooLarge,
    BodyTimeout,
    BodyBroken,
    BodyFragmented,
    BodyUndecodable,
    UnsupportedEncoding,
    Busy,
    QueueFull,
    InstancePoolFull,
    MemoryBudgetExhausted,
    NotCached,
    Instantiation,
    Trap,
    Deadline,
    InvalidResponse,
    NotLogged,
    // on the host's own paths
    MethodNotAllowed,
    NotReady,
}

impl Reason {
    /// In the order of the variants.
    pub const ALL: [Self; Self::NotReady as usize + 1] = [
        Self::NoHost,
        Self::InvalidHost,
        Self::InternalHost,
        Self::NoRoute,
        Self::NoComponent,
        Self::Loop,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::BodyBroken,
        Self::BodyFragmented,
        Self::BodyUndecodable,
        Self::UnsupportedEncoding,
        Self::Busy,
        Self::QueueFull,
        Self::InstancePoolFull,
        Self::MemoryBudgetExhausted,
        Self::NotCached,
        Self::Instantiation,
        Self::Trap,
        Self::Deadline,
        Self::InvalidResponse,
        Self::NotLogged,
        Self::MethodNotAllowed,
        Self::NotReady,
    ];

    /// Reasons of requests without a route.
    #[must_use]
    pub fn without_route() -> &'static [Self] {
        &Self::ALL[..Self::BodyTooLarge as usize]
    }

    /// Reasons of requests on a route.
    #[must_use]
    pub fn on_route() -> &'static [Self] {
        &Self::ALL[Self::NoRoute as usize..Self::MethodNotAllowed as usize]
    }

    /// The value of the label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoHost => "no_host",
            Self::InvalidHost => "invalid_host",
            Self::InternalHost => "internal_host",
            Self::NoRoute => "no_route",
            Self::NoComponent => "no_component",
            Self::Loop => "loop",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyBroken => "body_broken",
            Self::BodyFragmented => "body_fragmented",
            Self::BodyUndecodable => "body_undecodable",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::Busy => "busy",
            Self::QueueFull => "queue_full",
            Self::InstancePoolFull => "instance_pool_full",
            Self::MemoryBudgetExhausted => "memory_budget_exhausted",
            Self::NotCached => "not_cached",
            Self::Instantiation => "instantiation",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::InvalidResponse => "invalid_response",
            Self::NotLogged => "not_logged",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotReady => "not_ready",
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn failure_becomes_json_with_its_status() {
        let busy = Failure::Busy { component: "a \"b\"".into(), limit: 3 }.into_response();
        assert_eq!(busy.status(), 503);
        assert_eq!(busy.headers()["retry-after"], "1");
        assert_eq!(busy.headers()["content-type"], "application/json");
        let body = busy.into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["error"], "all 3 instances of component `a \"b\"` are busy; try again");

        let deadline = Failure::Deadline { component: "a".into() }.into_response();
        assert_eq!(
            (deadline.status().as_u16(), deadline.headers().get("retry-after")),
            (504, None)
        );
    }

    #[test]
    fn reasons_have_unique_names() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
            let same = Reason::ALL.iter().filter(|other| other.name() == reason.name());
            assert_eq!(same.count(), 1, "{reason:?}");
        }
        assert_eq!(Reason::without_route().last(), Some(&Reason::Loop));
        assert_eq!(Reason::on_route().first(), Some(&Reason::NoRoute), "behind a router");
        assert_eq!(Reason::on_route().last(), Some(&Reason::NotLogged));
    }
}
