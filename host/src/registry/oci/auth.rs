//! How a request is authorized: by the password itself, or by a token that it gives.

use http::{HeaderMap, HeaderValue, Method, header};
use reqwest::{Response, Url};
use serde::Deserialize;

use super::challenge::Challenge;
use super::credentials::Credentials;
use super::error::Error;
use super::reference::Host;
use super::transport::{Get, Transport, content_type, host_of, unexpected};

/// Bytes of a response with a token.
const MAX_TOKEN: u64 = 1 << 20;
/// What this client calls itself where it exchanges a token.
const CLIENT: &str = "spinfer";

/// What a token is to be good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To show that the credentials are right.
    Login,
    Pull(String),
    /// And to push, which asks first what is there.
    Push(String),
}

impl Scope {
    fn text(&self) -> Option<String> {
        match self {
            Self::Login => None,
            Self::Pull(repository) => Some(format!("repository:{repository}:pull")),
            Self::Push(repository) => Some(format!("repository:{repository}:pull,push")),
        }
    }
}

/// What a token service sends: older ones by the first name.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// The header that meets the challenge of `response`, if these credentials, or none, can meet it.
pub(super) async fn authorization(
    transport: &Transport,
    host: &Host,
    response: &Response,
    credentials: Option<&Credentials>,
    scope: &Scope,
) -> Result<Option<HeaderValue>, Error> {
    let values = response.headers().get_all(header::WWW_AUTHENTICATE);
    let challenge = Challenge::choose(values.iter().filter_map(|value| value.to_str().ok()));
    match (challenge, credentials) {
        (None, _) | (Some(Challenge::Basic), None) => Ok(None),
        (Some(Challenge::Basic), Some(credentials)) => credentials.basic(host).map(Some),
        (Some(Challenge::Bearer { realm, service, .. }), credentials) => {
            let realm = Realm { transport, host, url: &realm, service: service.as_deref() };
            realm.token(credentials, scope).await.map(Some)
        }
    }
}

/// Who gives tokens for a registry.
struct Realm<'a> {
    transport: &'a Transport,
    host: &'a Host,
    url: &'a str,
    service: Option<&'a str>,
}

impl Realm<'_> {
    async fn token(
        &self,
        credentials: Option<&Credentials>,
        scope: &Scope,
    ) -> Result<HeaderValue, Error> {
        let url = Url::parse(self.url).map_err(|_| Error::Unexpected {
            host: self.host.to_string(),
            expected: "the URL of its token service",
            came: format!("{:?}", super::error::excerpt(self.url.as_bytes())),
        })?;
        let response = match credentials {
            Some(Credentials::IdentityToken(token)) => self.exchange(url, token, scope).await?,
            Some(credentials) => {
                let basic = credentials.basic(self.host)?;
                self.ask(url, Some(basic), scope).await?
            }
            None => self.ask(url, None, scope).await?,
        };
        let response = self.transport.success(response).await?;
        let host = host_of(response.url());
        let kind = content_type(&response);
        let body = self.transport.body(response, "a token", MAX_TOKEN).await?;
        let token = serde_json::from_slice::<Token>(&body).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        // The body of a response that has one is not for anybody's eyes.
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            let shown = if kind.as_deref() == Some("application/json") { &b""[..] } else { &body };
            return Err(unexpected(&host, "a token (JSON)", kind.as_deref(), shown));
        };
        header_value(&format!("Bearer {token}"), &host)
    }

    fn parameters(&self, scope: &Scope) -> Vec<(&'static str, String)> {
        let service = self.service.map(|service| ("service", service.to_owned()));
        service.into_iter().chain(scope.text().map(|scope| ("scope", scope))).collect()
    }

    async fn ask(
        &self,
        mut url: Url,
        authorization: Option<HeaderValue>,
        scope: &Scope,
    ) -> Result<Response, Error> {
        url.query_pairs_mut().extend_pairs(self.parameters(scope));
        let accept = "application/json";
        self.transport.get(&Get { method: Method::GET, url, accept, authorization }).await
    }

    async fn exchange(&self, url: Url, token: &str, scope: &Scope) -> Result<Response, Error> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token").append_pair("client_id", CLIENT);
        form.append_pair("refresh_token", token).extend_pairs(self.parameters(scope));
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, kind);
        let form = form.finish();
        let size = form.len() as u64;
        self.transport.send(Method::POST, &url, headers, form, size).await
    }
}

/// A header that no log shows.
pub(super) fn header_value(text: &str, host: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Error::Local(format!("the token or password for {host} has characters no header has"))
    })?;
    value.set_sensitive(true);
    Ok(value)
}
