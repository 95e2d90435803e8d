//! The OpenAPI document of `/auth/*`: what the routes say of themselves, and how a caller shows who it is.

use fafnir_platform::{csrf, token};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

/// What stands around the routes.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "fafnir: sign-in, sessions and passwords",
        description = "Every failure is an Envelope. Everything else of the platform is GraphQL (`/schema.graphql`).",
        version = "1"
    ),
    modifiers(&Shown)
)]
pub struct Frame;

/// How a caller shows who it is.
struct Shown;

impl Modify for Shown {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(token::TOKEN_COOKIE)));
        let csrf = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(csrf::HEADER)));
        let components = document.components.get_or_insert_default();
        for (name, scheme) in [("bearer", bearer), ("cookie", cookie), ("csrf", csrf)] {
            components.add_security_scheme(name, scheme);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        domain::{PASSWORD_LEN_MAX, PASSWORD_LEN_MIN},
        rest::openapi,
    };
    use serde_json::Value;

    /// `INSTA_UPDATE=always` writes it anew, as it does with snapshots.
    #[test]
    fn the_committed_document_is_what_the_routes_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        if std::env::var("INSTA_UPDATE").is_ok_and(|v| v == "always") {
            std::fs::write(path, openapi()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == openapi(), "services/auth/docs/openapi.json is not what is served");
    }

    #[test]
    fn lengths_in_the_document_are_those_that_are_asked_for() {
        let document: Value = serde_json::from_str(&openapi()).unwrap();
        for (schema, field) in [("Registration", "password"), ("PasswordChange", "new")] {
            let field = &document["components"]["schemas"][schema]["properties"][field];
            assert_eq!(field["minLength"], PASSWORD_LEN_MIN, "{field}");
            assert_eq!(field["maxLength"], PASSWORD_LEN_MAX, "{field}");
        }
    }

    #[test]
    fn every_operation_says_what_it_does_and_every_answer_what_it_means() {
        let document: Value = serde_json::from_str(&openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), 8, "{:?}", paths.keys());
        for (path, operation) in paths
            .iter()
            .flat_map(|(p, item)| item.as_object().unwrap().values().map(move |operation| (p, operation)))
        {
            assert!(operation["summary"].is_string(), "{path}");
            for (status, answer) in operation["responses"].as_object().unwrap() {
                assert_ne!(answer["description"], "", "{path} {status}");
            }
        }
    }
}
