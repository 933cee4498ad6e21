//! Requests to token servers, and their answers (distribution's token specification).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    Client as Http, RequestBuilder, Url,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use serde::Deserialize;

use super::credentials::Credentials;

/// `Authorization` for a user name and password.
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// The request for a token: GET with a password or as nobody, POST for an identity token.
pub(super) fn request(
    http: &Http,
    realm: &Url,
    service: Option<&str>,
    scope: Option<&str>,
    credentials: Option<&Credentials>,
) -> RequestBuilder {
    let mut parameters: Vec<(&str, &str)> = Vec::new();
    parameters.extend(service.map(|service| ("service", service)));
    parameters.extend(scope.map(|scope| ("scope", scope)));
    if let Some(Credentials::Identity(token)) = credentials {
        parameters.extend([("grant_type", "refresh_token"), ("client_id", "coracle"), ("refresh_token", token)]);
        let mut form = realm.clone();
        form.set_query(None);
        let body = form.query_pairs_mut().extend_pairs(parameters).finish().query().unwrap_or_default().to_owned();
        return http.post(realm.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
    }
    let mut url = realm.clone();
    if let Some(Credentials::Basic(user, _)) = credentials {
        parameters.push(("account", user));
    }
    if !parameters.is_empty() {
        url.query_pairs_mut().extend_pairs(parameters);
    }
    let request = http.get(url);
    match credentials {
        Some(Credentials::Basic(user, password)) => request.header(AUTHORIZATION, basic(user, password)),
        _ => request,
    }
}

/// The token in a server's answer; some call it one name, some the other.
pub(super) fn parse(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(bytes).ok()?;
    let usable = |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    answer.token.filter(usable).or(answer.access_token.filter(usable))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn both_names() {
        assert_eq!(parse(br#"{"token":"a"}"#).as_deref(), Some("a"));
        assert_eq!(parse(br#"{"access_token":"b","expires_in":300}"#).as_deref(), Some("b"));
        assert_eq!(parse(br#"{"token":"","access_token":"b"}"#).as_deref(), Some("b"));
        assert_eq!(parse(br#"{"token":"a\nX: y"}"#), None);
        assert_eq!(parse(b"{}"), None);
    }
}
