//! RPCs of user-service.

use super::{
    domain::{self, Profile},
    store,
};
use fafnir_platform::{Context, Refusal, caller, db::Db};
use fafnir_proto::{
    id::UserId,
    reason::Reason,
    v1::{self, user_server::User},
};
use tonic::{Request, Response, Status};

/// Profiles of one page.
const LIST_MAX: u32 = 1000;
/// Symbols on one watchlist.
const WATCHLIST_MAX: usize = 500;

/// The service behind the door.
#[derive(Debug)]
pub struct Api {
    pub ctx: Context,
    pub db: Db,
}

fn unknown() -> Refusal {
    Refusal::not_found(Reason::USER_NOT_FOUND, "no such user")
}

#[tonic::async_trait]
impl User for Api {
    async fn create_profile(&self, request: Request<v1::Profile>) -> Result<Response<v1::Profile>, Status> {
        caller::system(&request)?;
        let p = request.into_inner();
        let user_id = UserId::parse(&p.user_id)
            .map_err(|_| Refusal::invalid(Reason::ID_MALFORMED, "user_id must be a UUID"))?;
        let (first_name, last_name) = domain::parse_names(&p)?;
        let now_us = self.ctx.clock.now_us();
        let created_us = if p.created_us > 0 { p.created_us } else { now_us };
        let new =
            Profile { user_id, email: p.email, first_name, last_name, created_us, updated_us: created_us };
        let stored = self
            .db
            .write(move |tx| {
                store::insert(tx, &new)?;
                store::get(tx, new.user_id)?.ok_or_else(|| unknown().into())
            })
            .await?;
        Ok(Response::new(stored.into()))
    }

    async fn get_profile(
        &self,
        request: Request<v1::GetProfileRequest>,
    ) -> Result<Response<v1::Profile>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let profile = self.db.read(move |tx| Ok(store::get(tx, user)?)).await?.ok_or_else(unknown)?;
        Ok(Response::new(profile.into()))
    }

    async fn update_profile(&self, request: Request<v1::Profile>) -> Result<Response<v1::Profile>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let (first, last) = domain::parse_names(request.get_ref())?;
        let now_us = self.ctx.clock.now_us();
        let stored = self
            .db
            .write(move |tx| {
                store::rename(tx, user, &first, &last, now_us)?;
                store::get(tx, user)?.ok_or_else(|| unknown().into())
            })
            .await?;
        Ok(Response::new(stored.into()))
    }

    async fn list_profiles(
        &self,
        request: Request<v1::ListProfilesRequest>,
    ) -> Result<Response<v1::ListProfilesReply>, Status> {
        caller::permitted(&self.ctx, &request, "view_users").await?;
        let v1::ListProfilesRequest { after_id, limit } = request.into_inner();
        let limit = if limit == 0 { LIST_MAX } else { limit.min(LIST_MAX) };
        let profiles = self.db.read(move |tx| Ok(store::list(tx, &after_id, limit)?)).await?;
        Ok(Response::new(v1::ListProfilesReply { profiles: profiles.into_iter().map(Into::into).collect() }))
    }

    async fn watchlist(
        &self,
        request: Request<v1::GetProfileRequest>,
    ) -> Result<Response<v1::WatchlistReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let listed = self.db.read(move |tx| Ok(store::watchlist(tx, user)?)).await?;
        let items = listed.into_iter().map(|(symbol, added_us)| v1::WatchlistItem { symbol, added_us });
        Ok(Response::new(v1::WatchlistReply { items: items.collect() }))
    }

    async fn add_to_watchlist(
        &self,
        request: Request<v1::WatchlistRequest>,
    ) -> Result<Response<v1::Empty>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let symbol = domain::symbol(&request.get_ref().symbol)?;
        let listed = v1::SymbolRequest { symbol: symbol.clone() };
        self.ctx.clients.stock(&self.ctx.system()).get_instrument(listed).await?;
        let now_us = self.ctx.clock.now_us();
        self.db
            .write(move |tx| {
                let list = store::watchlist(tx, user)?;
                if list.len() >= WATCHLIST_MAX && list.iter().all(|(s, _)| *s != symbol) {
                    let sentence = format!("a watchlist has at most {WATCHLIST_MAX} symbols");
                    return Err(Refusal::exhausted(Reason::WATCHLIST_FULL, sentence).into());
                }
                Ok(store::watch(tx, user, &symbol, now_us)?)
            })
            .await?;
        Ok(Response::new(v1::Empty {}))
    }

    async fn remove_from_watchlist(
        &self,
        request: Request<v1::WatchlistRequest>,
    ) -> Result<Response<v1::Empty>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let symbol = domain::symbol(&request.get_ref().symbol)?;
        self.db.write(move |tx| Ok(store::unwatch(tx, user, &symbol)?)).await?;
        Ok(Response::new(v1::Empty {}))
    }
}
