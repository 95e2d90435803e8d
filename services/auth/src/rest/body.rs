//! What is sent to `/auth/*` and what it answers. The OpenAPI document is made of these.

use super::operations::SignedIn;
use fafnir_proto::id::UserId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who registers.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Registration {
    /// Compared without regard to case.
    #[schema(format = "email", max_length = 254)]
    pub email: String,
    #[schema(format = "password", min_length = 6, max_length = 256)]
    pub password: String,
    pub first_name: String,
    pub last_name: String,
}

/// A new user.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Registered {
    #[schema(value_type = String, format = "uuid")]
    pub user_id: UserId,
    pub message: &'static str,
}

/// Who signs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    #[schema(format = "email")]
    pub email: String,
    #[schema(format = "password")]
    pub password: String,
}

/// A sentence.
#[derive(Serialize, ToSchema)]
pub struct Message {
    pub message: &'static str,
}

/// A token to use, and one to renew it with.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenPair {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    /// For `Authorization: Bearer …`.
    access_token: String,
    /// Worth one new pair.
    refresh_token: String,
    /// Seconds for which the access token is good.
    expires_in: u32,
}

impl TokenPair {
    pub fn new(s: SignedIn, message: Option<&'static str>) -> Self {
        Self {
            message,
            access_token: s.access_token,
            refresh_token: s.refresh_token,
            expires_in: s.expires_in_s,
        }
    }
}

/// A refresh token to exchange.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RefreshBody {
    pub refresh_token: String,
}

/// Asked of a Bearer caller whose sign-in is older than ten minutes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Deletion {
    #[schema(format = "password")]
    pub password: String,
}

/// Who is signed in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    #[schema(value_type = String, format = "uuid")]
    pub user_id: UserId,
    pub email: String,
}

/// Another password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    #[schema(format = "password")]
    pub current: String,
    #[schema(format = "password", min_length = 6, max_length = 256)]
    pub new: String,
}
