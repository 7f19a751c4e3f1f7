//! Authorization of requests: by a password, or by a token from a token service.

use http::{HeaderMap, HeaderValue, Method, header};
use reqwest::{Response, Url};
use serde::Deserialize;

use super::challenge::Challenge;
use super::credentials::RegistryCredentials;
use super::error::OciError;
use super::reference::RegistryHost;
use super::response::{content_type, unexpected};
use super::sensitive_header::header_value;
use super::transport::{Get, Transport, host_of};

/// Maximum size of a token response, in bytes.
const MAX_TOKEN: u64 = 1 << 20;
/// `client_id` of this client in token requests.
const CLIENT: &str = "spinfer";

/// Access requested for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenScope {
    /// None: only to verify the credentials.
    Login,
    /// Pull from this repository.
    Pull(String),
    /// Push to this repository, which also reads what exists.
    Push(String),
}

impl TokenScope {
    fn text(&self) -> Option<String> {
        match self {
            Self::Login => None,
            Self::Pull(repository) => Some(format!("repository:{repository}:pull")),
            Self::Push(repository) => Some(format!("repository:{repository}:pull,push")),
        }
    }
}

/// Response of a token service; older ones use the first name.
#[derive(Deserialize)]
struct TokenResponse {
    token: Option<String>,
    access_token: Option<String>,
}

/// The `Authorization` header for the challenge of `response`; `None` if these credentials cannot meet it.
pub(super) async fn authorization(
    transport: &Transport,
    host: &RegistryHost,
    response: &Response,
    credentials: Option<&RegistryCredentials>,
    scope: &TokenScope,
) -> Result<Option<HeaderValue>, OciError> {
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

/// The token service of a registry.
struct Realm<'a> {
    transport: &'a Transport,
    host: &'a RegistryHost,
    url: &'a str,
    service: Option<&'a str>,
}

impl Realm<'_> {
    async fn token(
        &self,
        credentials: Option<&RegistryCredentials>,
        scope: &TokenScope,
    ) -> Result<HeaderValue, OciError> {
        let url = Url::parse(self.url).map_err(|_| OciError::Unexpected {
            host: self.host.to_string(),
            expected: "the URL of its token service",
            received: format!("{:?}", super::error::excerpt(self.url.as_bytes())),
        })?;
        let response = match credentials {
            Some(RegistryCredentials::IdentityToken(token)) => {
                self.exchange(url, token, scope).await?
            }
            Some(credentials) => {
                let basic = credentials.basic(self.host)?;
                self.request(url, Some(basic), scope).await?
            }
            None => self.request(url, None, scope).await?,
        };
        let response = self.transport.success(response).await?;
        let host = host_of(response.url());
        let kind = content_type(&response);
        let body = self.transport.body(response, "a token", MAX_TOKEN).await?;
        let token = serde_json::from_slice::<TokenResponse>(&body).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        // A JSON body may contain the token: it is not shown.
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            let shown = if kind.as_deref() == Some("application/json") { &b""[..] } else { &body };
            return Err(unexpected(&host, "a token (JSON)", kind.as_deref(), shown));
        };
        header_value(&format!("Bearer {token}"), &host)
    }

    fn parameters(&self, scope: &TokenScope) -> Vec<(&'static str, String)> {
        let service = self.service.map(|service| ("service", service.to_owned()));
        service.into_iter().chain(scope.text().map(|scope| ("scope", scope))).collect()
    }

    async fn request(
        &self,
        mut url: Url,
        authorization: Option<HeaderValue>,
        scope: &TokenScope,
    ) -> Result<Response, OciError> {
        url.query_pairs_mut().extend_pairs(self.parameters(scope));
        let accept = "application/json";
        self.transport.get(&Get { method: Method::GET, url, accept, authorization }).await
    }

    async fn exchange(
        &self,
        url: Url,
        token: &str,
        scope: &TokenScope,
    ) -> Result<Response, OciError> {
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
