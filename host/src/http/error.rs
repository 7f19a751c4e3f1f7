//! Why a request failed, and the one map from failure to HTTP status.

use http::StatusCode;

use crate::http::content_encoding::SUPPORTED;

/// A failure of the host's side of a request. What a component answers by itself, errors included,
/// is not one.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the request has no Host header, or not exactly one that is text")]
    NoHost,
    #[error("{host} is an address for components of this application, and for nobody else")]
    InternalHost { host: String },
    #[error("{path} answers GET")]
    OnlyGet { path: String },
    #[error("not ready: {reason}")]
    NotReady { reason: String },
    #[error("no route matches {path}")]
    NoRoute { path: String },
    #[error("the request body is over this route's limit of {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("the request body did not arrive in time")]
    BodyTimeout,
    #[error("the request body broke off: {0}")]
    BodyBroken(String),
    #[error("the request body is not {coding}, as its Content-Encoding says: {problem}")]
    BodyUndecodable { coding: &'static str, problem: &'static str },
    #[error(
        "a request body with Content-Encoding: {encoding} is not decoded here; send it as it is, or in \
         one of: {SUPPORTED}"
    )]
    UnsupportedEncoding { encoding: String },
    #[error("all {limit} instances of component `{component}` are busy; try again")]
    Busy { component: String, limit: usize },
    #[error(
        "all {instances} instances of component `{component}` are busy and {queue} requests wait; \
         try again"
    )]
    QueueFull { component: String, queue: usize, instances: usize },
    #[error("the request has come through {hops} components, and they seem to go in a circle")]
    Loop { hops: usize },
    #[error("there is no component `{component}`")]
    NoComponent { component: String },
    #[error("the host has no room for another instance; try again")]
    NoRoom,
    #[error(
        "the host has as many bodies of requests, or of answers that clients have not taken, in memory as it can; try again"
    )]
    Crowded,
    #[error("no answer to this request is kept that is fresh enough, and it asks for no new one")]
    NotCached,
    #[error("component `{component}` cannot be instantiated")]
    Instantiation { component: String },
    #[error("component `{component}` failed")]
    Trap { component: String },
    #[error("component `{component}` did not answer before the deadline")]
    Deadline { component: String },
    #[error("component `{component}` gave an invalid answer: {problem}")]
    InvalidAnswer { component: String, problem: String },
}

