//! GraphQL: the schema, who may use which field, and how a request becomes an answer.

mod admin;
mod connection;
#[cfg(test)]
mod contract;
mod cost;
mod documents;
mod enums;
pub mod error;
mod inputs;
mod json;
mod keys;
pub mod lexical;
pub mod list;
mod mutation;
mod orders;
mod performance;
pub mod price;
mod query;
mod report;
mod rows;
mod scalars;
mod sessions;
mod statement;
mod subscription;
pub mod transport;
mod types;

use super::{
    Gateway,
    session::{Act, Permission, Session},
};
use async_graphql::{Context, Guard, MergedObject, Result, Schema, ValidationMode};
use std::sync::Arc;

pub use json::response as write_response;
pub use query::id_of;

/// Whatever changes nothing.
#[derive(MergedObject, Default)]
pub struct Query(
    query::Stocks,
    query::Portfolio,
    orders::Orders,
    query::People,
    statement::Statements,
    performance::Performances,
    report::Reports,
    admin::AdminQuery,
    keys::KeyQuery,
    sessions::SessionQuery,
);

/// Whatever changes something.
#[derive(MergedObject, Default)]
pub struct Mutation(
    mutation::Trading,
    mutation::Money,
    admin::AdminMutation,
    keys::KeyMutation,
    sessions::SessionMutation,
);

pub type Api = Schema<Query, Mutation, subscription::Subscription>;

/// The schema over a gateway. `Strict` validates what it executes; `Fast` is for documents that were validated before.
pub fn schema(gateway: &Arc<Gateway>, validation: ValidationMode) -> Api {
    Schema::build(Query::default(), Mutation::default(), subscription::Subscription)
        .data(gateway.clone())
        .validation_mode(validation)
        .finish()
}

/// The schema in GraphQL's own language.
pub fn sdl() -> String {
    let options =
        async_graphql::SDLExportOptions::new().sorted_fields().sorted_arguments().sorted_enum_items();
    Schema::new(Query::default(), Mutation::default(), subscription::Subscription).sdl_with_options(options)
}

/// The permission that a field needs which changes nothing.
pub struct Needs(pub Permission);

/// The permission that a field needs which places or cancels orders or changes the watchlist.
pub struct Trades(pub Permission);

/// The permission that a field needs which no API key may use.
pub struct Manages(pub Permission);

impl Guard for Needs {
    async fn check(&self, ctx: &Context<'_>) -> Result<()> {
        require(ctx, Act::Read, self.0).await
    }
}

impl Guard for Trades {
    async fn check(&self, ctx: &Context<'_>) -> Result<()> {
        require(ctx, Act::Trade, self.0).await
    }
}

impl Guard for Manages {
    async fn check(&self, ctx: &Context<'_>) -> Result<()> {
        require(ctx, Act::Manage, self.0).await
    }
}

async fn require(ctx: &Context<'_>, act: Act, permission: Permission) -> Result<()> {
    let (gateway, session) = of(ctx)?;
    gateway.sessions.require(session, act, permission).await.map_err(error::of)
}

/// Who asks, and whom to ask.
fn of<'a>(ctx: &Context<'a>) -> Result<(&'a Arc<Gateway>, &'a Session)> {
    Ok((ctx.data::<Arc<Gateway>>()?, ctx.data::<Session>()?))
}