impl Failure {
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoHost
            | Self::InternalHost { .. }
            | Self::BodyBroken(_)
            | Self::BodyUndecodable { .. } => StatusCode::BAD_REQUEST,
            Self::UnsupportedEncoding { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::OnlyGet { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute { .. } | Self::NoComponent { .. } => StatusCode::NOT_FOUND,
            Self::Loop { .. } => StatusCode::LOOP_DETECTED,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Busy { .. }
            | Self::QueueFull { .. }
            | Self::NoRoom
            | Self::Crowded
            | Self::NotReady { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Instantiation { .. } | Self::Trap { .. } | Self::InvalidAnswer { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            // RFC 9111, 5.2.1.7.
            Self::Deadline { .. } | Self::NotCached => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// What kind of failure it is, to count it.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoHost => Reason::NoHost,
            Self::InternalHost { .. } => Reason::InternalHost,
            Self::OnlyGet { .. } => Reason::OnlyGet,
            Self::NotReady { .. } => Reason::NotReady,
            Self::NoRoute { .. } => Reason::NoRoute,
            Self::BodyTooLarge { .. } => Reason::BodyTooLarge,
            Self::BodyTimeout => Reason::BodyTimeout,
            Self::BodyBroken(_) => Reason::BodyBroken,
            Self::BodyUndecodable { .. } => Reason::BodyUndecodable,
            Self::UnsupportedEncoding { .. } => Reason::UnsupportedEncoding,
            Self::Busy { .. } => Reason::Busy,
            Self::QueueFull { .. } => Reason::QueueFull,
            Self::Loop { .. } => Reason::Loop,
            Self::NoComponent { .. } => Reason::NoComponent,
            Self::NoRoom => Reason::NoRoom,
            Self::Crowded => Reason::Crowded,
            Self::NotCached => Reason::NotCached,
            Self::Instantiation { .. } => Reason::Instantiation,
            Self::Trap { .. } => Reason::Trap,
            Self::Deadline { .. } => Reason::Deadline,
            Self::InvalidAnswer { .. } => Reason::InvalidAnswer,
        }
    }
}

/// A kind of [`Failure`], as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    // where no route is known yet
    NoHost,
    InternalHost,
    NoRoute,
    NoComponent,
    Loop,
    // on the way to a component, and in it
    BodyTooLarge,
    BodyTimeout,
    BodyBroken,
    BodyUndecodable,
    UnsupportedEncoding,
    Busy,
    QueueFull,
    NoRoom,
    Crowded,
    NotCached,
    Instantiation,
    Trap,
    Deadline,
    InvalidAnswer,
    // on the host's own paths
    OnlyGet,
    NotReady,
}

impl Reason {
    /// In the order of their numbers.
    pub const ALL: [Self; Self::NotReady as usize + 1] = [
        Self::NoHost,
        Self::InternalHost,
        Self::NoRoute,
        Self::NoComponent,
        Self::Loop,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::BodyBroken,
        Self::BodyUndecodable,
        Self::UnsupportedEncoding,
        Self::Busy,
        Self::QueueFull,
        Self::NoRoom,
        Self::Crowded,
        Self::NotCached,
        Self::Instantiation,
        Self::Trap,
        Self::Deadline,
        Self::InvalidAnswer,
        Self::OnlyGet,
        Self::NotReady,
    ];

    /// Those of requests that have no route.
    #[must_use]
    pub fn without_route() -> &'static [Self] {
        &Self::ALL[..Self::BodyTooLarge as usize]
    }

    /// Those of requests that have one.
    #[must_use]
    pub fn on_route() -> &'static [Self] {
        &Self::ALL[Self::BodyTooLarge as usize..Self::OnlyGet as usize]
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoHost => "no_host",
            Self::InternalHost => "internal_host",
            Self::NoRoute => "no_route",
            Self::NoComponent => "no_component",
            Self::Loop => "loop",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyBroken => "body_broken",
            Self::BodyUndecodable => "body_undecodable",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::Busy => "busy",
            Self::QueueFull => "queue_full",
            Self::NoRoom => "no_room",
            Self::Crowded => "crowded",
            Self::NotCached => "not_cached",
            Self::Instantiation => "instantiation",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::InvalidAnswer => "invalid_answer",
            Self::OnlyGet => "only_get",
            Self::NotReady => "not_ready",
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_failure_is_json_with_its_status() {
        let busy = Failure::Busy { component: "a \"b\"".into(), limit: 3 }.into_response();
        assert_eq!(busy.status(), 503);
        assert_eq!(busy.headers()["retry-after"], "1");
        assert_eq!(busy.headers()["content-type"], "application/json");
        let body = busy.into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["error"], "all 3 instances of component `a \"b\"` are busy; try again");

        let late = Failure::Deadline { component: "a".into() }.into_response();
        assert_eq!((late.status().as_u16(), late.headers().get("retry-after")), (504, None));
    }

    #[test]
    fn every_reason_is_counted_under_its_own_name() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
            let same = Reason::ALL.iter().filter(|other| other.name() == reason.name());
            assert_eq!(same.count(), 1, "{reason:?}");
        }
        assert_eq!(Reason::without_route().last(), Some(&Reason::Loop));
        assert_eq!(Reason::on_route().first(), Some(&Reason::BodyTooLarge));
        assert_eq!(Reason::on_route().last(), Some(&Reason::InvalidAnswer));
    }
}
